"""The profile registry: build directions, version them, check that they apply."""

"""Profiles that travel: shared registries, what is sent there, and the one check of everything that arrives."""

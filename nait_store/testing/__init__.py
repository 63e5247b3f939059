"""Tiny models, strategies and fakes for tests; shipped so that users can test with them too."""

"""Purging: samples taken out of everything in a store, for good."""

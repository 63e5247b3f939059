"""Redundancy: samples that say what better-ranked ones say already, and sets of samples that say much between them."""

"""Ranked, budgeted, reproducible subsets of an activation set: choosing, exporting, saving."""

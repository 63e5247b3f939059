"""Ranked, budgeted, reproducible subsets: choose, save, export."""

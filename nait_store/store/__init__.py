"""The store object: one facade over everything at one URL, its options, and its descriptions of what it holds."""

"""What profiles, sets and selections are like: how profiles relate, and what a set does to its scores."""

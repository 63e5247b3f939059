"""Untrusted SQL: an allow-list of what a query may say, and a process of its own that may be killed to run it in."""

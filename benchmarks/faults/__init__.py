"""Promises under fault: each module breaks something many times and counts what came of it (benchmarks/README.md)."""

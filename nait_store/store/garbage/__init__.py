"""Garbage collection: what nothing needs any more, found and taken beside everybody who works in the store."""

"""Repair: what rotted is made again where digests allow it; what is lost is left out, listed, and captured again."""

"""Activation sets on disk: segments, versions, verification."""

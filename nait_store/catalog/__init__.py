"""The DuckDB index over the store's manifests: always rebuildable, never the truth."""

"""A plain DuckDB file over a store: views that any program with DuckDB in it can read."""

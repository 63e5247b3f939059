"""DuckDB index over the manifests of a store: what exists, without opening every document again."""

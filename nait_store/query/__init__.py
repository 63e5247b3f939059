"""SQL over a store: the session, its table functions, and conditions on samples."""

"""What is written down, and no I/O: records, Arrow schemas, JSON Schemas, catalog DDL, format version."""

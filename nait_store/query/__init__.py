"""SQL over samples, alignments and metadata."""

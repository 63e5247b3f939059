"""One ingest job: plan, skip what is known, capture, write, commit, resume."""

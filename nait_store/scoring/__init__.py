"""The scan: stored activations projected on profiles, one pass, kept in score sidecars."""

"""From dataset files and a causal LM to per-sample features: readers, rendering, hook points, reduction."""

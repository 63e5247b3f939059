"""A small causal language model trained from scratch, fine-tuned on selections, and asked about a capability."""

"""The sampled self-audit of a live worker."""

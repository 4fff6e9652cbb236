"""From prepared corpora to batches: which clips there are, which make the batch of a step, and their arrays. No JAX."""

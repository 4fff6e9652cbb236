"""Raw corpora to prepared corpora: `python -m data_prep CORPUS --output DIR`. Nothing here imports JAX."""

"""What a clip is turned into, frame by frame: for the encoder to hear, or for clusters to be made of. No JAX."""

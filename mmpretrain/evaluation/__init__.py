"""How well an encoder serves emotion recognition: metrics, named protocols and a plain baseline."""

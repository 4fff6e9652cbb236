"""How well an encoder serves a labelled task: metrics, named protocols, a probe and a plain baseline."""

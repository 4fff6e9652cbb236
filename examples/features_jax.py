"""Features of a clip: python features_jax.py ENCODER CLIP."""

import sys

import mmpretrain

encoder = mmpretrain.load_encoder(sys.argv[1])
features = encoder.from_file(sys.argv[2])  # float32 [T, D], 25 rows a second
print(features.shape)

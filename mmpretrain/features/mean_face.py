"""Where a face is brought to, and what is cut out of it: numbers that preparation crops by and an encoder's folder has.

Pixels of a frame of `FRAME_SIDE` x `FRAME_SIDE`; what is done with them: `data_prep/crops.py`.
"""

from __future__ import annotations

FRAME_SIDE = 256
MOUTH_SIDE = 96
SMOOTHING_FRAMES = 12  # landmarks are averaged over frames t .. t+11 for the transform of frame t

# Mean position of the stable points: the subject's right eye (outer, inner corner), left eye (inner, outer), nose base.
# Derived from 24 clips of 19 people (GRID, MEAD, RAVDESS, HDTF and others): each clip's mean points were
# Procrustes-aligned, averaged and mirrored into symmetry, then placed so that the eyes lie on y = 95 and the mean mouth
# on y = 185, about where AV-HuBERT's mean face has them.
MEAN_FACE = ((73.0, 94.0), (106.5, 96.0), (149.5, 96.0), (183.0, 94.0), (128.0, 150.0))

# Left, top and side of the square that holds a face from hairline to chin: over those clips the top of the forehead
# lay at y = 19 to 32, the chin at 235 to 259, the sides at x = 19 to 234.
FACE_SQUARE = (4.0, 16.0, 248.0)

CROP_SIZES = {"mouth": 96, "face": 112}  # sides of the crops in their own pixels, where nobody says otherwise

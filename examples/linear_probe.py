"""A linear probe: python linear_probe.py DIR, what `mmpretrain extract ENCODER CORPUS --pooling=statistics` wrote."""

import csv
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = Path(sys.argv[1])
index = csv.DictReader((folder / "index.csv").read_text().splitlines())
rows = [row for row in index if row["emotion"]]
arrays = {name: load_file(folder / name) for name in {row["file"] for row in rows}}
x = np.stack([arrays[row["file"]][row["clip_id"]][0] for row in rows])
y, test = np.array([row["emotion"] for row in rows]), np.array([row["split"] != "train" for row in rows])
probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x[~test], y[~test])
print(f"{probe.score(x[test], y[test]):.1%} of {test.sum()} clips; train has {(~test).sum()}")

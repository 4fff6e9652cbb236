"""Corpus readers: which clips a raw corpus holds, with which labels and splits. One module a corpus."""

# The corpora in the order of the help, each the module of its name with a `CORPUS` in it (see `data_prep.corpus`).
CORPORA = (
    "folder",
    "ravdess",
    "crema_d",
    "iemocap",
    "msp_improv",
    "meld",
    "emodb",
    "mead",
    "grid",
    "lrs3",
    "lrs2",
    "voxceleb2",
    "synthetic",
)

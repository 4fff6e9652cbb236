"""Corpus readers: which clips a raw corpus holds, with which labels and splits. One module a corpus."""

# The corpora in the order of the help, each the module of its name with a `CORPUS` in it (see `data_prep.corpus`).
CORPORA = (
    "folder", "lrs3", "lrs2", "voxceleb2", "grid", "ravdess", "crema_d", "mead", "emodb", "iemocap", "msp_improv",
    "meld", "muse", "synthetic",
)  # fmt: skip

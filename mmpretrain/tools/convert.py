"""Commands without a recipe: checkpoints of the reference to exported encoders, and back."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.encoders.folder import CONFIG_FILE, read_config
from mmpretrain.export.avhubert.checkpoint import export_checkpoint, import_checkpoint
from mmpretrain.observe.progress import log


def import_avhubert(file: Path, folder: Path) -> None:
    """Writes `folder` out of an AV-HuBERT checkpoint; a folder that is there must be an exported encoder."""
    if folder.exists() and not (folder / CONFIG_FILE).exists():
        raise ValueError(f"--output={folder} is there already and is no exported encoder; give another name")
    for line in import_checkpoint(file, folder):
        log(f"{file}: {line}")
    config, _ = read_config(folder)
    log(f"{folder}: {config.num_layers} layers, {config.width} wide; the licence of {file.name} goes with it")


def export_avhubert(folder: Path, file: Path) -> None:
    """Writes `file`, a checkpoint in the layout of AV-HuBERT, out of an exported encoder."""
    if file.is_dir():
        raise ValueError(f"--output={file} is a folder; give the name of a file, e.g. {file}/encoder.pt")
    for line in export_checkpoint(folder, file):
        log(line)
    log(f"{file}: written in the layout of AV-HuBERT")

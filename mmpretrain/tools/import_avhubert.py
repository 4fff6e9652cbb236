"""`mmpretrain import-avhubert FILE.pt --output=DIR`: a checkpoint of the reference as an exported encoder."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.encoders.folder import ENCODER_CONFIG_FILE, read_config
from mmpretrain.export.avhubert.checkpoint import import_checkpoint
from mmpretrain.observe.progress import log
from mmpretrain.run.command import Argument, Command, Given, Option


def import_avhubert(file: Path, folder: Path) -> None:
    """Writes `folder` out of an AV-HuBERT checkpoint; a folder that is there must be an exported encoder."""
    if file.is_dir():
        raise ValueError(f"{file} is a folder; give the checkpoint in it, a file that ends in .pt")
    if folder.exists() and not (folder / ENCODER_CONFIG_FILE).exists():
        raise ValueError(f"--output={folder} is there already and is no exported encoder; give another name")
    for line in import_checkpoint(file, folder):
        log(f"{file}: {line}")
    config, _ = read_config(folder)
    log(f"{folder}: {config.num_layers} layers, {config.width} wide; the licence of {file.name} goes with it")


def _command(given: Given) -> None:
    import_avhubert(given.path, Path(given["output"]))


COMMAND = Command(
    "import-avhubert",
    "an AV-HuBERT checkpoint as a folder like export's",
    _command,
    takes=Argument("FILE.pt", "the checkpoint"),
    options=(Option("output", str, "the folder to write", "DIR", required=True),),
    examples=("mmpretrain import-avhubert base_vox_iter5.pt --output=encoders/base_vox",),
    details=(
        "It runs nothing that is in the file, and needs neither PyTorch nor fairseq. Public checkpoints have licences "
        "of their own, which you must accept to use them.",
    ),
)

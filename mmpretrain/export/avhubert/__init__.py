"""Encoders in the file layout of AV-HuBERT, read and written without running what is in a file."""

from mmpretrain.export import ExportFormat
from mmpretrain.export.avhubert.checkpoint import export_checkpoint

FORMAT = ExportFormat("avhubert", ".pt", "a checkpoint in the layout of AV-HuBERT", export_checkpoint)

"""Encoders in the file layout of AV-HuBERT, read and written without running what is in a file."""

from mmpretrain.export import ExportFormat
from mmpretrain.export.avhubert.check import export_and_check

FORMAT = ExportFormat("avhubert", ".pt", "a checkpoint in the layout of AV-HuBERT", export_and_check)

"""Encoders as ONNX graphs, in float32 and with weights of 8 bits, in a folder with what their inputs are made by."""

from mmpretrain.export import ExportFormat
from mmpretrain.export.onnx.write import write_folder

FORMAT = ExportFormat("onnx", "", "ONNX graphs of any batch and length, in float32 and INT8", write_folder)

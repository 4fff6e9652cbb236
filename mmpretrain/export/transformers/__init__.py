"""Encoders for PyTorch: a folder for `transformers.AutoModel.from_pretrained(DIR, trust_remote_code=True)`.

`modeling_mmpretrain.py`, `heads_mmpretrain.py` and `processing_mmpretrain.py` are copied beside the weights and must
stay complete in themselves; `mmpretrain.torch` loads the folder with these very files, trusting nothing that lies in
it.
"""

from mmpretrain.export import ExportFormat
from mmpretrain.export.transformers.write import write_folder

FORMAT = ExportFormat("transformers", "", "a folder that PyTorch's `transformers` loads", write_folder)

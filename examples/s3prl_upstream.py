"""An encoder as upstream of s3prl: this file as `s3prl/upstream/mmpretrain/expert.py`, and named in its `hub.py`.

ckpt: the folder of `mmpretrain export --format=transformers`. Needs torch and transformers 5. 25 frames a second.
"""

import torch
from transformers import AutoModel, AutoProcessor


class UpstreamExpert(torch.nn.Module):
    """Every layer of the encoder, of sound alone: hidden_states[0] is what the first layer takes."""

    def __init__(self, ckpt: str, model_config: str | None = None, **kwargs):
        super().__init__()
        self.model = AutoModel.from_pretrained(ckpt, trust_remote_code=True)
        self.extractor = AutoProcessor.from_pretrained(ckpt, trust_remote_code=True).feature_extractor

    def get_downsample_rates(self, key: str) -> int:
        return 640  # samples a frame, at 16 kHz

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        """wavs: float, mono, 16 kHz. Frames behind the end of a clip are padding."""
        device = wavs[0].device
        inputs = self.extractor([wav.detach().cpu().numpy() for wav in wavs], 16_000, return_tensors="pt")
        outputs = self.model(**{name: x.to(device) for name, x in inputs.items()}, output_hidden_states=True)
        return {"hidden_states": list(outputs.hidden_states)}


def mmpretrain_local(ckpt: str, *args, **kwargs) -> UpstreamExpert:
    """As s3prl's `hubconf.py` has it."""
    return UpstreamExpert(ckpt, *args, **kwargs)

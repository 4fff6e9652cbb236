"""An encoder as upstream of AV-SUPERB: this file as `upstream_models/mmpretrain/expert.py`, and in its `hub.py`
`from upstream_models.mmpretrain.expert import mmpretrain`; then `run_downstream.py -u mmpretrain -k CKPT`.

ckpt: the folder of `mmpretrain export --format=transformers`. Needs torch and transformers 5. The pictures of the
benchmark are taken as they come, grey and squeezed into the encoder's square: no face is looked for.
"""

import torch
from torch.nn import functional
from transformers import AutoModel, AutoProcessor

SAMPLE_RATE_HZ, FRAME_RATE_HZ, SAMPLES_PER_FRAME = 16_000, 25, 640


class UpstreamExpert(torch.nn.Module):
    """Every layer of the encoder: of sound alone, of pictures alone, and of both."""

    def __init__(self, ckpt: str, model_config: str | None = None, **kwargs):
        super().__init__()
        self.model = AutoModel.from_pretrained(ckpt, trust_remote_code=True)
        self.processor = AutoProcessor.from_pretrained(ckpt, trust_remote_code=True)

    def preprocess_video(self, video: torch.Tensor, video_frame_rate: float) -> torch.Tensor:
        """uint8 [T, C, H, W] in RGB or grey -> uint8 [T at 25 a second, S, S]."""
        count = max(1, round(len(video) * FRAME_RATE_HZ / video_frame_rate))
        shown = (torch.arange(count) * video_frame_rate / FRAME_RATE_HZ).long().clamp(max=len(video) - 1)
        weights = torch.tensor([0.299, 0.587, 0.114] if video.shape[1] == 3 else [1 / video.shape[1]] * video.shape[1])
        grey = (video[shown].float() * weights[:, None, None]).sum(1, keepdim=True)
        size = self.processor.image_size
        return functional.interpolate(grey, (size, size), mode="area")[:, 0].round().clamp(0, 255).to(torch.uint8)

    def preprocess_audio(self, audio: torch.Tensor, audio_sample_rate: int) -> torch.Tensor:
        """float [C, N] or [N] -> float [N], mono at 16 kHz; frequencies above 8 kHz are left out."""
        mono = audio.float().mean(0) if audio.ndim == 2 else audio.float()
        count = round(len(mono) * SAMPLE_RATE_HZ / audio_sample_rate)
        if count == len(mono) or not len(mono):
            return mono
        spectrum = torch.fft.rfft(mono)[: count // 2 + 1]
        return torch.fft.irfft(spectrum, count) * (count / len(mono))

    def forward(self, source: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, list[torch.Tensor]]:
        """source: (audio, video) of each clip, as above, the video as floats too, which the toolkit makes of it.
        By track a list of layers [B, T, D]."""
        device = source[0][0].device
        frames = [max(-(-len(audio) // SAMPLES_PER_FRAME), len(video)) for audio, video in source]
        sounds = [functional.pad(audio.detach().cpu(), (0, T * SAMPLES_PER_FRAME - len(audio))).numpy()
                  for T, (audio, _) in zip(frames, source, strict=True)]  # fmt: skip
        crops = [functional.pad(video.cpu().to(torch.uint8), (0, 0, 0, 0, 0, T - len(video))).numpy()
                 for T, (_, video) in zip(frames, source, strict=True)]  # fmt: skip
        both = dict(self.processor(sounds, crops, SAMPLE_RATE_HZ, return_tensors="pt")).items()
        tracks = {"audio_feats": ("input_values", "attention_mask"),
                  "video_feats": ("pixel_values_videos", "padding_mask_videos")}  # fmt: skip
        tracks["fusion_feats"] = (*tracks["audio_feats"], *tracks["video_feats"])
        made = {}
        for track, names in tracks.items():
            inputs = {name: x.to(device) for name, x in both if name in names}
            made[track] = list(self.model(**inputs, output_hidden_states=True).hidden_states)
        return made


def mmpretrain(ckpt: str, *args, **kwargs) -> UpstreamExpert:
    """As the toolkit's `hub.py` has its upstreams."""
    return UpstreamExpert(ckpt, *args, **kwargs)

"""A stored run of the reference model as our batch, configuration and model, and what of it ours cannot express."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import MaskingConfig, ModelConfig, RoundConfig, TargetsConfig
from mmpretrain.data.records import Batch
from mmpretrain.export.avhubert import load_state_dict
from mmpretrain.models.heads import MaskedClusterModel
from mmpretrain.objectives.masked_prediction import MaskedPrediction, Masks
from tests.parity.fixture_files import load_arrays

# Options of the reference with the values that ours has; an option that a file does not name has one of them.
FRONT_END = {"audio_feat_dim": (104,), "resnet_relu_type": ("prelu",), "sub_encoder_layers": (0,)}
TRANSFORMER = {"layer_norm_first": (True,)}
HEAD = {"sim_type": ("cosine",)}
RATES = ("dropout_input", "dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop")


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """One file. B clips, T frames; a loss is over the first `num_frames` of them, as far as its labels reach."""

    name: str
    arrays: dict[str, np.ndarray]
    meta: dict
    batch: Batch
    num_frames: int

    def require(self, *options: dict) -> None:
        """Skips the calling test, naming the first option that our model cannot express."""
        for option, known in {key: value for group in options for key, value in group.items()}.items():
            value = self.meta["config"].get(option, known[0])
            if value not in known:
                pytest.skip(f"{self.name}: {option}={value!r}; ours has {' or '.join(map(repr, known))}")

    def require_loss(self) -> None:
        self.require(FRONT_END, TRANSFORMER, HEAD)
        if len(self.meta["vocab"]) > 1:
            pytest.skip(f"{self.name}: {len(self.meta['vocab'])} label sets; ours has one")
        rates = {rate: self.meta["config"][rate] for rate in RATES}
        if self.train and any(rates.values()):
            pytest.skip(f"{self.name}: train mode with {rates}; dropout cannot be compared draw by draw")

    @property
    def train(self) -> bool:
        return self.meta["mode"] == "train"

    @property
    def masking_kind(self) -> str:
        return self.meta["config"]["masking_type"]

    @property
    def dropped(self) -> set[str]:
        """What modality dropout zeroed in the loss run: the modality whose projection, alone, has no gradient."""
        l2 = dict(zip(self.arrays["grad/names"], self.arrays["grad/l2"], strict=True))
        without = {kind for kind in ("audio", "video") if l2[f"feature_extractor_{kind}.proj.weight"] <= 0}
        return without if self.train and len(without) == 1 else set()

    @property
    def config(self) -> ModelConfig:
        theirs = self.meta["config"]
        return ModelConfig(
            width=theirs["encoder_embed_dim"],
            num_layers=theirs["encoder_layers"],
            num_heads=theirs["encoder_attention_heads"],
            mlp_dim=theirs["encoder_ffn_embed_dim"],
            resnet_width=len(resnet_weights()["feature_extractor_video.resnet.frontend3D.2.weight"]),
            fusion=theirs["modality_fuse"],
            pos_conv_kernel=theirs["conv_pos"],
            pos_conv_groups=theirs["conv_pos_groups"],
            proj_dim=theirs["final_dim"] or theirs["encoder_embed_dim"],
            temperature=theirs["logit_temp"],
            dropout=theirs["dropout"],
            attention_dropout=theirs["attention_dropout"],
            activation_dropout=theirs["activation_dropout"],
            input_dropout=theirs["dropout_input"],
            layerdrop=theirs["encoder_layerdrop"],
            feature_grad_scale=theirs["feature_grad_mult"],
        )

    @property
    def unmasked_weight(self) -> float:
        return self.meta["pred_nomask_weight"]

    @property
    def feature_penalty(self) -> float:
        return (self.meta.get("loss_weights") or [0.0])[0]

    def model(self) -> MaskedClusterModel:
        model = MaskedClusterModel(self.config, sum(self.meta["vocab"]), self.masking_kind, rngs=nnx.Rngs(0))
        theirs = {key.removeprefix("sd/"): array for key, array in self.arrays.items() if key.startswith("sd/")}
        load_state_dict(model, theirs | resnet_weights())
        return model

    def masks(self) -> Masks:
        """The stored masks in the form of our objective's draws."""
        B, T = self.batch.valid_BT.shape
        use_audio_B, use_video_B = (np.full(B, kind not in self.dropped) for kind in ("audio", "video"))
        if self.masking_kind == "feature":
            mask_BT, time_BT = self.arrays["mask/feature"], np.broadcast_to(np.arange(T), (B, T))
            return Masks(mask_BT, mask_BT, time_BT, use_audio_B, use_video_B)
        streams = self.arrays["mask/audio"], self.arrays["mask/video"], self.arrays["mask/video_src_time"]
        return Masks(*streams, use_audio_B, use_video_B)

    def objective(self) -> MaskedPrediction | None:
        """Ours, where it says what the reference says: None where one of the documented differences shows.

        These are: batch statistics and the penalty leave padding and unused pictures out, labels of another rate are
        the targets' affair, a lone clip's masked frames are not zeroed, and pictures come from the same clip.
        """
        B, T = self.batch.valid_BT.shape
        own_clip = self.arrays.get("mask/video_src_batch", np.arange(B)[:, None]) == np.arange(B)[:, None]
        whole = self.batch.valid_BT.all() and self.num_frames == T and not (self.train and "video" in self.dropped)
        if B == 1 or not whole or not own_clip.all() or self.meta["pred_masked_weight"] != 1:
            return None
        targets = TargetsConfig(num_clusters=sum(self.meta["vocab"]))
        masking = MaskingConfig(kind=self.masking_kind)
        return MaskedPrediction(
            self.config,
            RoundConfig(
                targets, masking, unmasked_weight=self.unmasked_weight, feature_penalty=self.feature_penalty
            ),
        )  # fmt: skip


@functools.cache
def resnet_weights() -> dict[str, np.ndarray]:
    return load_arrays("resnet_weights.npz")[0]


@functools.cache
def stored_run(name: str) -> StoredRun:
    arrays, meta = load_arrays(name)
    B, T = arrays["in/padding_mask"].shape
    num_frames = arrays["out/padding_mask_trimmed"].shape[1]
    # Frame t takes the label at floor(t r), r labels a frame (spec, section 7.7); the rest have none.
    time = np.arange(num_frames) * meta["label_rate"] // meta["sample_rate"]
    targets_BT = np.full((B, T), -1, np.int32)
    targets_BT[:, :num_frames] = arrays["in/targets_0"][:, time]
    valid_BT, everywhere_B, none_B = ~arrays["in/padding_mask"], np.full(B, True), np.full(B, -1, np.int32)
    batch = Batch(
        jnp.asarray(arrays["in/audio"], jnp.float32), jnp.asarray(arrays["in/video_u8"]), valid_BT,
        everywhere_B, everywhere_B, np.where(valid_BT, targets_BT, -1), none_B, none_B,
    )  # fmt: skip
    return StoredRun(name, arrays, meta, batch, num_frames)

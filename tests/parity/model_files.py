"""A stored run of the reference model as our batch, recipe, model and draws: all that its `meta_json` says of it."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpretrain.config import (
    AUDIO_DIM,
    MaskingConfig,
    ModelConfig,
    ReferenceModelConfig,
    RoundConfig,
    RunConfig,
    mfcc,
    reference_quirks,
)
from mmpretrain.export.avhubert.names import load_state_dict
from mmpretrain.models.heads import MaskedClusterModel
from mmpretrain.objectives.masked_prediction import MaskedPrediction, Masks
from mmpretrain.records import FRAME_RATE_HZ, Batch
from tests.parity.fixture_files import load_arrays

# What no released model of the reference has and ours cannot be: a file with another value fails, it is not skipped.
FIXED = {"audio_feat_dim": AUDIO_DIM, "resnet_relu_type": "prelu", "sub_encoder_layers": 0}
RATES = ("dropout_input", "dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop")


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """One file. B clips, T frames, S label sets."""

    arrays: dict[str, np.ndarray]
    meta: dict

    @property
    def train(self) -> bool:
        return self.meta["mode"] == "train"

    @property
    def recipe(self) -> RunConfig:
        """The model, and one round with what only the reference does."""
        theirs, meta = self.meta["config"], self.meta
        for option, value in FIXED.items():
            assert theirs.get(option, value) == value, f"{option}={theirs[option]!r}: our model has only {value!r}"
        assert meta["pred_masked_weight"] == 1, "our loss is in units of its part on masked frames"
        rates = {rate: theirs[rate] for rate in RATES}
        assert not (self.train and any(rates.values())), f"{rates}: dropout cannot be compared draw by draw"
        model = ModelConfig(
            width=theirs["encoder_embed_dim"],
            num_layers=theirs["encoder_layers"],
            num_heads=theirs["encoder_attention_heads"],
            mlp_dim=theirs["encoder_ffn_embed_dim"],
            resnet_width=len(resnet_weights()["feature_extractor_video.resnet.frontend3D.2.weight"]),
            fusion=theirs["modality_fuse"],
            pos_conv_kernel=theirs["conv_pos"],
            pos_conv_groups=theirs["conv_pos_groups"],
            proj_dim=theirs["final_dim"] or theirs["encoder_embed_dim"],
            reference=ReferenceModelConfig(
                post_norm=not theirs["layer_norm_first"],
                dot_similarity=theirs.get("sim_type", "cosine") == "dot",
                tied_projection=not theirs["untie_final_proj"],
            ),
            temperature=theirs["logit_temp"],
            dropout=theirs["dropout"],
            attention_dropout=theirs["attention_dropout"],
            activation_dropout=theirs["activation_dropout"],
            input_dropout=theirs["dropout_input"],
            layerdrop=theirs["encoder_layerdrop"],
            feature_grad_scale=theirs["feature_grad_mult"],
        )
        round_ = RoundConfig(
            targets=sum((mfcc(num_clusters) for num_clusters in meta["n_classes"]), ()),
            masking=MaskingConfig(kind=theirs["masking_type"]),
            unmasked_weight=meta["pred_nomask_weight"],
            feature_penalty=(meta.get("loss_weights") or [0.0])[0],
        )
        recipe = reference_quirks(RunConfig(model=model, rounds=(round_,)))
        recipe.rounds[0].reference.targets_per_frame = meta["label_rate"] // FRAME_RATE_HZ
        return recipe

    @property
    def objective(self) -> MaskedPrediction:
        return MaskedPrediction(self.recipe.model, self.recipe.rounds[0])

    def model(self) -> MaskedClusterModel:
        model = self.objective.make_model(nnx.Rngs(0))
        theirs = {key.removeprefix("sd/"): array for key, array in self.arrays.items() if key.startswith("sd/")}
        load_state_dict(model, theirs | resnet_weights())
        return model

    @functools.cached_property
    def batch(self) -> Batch:
        arrays = self.arrays
        valid_BT = ~arrays["in/padding_mask"]
        everywhere_B, none_B = np.full(len(valid_BT), True), np.full(len(valid_BT), -1, np.int32)
        labels = [arrays[f"in/targets_{i}"] for i in range(len(self.meta["vocab"]))]
        shortest = min(label.shape[1] for label in labels)
        # Of several labels a frame its first counts, and a frame that lacks one of them at the end has none.
        per_frame = self.recipe.rounds[0].reference.targets_per_frame
        labels = [label[:, : shortest // per_frame * per_frame : per_frame] for label in labels]
        # Cluster c is the reference's class c + 4; what is below is none of ours.
        targets_BTS = np.maximum(np.stack(labels, -1) - self.dead_classes, -1)
        return Batch(
            inputs={"audio": jnp.asarray(arrays["in/audio"], jnp.float32), "video": jnp.asarray(arrays["in/video_u8"])},
            present={"audio": everywhere_B, "video": everywhere_B},
            valid_BT=jnp.asarray(valid_BT), targets_BTS=jnp.asarray(targets_BTS, jnp.int32), labels={}, clip_B=none_B,
            chance_B=none_B,
        )  # fmt: skip

    @property
    def dead_classes(self) -> int:
        return self.recipe.rounds[0].reference.dead_classes

    @property
    def dropped(self) -> set[str]:
        """What modality dropout zeroed in the loss run: the modality whose projection, alone, has no gradient."""
        l2 = dict(zip(self.arrays["grad/names"], self.arrays["grad/l2"], strict=True))
        without = {kind for kind in ("audio", "video") if l2[f"feature_extractor_{kind}.proj.weight"] <= 0}
        return without if self.train and len(without) == 1 else set()

    def masks(self) -> Masks:
        """The stored masks in the form of our objective's draws."""
        B, T = self.batch.valid_BT.shape
        use = {kind: np.full(B, kind not in self.dropped) for kind in ("audio", "video")}
        clip_BT, time_BT = np.indices((B, T))
        if self.recipe.rounds[0].masking.kind == "feature":  # drawn over the frames that have labels
            mask_BT = np.zeros((B, T), bool)
            mask_BT[:, : self.arrays["mask/feature"].shape[1]] = self.arrays["mask/feature"]
            return Masks(mask_BT, mask_BT, time_BT, use)
        streams, time = (self.arrays["mask/audio"], self.arrays["mask/video"]), self.arrays["mask/video_src_time"]
        source_BT = np.where(time < 0, time_BT, time)  # -1: zeros, which no frame is the source of
        source_clip_BT = np.where(time < 0, clip_BT, self.arrays["mask/video_src_batch"])
        own = (source_clip_BT == clip_BT).all()
        return Masks(*streams, source_BT, use, None if own else source_clip_BT)


@functools.cache
def resnet_weights() -> dict[str, np.ndarray]:
    return load_arrays("resnet_weights.npz")[0]


@functools.cache
def stored_run(name: str) -> StoredRun:
    return StoredRun(*load_arrays(name))

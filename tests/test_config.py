"""The recipe tree: every refusal of its checks, the recipes of `configs/`, fingerprints."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from mmpretrain.config import (
    CorpusConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    ReferenceRoundConfig,
    RunConfig,
    TaskConfig,
    as_dict,
    encoder_size,
    fields_of,
    fingerprint,
    from_dict,
    hidden,
    mfcc,
    reference_quirks,
)
from mmpretrain.config.checks import check
from tests.tiny import tiny_model, tiny_round, tiny_run

ROOT = Path(__file__).parents[1]
RECIPES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "configs").rglob("*.py")
    if file.stem != "__init__"
)


def set_field(config: RunConfig, field: str, value) -> None:
    """Like `--config.FIELD=VALUE`: "rounds[0].targets[0].layer"."""
    *parents, name = field.replace("[", ".").replace("]", "").split(".")
    for part in parents:
        config = config[int(part)] if part.isdigit() else getattr(config, part)
    assert hasattr(config, name), field
    setattr(config, name, value)


REFUSALS = [
    # field, value, what it must be
    ("model.modalities", (), "one or more, each once"),
    ("model.modalities", ("audio", "audio"), "one or more, each once"),
    ("model.fusion", "sum", "one of concat, add"),
    ("model.dtype", "float16", "one of float32, bfloat16"),
    ("model.remat", "all", "one of none, layers, dots"),
    ("model.resnet_remat", "layers", "one of none, blocks, convolutions"),
    ("model.resnet_blocks", (2, 2, 2), "four numbers of blocks, each between 1 and 64"),
    ("model.resnet_blocks", (1, 2, 0, 2), "four numbers of blocks, each between 1 and 64"),
    ("model.batch_statistics", "local", "one of global, device"),
    ("model.inputs.view", "eyes", "one of mouth, face"),
    ("model.inputs.audio_normalization", "batch", "one of frame, level, clip"),
    ("model.inputs.image_size", 0, "above 0"),
    ("model.num_layers", 0, "above 0"),
    ("model.num_heads", 0, "above 0"),
    ("model.num_heads", 3, "a divisor of model.width=16"),
    ("model.pos_conv_groups", 5, "a divisor of model.width=16"),
    ("model.temperature", 0.0, "above 0"),
    ("model.dropout", 1.5, "between 0 and 1"),
    ("model.attention_dropout", -0.1, "between 0 and 1"),
    ("model.activation_dropout", 2, "between 0 and 1"),
    ("model.input_dropout", 2, "between 0 and 1"),
    ("model.layerdrop", 2, "between 0 and 1"),
    ("data.bucket_frames", (), "positive lengths in frames"),
    ("data.bucket_frames", (0, 20), "positive lengths in frames"),
    ("data.long_clips", "cut", "one of crop, drop"),
    ("data.validation_share", 1.1, "between 0 and 1"),
    ("data.noise.prob", 3, "between 0 and 1"),
    ("data.batch_multiple", 0, "at least 1"),
    ("data.batch_frames", 19, "at least the longest of data.bucket_frames=(20,)"),
    ("data.num_workers", -1, "0 (no processes) or more"),
    ("rounds[0].targets[0].features", "wavs", "mfcc, cepstra, fbank, prosody, face_appearance, face_geometry, hidden"),
    ("rounds[0].targets[0].features", "hidden", "mfcc, say: the first round has no encoder"),
    ("rounds[0].encoder", "runs/x/encoder", "previous_round where no rounds[0].targets are of a hidden layer"),
    ("rounds[1].targets[0].layer", 3, "a layer from 1 to model.num_layers=2"),
    ("rounds[1].targets[0].layer", 0, "a layer from 1 to model.num_layers=2"),
    ("rounds[0].targets[0].num_clusters", 1, "at least 2"),
    ("rounds[0].targets", (), "at least one codebook"),
    ("rounds[1].init", "", "random, previous_round, or the path of an exported encoder"),
    ("rounds[0].init", "previous_round", "random, or the path of an exported encoder"),
    ("rounds[0].reference.targets_per_frame", 2, "1 or 4"),
    ("rounds[1].reference.targets_per_frame", 4, "1 where targets are of hidden"),
    ("rounds[0].reference.dead_classes", -4, "0 or more"),
    ("rounds[0].masking.video_source", "noise", "one of same_clip, other_clip"),
    ("rounds[0].masking.video_source", "other_clip", "'same_clip' with rounds[0].masking.kind='feature'"),
    ("rounds[0].reference.zero_lone_clip", True, "False with rounds[0].masking.kind='feature'"),
    ("rounds[0].targets[0].fit_share", 0, "above 0 and at most 1"),
    ("rounds[0].targets[0].fit_restarts", 0, "above 0"),
    ("rounds[0].targets[0].fit_passes", 0, "above 0"),
    ("rounds[0].masking.kind", "both", "one of feature, input"),
    ("rounds[0].masking.prob", 1.2, "between 0 and 1"),
    ("rounds[0].masking.audio_prob", 1.2, "between 0 and 1"),
    ("rounds[0].masking.video_prob", -1, "between 0 and 1"),
    ("rounds[0].masking.span_frames", 0, "above 0"),
    ("rounds[1].masking.audio_span_frames", 0, "above 0"),
    ("rounds[1].masking.video_span_frames", -5, "above 0"),
    ("rounds[1].modality_dropout", 7, "between 0 and 1"),
    ("rounds[1].audio_dropout", 7, "between 0 and 1"),
    ("rounds[1].num_steps", 0, "above 0"),
    ("rounds[1].optimizer.schedule", "cosine", "one of polynomial, tri_stage"),
    ("rounds[1].optimizer.peak_lr", 0.0, "above 0"),
    ("rounds[1].optimizer.warmup_steps", 101, "at most num_steps=100"),
    ("finetune.tasks[0].classes", ("neutral",), "two or more"),
    ("finetune.tasks[0].classes", ("sad", "sad"), "two or more"),
    ("finetune.tasks[0].name", "a b", "a plain word"),
    ("finetune.tasks[0].weight", 0.0, "above 0"),
    ("finetune.tasks", (), "one or more"),
    ("finetune.select_by", "ua", "TASK/METRIC, e.g. emotion/ua"),
    ("finetune.label_share", 0.0, "above 0 and at most 1"),
    ("finetune.label_share", 1.5, "above 0 and at most 1"),
    ("finetune.labels_per_class", -1, "between 0 and"),
    ("finetune.label_draw", -1, "between 0 and"),
    ("finetune.classifier", "svm", "one of trained, frozen_linear"),
    ("finetune.eval_every", 0, "a positive number of steps"),
    ("finetune.freq_mask", 27, "0 to 26 filterbank channels"),
    ("finetune.dropout", 2, "between 0 and 1"),
    ("finetune.label_smoothing", 2, "between 0 and 1"),
    ("finetune.masking", MaskingConfig(kind="feature"), "one of input"),
    ("finetune.masking", MaskingConfig(kind="input", audio_prob=2), "between 0 and 1"),
    ("finetune.optimizer.warmup_steps", 10_000, "at most num_steps=2000"),
    ("health.min_clusters_used", 1.5, "between 0 and 1"),
    ("health.min_accuracy_gain", 1.0, "-1 to below 1"),
    ("health.max_loss_rise", 0.5, "above 1, or 0: no finite loss is bad"),
    ("health.skip_bad_steps", -1, "0 (stop at the first) or more"),
    ("parallel.micro_batches", 0, "above 0"),
    ("log_every", 0, "a positive number of steps"),
    ("validation_every", -1, "a positive number of steps"),
    ("checkpoint.every_steps", 0, "above 0"),
    ("checkpoint.keep", 0, "above 0"),
]


@pytest.mark.parametrize(("field", "value", "wanted"), REFUSALS, ids=[f"{f}={v!r}"[:60] for f, v, _ in REFUSALS])
def test_refusal_names_field_value_and_remedy(field, value, wanted):
    config = tiny_run()
    set_field(config, field, value)
    with pytest.raises(ValueError, match=r"\S") as caught:
        check(config)
    message = str(caught.value)
    assert message.startswith(field), message
    assert wanted in message
    assert "\n" not in message
    if not dataclasses.is_dataclass(value):
        assert f"={value!r}; it must be " in message


def test_labels_are_kept_by_a_share_or_by_a_number_and_a_frozen_head_tells_classes():
    tasks = tiny_run().finetune.tasks
    curve, number = ((*tasks, TaskConfig("arousal", kind=kind)) for kind in ("values", "value"))
    half, frozen, head = {"label_share": 0.5, "labels_per_class": 3}, {"classifier": "frozen_linear"}, "frozen_linear"
    for changes, message in (
        (half, r"label_share=0\.5; it must be 1\.0 with finetune\.labels_per_class=3"),
        (frozen | {"tasks": curve}, r"kind='values'; it must be 'class' or .* finetune\.classifier='frozen_linear'"),
        ({"head": head, "tasks": number}, r"kind='value'; it must be 'class' with finetune\.head='frozen_linear'"),
    ):
        config = tiny_run()
        config.finetune = dataclasses.replace(config.finetune, **changes)
        with pytest.raises(ValueError, match=message):
            check(config)


def test_augmentation_by_masks_has_none_of_the_options_of_pretraining():
    config = tiny_run()
    config.finetune.masking = MaskingConfig(kind="input", video_source="other_clip")
    with pytest.raises(
        ValueError, match=r"finetune\.masking\.video_source='other_clip'; it must be 'same_clip': it is of pretraining"
    ):
        check(config)


def test_visible_frames_alone_are_for_masked_fusion_with_pictures_and_without_the_references_counts():
    for round_, model, wanted in (
        (tiny_round(masking=MaskingConfig("input", visible_only=True)), None, "masking.kind='input'"),
        (tiny_round(masking=MaskingConfig(visible_only=True)), tiny_model("audio"), "model.modalities=('audio',)"),
        (
            tiny_round(
                masking=MaskingConfig(visible_only=True), reference=ReferenceRoundConfig(equal_mask_counts=True)
            ),
            None,
            "equal_mask_counts=True",
        ),
    ):
        config = tiny_run(rounds=(round_,), **({} if model is None else {"model": model}))
        with pytest.raises(ValueError, match=r"rounds\[0\]\.masking\.visible_only=True; it must be False") as refusal:
            check(config)
        assert wanted in str(refusal.value)


def test_an_empty_workdir_is_refused():
    with pytest.raises(ValueError, match=r"workdir is empty; .*--config\.workdir=runs/NAME"):
        check(tiny_run(workdir=""))


def test_noise_needs_a_folder_of_sounds():
    config = tiny_run()
    config.data.noise.prob = 0.25
    with pytest.raises(ValueError, match=r"data\.noise\.path=''; it must be a folder of sounds"):
        check(config)


@pytest.mark.parametrize(
    ("field", "value"), [("masking.video_source", "other_clip"), ("reference.zero_lone_clip", True)]
)
def test_a_clip_cannot_read_another_part_of_its_batch(field, value):
    config = tiny_run(parallel=ParallelConfig(micro_batches=2))
    config.rounds[0].masking = MaskingConfig(kind="input")
    group, name = field.split(".")
    setattr(getattr(config.rounds[0], group), name, value)
    wanted = rf"rounds\[0\]\.{group}\.{name}={value!r}; it must be .* with parallel\.micro_batches=2"
    with pytest.raises(ValueError, match=wanted):
        check(config)
    config.parallel.micro_batches = 1
    check(config)


def test_one_modality_cannot_be_dropped():
    config = tiny_run(model=tiny_model("audio"))
    config.rounds[0].modality_dropout = 0.5
    with pytest.raises(ValueError, match=r"rounds\[0\]\.modality_dropout=0\.5; it must be 0 with model\.modalities="):
        check(config)


@pytest.mark.parametrize("sizes", [(-1, -1, 1), (0, 1, 1), (2, -2, 1)])
def test_mesh_sizes_are_positive_and_one_may_be_left_open(sizes):
    with pytest.raises(ValueError, match=r"parallel=.*sizes are positive, and at most one is -1"):
        check(tiny_run(parallel=ParallelConfig(*sizes)))


def test_what_is_right_passes():
    check(tiny_run())
    check(tiny_run(finetune=None, rounds=(), parallel=ParallelConfig(-1, 2, 4)))
    check(RunConfig(workdir="runs/x"))


def variants(recipe: str) -> tuple[str, ...]:
    return getattr(importlib.import_module(recipe), "VARIANTS", ("released",))


def resolved(recipe: str, variant: str) -> RunConfig:
    return importlib.import_module(recipe).get_config(*[variant] * (variant != "released"))


@pytest.mark.parametrize(
    ("recipe", "variant"), [(recipe, variant) for recipe in RECIPES for variant in variants(recipe)]
)
def test_recipe_passes_its_checks_and_is_the_golden_text(recipe, variant, golden):
    config = resolved(recipe, variant)
    check(config)
    name = recipe.removeprefix("configs.").replace(".", "-") + (f"-{variant}" if variant != "released" else "")
    golden(f"recipes/{name}.json", json.dumps(as_dict(config), indent=1) + "\n")


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_override_of_one_round_leaves_the_others_as_they_were(recipe):
    before, config = (resolved(recipe, "released") for _ in range(2))
    config.rounds[0].optimizer.peak_lr = 9.0
    config.rounds[0].masking.prob = 0.9
    assert as_dict(config)["rounds"][1:] == as_dict(before)["rounds"][1:]


def test_the_paper_differs_from_the_released_files_in_modality_dropout():
    for recipe in ("avhubert_base_lrs3", "avhubert_base_lrs3_vox"):
        released, paper = (resolved(f"configs.pretrain.{recipe}", variant) for variant in ("released", "paper"))
        assert {round_.modality_dropout for round_ in paper.rounds} == {0.5}
        assert released.rounds[0].modality_dropout == 0
        for ours, theirs in zip(released.rounds, paper.rounds, strict=True):
            assert dataclasses.replace(ours, modality_dropout=0.5) == theirs
        assert dataclasses.replace(released, rounds=()) == dataclasses.replace(paper, rounds=())


# GPUs, steps, peak rate, warm-up, longest clip and what becomes of longer ones, weight of unmasked frames (spec 12).
PUBLISHED = {
    "avhubert_base_lrs3": (32, 400_000, 5e-4, 32_000, 500, "drop", 0),
    "avhubert_base_lrs3_vox": (32, 800_000, 2e-3, 64_000, 400, "crop", 0),
    "avhubert_large_lrs3": (64, 400_000, 2e-3, 32_000, 400, "crop", 1),
    "avhubert_large_lrs3_vox": (64, 600_000, 2e-3, 48_000, 400, "crop", 1),
}


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_what_was_published_of_each_size_and_corpus(recipe):
    config = resolved(f"configs.pretrain.{recipe}", "released")
    gpus, steps, rate, warmup, longest, long_clips, unmasked = PUBLISHED[recipe]
    assert (config.data.batch_frames, max(config.data.bucket_frames)) == (1000 * gpus, longest)
    assert config.data.long_clips == long_clips
    for round_ in config.rounds:
        assert (round_.num_steps, round_.unmasked_weight, round_.feature_penalty) == (steps, unmasked, 10)
        assert (round_.optimizer.peak_lr, round_.optimizer.warmup_steps) == (rate, warmup)
    last = config.rounds[-1]
    assert (last.masking.kind, last.modality_dropout, last.audio_dropout) == ("input", 0.5, 0.5)
    assert (last.masking.audio_prob, last.masking.video_prob) == (0.8, 0.3)
    assert all(round_.masking.kind == "feature" for round_ in config.rounds[:-1])


def test_a_recipe_that_another_derives_from_stays_as_it_was():
    base = importlib.import_module("configs.pretrain.avhubert_base_lrs3")
    before = as_dict(base.get_config())
    derived = importlib.import_module("configs.pretrain.favhubert_base_lrs3").get_config()
    assert as_dict(base.get_config()) == before != as_dict(derived)


@pytest.mark.parametrize("unpublished", [False, True])
def test_reference_quirks_pass_the_checks_and_no_recipe_has_any(unpublished):
    for recipe in RECIPES:
        plain = importlib.import_module(recipe).get_config()
        quirky = reference_quirks(plain, unpublished=unpublished)
        check(quirky)
        tree, before = (fields_of(config, *EVERY_PART) for config in (quirky, plain))
        model = {"post_norm", "dot_similarity", "temperature", "tied_projection"} if unpublished else set()
        rounds = {"targets_per_frame", "dead_classes", "equal_mask_counts", "zero_lone_clip", "whole_batch_dropout"}
        changed = {name.split(".")[-1] for name in tree if tree[name] != before[name]}
        assert model <= changed <= model | rounds | {"count_padding", "visible_only"}
        assert not any(round_.masking.visible_only for round_ in quirky.rounds)
        assert {name.split(".")[0] for name in tree if tree[name] != before[name]} <= {
            "model", *(f"rounds[{i}]" for i in range(len(plain.rounds)))
        }  # fmt: skip


def test_several_codebooks_are_a_sum():
    targets = mfcc(10) + mfcc(20) + hidden(layer=1, num_clusters=30)
    assert [(t.features, t.num_clusters) for t in targets] == [("mfcc", 10), ("mfcc", 20), ("hidden", 30)]
    config = tiny_run()
    config.rounds[1].targets = targets
    check(config)
    config.rounds[1].targets[2].layer = 9
    with pytest.raises(ValueError, match=r"rounds\[1\]\.targets\[2\]\.layer=9"):
        check(config)


EVERY_PART = [field.name for field in dataclasses.fields(RunConfig)]


def test_a_stage_names_fields_and_gets_all_below_them():
    config = tiny_run()
    config.data.corpora += (CorpusConfig("another", 2.0),)
    flat = fields_of(config, *EVERY_PART)
    assert flat["rounds[1].targets[0].features"] == "hidden"
    assert not any(isinstance(value, dict) for value in flat.values())
    assert fields_of(config, "seed", "data.corpora[*].weight") == {
        "seed": config.seed, "data.corpora[0].weight": 1.0, "data.corpora[1].weight": 2.0,
    }  # fmt: skip
    own = fields_of(config, "rounds[1]", but=("rounds[1].targets", "rounds[1].optimizer.b1"))
    assert own == {
        name: value for name, value in flat.items()
        if name.startswith("rounds[1].") and not name.startswith(("rounds[1].targets[", "rounds[1].optimizer.b1"))
    }  # fmt: skip
    assert fields_of(config, "rounds[1].targets[0].num_cluster") == {}, "a part of a name is another name"


def test_a_fingerprint_changes_with_any_value():
    flat = fields_of(tiny_run(), *EVERY_PART)
    assert fingerprint(flat) == fingerprint(dict(reversed(flat.items())))
    assert fingerprint(flat) != fingerprint(flat | {"seed": 1})


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_a_model_survives_json(size):
    model = encoder_size(size, modalities=("video",), dropout=0.3)
    model.inputs.view = "face"
    assert from_dict(ModelConfig, json.loads(json.dumps(as_dict(model)))) == model
    check(RunConfig(workdir="x", model=model))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_survives_the_file_that_a_run_keeps_of_it(recipe):
    config = resolved(recipe, "released")
    assert from_dict(RunConfig, json.loads(json.dumps(as_dict(config)))) == config


@pytest.mark.parametrize("place", ["model", "inputs"])
def test_unknown_field_of_a_model_is_refused_with_the_known_ones(place):
    tree = as_dict(tiny_model())
    (tree if place == "model" else tree["inputs"])["wdith"] = 3
    known = "width" if place == "model" else "image_size"
    with pytest.raises(ValueError, match=rf"unknown field 'wdith' of \w+; known are .*{known}"):
        from_dict(ModelConfig, tree)


def test_unknown_size_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown encoder size 'huge'; known are tiny, small, base, large"):
        encoder_size("huge")


def test_every_default_optimizer_fits_its_default_length():
    config = tiny_run()
    config.rounds[0].num_steps, config.rounds[0].optimizer = 400_000, OptimizerConfig()
    check(config)

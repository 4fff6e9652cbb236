"""What of the recipe each stage reads: a change of anything else leaves a finished stage as it is."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import (
    CorpusConfig,
    FinetuneConfig,
    MaskingConfig,
    RetrievalConfig,
    RunConfig,
    TextConfig,
    UnitsConfig,
    as_dict,
    emotion,
    flatten,
    from_dict,
    hidden,
    mfcc,
)
from mmpretrain.data.clips import open_clips
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.manifest import MANIFEST_FILE, SEEN_FILE
from mmpretrain.data.retrieved import Heard, manifest_text
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.files import seal, write_json
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.run import Run
from mmpretrain.run.sealed import write_sealed_text
from mmpretrain.run.stage import RESULT_FILE
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.export import export
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.pretrain import pretrain
from mmpretrain.stages.targets import make_targets
from tests.corpus_fixture import make_clip, write_corpus
from tests.test_config import set_field
from tests.tiny import IMAGE_SIZE, tiny_round, tiny_run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Without a validation split; one clip is longer than the bucket."""
    clips = []
    for speaker in "abcd":
        for i in range(4):
            labels = dict.fromkeys(("emotion", "mood"), ("angry", "sad")[i % 2]) | {"language": ("fi", "en")[i // 2]}
            clip = make_clip(f"{speaker}{i}", 12 + 3 * i, size=IMAGE_SIZE, speaker=speaker, labels=labels)
            clips.append(dataclasses.replace(clip, audio=clip.audio + np.int16(ord(speaker))))
    kinds = dict.fromkeys(("emotion", "mood", "language"), "class")
    return write_corpus(tmp_path_factory.mktemp("corpora") / "moods", clips, IMAGE_SIZE, IMAGE_SIZE + 16, kinds)


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory) -> RunConfig:
    """A recipe of which all stages are done, as far as others look: encoders, results and lineages of targets."""
    workdir, few = tmp_path_factory.mktemp("runs") / "run", dict(fit_share=1.0, fit_passes=2, fit_restarts=1)
    config = tiny_run(
        workdir=str(workdir),
        rounds=(
            tiny_round(targets=mfcc(5, **few)),
            tiny_round(targets=mfcc(5, **few) + hidden(1, 4, **few), init="previous_round"),
        ),
        finetune=FinetuneConfig(
            tasks=(emotion("angry", "sad", column="emotion"),), corpora=(), protocol="speakers-3", folds=(1,)
        ),
    )  # fmt: skip
    config.data.corpora, config.data.bucket_frames = (CorpusConfig(str(corpus)),), (20,)
    config.data.batch_multiple, config.data.validation_share = jax.device_count(), 0.3
    for number in (1, 2):
        folder = workdir / f"round{number}" / "pretrain"
        encoder = AVEncoder(config.model, rngs=nnx.Rngs(0))
        save_encoder(folder / "encoder", encoder, lineage={"fingerprint": f"encoder {number}"})
        write_json(folder / RESULT_FILE, {"masked_accuracy": 0.5, "wall_time_sec": 1.0})
        for index in range(number):
            store = workdir / f"round{number}" / "targets" / f"codebook{index + 1}" / "store"
            write_json(store / "lineage.json", {"codebook": [number, index]})
            seal(store)
    save_encoder(workdir / "export" / "encoder", encoder, lineage={"fingerprint": "encoder 2"})
    return config


def recipes(run: Run) -> dict[str, dict]:
    """By stage, what it would be made with."""
    found = {}
    run.stage = lambda name, recipe, work: found.__setitem__(name, json.loads(json.dumps(recipe)))
    for number in range(1, len(run.config.rounds) + 1):
        make_targets(run.round(number))
        pretrain(run.round(number))
    finetune(run)
    evaluate(run)
    export(run)
    return found


@pytest.mark.parametrize(
    ("labels", "speakers", "readers"),
    [
        ({"c1": {"emotion": "angry", "mood": "sad"}}, {}, ["finetune", "evaluation"]),
        ({"a1": {"emotion": "angry", "mood": "sad"}}, {}, ["evaluation"]),
        ({"a1": {"emotion": "sad", "mood": "calm"}}, {}, []),
        ({}, {"a": "aa"}, ["evaluation"]),
        ({}, {"a": "z"}, ["finetune", "evaluation"]),
    ],
    ids=[
        "a label",
        "a label of a test clip",
        "of another column",
        "a speaker, in the same part",
        "a speaker, in another",
    ],
)
def test_labels_and_speakers_are_of_those_who_learn_them(config, corpus, tmp_path, labels, speakers, readers):
    """Targets and pretraining do not read them, hence need not be made again."""
    clips = []
    for clip in map(open_clips([CorpusConfig(str(corpus))]).load, range(16)):
        speaker = speakers.get(clip.speaker, clip.speaker)
        clips.append(dataclasses.replace(clip, labels=labels.get(clip.clip_id, clip.labels), speaker=speaker))
    kinds = {"emotion": "class", "mood": "class", "language": "class"}
    changed = from_dict(RunConfig, as_dict(config))
    path = write_corpus(tmp_path / corpus.name, clips, IMAGE_SIZE, IMAGE_SIZE + 16, kinds)
    changed.data.corpora = (CorpusConfig(str(path)),)
    before, after = recipes(Run(config)), recipes(Run(changed))
    assert before.keys() == after.keys()
    found = {stage.split("/")[0] for stage in after if before[stage] != after[stage]}
    assert found == {stage.split("/")[0] for stage in readers}


def another(field: str, value: Any, corpus: Path, done: Path, folder: Path) -> Any:
    """Another value of a field, such that whoever reads it notices. What lies somewhere is moved into `folder`."""
    match field:
        case "workdir":
            return str(shutil.copytree(done, folder / "run"))
        case "data.corpora[0].path":
            return str(shutil.copytree(value, folder / corpus.name))
        case "data.corpora[0].retrieved":
            table = open_clips([CorpusConfig(str(corpus))])
            rows = np.array([row for row, who in enumerate(table.speakers) if who == "a"])
            TrainingData().write(folder / SEEN_FILE)
            heard = Heard("emotion", np.zeros(len(table)), *[[""] * len(table)] * 2)
            write_sealed_text(folder / MANIFEST_FILE, manifest_text(table, rows, heard))
            return str(folder)
        case "finetune.encoder" | "rounds[0].encoder" | "rounds[1].encoder" | "rounds[0].init":
            return str(shutil.copytree(done / "round1" / "pretrain" / "encoder", folder / "encoder"))
        case "finetune.corpora":
            return (CorpusConfig(str(corpus)),)
        case "finetune.masking":
            return MaskingConfig(kind="input")
        case "finetune.text":
            for name in ("config.json", "vocab.txt", "model.safetensors"):
                (folder / name).write_text("")
            return TextConfig(str(folder))
        case "units":
            return UnitsConfig()
        case "retrieval":
            return RetrievalConfig()
        case "rounds[0].tasks" | "rounds[1].tasks":
            return (emotion("angry", "sad"),)
        case "rounds[1].init":
            return "random"
    known = {
        "data.corpora[0].speakers": ("a",), "data.corpora[0].languages": ("fi",), "data.corpora[0].hours": 1e-4,
        "data.exclude_speakers": ("a",), "data.min_frames": 15, "data.long_clips": "drop", "finetune.folds": (2,),
        "data.exclude_folds": (1,), "data.max_validation_clips": 1,
        "data.validation_share": 0.7, "finetune.tasks[0].classes": ("sad", "angry"), "finetune.tasks[0].column": "mood",
        "finetune.tasks[0].merge": ("calm=sad",), "finetune.label_share": 0.5, "finetune.classifier": "frozen_linear",
        "finetune.select_by": "emotion/wa", "finetune.protocol": "speakers-4",
        "model.modalities": ("audio",),
    }  # fmt: skip
    if field in known:
        return known[field]
    if field.endswith(".features"):
        return "fbank"
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return (*value, 30)
    return value + ("x" if isinstance(value, str) else 1)


@pytest.mark.slow
def test_every_stage_reads_what_is_written_here_and_nothing_else(config, corpus, tmp_path, golden):
    before, lines = recipes(Run(config)), []
    for part, tree in as_dict(config).items():
        for field, value in flatten(tree, part).items():
            if field == "finetune.tasks[0].kind":
                continue  # there is one kind so far
            run = Run(config)  # its check would refuse some of the values
            run.config = from_dict(RunConfig, as_dict(config))
            (folder := tmp_path / field).mkdir()
            set_field(run.config, field, another(field, value, corpus, Path(config.workdir), folder))
            if field == "finetune.tasks[0].name":  # which the metric is named by
                run.config.finetune.select_by = f"{run.config.finetune.tasks[0].name}/ua"
            run.workdir = Path(run.config.workdir)
            after = recipes(run)
            readers = [stage for stage in after if before.get(stage) != after[stage]]
            lines.append(f"{field}: {', '.join(readers) or '-'}")
    golden("what_stages_read.txt", "\n".join(lines) + "\n")


def test_a_finished_stage_stays_until_something_that_it_reads_changes(config, corpus, tmp_path, capsys):
    config = from_dict(RunConfig, as_dict(config))
    config.workdir = str(tmp_path / "run")
    make_targets(Run(config).round(1))
    ids = Run(config).round(1).stores[0].ids.tobytes()
    for field, value in (
        ("data.batch_multiple", 2 * jax.device_count()), ("data.batch_frames", 400), ("model.dropout", 0.3),
        ("rounds[0].num_steps", 7), ("rounds[1].targets[0].num_clusters", 9),
    ):  # fmt: skip
        set_field(config, field, value)
        capsys.readouterr()
        make_targets(Run(config).round(1))
        assert "round1/targets: done already" in capsys.readouterr().err
    assert Run(config).round(1).stores[0].ids.tobytes() == ids
    for field, value in (("seed", 3), ("rounds[0].targets[0].fit_passes", 3), ("data.min_frames", 15)):
        other = from_dict(RunConfig, as_dict(config))
        set_field(other, field, value)
        named = re.escape("clips" if field == "data.min_frames" else field)
        with pytest.raises(ValueError, match=rf"was made with another recipe \({named} was .*--accept_changes"):
            make_targets(Run(other).round(1))


def test_a_stage_of_another_version_is_refused_with_the_remedy(config, tmp_path):
    config = from_dict(RunConfig, as_dict(config))
    config.workdir = str(tmp_path)
    write_json(tmp_path / "round1" / "targets" / "recipe.json", {"seed": 1, "model.width": 16})
    with pytest.raises(ValueError, match=r"was made by a version of mmpretrain .* format None, not 3\); .* or remove"):
        make_targets(Run(config, accept_changes=True).round(1))

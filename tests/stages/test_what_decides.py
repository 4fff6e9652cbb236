"""What decides a result is in the recipe of its stage, and tells apart what is kept in memory: else it is stale."""

import copy
import dataclasses
import shutil
import wave

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import (
    CorpusConfig,
    FinetuneConfig,
    InputConfig,
    LabelEfficiencyConfig,
    NoiseConfig,
    TaskConfig,
    UnitsConfig,
    emotion,
)
from mmpretrain.data.clips import open_clips
from mmpretrain.downstream.baselines import PICTURE, statistics_of_clips
from mmpretrain.downstream.checking import check_folds
from mmpretrain.downstream.curve import Curve
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.frozen import Frozen
from mmpretrain.downstream.units import Units
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.figures import read_figures
from mmpretrain.encoders.folder import read_config, save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.export import export
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.pretrain import pretrain
from mmpretrain.stages.probe import probe
from mmpretrain.stages.retrieve import retrieve
from mmpretrain.stages.robustness import robustness
from mmpretrain.stages.targets import make_targets
from mmpretrain.stages.units import units
from tests.corpus_fixture import make_clip, write_corpus
from tests.stages.test_evaluate import clips as moods
from tests.stages.test_retrieve import embedding_run
from tests.stages.test_units import run_of as units_run
from tests.stages.test_units import spoken
from tests.stages.tones import PITCH_HZ, write_tones
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run

KINDS = {"emotion": "class", "text": "text", "height": "value", "high": "class"}  # of the tones
ANOTHER = "was made with another recipe"


def clips_of(corpus):
    table = open_clips([CorpusConfig(str(corpus))])
    return [table.load(row) for row in range(len(table))]


def rewritten(folder, clips, *kinds):
    shutil.rmtree(folder, ignore_errors=True)
    return write_corpus(folder, clips, IMAGE_SIZE, IMAGE_SIZE + 16, *kinds)


def on_corpora(run, *folders):
    run.config.data.corpora = tuple(CorpusConfig(str(folder)) for folder in folders)
    return Run(run.config)


def encoder_of(folder, model, seed=0, **fields):
    lineage = {"fingerprint": f"of {folder.name}"}
    save_encoder(folder, AVEncoder(model, rngs=nnx.Rngs(seed)), lineage=lineage, **fields)
    return str(folder)


def test_a_probe_of_another_seed(tone_run, tmp_path):
    asked = (["probe-merbench"], ["pretrained"])
    first, other = (tone_run(tmp_path, folds=(1,)) for _ in range(2))
    other.config.seed = 7
    probe(first, *asked, shorter=50)
    with pytest.raises(ValueError, match=f"{ANOTHER}.*seed was {first.config.seed} and is 7"):
        probe(other, *asked, shorter=50)


def test_robustness_of_classifiers_of_another_recipe(tone_run, tmp_path):
    given = dict(folds=(1,), classifier="frozen_linear", compare_from_scratch=False)
    finetune(tone_run(tmp_path, **given))
    with pytest.raises(ValueError, match=ANOTHER):
        robustness(tone_run(tmp_path, **given, label_share=0.5), ["replaced"])


def test_babble_of_clips_without_a_label(tmp_path, tone_run):
    """It is made of all clips of the corpora, those that are neither learned nor tested among them."""
    given = dict(folds=(1,), classifier="frozen_linear", compare_from_scratch=False)
    tones = write_tones(tmp_path / "tones")
    run = on_corpora(tone_run(tmp_path / "run", **given), tones)
    finetune(run)
    robustness(run, ["babble"])
    tracks = {"curve": np.zeros(9, np.float32)}
    others = [make_clip(f"u{i}", 9, video=False, size=IMAGE_SIZE, speaker="u", tracks=tracks) for i in range(60)]
    run = on_corpora(tone_run(tmp_path / "run", **given), rewritten(tones, clips_of(tones) + others, KINDS))
    with pytest.raises(ValueError, match=f"{ANOTHER}.*babble was"):
        robustness(run, ["babble"])


def test_who_speaks_where_batches_are_spread_over_speakers(tmp_path, tone_run):
    clips, said = clips_of(write_tones(tmp_path / "tones")), []
    for who in (lambda i: f"s{i // 9}", lambda i: f"s{i % 2}"):
        given = [
            dataclasses.replace(
                clip, speaker=who(i), split="train" if i < 40 else "validation" if i < 47 else "test"
            )
            for i, clip in enumerate(clips)
        ]  # fmt: skip
        run = tone_run(tmp_path / "run", protocol="official-clips", sampling="spread")
        finetuning = Finetuning(on_corpora(run, rewritten(tmp_path / "c", given, KINDS)))
        plan = finetuning.training("scratch", 1).batches.plan
        said.append(([plan[k].clips.tolist() for k in range(2)], finetuning.recipe("scratch") | finetuning.reads(1)))
    assert said[0][0] != said[1][0]
    assert said[0][1] != said[1][1]


def test_noise_of_other_sound_in_the_same_files(tmp_path, tone_run):
    def recipe(folder, loudness):
        folder.mkdir(exist_ok=True)
        with wave.open(str(folder / "n.wav"), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
            file.writeframes((np.random.default_rng(0).normal(size=16_000) * loudness).astype(np.int16).tobytes())
        run = tone_run(tmp_path / "run", folds=(1,))
        run.config.data.noise = NoiseConfig(prob=1.0, path=str(folder))
        return Finetuning(Run(run.config)).recipe("pretrained")

    before = recipe(tmp_path / "noise", 100)
    assert recipe(tmp_path / "noise", 100) == before
    assert recipe(tmp_path / "noise", 9_000) != before
    elsewhere = recipe(tmp_path / "elsewhere", 100)
    assert elsewhere["noise files"] == before["noise files"]


def test_quotas_of_speakers_with_other_names(tone_run, tmp_path):
    labelled = write_tones(tmp_path / "labelled")
    clips = [dataclasses.replace(clip, audio=clip.audio[::-1].copy()) for clip in clips_of(labelled)]

    def run(who):
        pool = [dataclasses.replace(clip, speaker=who.format(i)) for i, clip in enumerate(clips)]
        config = embedding_run(tone_run, tmp_path / "run", speaker_share=0.2).config
        config.finetune.corpora, config.data.exclude_folds = (CorpusConfig(str(labelled)),), (1, 2)
        config.data.corpora = (CorpusConfig(str(rewritten(tmp_path / "pool", pool, KINDS))),)
        return Run(config)

    retrieve(run("x{}"))
    with pytest.raises(ValueError, match=f"{ANOTHER}.*speakers of these was"):
        retrieve(run("x"))


def test_statistics_of_pictures_are_of_the_crop_that_the_encoder_sees(tmp_path):
    corpus, said = write_corpus(tmp_path / "moods", list(moods()), IMAGE_SIZE, IMAGE_SIZE + 16), []
    for size in (16, 4):
        config = tiny_run(workdir=str(tmp_path / "run"), model=tiny_model("audio", "video"), rounds=())
        config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
        model = tiny_model("audio", "video", inputs=InputConfig(image_size=size))
        config.finetune.encoder = encoder_of(tmp_path / f"encoder{size}", model)
        config.finetune.protocol, config.finetune.folds = "speakers-3", (1,)
        config.finetune.tasks = (emotion("happy", "sad"),)
        config.label_efficiency = LabelEfficiencyConfig((1.0,), 1, ("picture_statistics",))
        curve = Curve(Run(config))
        said.append((np.nan_to_num(statistics_of_clips(curve.whole)[PICTURE]), curve.recipe(curve.points[0])))
    assert not np.array_equal(said[0][0], said[1][0])
    assert said[0][1] != said[1][1]


def test_units_of_pictures_are_of_the_crop_that_the_encoder_sees(tmp_path):
    """Whatever view the recipe names for the rounds."""
    splits = dict(zip("abcdef", ("train", "train", "validation", "validation", "test", "test"), strict=True))
    clips = [
        dataclasses.replace(clip, face=255 - clip.face, split=splits[clip.speaker])
        for clip in moods()
        if len(clip.mouth)
    ]
    corpus, said = write_corpus(tmp_path / "moods", clips, IMAGE_SIZE, IMAGE_SIZE + 16), []
    model = tiny_model("video", inputs=InputConfig(image_size=16))
    encoder = encoder_of(tmp_path / "encoder", model)
    task = TaskConfig("units", kind="frames", classes=("_", "a", "b", "c"))
    for view in ("mouth", "face"):
        asked = UnitsConfig(task=task, encoder=encoder, labelled_clips=(0,), draws=1, inputs=("video",))
        other = dataclasses.replace(model, inputs=InputConfig(view=view, image_size=16))
        config = tiny_run(workdir=str(tmp_path / "run"), model=other, rounds=(), units=asked, finetune=None)
        config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
        said.append(Units(Run(config)).features("picture", ("video",)).of(1, 0))
    np.testing.assert_array_equal(*said)


def test_units_of_which_a_clip_came_into_another_part(tmp_path):
    encoder = encoder_of(tmp_path / "encoder", tiny_model("audio"), 5)

    def run(train):
        splits = ["train"] * train + ["validation"] * (13 - train) + ["test"] * 6
        clips = [dataclasses.replace(spoken(i, split), speaker="") for i, split in enumerate(splits)]
        corpus = rewritten(tmp_path / "spoken", clips)
        return units_run(corpus, encoder, tmp_path / "run", labelled_clips=(0,), protocol="official-clips")

    units(run(9))
    with pytest.raises(ValueError, match=f"{ANOTHER}.*clips of each part was"):
        units(run(8))


def test_folds_whose_encoders_are_other_networks(tmp_path, tone_run):
    for fold, kind in ((1, "frame"), (2, "clip")):
        inputs = InputConfig(image_size=IMAGE_SIZE, audio_normalization=kind)
        encoder_of(tmp_path / f"encoder{fold}", tiny_model("audio", inputs=inputs), fold)
    run = tone_run(tmp_path / "run", encoder=str(tmp_path / "encoder{fold}"), folds=(1, 2))
    runs, rows = Finetuning(run).runs_of_folds(), np.arange(4)
    said = {fold: Frozen(Finetuning.of(one), rows).features("pretrained", rows) for fold, one in runs.items()}
    alone = Frozen(Finetuning(Run(runs[2].config)), rows).features("pretrained", rows)
    np.testing.assert_allclose(said[2], alone, atol=1e-5)


def pretraining(path, corpus, best_by=""):
    config = tiny_run(workdir=str(path), model=tiny_model("audio"), rounds=(tiny_round(num_steps=4),), finetune=None)
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    config.data.validation_share, config.validation_every, config.checkpoint.every_steps = 0.3, 1, 1
    config.checkpoint.best_by = best_by
    return Run(config)


def test_another_metric_to_choose_the_best_step_by(tones, tmp_path):
    def train(best_by):
        run = pretraining(tmp_path / "run", tones, best_by)
        make_targets(run.round(1))
        pretrain(run.round(1))
        return read_config(run.workdir / "round1" / "pretrain" / "encoder")[1]["fingerprint"]

    last = train("loss")
    for other in ("masked_accuracy", ""):
        with pytest.raises(ValueError, match=f"{ANOTHER}.*best_by was 'loss'"):
            train(other)
    shutil.rmtree(tmp_path / "run" / "round1" / "pretrain")
    assert train("") == last, "it is of the last step, however the best is chosen"


def test_an_encoder_that_changed_its_recipe_on_the_way(tone_run, tmp_path):
    """With --accept_changes: it is none that the new recipe alone makes."""

    def run_of(folder, rate, **given):
        config = tone_run(tmp_path / folder, folds=(1,), compare_from_scratch=False).config
        config.finetune.optimizer.peak_lr = rate
        return Run(config, **given)

    place = "finetune/pretrained/fold1"
    finetune(run_of("mixed", 1e-2))
    (tmp_path / "mixed" / place / "result.json").unlink()  # as if killed before it was written
    finetune(run_of("mixed", 1e-3, accept_changes=True))
    finetune(run_of("clean", 1e-3))
    folders = [tmp_path / name / place / "encoder" for name in ("mixed", "clean")]
    one, other = (jax.tree.leaves(nnx.state(load_encoder(folder).module, nnx.Param)) for folder in folders)
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert read_config(folders[0])[1]["fingerprint"] != read_config(folders[1])[1]["fingerprint"]


def test_the_card_of_an_export_has_no_figures_of_another_encoder(tones, tone_encoder, tmp_path):
    run = pretraining(tmp_path / "run", tones)
    run.config.finetune = FinetuneConfig(
        tasks=(emotion(*PITCH_HZ),), protocol="speakers-3", folds=(1,), encoder=str(tone_encoder),
        classifier="frozen_linear",
    )  # fmt: skip
    run = Run(copy.deepcopy(run.config))
    make_targets(run.round(1))
    pretrain(run.round(1))
    finetune(run)
    evaluate(run)
    export(run)
    assert not [name for name in read_figures(run.workdir / "export" / "encoder") if "test" in name]


def test_from_scratch_is_the_network_that_the_encoder_is(tone_run, tmp_path):
    """Whatever `model` the recipe has: else two networks are compared as one, pretrained and not."""
    encoder = encoder_of(tmp_path / "encoder", tiny_model("audio", num_layers=1))
    curve = Curve(
        tone_run(tmp_path / "run", LabelEfficiencyConfig((0.5,), 1, ("scratch", "untrained_frozen")), encoder=encoder)
    )
    for finetuning in (curve.whole, *map(curve.finetuning, curve.points)):
        assert finetuning.model("scratch") == finetuning.model("pretrained")
        assert finetuning.model("scratch").num_layers == 1 != finetuning.run.config.model.num_layers


def test_an_encoder_of_fewer_modalities_says_which_clips_there_are(tone_encoder, tone_run, tmp_path):
    """The recipe's `model` may have more, as the usual one does: they are not counted as heard."""
    config = tone_run(tmp_path / "run").config
    config.model = tiny_model("audio", "video")
    shown = dict(audio=False, size=IMAGE_SIZE, labels={"emotion": "sad"})
    clips = [make_clip(f"v{i}", 9, speaker="abc"[i], **shown) for i in range(3)]
    seen = write_corpus(tmp_path / "seen", clips, IMAGE_SIZE, IMAGE_SIZE + 16, {"emotion": "class"})
    config.data.corpora = (*config.data.corpora, CorpusConfig(str(seen)))
    finetuning = Finetuning(Run(config))
    assert finetuning.modalities == finetuning.heard == ("audio",)
    assert len(finetuning.left_out) == 3, "what has a picture alone cannot be heard"


@pytest.mark.parametrize(("of_encoder", "told"), [(IMAGE_SIZE, False), (2 * IMAGE_SIZE, True)])
def test_pictures_at_another_scale_than_the_encoder_knows_are_told(tmp_path, capsys, of_encoder, told):
    corpus, model = write_corpus(tmp_path / "c", list(moods()), IMAGE_SIZE, IMAGE_SIZE + 16), tiny_model("video")
    encoder = encoder_of(tmp_path / "encoder", model, crop_size=of_encoder)
    config = tiny_run(workdir=str(tmp_path / "run"), model=model, rounds=())
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    config.finetune = dataclasses.replace(
        config.finetune, encoder=encoder, protocol="speakers-3", folds=(1,), tasks=(emotion("happy", "sad"),)
    )
    check_folds(Finetuning(Run(config)))
    said = f"finetune.encoder: {corpus} has mouth crops of {IMAGE_SIZE} pixels, but the encoder {encoder} is of such of"
    assert (said in capsys.readouterr().err) == told


@pytest.mark.parametrize("theirs", [("video",), ("audio", "video")])
def test_an_encoder_of_other_modalities_is_refused(tone_run, tones, tmp_path, theirs):
    encoder = encoder_of(tmp_path / "encoder", tiny_model(*theirs))
    said = rf"takes {' and '.join(theirs)}, but model\.modalities=\('audio',\); set model\.modalities="
    with pytest.raises(ValueError, match=r"finetune\.encoder=.*" + said):
        Finetuning(tone_run(tmp_path / "run", encoder=encoder))
    asked = UnitsConfig(task=TaskConfig("units", kind="frames", classes=("_", "a")), encoder=encoder, inputs=("audio",))
    config = tiny_run(workdir=str(tmp_path / "run"), model=tiny_model("audio"), rounds=(), units=asked, finetune=None)
    config.data.corpora = (CorpusConfig(str(tones)),)
    with pytest.raises(ValueError, match=r"units\.encoder=.*" + said):
        Units(Run(config))


def test_draws_of_a_curve_begin_at_that_of_the_recipe(tone_run, tmp_path):
    asked = LabelEfficiencyConfig((0.35,), 2, ("frozen",))
    of_seven, of_none = (Curve(tone_run(tmp_path / str(draw), asked, label_draw=draw)) for draw in (7, 0))
    said = [[curve.finetuning(point).fold(1).train.tolist() for point in curve.points] for curve in (of_seven, of_none)]
    alone = Finetuning(tone_run(tmp_path / "alone", label_share=0.35, label_draw=7)).fold(1).train.tolist()
    assert said[0][0] == alone
    assert alone not in said[1]

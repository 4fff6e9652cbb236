"""Targets relative to the speaker: whose clips they are relative to, what happens to the others, and what makes them
stale."""

import dataclasses

import jax
import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, face_geometry, prosody
from mmpretrain.config.checks import check
from mmpretrain.data.clips import open_clips
from mmpretrain.records import NUM_BLENDSHAPES
from mmpretrain.run.run import Run
from mmpretrain.stages.targets import make_targets
from mmpretrain.targets import parts
from mmpretrain.targets.centres import CentreProgress, load_centres
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run

SCORES = {"anna": 0.2, "bert": 0.6}  # what each face does all the time; an emotion adds 0.1 to every second clip
SPEAKERS = ("anna", "bert", "anna", "bert", "anna", "bert", "anna", "bert", "", "zoe")


def clips_of(speakers):
    scores = [SCORES.get(speaker, 0.5) + 0.1 * (i // 2 % 2) for i, speaker in enumerate(speakers)]
    return [
        make_clip(
            f"c{i}", 30, size=IMAGE_SIZE, speaker=speaker,
            tracks={"blendshapes": np.full((30, NUM_BLENDSHAPES), score, np.float32)},
        )
        for i, (speaker, score) in enumerate(zip(speakers, scores, strict=True))
    ]  # fmt: skip


def make_run(folder, corpus, *, relative_to="speaker") -> Run:
    few = dict(fit_share=1.0, fit_restarts=1, fit_passes=3)
    round_ = tiny_round(targets=face_geometry(4, relative_to=relative_to, **few))
    config = tiny_run(workdir=str(folder), model=tiny_model("audio"), rounds=(round_,), finetune=None)
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    return Run(config)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("c") / "c", clips_of(SPEAKERS), IMAGE_SIZE, IMAGE_SIZE + 16)


def all_features(run: Run) -> dict[str, np.ndarray]:
    codebook = run.round(1).codebooks[0]
    return {
        table.clip_ids[row]: features[:, 0]
        for table in codebook.clips
        for row, features in codebook.features(table)
    }  # fmt: skip


def test_a_lasting_expression_stays_and_the_person_goes(corpus, tmp_path, capsys):
    run = make_run(tmp_path / "run", corpus)
    make_targets(run.round(1))
    told = capsys.readouterr().err
    assert "1 clips name no speaker and 1 are the only one of theirs; these are relative to themselves" in told
    for clip_id, values in all_features(run).items():
        i = int(clip_id[1:])
        expected = 0.0 if i >= 8 else -0.05 + 0.1 * (i // 2 % 2)
        np.testing.assert_allclose(values, expected, atol=1e-3, err_msg=clip_id)
    centres = load_centres(tmp_path / "run" / "round1" / "targets" / "codebook1" / "centres")
    assert [*centres.speakers] == [("c", "anna"), ("c", "bert")]
    np.testing.assert_allclose(centres.centres_SC[:, 0], [0.25, 0.65], atol=1e-3)
    lineage = run.round(1).stores[0].lineage
    assert (lineage["relative_to"], lineage["centres"]) == ("speaker", centres.digest)


@pytest.mark.parametrize(("relative_to", "spread"), [("none", 0.5), ("usual", 0.5), ("clip", 0.0)])
def test_without_speakers_it_is_the_clip_itself_or_nothing(corpus, tmp_path, relative_to, spread):
    values = np.concatenate(list(all_features(make_run(tmp_path / "run", corpus, relative_to=relative_to)).values()))
    assert np.ptp(values) == pytest.approx(spread, abs=1e-3)


def test_other_names_of_the_speakers_make_the_targets_stale(corpus, tmp_path):
    make_targets(make_run(tmp_path / "run", corpus).round(1))
    (tmp_path / "other").mkdir()
    swapped = clips_of(SPEAKERS)
    swapped[0] = dataclasses.replace(swapped[0], speaker="bert")
    other = write_corpus(tmp_path / "other" / "c", swapped, IMAGE_SIZE, IMAGE_SIZE + 16)
    assert open_clips([CorpusConfig(str(other))]).fingerprint == open_clips([CorpusConfig(str(corpus))]).fingerprint
    with pytest.raises(ValueError, match="speakers of codebook 1"):
        make_targets(make_run(tmp_path / "run", other).round(1))
    make_targets(make_run(tmp_path / "clip", corpus, relative_to="clip").round(1))
    make_targets(make_run(tmp_path / "clip", other, relative_to="clip").round(1))  # where nobody asks who speaks


def test_what_was_stopped_or_damaged_ends_with_the_same_centres(corpus, tmp_path, monkeypatch):
    make_targets(make_run(tmp_path / "straight", corpus).round(1))
    with monkeypatch.context() as patch:
        patch.setattr(parts, "PART_SEC", 0.0)

        def add(self, row, *given, add=CentreProgress.add):
            if row == 5:
                raise KeyboardInterrupt
            add(self, row, *given)

        patch.setattr(CentreProgress, "add", add)
        with pytest.raises(KeyboardInterrupt):
            make_targets(make_run(tmp_path / "stopped", corpus).round(1))
    folder, straight = (tmp_path / run / "round1" / "targets" / "codebook1" for run in ("stopped", "straight"))
    assert len(list(folder.glob("centring/*/part-*"))) == 5
    asked = []
    add = CentreProgress.add
    monkeypatch.setattr(CentreProgress, "add", lambda self, *given: asked.append(given[0]) or add(self, *given))
    make_targets(make_run(tmp_path / "stopped", corpus).round(1))
    assert (len(asked), set(asked) & set(range(5))) == (3, set()), "what was summed is not looked at again"
    for name in ("centres/centres.npz", "centres/lineage.json", "store/ids.npy", "store/lineage.json"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes()
    assert not (folder / "centring").exists()


@pytest.mark.parametrize(
    ("speakers", "reason"),
    [([""] * 6, "none of the clips says who speaks"), ([f"s{i}" for i in range(6)], "every speaker has one clip only")],
)
def test_a_corpus_that_does_not_say_who_speaks_is_refused(tmp_path, speakers, reason):
    corpus = write_corpus(tmp_path / "c", clips_of(speakers), IMAGE_SIZE, IMAGE_SIZE + 16)
    message = rf"rounds\[0\]\.targets\[0\]\.relative_to='speaker', but {reason} \(6 clips of .*; use 'clip'"
    with pytest.raises(ValueError, match=message):
        make_targets(make_run(tmp_path / "run", corpus).round(1))


def test_what_can_be_relative_to_nothing_is_refused_and_the_others_are_not():
    config = tiny_run()
    config.rounds[0].targets = prosody(4, relative_to="speaker")
    check(config)
    config.rounds[1].targets[0].relative_to = "speaker"
    with pytest.raises(ValueError, match=r"rounds\[1\]\.targets\[0\]\.relative_to='speaker'; it must be 'usual' with "):
        check(config)

"""Batches of clips that tell their time: picture, sound and targets of a frame say which frame of the clip it is."""

from functools import partial

import jax
import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, DataConfig, InputConfig, ModelConfig, NoiseConfig
from mmpretrain.data import pipeline
from mmpretrain.data.batch import make_batch
from mmpretrain.data.batch_plan import BatchPlan, EvaluationPlan, PlannedBatch
from mmpretrain.data.clips import open_clips
from mmpretrain.data.pipeline import iterate
from mmpretrain.features.filterbank import audio_features
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import with_inputs

SIZE = 8
MODEL = ModelConfig(inputs=InputConfig(image_size=SIZE - 2))
DATA = DataConfig()
SOUND_ONLY, SILENT, LONG = "c1", "c2", "c29"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """30 clips of 10 to 68 frames; c1 has no video, c2 no sound."""
    clips = [
        make_clip(f"c{i}", 10 + 2 * i, video=f"c{i}" != SOUND_ONLY, audio=f"c{i}" != SILENT, size=SIZE)
        for i in range(30)
    ]
    path = write_corpus(tmp_path_factory.mktemp("corpus") / "times", clips, SIZE, SIZE + 16)
    return open_clips([CorpusConfig(str(path))])


class FrameTargets:
    """The target of frame t is t. `extra` frames too many (or too few)."""

    def __init__(self, table, extra=0):
        self.lengths = table.lengths + extra

    def of(self, row, clip):
        return np.arange(self.lengths[row], dtype=np.int32)


def planned(table, names, num_frames, epoch=0, occurrences=None):
    rows = [table.clip_ids.index(name) if name else -1 for name in names]
    return PlannedBatch(0, epoch, num_frames, np.array(rows, np.int64), np.array(occurrences or [0] * len(rows)))


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_evaluation_batch_is_the_padded_clips(table):
    plan = planned(table, ["c0", SOUND_ONLY, SILENT, ""], 20)
    labels = np.arange(len(table), dtype=np.int32) + 100
    batch = make_batch(
        plan,
        table,
        model=MODEL,
        data=DATA,
        train=False,
        seed=0,
        targets=[FrameTargets(table)],
        labels={"emotion": labels},
    )
    assert batch.inputs["audio"].shape == (4, 20, 104)
    assert batch.inputs["video"].shape == (4, 20, SIZE - 2, SIZE - 2)
    assert [batch.inputs[name].dtype for name in ("audio", "video")] == [np.float32, np.uint8]
    assert {array.dtype for array in (batch.valid_BT, *batch.present.values())} == {np.dtype(bool)}
    others = (batch.targets_BTS, batch.clip_B, *batch.labels.values())
    assert {array.dtype for array in others} == {np.dtype(np.int32)}
    assert batch.valid_BT.sum(axis=1).tolist() == [10, 12, 14, 0]
    assert np.array_equal(batch.valid_BT, np.arange(20) < np.array([[10], [12], [14], [0]]))
    assert batch.present["audio"].tolist() == [True, True, False, False]
    assert batch.present["video"].tolist() == [True, False, True, False]
    assert batch.clip_B.tolist() == plan.clips.tolist()
    assert batch.chance_B.dtype == np.uint32
    assert len(set(batch.chance_B[:3].tolist())) == 3
    assert batch.labels["emotion"].tolist() == [*(plan.clips[:3] + 100), -1]
    clip = table.load(plan.clips[0])
    assert np.array_equal(batch.inputs["audio"][0, :10], audio_features(clip.audio, 10, "frame"))
    assert np.array_equal(batch.inputs["video"][0, :10], clip.mouth[:, 1:-1, 1:-1])
    times = np.where(batch.valid_BT, np.arange(20), -1)
    assert np.array_equal(batch.targets_BTS[..., 0], times)
    assert not batch.inputs["audio"][~batch.valid_BT].any()
    assert not batch.inputs["video"][~batch.valid_BT].any()
    assert not batch.inputs["audio"][2].any()
    assert not batch.inputs["video"][1].any()


def test_sound_picture_and_targets_are_cropped_alike(table):
    starts = set()
    for epoch in range(12):
        plan = planned(table, [LONG, "c28", "c27"], 16, epoch)
        batch = make_batch(plan, table, model=MODEL, data=DATA, train=True, seed=0, targets=[FrameTargets(table)])
        assert batch.valid_BT.all()
        for b, row in enumerate(plan.clips):
            clip, start = table.load(row), batch.targets_BTS[..., 0][b, 0]
            assert 0 <= start <= clip.num_frames - 16
            times = np.arange(start, start + 16)
            assert np.array_equal(batch.targets_BTS[..., 0][b], times)
            assert np.array_equal(batch.inputs["video"][b, :, 0, 0], times)
            expected = audio_features(clip.audio[640 * start : 640 * (start + 16)], 16, "frame")
            assert np.array_equal(batch.inputs["audio"][b], expected)
            starts.add(start)
    assert len(starts) > 10
    plan = planned(table, [LONG, "c28", "c27"], int(table.lengths.max()))
    batch = make_batch(plan, table, model=MODEL, data=DATA, train=False, seed=0, targets=[FrameTargets(table)])
    times = np.tile(np.arange(plan.num_frames), (3, 1))
    assert np.array_equal(batch.targets_BTS[..., 0], np.where(batch.valid_BT, times, -1))
    assert batch.valid_BT.sum(1).tolist() == table.lengths[plan.clips].tolist()


def test_what_is_drawn_for_a_clip_does_not_depend_on_its_company(table):
    load = partial(make_batch, table=table, model=MODEL, data=DATA, train=True, freq_mask=13)
    one = load(planned(table, ["c28", LONG], 16), seed=3)
    assert same(one, load(planned(table, ["c28", LONG], 16), seed=3))
    other = load(planned(table, [LONG, "c5"], 16), seed=3)
    assert np.array_equal(one.inputs["audio"][1], other.inputs["audio"][0])
    assert np.array_equal(one.inputs["video"][1], other.inputs["video"][0])
    assert not same(one, load(planned(table, ["c28", LONG], 16), seed=4))
    assert one.chance_B[1] == other.chance_B[0]
    assert not same(one, load(planned(table, ["c28", LONG], 16, epoch=1), seed=3))


def test_a_clip_drawn_again_in_an_epoch_is_drawn_for_anew(table):
    load = partial(make_batch, table=table, model=MODEL, data=DATA, train=True, seed=3, targets=[FrameTargets(table)])
    batch = load(planned(table, [LONG] * 8, 16, occurrences=list(range(8))))
    assert len({int(start) for start in batch.targets_BTS[:, 0, 0]}) > 2, "other stretches of time"
    assert len(set(batch.chance_B.tolist())) == 8, "other masks"
    # Which batch the second time falls into says nothing about it.
    again = load(planned(table, ["c28", LONG], 16, occurrences=[0, 5]))
    for name in ("audio", "video"):
        assert np.array_equal(batch.inputs[name][5], again.inputs[name][1])
    assert batch.chance_B[5] == again.chance_B[1]


def test_picture_is_cropped_and_mirrored_at_random_in_training_only(tmp_path):
    clip = make_clip("a", 3, size=SIZE)
    clip.mouth[:] = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    table = open_clips([CorpusConfig(str(write_corpus(tmp_path / "pictures", [clip], SIZE, SIZE + 16)))])

    def corners(train, **fields):
        batches = [
            make_batch(planned(table, ["a"], 3, e), table, model=MODEL, data=DataConfig(**fields), train=train, seed=0)
            for e in range(100)
        ]
        pictures = [batch.inputs["video"][0] for batch in batches]
        assert all((video == video[0]).all() for video in pictures)  # one crop for the whole clip
        return {(int(video[0, 0].min()), bool(video[0, 0, 0] > video[0, 0, -1])) for video in pictures}

    places = {SIZE * y + x for y in range(3) for x in range(3)}
    assert corners(train=True) == {(place, flip) for place in places for flip in (False, True)}
    assert corners(train=True, flip=False) == {(place, False) for place in places}
    assert corners(train=True, random_crop=False) == {(SIZE + 1, False), (SIZE + 1, True)}
    assert corners(train=False) == {(SIZE + 1, False)}


def test_model_gets_its_modalities_and_its_view(table):
    plan = planned(table, ["c0"], 10)
    load = partial(make_batch, plan, table, data=DATA, train=True, seed=0)
    assert load(model=ModelConfig(modalities=("audio",))).inputs.keys() == {"audio"}
    face = load(model=ModelConfig(modalities=("video",), inputs=InputConfig(view="face", image_size=SIZE + 16)))
    assert face.inputs.keys() == face.present.keys() == {"video"}
    assert np.array_equal(face.inputs["video"][0], table.load(plan.clips[0]).face)
    assert face.present["video"].all()
    assert (face.targets_BTS[..., 0] == -1).all()
    assert not face.labels


def test_frequency_mask_hides_a_band_in_training_only(table):
    load = partial(make_batch, planned(table, ["c9", "c8"], 30), table, model=MODEL, data=DATA, seed=1, freq_mask=20)
    assert np.array_equal(load(train=False).inputs["audio"], load(train=False, freq_mask=0).inputs["audio"])
    bands = load(train=True).inputs["audio"][0, :20].reshape(20, 4, 26)
    hidden = (bands == 0).all(axis=(0, 1))
    assert 0 < hidden.sum() <= 20
    assert np.diff(np.flatnonzero(hidden)).max(initial=1) == 1


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_targets_may_be_a_frame_off(table, extra):
    batch = make_batch(
        planned(table, ["c0"], 12),
        table,
        model=MODEL,
        data=DATA,
        train=False,
        seed=0,
        targets=[FrameTargets(table, extra)],
    )
    length = 10 + min(extra, 0)
    assert batch.targets_BTS[..., 0][0].tolist() == [*range(length), *[-1] * (12 - length)]


def test_targets_of_another_length_are_refused(table):
    with pytest.raises(ValueError, match="clip 'c0' has 10 frames, but its targets 12"):
        make_batch(
            planned(table, ["c0"], 12),
            table,
            model=MODEL,
            data=DATA,
            train=False,
            seed=0,
            targets=[FrameTargets(table, 2)],
        )


def test_noise_is_mixed_in_training_only(table, tmp_path):
    import soundfile

    (tmp_path / "deep").mkdir()
    for i, name in enumerate(("a.wav", "deep/b.flac", "deep/c.ogg")):
        noise = np.random.default_rng(i).normal(size=4000 * (i + 1)) / 8
        soundfile.write(tmp_path / name, noise, 8000)
    quiet = DataConfig(flip=False, random_crop=False)
    noisy = DataConfig(flip=False, random_crop=False, noise=NoiseConfig(prob=1.0, snr_db=0.0, path=str(tmp_path)))
    load = partial(make_batch, planned(table, ["c3", "c4", SILENT], 24), table, model=MODEL, seed=0)
    assert same(load(data=noisy, train=False), load(data=quiet, train=False))
    clean, mixed = load(data=quiet, train=True), load(data=noisy, train=True)
    assert same(mixed, load(data=noisy, train=True))
    assert np.abs(clean.inputs["audio"][:2] - mixed.inputs["audio"][:2])[clean.valid_BT[:2]].mean() > 0.1
    assert same(with_inputs(clean, audio=0), with_inputs(mixed, audio=0))
    assert not mixed.inputs["audio"][2].any()


def test_missing_or_broken_noise_is_refused(table, tmp_path):
    load = partial(make_batch, planned(table, ["c3"], 24), table, model=MODEL, train=True, seed=0)
    for path in ("", str(tmp_path)):
        with pytest.raises(FileNotFoundError, match=r"data\.noise\.path='.*' has no sound file"):
            load(data=DataConfig(noise=NoiseConfig(prob=0.1, path=path)))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "bad.wav").write_bytes(b"not a sound")
    with pytest.raises(ValueError, match=r"bad\.wav cannot be decoded"):
        load(data=DataConfig(noise=NoiseConfig(prob=1.0, path=str(tmp_path / "sub"))))


def test_picture_smaller_than_the_model_wants_is_refused(table):
    with pytest.raises(ValueError, match=r"model\.inputs\.image_size=88 is more than the 8 x 8 pixels"):
        make_batch(planned(table, ["c0"], 12), table, model=ModelConfig(), data=DATA, train=False, seed=0)


@pytest.fixture
def plan(table):
    return BatchPlan(table.lengths, batch_frames=400, bucket_frames=(25, 50), multiple=2, seed=5)


@pytest.mark.parametrize(("num_workers", "worth_sec"), [(0, 0.0), (1, 0.0), (2, 0.0), (2, 60.0)])
def test_iteration_equals_direct_computation(table, plan, monkeypatch, num_workers, worth_sec):
    """From the middle on, the first two steps by the caller, the others by workers or not."""
    monkeypatch.setattr(pipeline, "WORTH_SEC", worth_sec)
    load = partial(make_batch, table=table, model=MODEL, data=DATA, train=True, seed=5)
    steps = list(iterate(plan, load, first_step=4, num_steps=12, num_workers=num_workers))
    assert [planned.step for planned, _ in steps] == list(range(4, 12))
    assert all(same(batch, load(plan[planned.step])) for planned, batch in steps)


def test_shares_of_two_processes_make_the_global_batch(table, plan):
    load = partial(make_batch, table=table, model=MODEL, data=DATA, train=True, seed=5)
    shares = [load(plan[3].take(rows)) for rows in np.split(np.arange(len(plan[3].clips)), 2)]
    assert same(jax.tree.map(lambda *parts: np.concatenate(parts), *shares), load(plan[3]))


def test_evaluation_plan_can_be_iterated(table):
    plan = EvaluationPlan(table.lengths, batch_frames=400, bucket_frames=(25, 50), multiple=2)
    load = partial(make_batch, table=table, model=MODEL, data=DATA, train=False, seed=0)
    batches = [batch for _, batch in iterate(plan, load, first_step=0, num_steps=len(plan), num_workers=2)]
    assert sum(batch.valid_BT.sum() for batch in batches) == table.lengths.sum()
    assert list(iterate(plan, load, first_step=len(plan), num_steps=len(plan), num_workers=2)) == []

"""The batch at step s depends on the lengths, the seed and s alone, and every clip has its turn."""

import hashlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpretrain.data.batch_plan import BatchPlan, EvaluationPlan
from mmpretrain.data.windows import windows

BUCKETS = (100, 200, 300)

lengths_strategy = st.lists(st.integers(1, 400), min_size=1, max_size=80).map(np.array)
plan_settings = st.fixed_dictionaries(
    {"batch_frames": st.sampled_from((1200, 2000, 5000)), "multiple": st.sampled_from((1, 2, 4))}
)


def make_plan(lengths, seed=0, **kwargs):
    return BatchPlan(lengths, bucket_frames=BUCKETS, seed=seed, **kwargs)


def listed(planned):
    return planned.step, planned.epoch, planned.num_frames, planned.clips.tolist(), planned.occurrences.tolist()


@settings(deadline=None, max_examples=60)
@given(lengths_strategy, plan_settings, st.integers(0, 2**31), st.permutations(range(12)))
def test_plan_is_a_pure_function_of_seed_and_step(lengths, kwargs, seed, order):
    straight = [listed(make_plan(lengths, seed, **kwargs)[step]) for step in range(12)]
    plan = make_plan(lengths, seed, **kwargs)
    jumping = {step: listed(plan[step]) for step in order}
    assert [jumping[step] for step in range(12)] == straight
    resumed = make_plan(lengths, seed, **kwargs)
    assert [listed(resumed[step]) for step in range(5, 12)] == straight[5:]


@settings(deadline=None, max_examples=60)
@given(lengths_strategy, plan_settings, st.integers(0, 2**31))
def test_every_batch_is_full_and_every_clip_has_its_turn(lengths, kwargs, seed):
    plan = make_plan(lengths, seed, **kwargs)
    shape_counts = []
    for epoch in range(3):
        first = epoch * plan.num_batches_per_epoch
        batches = [plan[first + i] for i in range(plan.num_batches_per_epoch)]
        assert {batch.epoch for batch in batches} == {epoch}
        for batch in batches:
            assert (len(batch.clips), batch.num_frames) in plan.shapes
            assert len(batch.clips) % kwargs["multiple"] == 0
            assert len(batch.clips) * batch.num_frames <= kwargs["batch_frames"]
            # Clips are cropped only by the longest bucket.
            assert all(lengths[batch.clips] <= batch.num_frames) or batch.num_frames == max(BUCKETS)
        times = Counter(clip for batch in batches for clip in batch.clips.tolist())
        assert set(times) == set(range(len(lengths)))
        largest = max(len(batch.clips) for batch in batches)
        assert sum(times.values()) - len(lengths) < largest  # fillers of one batch
        shape_counts.append(Counter(batch.num_frames for batch in batches))
    assert shape_counts[0] == shape_counts[1] == shape_counts[2]


def test_the_batches_of_a_seed_stay_what_they_were():
    """A run that an earlier version began goes on with the same clips."""
    lengths, weights = np.arange(3000) * 7919 % 400 + 1, np.arange(3000) % 3 * 0.75
    plan = make_plan(lengths, 5, batch_frames=2000, multiple=2, weights=weights)
    clips = b"".join(plan[step].clips.astype("<i8").tobytes() for step in range(2 * plan.num_batches_per_epoch))
    assert hashlib.sha256(clips).hexdigest()[:16] == "130d48add836ec1c"


@pytest.fixture
def planned(monkeypatch):
    """The epochs that are planned, in order; planning one takes 0.1 s."""
    epochs, plan_epoch = [], BatchPlan._plan_epoch

    def slowly(self, epoch):
        epochs.append(epoch)
        time.sleep(0.1)
        return plan_epoch(self, epoch)

    monkeypatch.setattr(BatchPlan, "_plan_epoch", slowly)
    return epochs


def test_threads_plan_an_epoch_once_and_the_next_one_ahead(planned):
    plan = make_plan(np.full(64, 80), batch_frames=800, multiple=1)
    assert plan.num_batches_per_epoch == 8
    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(lambda step: listed(plan[step]), [0] * 8))
    assert planned == [0], "eight threads that ask for one epoch"
    assert first == first[:1] * 8
    started = time.monotonic()
    plan[4]
    assert time.monotonic() - started < 0.09, "the next epoch is planned in the background"
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name.startswith("plan of epoch"):
            thread.join()
    assert planned == [0, 1]
    assert listed(plan[8]) == listed(make_plan(np.full(64, 80), batch_frames=800, multiple=1)[8])
    assert planned == [0, 1, 1], "the second 1 is the other plan's"


def test_a_failure_reaches_every_thread(monkeypatch):
    plan = make_plan(np.full(64, 80), batch_frames=800, multiple=1)
    monkeypatch.setattr(plan, "_plan_epoch", lambda epoch: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            plan[0]


def test_epochs_and_seeds_differ():
    lengths = np.arange(20, 300)
    plan = make_plan(lengths, batch_frames=2000, multiple=1)
    per_epoch = plan.num_batches_per_epoch
    first = [listed(plan[s])[3] for s in range(per_epoch)]
    assert first != [listed(plan[s])[3] for s in range(per_epoch, 2 * per_epoch)]
    assert first != [listed(make_plan(lengths, 1, batch_frames=2000, multiple=1)[s])[3] for s in range(per_epoch)]


def test_filler_repeats_only_when_the_corpus_is_smaller_than_a_batch():
    plan = make_plan(np.full(11, 50), batch_frames=800, multiple=8)
    assert plan.shapes == ((8, 100),)
    for step in range(6):
        assert len(set(plan[step].clips.tolist())) == 8
    clips = make_plan(np.full(3, 50), batch_frames=800, multiple=8)[0].clips
    assert sorted(Counter(clips.tolist()).values()) == [2, 3, 3]


def test_buckets_beyond_the_longest_clip_are_not_used():
    assert make_plan(np.full(9, 150), batch_frames=2000, multiple=1).shapes == ((10, 200),)


def test_weights_set_how_often_clips_appear():
    lengths = np.full(120, 80)
    weights = np.repeat([0.25, 1.0, 2.5], 40)
    plan = make_plan(lengths, batch_frames=1000, multiple=1, weights=weights)
    assert plan.num_batches_per_epoch == (10 + 40 + 100) // 10
    halves = []
    for epoch in range(2):
        steps = range(epoch * plan.num_batches_per_epoch, (epoch + 1) * plan.num_batches_per_epoch)
        times = Counter(clip for step in steps for clip in plan[step].clips.tolist())
        groups = [[times[clip] for clip in range(start, start + 40)] for start in (0, 40, 80)]
        assert [sum(group) for group in groups] == [10, 40, 100]
        assert set(groups[0]) == {0, 1}
        assert set(groups[1]) == {1}
        assert set(groups[2]) == {2, 3}
        halves.append(groups[0])
    assert halves[0] != halves[1]


@pytest.mark.parametrize(("num_clips", "weight"), [(120, 2.5), (3, 1.0), (20, 1.0)])
def test_the_times_that_a_clip_comes_in_an_epoch_are_numbered(num_clips, weight):
    # More than once by its weight, or because few clips must fill a batch.
    plan = make_plan(np.full(num_clips, 80), batch_frames=800, multiple=8, weights=np.full(num_clips, weight))
    for epoch in range(2):
        seen = Counter()
        for step in range(epoch * plan.num_batches_per_epoch, (epoch + 1) * plan.num_batches_per_epoch):
            for clip, occurrence in zip(plan[step].clips.tolist(), plan[step].occurrences.tolist(), strict=True):
                assert occurrence == seen[clip]
                seen[clip] += 1
        assert max(seen.values()) > 1
    own = np.array([6, 1])
    np.testing.assert_array_equal(plan[0].take(own).occurrences, plan[0].occurrences[own])


def test_weight_zero_leaves_clips_out():
    plan = make_plan(np.full(20, 80), batch_frames=500, multiple=1, weights=np.repeat([0.0, 1.0], 10))
    assert {clip for step in range(4) for clip in plan[step].clips.tolist()} == set(range(10, 20))


def test_batch_too_small_for_a_bucket_is_refused():
    with pytest.raises(
        ValueError, match=r"data\.batch_frames=1000 does not hold 8 clips .* 300 frames; raise it to 2400"
    ):
        make_plan(np.array([40, 250]), batch_frames=1000, multiple=8)


@pytest.mark.parametrize(("lengths", "weights"), [([], None), ([50], np.zeros(1))])
def test_nothing_to_plan_is_refused(lengths, weights):
    with pytest.raises(ValueError, match="positive weight"):
        make_plan(np.array(lengths, int), batch_frames=1000, multiple=1, weights=weights)


def test_padding_share_counts_frames():
    plan = make_plan(np.full(10, 75), batch_frames=1000, multiple=1)
    assert plan.padding_share == pytest.approx(0.25)
    assert plan.summary() == "1 batches in 1 shapes of clips x frames (10 x 100), 25.0 % padding"


@settings(deadline=None, max_examples=60)
@given(lengths_strategy, plan_settings)
def test_evaluation_covers_each_clip_once_and_crops_none(lengths, kwargs):
    plan = EvaluationPlan(lengths, bucket_frames=(100, 200), **kwargs)
    batches = [plan[step] for step in range(len(plan))]
    clips = np.concatenate([batch.clips for batch in batches])
    assert sorted(clips[clips >= 0]) == list(range(len(lengths)))
    for batch in batches:
        assert (len(batch.clips), batch.num_frames) in plan.shapes
        assert len(batch.clips) % kwargs["multiple"] == 0
        real = batch.clips[batch.clips >= 0]
        assert len(real)
        assert all(lengths[real] <= batch.num_frames)
    assert [batch.num_frames for batch in batches] == sorted(batch.num_frames for batch in batches)
    assert [listed(batch) for batch in batches] == [
        listed(EvaluationPlan(lengths, bucket_frames=(100, 200), **kwargs)[step]) for step in range(len(plan))
    ]


def test_evaluation_rounds_long_clips_up():
    plan = EvaluationPlan(np.array([250, 90, 1234]), batch_frames=1000, bucket_frames=(100, 200), multiple=1)
    assert plan.shapes == ((1, 100), (1, 300), (1, 1300))
    assert len(EvaluationPlan(np.zeros(0, int), batch_frames=1000, bucket_frames=(100,), multiple=1)) == 0


def test_windows_of_a_long_clip_follow_each_other_in_one_row():
    lengths = np.array([3000, 90, 1500, 10_000, 1501, 1450, 6000])
    plan = EvaluationPlan(lengths, batch_frames=4000, bucket_frames=(100, 200), multiple=2)
    seen = {clip: [] for clip in range(len(lengths))}
    for step in range(len(plan)):
        batch = plan[step]
        assert batch.num_frames in (100, 1500)
        assert len(batch.clips) == 2
        for row, (clip, window) in enumerate(zip(batch.clips.tolist(), batch.occurrences.tolist(), strict=True)):
            if clip >= 0:
                seen[clip].append((step, row, window))
    for clip, places in seen.items():
        steps, rows, numbers = zip(*places, strict=True)
        assert list(numbers) == list(range(len(windows(int(lengths[clip])))))
        assert set(rows) == {rows[0]}
        assert list(steps) == list(range(steps[0], steps[0] + len(steps)))


def test_spread_batches_have_their_share_of_classes_and_in_them_of_speakers():
    random = np.random.default_rng(0)
    classes, corpora, speakers = random.integers(0, 4, 480), random.integers(0, 2, 480), random.integers(0, 6, 480)
    plan = make_plan(
        np.full(480, 90), batch_frames=3_200, multiple=1, strata=np.stack([classes, corpora, speakers], axis=1)
    )
    for step in range(2 * plan.num_batches_per_epoch):
        clips = plan[step].clips
        counts = np.bincount(classes[clips], minlength=4) - 32 * np.bincount(classes) / 480
        assert np.abs(counts).max() < 2, "an even share of each class, but for rounding"
        for number in range(4):
            own = clips[classes[clips] == number]
            assert len(set(corpora[own])) == 2
            assert len(set(speakers[own])) >= 3
    assert sorted(np.concatenate([plan[step].clips for step in range(15)])) == list(range(480))

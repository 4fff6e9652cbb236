"""Promises of the masks, over random lengths and settings, and slow NumPy writings of the same rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpretrain.objectives.masking import (
    mask_beyond,
    modality_use,
    most_visible,
    other_clips,
    places,
    runs,
    same_clip_sources,
    span_mask,
)

MAX_FRAMES = 40  # one padded length, so that each function compiles once
CLIPS = 4


def clip_keys(seed, count=CLIPS) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


keys = st.integers(0, 2**31 - 1).map(clip_keys)
lengths = st.lists(st.integers(0, MAX_FRAMES), min_size=CLIPS, max_size=CLIPS)
quick = settings(max_examples=60, deadline=None)


def valid_of(lengths, num_frames=MAX_FRAMES) -> np.ndarray:
    return np.arange(num_frames) < np.array(lengths)[:, None]


draw_mask = jax.jit(lambda keys_B, valid_BT, prob, span: span_mask(keys_B, valid_BT, prob=prob, span_frames=span))
draw_sources = jax.jit(same_clip_sources)


def true_runs(mask_T) -> list[tuple[int, int]]:
    """(start, end) of each contiguous run, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask_T, int), [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


@quick
@given(keys, lengths, st.floats(0, 1), st.integers(1, 12))
def test_mask_never_reaches_padding_and_no_clip_goes_without(key, lengths, prob, span):
    valid_BT = valid_of(lengths)
    mask_BT = np.asarray(draw_mask(key, valid_BT, prob, span))
    assert not (mask_BT & ~valid_BT).any()
    assert (mask_BT.any(1) == (np.array(lengths) > 0)).all()


@quick
@given(keys, lengths, st.floats(0, 1), st.integers(1, 12))
def test_runs_are_at_least_a_span_long_and_as_many_as_wanted(key, lengths, prob, span):
    mask_BT = np.asarray(draw_mask(key, valid_of(lengths), prob, span))
    for mask_T, size in zip(mask_BT, lengths, strict=True):
        if size == 0:
            continue
        fitting = max(1, min(span, size // 2))
        assert all(end - start >= fitting for start, end in true_runs(mask_T))
        most = max(2, int(prob * size / span + 1))
        assert mask_T.sum() <= most * fitting


@quick
@given(keys, lengths)
def test_mask_of_a_clip_is_reproducible(key, lengths):
    valid_BT = valid_of(lengths)
    again = draw_mask(key, valid_BT, 0.8, 10)
    np.testing.assert_array_equal(draw_mask(key, valid_BT, 0.8, 10), again)


@pytest.mark.parametrize(("num_frames", "prob", "span", "low", "high"), [
    (100, 0.8, 10, 0.55, 0.59), (400, 0.8, 10, 0.54, 0.57), (100, 0.3, 5, 0.25, 0.29),
])  # fmt: skip
def test_masked_share_is_near_what_the_reference_measures(num_frames, prob, span, low, high):
    # The reference has 0.574 at T=100 and 0.548 at T=400 for (0.8, 10), and 0.270 for (0.3, 5).
    valid_BT = np.ones((600, num_frames), bool)
    mask_BT = np.asarray(span_mask(clip_keys(3, 600), valid_BT, prob=prob, span_frames=span))
    assert low < mask_BT.mean() < high, mask_BT.mean()
    # Padding changes nothing: the share is one of the real frames.
    padded = span_mask(clip_keys(3, 600), np.pad(valid_BT, ((0, 0), (0, 50))), prob=prob, span_frames=span)
    np.testing.assert_array_equal(padded[:, :num_frames], mask_BT)


def test_every_frame_can_be_masked_the_first_and_the_last_too():
    valid_BT = valid_of([30] * 2000)
    often_T = np.asarray(draw_mask(clip_keys(1, 2000), valid_BT, 0.8, 10)).mean(0)
    assert (often_T[:30] > 0.05).all()
    assert not often_T[30:].any()
    np.testing.assert_allclose(often_T[:30], often_T[:30][::-1], atol=0.06)  # no end is preferred


def test_starts_are_distinct():
    # Span 1: as many masked frames as spans were wanted, which two spans at one place would not give.
    mask_BT = np.asarray(draw_mask(clip_keys(2, 50), valid_of([40] * 50), 0.5, 1))
    assert set(mask_BT.sum(1)) <= {20, 21}


@quick
@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=2, max_size=2))
def test_runs_equal_a_slow_writing(mask):
    mask_BT = np.array(mask)
    start_BT, end_BT = map(np.asarray, runs(jnp.asarray(mask_BT)))
    for b, mask_T in enumerate(mask_BT):
        for start, end in true_runs(mask_T):
            assert (start_BT[b, start:end] == start).all()
            assert (end_BT[b, start:end] == end).all()


@quick
@given(keys, lengths, st.floats(0, 1), st.integers(1, 12))
def test_sources_are_real_frames_of_the_same_clip_in_order(key, lengths, prob, span):
    valid_BT = valid_of(lengths)
    mask_BT = np.asarray(draw_mask(key, valid_BT, prob, span))
    source_BT = np.asarray(draw_sources(key, mask_BT, valid_BT))
    np.testing.assert_array_equal(source_BT, draw_sources(key, mask_BT, valid_BT))
    for mask_T, source_T, size in zip(mask_BT, source_BT, lengths, strict=True):
        np.testing.assert_array_equal(source_T[~mask_T], np.flatnonzero(~mask_T))  # unmasked: itself
        for start, end in true_runs(mask_T):
            first, count = source_T[start], end - start
            np.testing.assert_array_equal(source_T[start:end], np.minimum(first + np.arange(count), size - 1))
            outside = set(range(size)) - set(range(max(0, start - count), end))
            assert first in outside if outside else first == 0


def test_every_start_outside_the_run_is_drawn_equally_often():
    size, start, end = 12, 4, 6
    valid_BT = valid_of([size] * 4000)
    mask_BT = np.zeros_like(valid_BT)
    mask_BT[:, start:end] = True
    first_B = np.asarray(same_clip_sources(clip_keys(5, 4000), mask_BT, valid_BT))[:, start]
    outside = [0, 1, *range(end, size)]  # not 2 and 3: a stretch from there would overlap the run
    counts = np.bincount(first_B, minlength=size)
    assert set(np.flatnonzero(counts)) == set(outside)
    np.testing.assert_allclose(counts[outside] / 4000, 1 / len(outside), atol=0.03)


def test_modalities_are_dropped_as_often_as_asked_and_never_the_only_one():
    B = 4000
    has_audio_B = np.arange(B) % 4 != 0  # a quarter without sound, another without picture
    has_video_B = np.arange(B) % 4 != 1
    audio_B, video_B = map(
        np.asarray, modality_use(clip_keys(4, B), has_audio_B, has_video_B, prob=0.5, audio_prob=0.25)
    )
    assert (audio_B <= has_audio_B).all()
    assert (video_B <= has_video_B).all()
    both = has_audio_B & has_video_B
    np.testing.assert_array_equal(audio_B[~both], has_audio_B[~both])
    np.testing.assert_array_equal(video_B[~both], has_video_B[~both])
    assert (audio_B | video_B).all()
    assert abs((~audio_B[both]).mean() - 0.5 * 0.25) < 0.03
    assert abs((~video_B[both]).mean() - 0.5 * 0.75) < 0.03


@pytest.mark.parametrize(("prob", "audio_prob", "audio", "video"), [(0, 0.5, 1, 1), (1, 1, 0, 1), (1, 0, 1, 0)])
def test_modality_dropout_at_its_ends(prob, audio_prob, audio, video):
    both = np.ones(50, bool)
    audio_B, video_B = modality_use(clip_keys(0, 50), both, both, prob=prob, audio_prob=audio_prob)
    assert (np.asarray(audio_B) == audio).all()
    assert (np.asarray(video_B) == video).all()


def test_equal_counts_unmasks_frames_until_all_clips_have_as_many_masked():
    valid_BT = valid_of([40, 12, 0, 25])
    for key in map(clip_keys, range(20)):
        plain = np.asarray(span_mask(key, valid_BT, prob=0.8, span_frames=5))
        equal = np.asarray(span_mask(key, valid_BT, prob=0.8, span_frames=5, equal_counts=True))
        assert not (equal & ~plain).any()
        fewest = plain.sum(1)[[0, 1, 3]].min()
        assert equal.sum(1).tolist() == [fewest, fewest, 0, fewest], "a row that only fills the batch does not count"


def test_another_clip_is_a_real_one_and_never_the_clip_itself():
    valid_BT = valid_of([5, 0, 9, 3])
    seen = {tuple(np.asarray(other_clips(clip_keys(seed), valid_BT)).tolist()) for seed in range(30)}
    assert seen == {(2, 1, 3, 0), (3, 1, 0, 2)}  # one shift for all: by one or two among clips 0, 2 and 3


def test_modality_dropout_of_a_whole_batch_is_one_draw():
    both, draws = np.ones(6, bool), []
    for seed in range(200):
        use = modality_use(clip_keys(seed, 6), both, both, prob=0.5, audio_prob=0.3, whole_batch=True)
        audio, video = (np.unique(u) for u in use)
        assert len(audio) == len(video) == 1
        draws.append((bool(audio[0]), bool(video[0])))
    assert (False, False) not in draws
    shares = [draws.count(pair) / len(draws) for pair in ((False, True), (True, False), (True, True))]
    np.testing.assert_allclose(shares, [0.15, 0.35, 0.5], atol=0.1)


@pytest.mark.parametrize(("prob", "span_frames", "T"), [(0.8, 10, 100), (0.8, 10, 500), (0.3, 5, 60), (0.0, 5, 20)])
def test_no_clip_has_more_visible_frames_than_go_through_the_resnet_and_few_lose_any(prob, span_frames, T):
    valid = np.arange(T) < np.resize([T, T, T - 7], 400)[:, None]
    of_clips = clip_keys(0, 400)
    drawn = span_mask(of_clips, valid, prob=prob, span_frames=span_frames)
    most = most_visible(T, prob=prob, span_frames=span_frames)
    mask = np.asarray(mask_beyond(of_clips, drawn, valid, most))
    assert ((valid & ~mask).sum(1) <= most).all()
    assert (mask >= drawn).all()
    assert not (mask & ~valid).any()
    assert (mask != drawn).any(1).mean() < 0.1
    assert (mask != drawn).mean() < 0.005
    assert most <= T * (1.1 * np.exp(-prob) + 0.1)


def test_places_are_the_marked_frames_in_order():
    where = np.array([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 1]], bool)
    assert places(where, 3).tolist() == [[1, 2, 4], [4, 4, 4], [0, 2, 3]]

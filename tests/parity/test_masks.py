"""Masks: the reference's numbers against our NumPy writing of it, and that writing against what training uses.

`oracle_masks` equals the reference draw by draw. Ours draws other numbers, so it is compared in distribution, with the
oracle's peculiarities turned off: clips keep all their spans, and a span may end with the clip.
"""

import functools

import jax
import numpy as np
import pytest

from mmpretrain.objectives.masking import same_clip_sources, span_mask
from tests.parity import oracle_masks
from tests.parity.fixture_files import check_error, groups, load_arrays, load_json

DIGITS = 5.1e-6  # the stored statistics are rounded to five decimals
CLIPS = 1600  # drawn of ours for each case
SIGMAS = 5.5  # of ten thousand comparisons, one in two thousand sets goes beyond that by chance


def lengths_of(case: dict) -> np.ndarray:
    return np.array(case["lengths"] or [case["T"]] * case["B"])


def draw_oracle(rng, case: dict, prob: float, span: int, **changes) -> np.ndarray:
    options = dict(padded=case["lengths"] is not None) | changes
    return oracle_masks.draw_mask(rng, case["T"], lengths_of(case).tolist(), prob=prob, span=span, **options)


def test_every_stored_mask():
    arrays, meta = load_arrays("mask_exact.npz")
    for i, case in enumerate(meta["mask_cases"]):
        stored, rng = groups(arrays, "m")[f"m{i}"], np.random.RandomState(case["np_seed"])
        kind = dict(kind=case["type"], other=case["other"], min_spans=case["min_masks"])
        mask_BT = draw_oracle(rng, case, case["prob"], case["length"], **kind)
        runs = np.transpose(oracle_masks.mask_runs(mask_BT))
        stored_runs = [stored["batch"], stored["starts"], stored["ends"]]
        check_error("mask, drawn as the reference does", np.sum(mask_BT != stored["mask"]), 0)
        check_error("runs of that mask", np.sum(runs != stored_runs), 0)


def test_every_stored_substitution():
    arrays, meta = load_arrays("mask_exact.npz")
    for name, case in groups(arrays, "sub").items():
        for kind in ("same_seq", "same_other_seq"):
            stored = {key.partition("/")[2]: array for key, array in case.items() if key.startswith(f"{kind}/")}
            valid_BT, rng = ~stored["padding_mask"], np.random.RandomState(int(stored["seed"]))
            B, T = valid_BT.shape
            mask_BT = oracle_masks.draw_mask(
                rng, T, valid_BT.sum(1).tolist(), prob=meta["sub"]["prob"], span=meta["sub"]["length"]
            )
            check_error("mask, drawn as the reference does", np.sum(mask_BT != stored["mask"]), 0)
            shift = (stored["src_batch"] - np.arange(B)[:, None]) % B
            if kind == "same_seq":
                time_BT = oracle_masks.same_clip_sources(rng, mask_BT)
                assert not shift.any(), name
            else:  # ours has no such kind: the frame of the same time in the clip a constant number further on
                time_BT = np.tile(np.arange(T), (B, 1))
                assert len(np.unique(shift[mask_BT])) == 1, name
                assert shift[mask_BT].all(), name
                assert not shift[~mask_BT].any(), name
            check_error(f"frames put in place of masked ones, {kind}", np.sum(time_BT != stored["src_time"]), 0)


def statistics(masks_NBT: np.ndarray, lengths_B: np.ndarray) -> dict:
    """What the file says of masks, from N draws."""
    share_NB = masks_NBT.sum(2) / lengths_B
    edges = np.diff(np.pad(masks_NBT.astype(np.int8), ((0, 0), (0, 0), (1, 1))))
    run_lengths = np.nonzero(edges == -1)[2] - np.nonzero(edges == 1)[2]
    runs_NB = (edges == 1).sum(2)
    often_T = masks_NBT[:, 0].mean(0)
    counts, middle = np.bincount(run_lengths), len(often_T) // 2
    return {
        "masked_fraction_mean_per_row": share_NB.mean(0),
        "masked_fraction_mean": share_NB.mean(),
        "masked_fraction_std_over_rows": share_NB.std(),
        "masked_frames_per_row_mean": masks_NBT.sum(2).mean(),
        "runs_per_row_mean": runs_NB.mean(),
        "runs_per_row_std": runs_NB.std(),
        "run_length_mean": run_lengths.mean(),
        "run_length_hist": {str(n): counts[n] / len(run_lengths) for n in np.flatnonzero(counts)},
        "row0_position_prob": {
            "first16": often_T[:16],
            "middle": often_T[middle - 4 : middle + 4].mean(),
            "last16": often_T[-16:],
        },
    }


def leaves(tree: dict) -> dict[str, np.ndarray]:
    flat = {}
    for name, value in tree.items():
        below = {f"{name} {key}": leaf for key, leaf in value.items()} if isinstance(value, dict) else {name: value}
        flat |= {key: np.asarray(leaf) for key, leaf in below.items()}
    return flat


def check_statistics(ours: dict, stored: dict) -> None:
    ours, stored = leaves(ours), leaves({name: stored[name] for name in ours})
    assert ours.keys() == stored.keys()
    error = max(np.abs(ours[name] - stored[name]).max() for name in stored)
    check_error("statistics of masks, drawn as the reference does", error, DIGITS)


def test_statistics_of_one_stream():
    for case in load_json("mask_stats.json")["single"]:
        rng = np.random.RandomState(case["np_seed"])
        masks = [draw_oracle(rng, case, case["prob"], case["length"]) for _ in range(case["draws"])]
        check_statistics(statistics(np.array(masks), lengths_of(case)), case)


def test_statistics_of_both_streams():
    # Each is drawn as one stream is: of the five cases, one of several clips and that of a lone one.
    for case in {case["B"]: case for case in load_json("mask_stats.json")["union"] if case["B"] <= 2}.values():
        rng, lengths_B = np.random.RandomState(case["np_seed"]), lengths_of(case)
        shares = []
        for _ in range(case["draws"]):
            image, audio = (draw_oracle(rng, case, case[s]["prob"], case[s]["length"]) for s in ("image", "audio"))
            shares.append([(m.sum(1) / lengths_B).mean() for m in (image, audio, image | audio, image & audio)])
        names = ("image_fraction", "audio_fraction", "union_fraction", "both_fraction")
        ours = dict(zip(names, np.mean(shares, axis=0), strict=True))
        check_statistics(ours | {"union_fraction_std_over_batches": np.std(shares, axis=0)[2]}, case)


def test_statistics_of_substitution():
    for case in load_json("mask_stats.json")["substitution"]:
        rng, lengths_B = np.random.RandomState(case["np_seed"]), lengths_of(case)
        rows = []
        for _ in range(case["draws"]):
            mask_BT = draw_oracle(rng, case, case["prob"], case["length"], padded=True)
            rows.append(substitution(mask_BT, oracle_masks.same_clip_sources(rng, mask_BT), lengths_B))
        names = ("itself_masked", "padding", "equals_target", "shift")
        stored = ("source_frame_is_itself_masked", "source_frame_is_padding", "source_equals_target_frame")
        ours = dict(zip(names, np.mean(rows, axis=0), strict=True))
        theirs = dict(zip(names, [case[name] for name in (*stored, "mean_abs_time_shift")], strict=True))
        check_statistics(ours, theirs)


def substitution(mask_BT, source_BT, lengths_B) -> list[float]:
    """Of the masked frames, the share whose source is masked, padding or itself, and how far away it is on average."""
    clip, time = np.nonzero(mask_BT)
    source = source_BT[mask_BT]
    shares = mask_BT[clip, source], source >= lengths_B[clip], source == time, np.abs(source - time)
    return [float(share.mean()) for share in shares]


def check_same_mean(quantity: str, ours_N: np.ndarray, theirs_N: np.ndarray) -> None:
    """Two samples of the same numbers: N draws of each, of whatever shape. The error is in standard errors."""
    difference = np.abs(ours_N.mean(0) - theirs_N.mean(0))
    deviation = np.sqrt(ours_N.var(0) / len(ours_N) + theirs_N.var(0) / len(theirs_N))
    assert not difference[deviation == 0].any(), quantity
    check_error(f"{quantity}, standard errors", (difference / np.where(deviation == 0, 1, deviation)).max(), SIGMAS)


draw_ours = jax.jit(lambda keys_B, valid_BT, prob, span: span_mask(keys_B, valid_BT, prob=prob, span_frames=span))


def clip_keys(seed: int, count: int) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@functools.cache
def plain_masks() -> list[tuple[dict, np.ndarray, np.ndarray]]:
    """For each stored case, N masks of ours and of the oracle without its peculiarities, bool [N, B, T]."""
    cases, found = load_json("mask_stats.json")["single"], []
    longest = max(case["T"] for case in cases)
    for case in cases:
        B, T, draws = case["B"], case["T"], CLIPS // case["B"]
        valid = np.zeros((CLIPS, longest), bool)  # one shape for all cases: ours compiles once
        valid[: draws * B, :T] = np.tile(np.arange(T) < lengths_of(case)[:, None], (draws, 1))
        ours = np.asarray(draw_ours(clip_keys(case["np_seed"], CLIPS), valid, case["prob"], case["length"]))
        rng = np.random.RandomState(case["np_seed"])
        plain = dict(padded=True, equalize=False, last_start=True)
        theirs = [draw_oracle(rng, case, case["prob"], case["length"], **plain) for _ in range(draws)]
        found.append((case, ours[: draws * B, :T].reshape(draws, B, T), np.array(theirs)))
    return found


def test_our_masks_have_the_distribution_of_the_reference_without_its_peculiarities():
    for case, ours_NBT, theirs_NBT in plain_masks():
        lengths_B = lengths_of(case)
        if (lengths_B - case["length"] <= case["prob"] * lengths_B / case["length"] + 1).any():
            continue  # so short that the reference shortens spans; ours has another rule for that
        check_same_mean("masked share of a clip", ours_NBT.mean(2), theirs_NBT.mean(2))
        check_same_mean("square of it", ours_NBT.mean(2) ** 2, theirs_NBT.mean(2) ** 2)
        check_same_mean("how often a frame is masked", ours_NBT, theirs_NBT)
        starts = [np.diff(masks.astype(np.int8), axis=2, prepend=0) == 1 for masks in (ours_NBT, theirs_NBT)]
        check_same_mean("runs of a clip", *(found.sum(2) for found in starts))
        lengths = [m.sum(2) / found.sum(2) for m, found in zip((ours_NBT, theirs_NBT), starts, strict=True)]
        check_same_mean("mean length of a clip's runs", *lengths)


def test_what_the_peculiarities_of_the_reference_do():
    for case, ours_NBT, _ in plain_masks():
        # Its last frame is never masked; in ours both ends of a clip are masked equally often.
        assert case["row0_position_prob"]["last16"][-1] == 0
        size = lengths_of(case)[0]
        ends = ours_NBT[:, 0, [0, size - 1]].astype(float)
        assert ends.mean(0).min() > 0
        check_same_mean("first and last frame", ends[:, :1], ends[:, 1:])
        # Equal counts cost masked frames, the more so the shorter the shortest clip; a lone clip loses none.
        if case["B"] > 1:
            reference, ours = np.array(case["masked_fraction_mean_per_row"]), ours_NBT.sum(2).mean(0) / lengths_of(case)
            longest = lengths_of(case).argmax()
            assert reference[longest] < ours[longest]


def test_our_substitution_has_the_distribution_of_the_reference_within_the_real_frames():
    sources = jax.jit(same_clip_sources)
    for case in load_json("mask_stats.json")["substitution"]:
        rng, lengths_B = np.random.RandomState(case["np_seed"]), lengths_of(case)
        B, T = case["B"], case["T"]
        masks = [draw_oracle(rng, case, case["prob"], case["length"], padded=True) for _ in range(case["draws"])]
        valid = np.tile(np.arange(T) < lengths_B[:, None], (len(masks), 1))
        keys_B = clip_keys(case["np_seed"], len(valid))
        ours = np.asarray(sources(keys_B, np.concatenate(masks), valid)).reshape(-1, B, T)
        theirs = np.tile(np.arange(T), (len(masks), B, 1))
        for source_BT, mask_BT in zip(theirs, masks, strict=True):
            for b, size in enumerate(lengths_B):  # each clip on its own, so that padding is no source
                source_BT[b, :size] = oracle_masks.same_clip_sources(rng, mask_BT[b : b + 1, :size])
        figures = [
            np.array([substitution(m, s, lengths_B) for m, s in zip(masks, source, strict=True)])
            for source in (ours, theirs)
        ]
        assert not figures[0][:, 1].any(), "padding is no source"
        check_same_mean("frames put in place of masked ones", *figures)


@pytest.mark.parametrize("kind", ["uniform", "normal", "poisson"])
def test_spans_of_other_kinds_are_understood(kind):
    mask_BT = oracle_masks.draw_mask(np.random.RandomState(0), 60, [60], prob=0.5, span=6, kind=kind, other=2)
    assert 0 < mask_BT.sum() < 60

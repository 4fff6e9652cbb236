"""Batches: the reference's collation and its grouping by token count (spec, section 6), and what ours shares with them.

How clips become a batch of given length is part of the method: ours must give the same frames, padding and labels.
Which clips come together is our own choice (buckets of lengths); a NumPy writing of the reference's rule is compared
with the stored batches, and ours with what the rule promises.
"""

import numpy as np
import pytest

from mmpretrain.config import DataConfig, InputConfig, ModelConfig
from mmpretrain.data import batch as batches
from mmpretrain.data.batch_plan import BatchPlan, PlannedBatch
from mmpretrain.features.filterbank import audio_features
from mmpretrain.models.frontends.video import normalize_pixels
from mmpretrain.randomness import clip_generator
from mmpretrain.records import FRAME_RATE_HZ, SAMPLES_PER_FRAME, Batch, Clip
from tests.parity.fixture_files import check_error, groups, load_arrays, load_json

PAD = 1  # the reference's class id of no label
END = 2  # its id of the end of a text


def collation_cases() -> list[tuple[dict, dict]]:
    arrays, meta = load_arrays("collate.npz")
    stored = groups(arrays, "case")
    return [(case, stored[f"case{i}"]) for i, case in enumerate(meta["cases"])]


def labels_of(case: dict) -> list[np.ndarray]:
    """Per clip, the labels that the file's note describes."""
    counts = [length * case["label_rate"] // FRAME_RATE_HZ for length in case["lens"]]
    counts[0] -= case.get("short", 0)
    return [4 + np.arange(count) + 1000 * j for j, count in enumerate(counts)]


def starts_of(case: dict, size: int, rng: np.random.RandomState) -> list[int]:
    spare = [length - size for length in case["lens"]]
    return [rng.randint(0, n + 1) if case["random_crop"] and n > 0 else 0 for n in spare]


def collated(case: dict, rng: np.random.RandomState) -> dict[str, np.ndarray]:
    """What the reference's rules make of a case."""
    lengths = case["lens"]
    size = min(max(lengths) if case["pad_audio"] else min(lengths), case["max_sample_size"])
    starts = starts_of(case, size, rng)
    valid = np.arange(size) < np.array(lengths)[:, None]
    time = np.where(valid, np.array(starts)[:, None] + np.arange(size) + 100 * np.arange(len(lengths))[:, None], 0)
    rate = case["label_rate"] / FRAME_RATE_HZ
    first, count = [round(start * rate) for start in starts], round(size * rate)
    labels = [row[n:] for row, n in zip(labels_of(case), first, strict=True)]
    if not case["pad_audio"]:
        count = min(count, *map(len, labels))
    labels = [row[:count] for row in labels]
    target = np.full((len(labels), max(map(len, labels))), PAD)
    for row, known in zip(target, labels, strict=True):
        row[: len(known)] = known
    channels = 0.25 * np.arange(3)[:, None]
    return {
        "padding_mask": ~valid,
        "audio": time[:, None] + channels * valid[:, None],
        "video": np.broadcast_to(time[:, None, :, None, None], (*valid.shape[:1], 1, size, 2, 2)),
        "target": target,
        "target_lengths": np.array([len(row) for row in labels]),
        "ntokens": np.array(sum(len(row) for row in labels)),
    }


def test_collation_rule():
    for case, stored in collation_cases():
        theirs = collated(case, np.random.RandomState(int(stored["np_seed"])))
        for name in sorted(stored.keys() - {"np_seed"}):
            assert theirs[name].shape == stored[name].shape
            check_error(f"collation, {name}", np.sum(theirs[name] != stored[name]), 0)
        assert ("audio" in stored, "video" in stored) == (case.get("modal") != "video", case.get("modal") != "audio")


class StoredClips:
    """The clips of a case. Their pictures say which frame they are, their sound is noise, each its own."""

    def __init__(self, case: dict):
        self.lengths = case["lens"]
        self.modal = case.get("modal")

    def has(self, name: str) -> np.ndarray:
        return np.full(len(self.lengths), self.modal in (None, name))

    def open(self, row: int) -> Clip:
        time, rng = np.arange(self.lengths[row]), np.random.default_rng(row)
        sound = rng.integers(-1000, 1000, SAMPLES_PER_FRAME * len(time)).astype(np.int16)
        mouth = np.stack([time % 256, time // 256, np.full_like(time, row), 0 * time], axis=1).astype(np.uint8)
        audio = sound if self.has("audio")[row] else sound[:0]
        video = mouth.reshape(-1, 2, 2) if self.has("video")[row] else np.zeros((0, 2, 2), np.uint8)
        return Clip(str(row), audio, video, video)


class StoredLabels:
    """Of the labels in a frame, the first (spec, section 7.7)."""

    def __init__(self, case: dict):
        self.rows = [row[:: case["label_rate"] // FRAME_RATE_HZ].astype(np.int32) for row in labels_of(case)]

    def of(self, row: int, clip: Clip) -> np.ndarray:
        return self.rows[row]


class Start:
    """Stands in for the generator that draws where a clip begins; refuses a start that ours could not draw."""

    def __init__(self, start: int):
        self.start = start

    def integers(self, low: int, high: int, *, endpoint: bool) -> int:
        assert low <= self.start <= high
        assert endpoint
        return self.start


def generator_beginning_at(starts: list[int]):
    def generator(seed, stream, epoch, clip_id, occurrence):
        if stream == "time":
            return Start(starts[int(clip_id)])
        return clip_generator(seed, stream, epoch, clip_id, occurrence)

    return generator


def our_batch(monkeypatch, case: dict, stored: dict) -> Batch:
    """What ours makes of the clips of a case, if they begin where the reference's draws let them begin."""
    size = stored["padding_mask"].shape[1]
    starts = starts_of(case, size, np.random.RandomState(int(stored["np_seed"])))
    monkeypatch.setattr(batches, "clip_generator", generator_beginning_at(starts))
    return batches.make_batch(
        PlannedBatch(0, 0, size, np.arange(len(starts)), np.zeros(len(starts), int)), StoredClips(case),
        model=model_of(stored), seed=0,
        data=DataConfig(random_crop=False, flip=False), train=case["random_crop"], targets=[StoredLabels(case)],
    )  # fmt: skip


def model_of(stored: dict) -> ModelConfig:
    kinds = tuple(kind for kind in ("audio", "video") if kind in stored)
    return ModelConfig(modalities=kinds, inputs=InputConfig(image_size=2))


def test_our_batches_are_collated_by_that_rule(monkeypatch):
    for case, stored in collation_cases():
        if case["label_rate"] % FRAME_RATE_HZ:
            continue  # targets are made at 25 Hz: other rates come down to it by whole steps
        if case["lens"][0] - len(StoredLabels(case).rows[0]) > 1:  # the reference lets up to 0.1 s be missing
            with pytest.raises(ValueError, match="make the targets again"):
                our_batch(monkeypatch, case, stored)
            continue
        batch, model, clips = our_batch(monkeypatch, case, stored), model_of(stored), StoredClips(case)
        valid = ~stored["padding_mask"]
        check_error("our batches, padding", np.sum(batch.valid_BT != valid), 0)
        if "video" in stored:
            video = batch.inputs["video"]
            clip, high, low = video[:, :, 1, 0], video[:, :, 0, 1], video[:, :, 0, 0]
            time = np.where(valid, 100.0 * clip + 256.0 * high + low, 0)
            check_error("our batches, video", np.sum(time != stored["video"][:, 0, :, 0, 0]), 0)
            assert not np.asarray(normalize_pixels(video, batch.valid_BT, model.inputs))[~valid].any()
        if "audio" in stored:
            expected = np.zeros_like(batch.inputs["audio"])
            for b, row in enumerate(expected):
                count = valid[b].sum()
                first = int(stored["audio"][b, 0, 0]) - 100 * b
                sound = clips.open(b).audio[SAMPLES_PER_FRAME * first : SAMPLES_PER_FRAME * (first + count)]
                row[:count] = audio_features(sound, count)
            check_error("our batches, audio", np.sum(batch.inputs["audio"] != expected), 0)
        # The reference cuts the whole batch where its labels end.
        step = case["label_rate"] // FRAME_RATE_HZ
        reach = min(valid.shape[1], stored["target"].shape[1] // step)
        target = stored["target"][:, : reach * step : step]
        expected = np.where((target != PAD) & valid[:, :reach], target, -1)
        check_error("our batches, labels", np.sum(batch.targets_BTS[..., 0][:, :reach] != expected), 0)
        assert (batch.targets_BTS[..., 0][~batch.valid_BT] == -1).all()


def test_collation_of_texts():
    arrays = {key[4:]: array for key, array in load_arrays("collate.npz")[0].items() if key.startswith("s2s/")}
    texts = [arrays[f"tokens{i}"] for i in range(sum(name.startswith("tokens") for name in arrays))]
    width = max(map(len, texts))
    target = np.array([np.pad(text, (0, width - len(text)), constant_values=PAD) for text in texts])
    # What the decoder is fed: the end of the text, which is its last token, comes first.
    rolled = [np.concatenate([[END], text[:-1]]) for text in texts]
    previous = np.array([np.pad(text, (0, width - len(text)), constant_values=PAD) for text in rolled])
    check_error("collation, texts", np.sum(target != arrays["target"]), 0)
    check_error("collation, texts moved by one", np.sum(previous != arrays["prev_output_tokens"]), 0)
    assert arrays["ntokens"] == sum(map(len, texts))


def grouped(sizes: np.ndarray, order: np.ndarray, max_tokens: int, multiple: int) -> list[list[int]]:
    """The reference's batches: greedy, a `batch` that may end here and a `tail` that must first grow or go."""
    batches, batch, tail = [], [], []
    for clip in order.tolist():
        longest, count = sizes[[*batch, *tail, clip]].max(), len(batch) + len(tail) + 1
        overflow = count * longest > max_tokens
        if overflow and sizes[[*tail, clip]].max() * (len(tail) + 1) > max_tokens:
            batches += [batch, tail]
            tail = []
        elif overflow:
            batches.append(batch)
        if overflow:
            batch = []
        tail.append(clip)
        if overflow or count < multiple or count % multiple == 0:
            batch, tail = batch + tail, []
    return [found for found in [*batches, batch, tail] if found]


def batching_cases() -> list[tuple[dict, np.ndarray]]:
    """Each stored case and its clips' token counts."""
    cases = load_json("batching.json")["cases"]
    return [(case, np.minimum(case["sizes"], case["cap"] or max(case["sizes"]))) for case in cases]


def test_grouping_rule():
    for case, tokens in batching_cases():
        sizes = np.array(case["sizes"])
        ties = np.random.RandomState(case["np_seed"]).permutation(len(sizes))
        order = np.lexsort((ties, sizes))[::-1]
        check_error("order of clips", np.sum(order != case["order"]), 0)
        batches = grouped(tokens, order, case["max_tokens"], case["required_multiple"])
        wrong = sum(ours != theirs for ours, theirs in zip(batches, case["batches"], strict=True))
        check_error("batches by token count", wrong, 0)


@pytest.mark.parametrize("steps", [1, 5])
def test_our_batches_keep_what_the_rule_promises(steps):
    """No batch beyond its tokens, and no clip left out. `steps`: the number of buckets."""
    for case, tokens in batching_cases():
        longest = int(tokens.max())
        buckets = sorted({-(-longest * (i + 1) // steps) for i in range(steps)})
        plan = BatchPlan(
            case["sizes"], batch_frames=case["max_tokens"], bucket_frames=buckets, multiple=1, seed=case["np_seed"]
        )
        batches = [plan[step] for step in range(plan.num_batches_per_epoch)]
        seen = np.bincount(np.concatenate([batch.clips for batch in batches]), minlength=len(tokens))
        assert seen.min() == 1
        # Only the last batch is filled up, where the reference's is smaller.
        assert seen.sum() - len(tokens) < max(len(batch.clips) for batch in batches)
        for batch in batches:
            assert batch.num_frames * len(batch.clips) <= case["max_tokens"]
            assert (tokens[batch.clips] <= batch.num_frames).all()

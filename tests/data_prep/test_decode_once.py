"""Crops made while faces are looked for: the same corpus, each video decoded once, nothing left on the disk."""

import numpy as np
import pytest

from data_prep import inspection, media
from data_prep.landmark_cache import inspect_clip, take_crops
from data_prep.options import Options
from data_prep.processing import Task, make_clip
from data_prep.sources import Landmarks, SourceClip
from tests.data_prep.authored import write_mp4
from tests.data_prep.test_given_landmarks import mesh


@pytest.mark.parametrize("enough_memory", [True, False])
def test_clips_are_the_same_and_decoded_once(tmp_path, monkeypatch, enough_memory):
    np.savez(tmp_path / "a.npz", points=np.stack([mesh(68, 26 + 0.3 * t, 17, 0.15) for t in range(20)]))
    clip = SourceClip("a", write_mp4(tmp_path / "a.mp4", 20), landmarks=Landmarks(tmp_path / "a.npz"))
    if not enough_memory:
        monkeypatch.setattr(inspection, "KEPT_BYTES", 50_000)
    made, decoded, shown = {}, [], media.shown_frames

    def counted(opened):
        decoded.append(opened.path)
        yield from shown(opened)

    monkeypatch.setattr(media, "shown_frames", counted)
    for once in (False, True):
        options = Options(decode_once=once)
        found = inspect_clip(
            clip, cache_dir=tmp_path / f"cache{once}", model=None, model_hash="",
            sizes=options.sizes if options.made_at_once else None,
        )  # fmt: skip
        made[once] = make_clip(Task(clip, found.cache_file, 0, 1, options)).clip
    assert len(decoded) == (1 if enough_memory else 2)
    np.testing.assert_array_equal(made[True].mouth, made[False].mouth)
    np.testing.assert_array_equal(made[True].face, made[False].face)
    assert take_crops(found.cache_file, Options().sizes) is None
    assert [path.suffix for path in (tmp_path / "cacheTrue").rglob("*.*")] == [".npz"]


def test_crops_of_another_size_are_not_taken(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.stack([mesh(68, 26, 17, 0.15)] * 20))
    clip = SourceClip("a", write_mp4(tmp_path / "a.mp4", 20), landmarks=Landmarks(tmp_path / "a.npz"))
    found = inspect_clip(clip, cache_dir=tmp_path / "cache", model=None, model_hash="", sizes=Options().sizes)
    made = make_clip(Task(clip, found.cache_file, 0, 1, Options(mouth_size=48, decode_once=True)))
    assert made.clip.mouth.shape == (20, 48, 48)

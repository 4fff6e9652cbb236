"""Clips changed for tests of robustness: by how much, where, and the same each time."""

import dataclasses

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.data.disturbed import CHANGES, Given, add_at, babble_of, disturbed
from tests.corpus_fixture import make_clip, write_corpus


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    clips = [make_clip(f"c{i}", 50, size=48, speaker=f"s{i}") for i in range(4)]
    sound = (8000 * np.sin(np.arange(50 * 640) / 9)).astype(np.int16)
    face = np.random.default_rng(0).integers(0, 256, clips[0].face.shape, np.uint8)
    clips = [dataclasses.replace(clip, audio=sound, face=face, mouth=face[:, 8:-8, 8:-8]) for clip in clips]
    return open_clips([CorpusConfig(str(write_corpus(tmp_path_factory.mktemp("corpora") / "some", clips, 48, 64)))])


def given(babble=()):
    return Given(np.random.default_rng(3), np.array(babble, np.int16))


@pytest.mark.parametrize("name", list(CHANGES))
@pytest.mark.parametrize("last", [True, False])
def test_a_change_keeps_shapes_changes_what_it_is_about_and_is_the_same_each_time(table, name, last):
    change, babble = CHANGES[name], babble_of(table)
    level = change.levels[-1 if last else 0]
    changed = disturbed(table, change, level, babble)
    before, after, again = table.load(1), changed.open(1), disturbed(table, change, level, babble).select(
        np.array([3, 1])
    ).open(1)  # fmt: skip
    for part in ("audio", "mouth", "face"):
        one, other = getattr(before, part), getattr(after, part)
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(other, getattr(again, part))
        sound_alone = change.needs == ("audio",) or name == "offset"
        assert np.array_equal(one, other) == (sound_alone != (part == "audio")), part


def test_noise_is_as_many_decibels_below_what_is_active():
    random = np.random.default_rng(0)
    sound = np.concatenate([np.zeros(16_000), 3000 * np.sin(np.arange(16_000) / 5)]).astype(np.int16)
    noise = random.normal(size=len(sound))
    for decibels in (0, 10):
        added = add_at(sound, noise, decibels).astype(float) - sound
        found = 10 * np.log10(np.square(sound[16_000:].astype(float)).mean() / np.square(added).mean())
        assert found == pytest.approx(decibels, abs=0.1), "silence does not count"
    np.testing.assert_array_equal(add_at(sound, np.zeros(0), 0), sound)


def test_what_is_hidden_lost_frozen_and_late_is_as_much_as_is_said(table):
    clip = table.load(0)
    numbered = np.broadcast_to(np.arange(50, dtype=np.uint8)[:, None, None], clip.face.shape)
    clip = dataclasses.replace(clip, face=numbered, mouth=numbered[:, 8:-8, 8:-8])

    def face(name, level):
        return CHANGES[name].apply(clip, level, given()).face[:, 0, 0]

    assert (face("frozen", 1.0) == 0).all()
    assert face("frozen", 0.5).max() in (24, 25)
    lost = (np.diff(face("dropped", 0.5).astype(int)) == 0).mean()
    assert 0.3 < lost < 0.7
    white = dataclasses.replace(clip, face=np.full_like(clip.face, 255))
    assert (CHANGES["hidden"].apply(white, 0.3, given()).face[0] == 128).mean() == pytest.approx(0.3, abs=0.05)
    late = CHANGES["offset"].apply(clip, 80.0, given()).audio
    np.testing.assert_array_equal(late[1280:], clip.audio[:-1280])
    early = CHANGES["offset"].apply(clip, -80.0, given()).audio
    np.testing.assert_array_equal(early[:-1280], clip.audio[1280:])


def test_what_was_seen_in_the_picture_is_lost_with_it(table, tmp_path):
    """And nothing else: tracks that were not found in the picture stay."""
    found = {name: np.arange(50)[:, None].repeat(dim, 1).astype(np.float16) / 64
             for name, dim in (("blendshapes", 52), ("hands", 146), ("eyes", 2))}  # fmt: skip
    clip = dataclasses.replace(table.load(0), tracks=found)
    for name, last in (("frozen", 0), ("blur", 49)):
        tracks = CHANGES[name].apply(clip, 1.0, given()).tracks
        ends = {track: float(values[-1, 0] * 64) for track, values in tracks.items()}
        assert ends == {"blendshapes": last, "hands": last, "eyes": 49}
    corpus = write_corpus(tmp_path / "tracked", [clip], 48, 64)
    blind = disturbed(open_clips([CorpusConfig(str(corpus))]), lacks=["video"])
    assert list(blind.open(0).tracks) == ["eyes"]
    assert [bool(blind.has(name).any()) for name in found] == [False, False, True]


def test_lacking_modalities_and_shorter_clips_are_known_to_the_table(table):
    blind = disturbed(table, lacks=["video"])
    assert not blind.has("video").any()
    assert blind.has("audio").all()
    short = disturbed(table, seconds=1.0).select(np.array([2, 0]))
    assert short.lengths.tolist() == [25, 25]
    clip = short.open(1)
    assert (clip.num_frames, len(clip.audio), len(clip.face)) == (25, 16_000, 25)

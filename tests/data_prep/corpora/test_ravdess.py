"""RAVDESS: labels from the names; of one take one clip, put together from the files that are there."""

from collections import Counter

import numpy as np
import pytest

from data_prep import media
from data_prep.corpora import ravdess
from data_prep.opening import open_clip
from data_prep.sources import SourceClip
from mmpretrain.records import SAMPLE_RATE_HZ
from tests.data_prep.corpora.trees import check, clips_of, touch


def test_names_carry_the_labels(tmp_path):
    touch(tmp_path / "speech" / "Actor_07" / "03-01-06-02-02-01-07.flac", tmp_path / "Actor_02" / "readme.wav")
    clips = clips_of("ravdess", tmp_path, channel="all")
    assert "not a RAVDESS name" in clips["readme"].refused
    clip = clips["03-01-06-02-02-01-07"]
    assert (clip.speaker, clip.split, clip.official) == ("ravdess-07", "train", ("speech", "01-06-02-02-01-07"))
    assert clip.labels == {
        "emotion": "fearful", "intensity": "strong", "text": "dogs are sitting by the door", "sex": "male",
    }  # fmt: skip
    assert clip.info == {
        "modality": "sound only", "channel": "speech", "intensity": "strong", "statement": 2, "repetition": 1,
    }  # fmt: skip


def test_of_one_take_the_whole_file_is_used_else_its_parts_are_put_together(tmp_path):
    whole, apart, mute, song = "01-05-01-01-01-01", "01-05-01-01-02-01", "01-05-01-02-01-01", "02-05-01-02-01-02"
    for take, modalities in ((whole, "123"), (apart, "23"), (mute, "2"), (song, "3")):
        actor = tmp_path / f"Actor_{take[-2:]}"
        touch(*(actor / f"0{m}-{take}.{'wav' if m == '3' else 'mp4'}" for m in modalities))
    touch(tmp_path / "again" / f"03-{song}.wav")
    clips = clips_of("ravdess", tmp_path, channel="all")
    assert [clip_id for clip_id, clip in clips.items() if not clip.refused] == [
        f"01-{whole}", f"02-{apart}", f"02-{mute}", f"03-{song}",
    ]  # fmt: skip
    assert "with sound and picture is used" in clips[f"02-{whole}"].refused
    assert "used as the sound" in clips[f"03-{apart}"].refused
    assert f"has the name of {tmp_path}/Actor_02/03-{song}.wav, which is used" in clips[f"03-{song}-2"].refused
    joined = clips[f"02-{apart}"]
    assert joined.sound.path.name == f"03-{apart}.wav"
    assert joined.sound.start_sec == pytest.approx(-1 / 29.97, abs=1e-5)  # the sound comes one picture later
    assert clips[f"01-{whole}"].sound is None
    speech = clips_of("ravdess", tmp_path, channel="speech")
    assert speech[f"03-{song}"].refused == "--channel speech leaves it out"


def test_a_copy_of_the_sound_of_a_take_in_two_files_is_no_take_again(tmp_path):
    take = "01-05-01-01-02-01"
    one, again = tmp_path / "Actor_01", tmp_path / "audio_speech_actors_01-24" / "Actor_01"
    touch(one / f"02-{take}.mp4", one / f"03-{take}.wav", again / f"03-{take}.wav", again / f"02-{take}.mp4")
    clips = clips_of("ravdess", tmp_path, channel="all")
    assert [clip_id for clip_id, clip in clips.items() if not clip.refused] == [f"02-{take}"]
    assert "used as the sound" in clips[f"03-{take}"].refused
    for modality, suffix in (("02", "mp4"), ("03", "wav")):
        why = f"has the name of {one}/{modality}-{take}.{suffix}, which is used"
        assert clips[f"{modality}-{take}-2"].refused == why


@pytest.mark.parametrize(
    "name", ["03-01-01-02-01-01-01", "03-02-07-01-01-01-01", "03-02-03-01-01-01-18", "03-01-03-01-01-01-25"]
)
def test_takes_that_were_never_recorded_are_not_believed(tmp_path, name):
    touch(tmp_path / f"{name}.wav")
    assert clips_of("ravdess", tmp_path, channel="all")[name].refused


def test_all_takes_are_named_by_their_rule_and_those_that_are_missing_are_said(tmp_path, capsys):
    takes = list(ravdess.takes())
    assert Counter(take.part for take in takes) == ravdess.CORPUS.official
    touch(*(tmp_path / f"Actor_{name[-2:]}" / f"03-{name}.wav" for part, name in takes if part == "speech"))
    assert check(capsys, "ravdess", tmp_path, "speech")[0] == 0
    assert check(capsys, "ravdess", tmp_path)[0] == 1
    (tmp_path / "Actor_24" / "03-01-08-02-02-02-24.wav").unlink()
    code, said = check(capsys, "ravdess", tmp_path, "speech")
    assert code == 1
    assert "MISSING: speech: 1,439 of 1,440 recordings; 1 are listed and not here: 01-08-02-02-02-24" in said


@pytest.mark.parametrize("take", ["01-01-01-01-01-01", "01-08-01-01-02-01"])
def test_sound_put_to_a_picture_is_where_it_is_in_the_whole_file(real_data, tmp_path, take):
    whole = real_data / "av" / "ravdess" / "orig" / f"01-{take}.mp4"
    (tmp_path / f"02-{take}.mp4").symlink_to(whole)
    (tmp_path / f"03-{take}.flac").symlink_to(real_data / "audio" / "ravdess_speech" / "Actor_01" / f"03-{take}.flac")
    clip = clips_of("ravdess", tmp_path)[f"02-{take}"]
    joined, there = (
        media.audio_samples(open_clip(each)[1])[: 2 * SAMPLE_RATE_HZ].astype(float)
        for each in (clip, SourceClip("a", whole))
    )
    lags = np.arange(-800, 801)
    inner = slice(8000, -8000)
    likeness = [np.corrcoef(np.roll(joined, lag)[inner], there[inner])[0, 1] for lag in lags]
    assert max(likeness) > 0.98
    assert abs(lags[int(np.argmax(likeness))]) <= 16  # a thousandth of a second; without the shift it is 33


def test_the_real_recordings_are_whole_and_one_of_them_has_two_names(real_data, capsys):
    code, said = check(capsys, "ravdess", real_data / "audio" / "ravdess_speech", "speech")
    assert code == 0
    assert "same bytes: 03-01-03-01-02-01-07.flac = 03-01-03-01-02-02-07.flac" in said
    assert "1,440 of 1,440 clips can be prepared, of 24 speakers" in said

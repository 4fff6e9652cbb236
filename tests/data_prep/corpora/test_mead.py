"""MEAD: pictures from several sides, each take's sound beside them, and the real clips under their own names."""

from data_prep.opening import open_clip
from tests.data_prep.authored import tone, write_mp4, write_wav
from tests.data_prep.corpora.trees import check, clips_of, touch


def test_of_seven_views_one_is_taken_with_the_sound_beside_it(tmp_path):
    person = tmp_path / "MEAD" / "M003"
    touch(*(person / "video" / view / "angry" / "level_3" / "001.mp4" for view in ("front", "left_30", "top")))
    touch(person / "audio" / "angry" / "level_3" / "001.m4a", person / "audio" / "fear" / "level_1" / "002.m4a")
    touch(person / "video" / "front" / "neutral" / "level_2" / "001.mp4", person / "video" / "front" / "readme.mp4")
    clips = clips_of("mead", tmp_path, view="front")
    kept = {clip_id: clip for clip_id, clip in clips.items() if not clip.refused}
    assert sorted(kept) == ["M003/front/angry/level_3/001", "M003/sound/fear/level_1/002"]
    front = kept["M003/front/angry/level_3/001"]
    assert front.sound.path == person / "audio" / "angry" / "level_3" / "001.m4a"
    assert (front.speaker, front.labels) == (
        "mead-M003", {"emotion": "angry", "intensity": "high", "language": "en", "sex": "male"},
    )  # fmt: skip
    assert front.info == {"emotion": "angry", "level": 3, "view": "front"}
    assert kept["M003/sound/fear/level_1/002"].labels["emotion"] == "fearful"
    assert clips["M003/left_30/angry/level_3/001"].refused == "--view front leaves it out"
    assert "used as the sound" in clips["M003/sound/angry/level_3/001"].refused
    assert "neutral has level_1 only" in clips["M003/front/neutral/level_2/001"].refused
    assert "not a place of MEAD" in clips["readme"].refused
    everywhere = clips_of("mead", person, view="all")  # one person's folder is as good as all
    assert sum(clip.labels.get("emotion") == "angry" and not clip.refused for clip in everywhere.values()) == 3


def test_picture_and_sound_come_from_their_own_files(tmp_path):
    place = "angry/level_3/001"
    (tmp_path / "W009" / "audio" / place).parent.mkdir(parents=True)
    write_mp4(tmp_path / "W009" / "video" / "front" / f"{place}.mp4")
    write_wav(tmp_path / "W009" / "audio" / f"{place}.wav", tone(0.4))
    clip = clips_of("mead", tmp_path, view="front")["W009/front/angry/level_3/001"]
    opened, sound = open_clip(clip)
    assert (opened.has_picture, opened.has_sound) == (True, False)
    assert sound.has_sound
    assert clip.labels["sex"] == "female"


def test_the_real_clips_are_known_by_their_names(real_data, capsys):
    code, said = check(capsys, "mead", real_data / "av" / "mead")
    assert code == 0
    assert "19 of 21 clips can be prepared, of 4 speakers" in said  # one take is there twice, once without its sound
    assert "emotion: angry 3, contempt 2, disgust 2, fearful 2, happy 4, neutral 2, sad 2, surprised 2" in said
    assert "left out 1: not a place of MEAD (M003/video/front/angry/level_3/001) (sad)" in said

"""VoxCeleb2: pictures and sounds in two trees, people held out whole, and lists of languages."""

from pathlib import Path

import pytest

from tests.data_prep.corpora.trees import check, clips_of, touch, write

META = "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \nid00017 ,n000017 ,f ,test \n"


@pytest.fixture
def tree(tmp_path):
    for place in ("dev/{}/id00012/21Uxsk56VDQ/00001", "dev/{}/id00012/-1Uxsk56VDQ/00002", "test/{}/id00017/a/00001"):
        touch(tmp_path / f"{place.format('mp4')}.mp4")
    touch(tmp_path / "dev/aac/id00012/21Uxsk56VDQ/00001.m4a", tmp_path / "dev/aac/id00020/x/00001.m4a")
    touch(tmp_path / "stray.mp4")
    write(tmp_path / "vox2_meta.csv", META)
    return tmp_path


def test_pictures_are_joined_with_their_sounds(tree, capsys):
    clips = clips_of("voxceleb2", tree, validation_share=0.0)
    assert {clip_id: clip.split for clip_id, clip in clips.items() if not clip.refused} == {
        "dev/id00012/21Uxsk56VDQ/00001": "train", "dev/id00012/-1Uxsk56VDQ/00002": "train",
        "test/id00017/a/00001": "test", "dev/id00020/x/00001": "train",
    }  # fmt: skip
    first = clips["dev/id00012/21Uxsk56VDQ/00001"]
    assert first.sound.path.suffix == ".m4a"
    assert (first.speaker, first.labels["sex"]) == ("vox-id00012", "male")
    assert clips["dev/id00012/-1Uxsk56VDQ/00002"].sound is None
    assert clips["dev/id00020/x/00001"].path.suffix == ".m4a"
    assert "not a place of VoxCeleb2" in clips["stray.mp4"].refused
    code, said = check(capsys, "voxceleb2", tree, "test")
    assert code == 1
    assert "MISSING: test: 1 of 36,237 recordings" in said


def test_a_sound_is_known_by_its_content_and_not_by_the_way_to_it(tree, monkeypatch):
    def asked(source: Path) -> list:
        return [clip.fingerprint() for clip in clips_of("voxceleb2", source, validation_share=0.0).values()]

    touch(tree / "copy/dev/mp4/id00012/21Uxsk56VDQ/00001.mp4")  # whose reason names the place of the other
    before = asked(tree)
    monkeypatch.chdir(tree)
    assert asked(Path(".")) == before, "the same files, named from another folder"
    touch(tree / "dev/aac/id00012/21Uxsk56VDQ/00001.m4a")  # fetched anew
    assert asked(tree) != before


def test_people_are_held_out_whole(tmp_path):
    touch(*(tmp_path / "dev" / "mp4" / f"id{k % 40:05d}" / "v" / f"{k:05d}.mp4" for k in range(200)))
    of_person = {}
    for clip in clips_of("voxceleb2", tmp_path, validation_share=0.3).values():
        of_person.setdefault(clip.speaker, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in of_person.values())
    assert set.union(*of_person.values()) == {"train", "validation"}


def test_a_language_list_keeps_what_it_names(tree, tmp_path):
    def kept(lines: str, language: str = "") -> dict[str, str]:
        listed = write(tmp_path / "list.txt", lines)
        clips = clips_of("voxceleb2", tree, validation_share=0.0, language_list=listed, language=language)
        return {clip_id: clip.labels["language"] for clip_id, clip in clips.items() if not clip.refused}

    first, second = "dev/id00012/21Uxsk56VDQ/00001", "dev/id00012/-1Uxsk56VDQ/00002"
    assert kept(f"{first}\n") == {first: ""}
    assert kept("dev/mp4/id00012/21Uxsk56VDQ/00001.mp4\n", "en") == {first: "en"}
    assert kept(f"{first},en\n{second},FR\n") == {first: "en", second: "fr"}
    assert kept(f"{first}\ten\n{second}\tFR\n", "fr") == {second: "fr"}
    with pytest.raises(ValueError, match="--language en needs --language-list"):
        clips_of("voxceleb2", tree, validation_share=0.0, language="en")

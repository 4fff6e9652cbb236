"""What a record and its index keep of a clip: tracks and labels of every kind, and what a schema refuses."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest

from mmpretrain import records
from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.index import Index, read_index, write_index
from mmpretrain.records import Clip, IndexRow, Schema, TrackSpec
from tests.corpus_fixture import make_clip, write_corpus

COLUMNS = {
    "emotion": "class", "moods": "classes", "valence": "value", "text": "text", "phones": "tokens",
}  # fmt: skip
SCHEMA = Schema(8, 24, {"units": TrackSpec((), "int32"), "hands": TrackSpec((2, 3))}, COLUMNS)


@pytest.fixture(scope="module")
def told():
    """A clip with a label of every kind and a track nobody has heard of."""
    hands = np.random.default_rng(0).random((10, 2, 3)).astype(np.float32)
    labels = {
        "emotion": "angry", "moods": ("grim", "loud"), "valence": 0.1, "text": "gr\u00fc\u00df dich",
        "phones": np.array([3, 1, 4], np.int32),
    }  # fmt: skip
    return make_clip("told", 10, size=8, tracks={"hands": hands}, labels=labels, info={"take": 2})


@pytest.fixture(scope="module")
def mixed(told, tmp_path_factory):
    """The table of three corpora: the first with all columns, the second with fewer, the third without any."""
    root = tmp_path_factory.mktemp("mixed")
    mute = dataclasses.replace(make_clip("mute", 12, size=8), tracks={})
    other = make_clip("other", 14, size=12, labels={"emotion": "sad", "arousal": -1})
    paths = [
        write_corpus(root / "rich", [told, mute], 8, 24, COLUMNS),
        write_corpus(root / "poor", [other], 12, 28, {"emotion": "class", "arousal": "value"}),
        write_corpus(root / "bare", [dataclasses.replace(mute, clip_id="bare")], 8, 24, {}),
    ]
    return open_clips([CorpusConfig(str(path)) for path in paths])


def clip_of(table, clip_id) -> Clip:
    return table.load(table.clip_ids.index(clip_id))


def test_tracks_and_labels_of_every_kind_come_back(mixed, told):
    clip = clip_of(mixed, "rich/told")
    assert clip.labels.keys() == COLUMNS.keys()
    np.testing.assert_array_equal(clip.labels["phones"], told.labels["phones"])
    assert clip.labels["phones"].dtype == np.int32
    rest = {name: value for name, value in told.labels.items() if name != "phones"}
    assert {name: clip.labels[name] for name in rest} == rest
    assert clip.tracks.keys() == {"units", "hands"}
    for name, track in clip.tracks.items():
        np.testing.assert_array_equal(track, told.tracks[name])
        assert track.dtype == told.tracks[name].dtype
    assert clip.info == {"take": 2}


def test_a_clip_lacks_what_it_or_its_corpus_does_not_have(mixed):
    assert clip_of(mixed, "rich/mute").tracks == clip_of(mixed, "rich/mute").labels == {}
    assert clip_of(mixed, "bare/bare").tracks == clip_of(mixed, "bare/bare").labels == {}
    other = clip_of(mixed, "poor/other")
    assert other.labels == {"emotion": "sad", "arousal": -1.0}
    assert other.tracks.keys() == {"units"}
    assert other.mouth.shape == (14, 12, 12)


def test_the_table_knows_without_touching_a_clip(mixed):
    of = {clip_id: i for i, clip_id in enumerate(mixed.clip_ids)}
    order = [of[clip_id] for clip_id in ("rich/told", "rich/mute", "poor/other", "bare/bare")]
    assert mixed.has("hands")[order].tolist() == [True, False, False, False]
    assert mixed.has("units")[order].tolist() == [True, False, True, False]
    assert mixed.has("audio").all()
    assert not mixed.has("pitch").any()

    def column(name):
        return [mixed.label(name)[i] for i in order]

    assert column("emotion") == ["angry", "", "sad", ""]
    assert column("moods") == [("grim", "loud"), (), (), ()]
    np.testing.assert_array_equal(column("valence"), [0.1, math.nan, math.nan, math.nan])
    np.testing.assert_array_equal(column("arousal"), [math.nan, math.nan, -1.0, math.nan])
    assert column("text") == [9, 0, 0, 0]
    assert column("phones") == [3, 0, 0, 0]
    assert mixed.label("phones").dtype == np.int32
    assert mixed.select(np.array(order[2:])).label("emotion") == ["sad", ""]


def test_a_label_that_no_corpus_has_is_refused(mixed):
    columns = "arousal, emotion, moods, phones, text, valence"
    with pytest.raises(ValueError, match=rf"bare have no label column 'valense' \(columns: {columns}\); use a corpus"):
        mixed.label("valense")


def test_corpora_that_mean_something_else_by_a_label_are_refused(tmp_path):
    words = write_corpus(tmp_path / "words", [make_clip("a", 6, size=8)], 8, 24, {"valence": "class"})
    numbers = write_corpus(tmp_path / "numbers", [make_clip("a", 6, size=8)], 8, 24, {"valence": "value"})
    message = r"the label 'valence' is of kind 'value' in 'numbers', but 'class' in a corpus before it; leave one"
    with pytest.raises(ValueError, match=message):
        open_clips([CorpusConfig(str(words)), CorpusConfig(str(numbers))])


def test_the_index_comes_back_as_it_was(told, tmp_path):
    rows = [IndexRow.of(told, SCHEMA), IndexRow.of(dataclasses.replace(told, labels={}, tracks={}), SCHEMA)]
    records.dataset_dir(tmp_path).mkdir(parents=True)
    write_index(tmp_path, "train", Index.of(rows, SCHEMA.labels))
    index = read_index(tmp_path, "train")
    assert [index.row(i) for i in range(2)] == rows
    assert rows[0].has == ("audio", "video", "hands", "units")
    assert rows[1].has == ("audio", "video")


def test_content_hash_covers_every_array_by_name_and_no_label(told):
    def content(clip):
        return IndexRow.of(clip, SCHEMA).content_hash

    def with_tracks(**tracks):
        return dataclasses.replace(told, tracks=tracks)

    units, hands = told.tracks["units"], told.tracks["hands"]
    hashes = [
        content(clip)
        for clip in (
            told, with_tracks(units=units), with_tracks(units=units + 1), with_tracks(phones=units),
            dataclasses.replace(told, mouth=told.face), dataclasses.replace(told, audio=told.audio + 1),
        )
    ]  # fmt: skip
    assert len(set(hashes)) == len(hashes)
    assert content(with_tracks(hands=hands, units=units)) == content(told), "whatever the order"
    assert content(with_tracks(hands=hands, units=units, pitch=units[:0])) == content(told), "empty is absent"
    assert content(dataclasses.replace(told, labels={})) == content(told)


@pytest.mark.parametrize(
    "empty", [{"emotion": ""}, {"moods": ()}, {"valence": math.nan}, {"text": ""}, {"phones": np.zeros(0, np.int32)}]
)
def test_empty_labels_are_left_out(empty):
    assert Clip("a", *[np.zeros(0, np.int16)] * 3, labels=empty).labels == {}


def test_a_schema_goes_to_json_and_back():
    assert Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"mood": "grim"},
            "clip 'a' has a label 'mood' ('grim'), but the label columns of its corpus are emotion, moods, valence, "
            "text, phones; declare it in the corpus's schema or leave it out",
        ),
        ({"emotion": 3}, "clip 'a': label 'emotion' is 3, but its column is of kind 'class'; give one word"),
        ({"emotion": "wistful"}, "clip 'a': label 'emotion' is 'wistful', but its words are neutral, calm, happy"),
        ({"moods": ["grim"]}, "label 'moods' is ['grim'], but its column is of kind 'classes'; give a tuple of words"),
        ({"valence": "high"}, "label 'valence' is 'high', but its column is of kind 'value'; give a number, NaN for"),
        ({"valence": True}, "label 'valence' is True, but its column is of kind 'value'"),
        ({"text": 7}, "label 'text' is 7, but its column is of kind 'text'; give a string"),
        ({"phones": np.arange(3.0)}, "its column is of kind 'tokens'; give an int32 array [N], empty for none"),
    ],
)
def test_a_wrong_label_is_refused(labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        records.encode_clip(make_clip("a", 5, size=8, labels=labels), SCHEMA)


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        (
            {"pitch": np.zeros(5, np.float32)},
            "clip 'a' has a track 'pitch', but the tracks of its corpus are units, hands; declare it in the corpus's",
        ),
        (
            {"hands": np.zeros((5, 2), np.float32)},
            "clip 'a': track 'hands' is float32 [5, 2], but its corpus declares float32 [5, 2, 3] for a clip of 5 "
            "frames; convert it, or change the corpus's schema",
        ),
        ({"hands": np.zeros((4, 2, 3), np.float32)}, "float32 [4, 2, 3], but its corpus declares float32 [5, 2, 3]"),
        ({"hands": np.zeros((5, 2, 3))}, "track 'hands' is float64 [5, 2, 3], but its corpus declares float32 [5, 2"),
    ],
)
def test_a_wrong_track_is_refused(tracks, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        records.encode_clip(make_clip("a", 5, size=8, tracks=tracks), SCHEMA)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": {"emotion": "word"}}, "label 'emotion' has the kind 'word'; use one of class, classes, value, te"),
        ({"labels": {"Emotion": "class"}}, "a track or label cannot be called 'Emotion'; use small letters, digits"),
        ({"tracks": {"audio": TrackSpec()}}, "cannot be called 'audio'; use small letters, digits and _, and another"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        Schema(8, 24, **columns)

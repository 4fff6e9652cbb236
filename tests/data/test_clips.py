"""The table of clips: what it takes from the corpora, what it leaves out, and what it refuses."""

import dataclasses
import json
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmpretrain import records
from mmpretrain.config import CorpusConfig, DataConfig
from mmpretrain.config.checks import check
from mmpretrain.data.clips import open_clips, training_and_validation
from mmpretrain.files import DamagedError
from mmpretrain.index import read_index, write_index
from mmpretrain.prepared import finish_corpus
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import tiny_run


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """`split` has all splits; `plain` has training clips only, of 10 to 49 frames, every fourth without video."""
    root = tmp_path_factory.mktemp("corpora")
    split = [
        make_clip(
            f"c{i}", 20 + i, split=records.SPLITS[i % 3], speaker=f"s{i % 4}", labels={"emotion": "happy"}, size=8
        )
        for i in range(9)
    ]
    plain = [make_clip(f"c{i}", 10 + i, video=i % 4 > 0, speaker=f"p{i % 5}", size=8) for i in range(40)]
    return {
        "split": str(write_corpus(root / "split", split, 8, 24)),
        "plain": str(write_corpus(root / "plain", plain, 8, 24)),
    }


def data_of(*paths, **fields):
    return DataConfig(corpora=tuple(CorpusConfig(path) for path in paths), **fields)


def test_table_says_what_loading_finds(corpora):
    table = open_clips([CorpusConfig(corpora["plain"], weight=0.5)])
    assert len(table) == 40
    assert set(table.weights) == {0.5}
    for i in range(0, 40, 7):
        clip = table.load(i)
        assert clip.clip_id == table.clip_ids[i]
        assert clip.num_frames == table.lengths[i]
        assert (len(clip.audio) > 0, len(clip.mouth) > 0) == (table.has("audio")[i], table.has("video")[i])
    assert table.lengths.dtype == np.int32
    assert table.index.fingerprint() == json.loads(Path(corpora["plain"], "corpus.json").read_text())["fingerprint"]


def test_blendshapes_come_back_and_the_table_knows_who_has_them(tmp_path):
    scores = np.random.default_rng(0).random((12, records.NUM_BLENDSHAPES)).astype(np.float16)
    clips = [make_clip("with", 12, size=8, tracks={"blendshapes": scores}), make_clip("without", 12, size=8)]
    table = open_clips([CorpusConfig(str(write_corpus(tmp_path / "c", clips, 8, 24)))])
    for i, clip_id in enumerate(table.clip_ids):
        loaded = table.load(i).tracks.get("blendshapes")
        if clip_id == "with":
            assert loaded.dtype == np.float16
            np.testing.assert_array_equal(loaded, scores)
        else:
            assert loaded is None
        assert table.has("blendshapes")[i] == (clip_id == "with")
    schema = records.read_schema(tmp_path / "c")
    other = dataclasses.replace(clips[0], tracks=clips[0].tracks | {"blendshapes": scores * 0})
    assert records.IndexRow.of(other, schema).content_hash != records.IndexRow.of(clips[0], schema).content_hash


def test_a_corpus_of_another_version_is_refused(corpora, tmp_path):
    shutil.copytree(corpora["split"], tmp_path / "old")
    records.dataset_dir(tmp_path / "old").rename(tmp_path / "old" / records.DATASET_NAME / "1.0.0")
    message = f"old' holds records of version 1.0.0, but this program reads {records.DATASET_VERSION}; prepare it again"
    with pytest.raises(ValueError, match=re.escape(message)):
        open_clips([CorpusConfig(str(tmp_path / "old"))])


def test_several_corpora_name_their_clips(corpora):
    table = open_clips([CorpusConfig(corpora["split"]), CorpusConfig(corpora["plain"], weight=3)], ["train"])
    assert len(set(table.clip_ids)) == len(table) == 43
    assert sorted(table.clip_ids[:3]) == ["split/c0", "split/c3", "split/c6"]
    assert table.load(5).clip_id == table.clip_ids[5]
    assert table.load(5).num_frames == table.lengths[5]
    assert table.weights.tolist() == [1] * 3 + [3] * 40


def test_what_was_said_of_clips_is_in_the_fingerprint_of_their_corpus_alone(tmp_path):
    def table(name, **fields):
        clips = [make_clip(f"c{i}", 20, size=8, **{"speaker": "s", "labels": {"text": "a b"}} | fields) for i in (1, 2)]
        return open_clips([CorpusConfig(str(write_corpus(tmp_path / name, clips, 8, 24)))])

    changes = [{}, {"labels": {"text": "b a"}}, {"labels": {"text": "a b", "emotion": "sad"}}, {"speaker": "t"}]
    tables = [table(f"corpus{number}", **fields) for number, fields in enumerate(changes)]
    assert len({table.index.fingerprint() for table in tables}) == len(tables)
    assert len({table.fingerprint for table in tables}) == 1, "clips are the same to those who do not read their labels"
    assert tables[2].index.fingerprint("labels/emotion") != tables[0].index.fingerprint("labels/emotion")
    assert tables[3].index.fingerprint("labels/emotion") == tables[0].index.fingerprint("labels/emotion")
    assert table("again").index.fingerprint() == tables[0].index.fingerprint()


@pytest.mark.parametrize("name", ["index-train.npz", "index-validation.npz", "features.json", "dataset_info.json"])
@pytest.mark.parametrize("change", ["flip", "cut", "empty", "remove"])
def test_no_changed_file_of_a_corpus_is_believed(corpora, tmp_path, name, change):
    file = records.dataset_dir(shutil.copytree(corpora["split"], tmp_path / "split")) / name
    _refused_after(file, change, tmp_path)


@pytest.mark.parametrize("name", ["corpus.json", "digests.json"])
@pytest.mark.parametrize("change", ["flip", "cut", "empty", "remove"])
def test_nor_what_says_what_they_were(corpora, tmp_path, name, change):
    _refused_after(shutil.copytree(corpora["split"], tmp_path / "split") / name, change, tmp_path)


@pytest.mark.parametrize("change", ["cut", "empty", "remove"])
def test_nor_a_shard_of_another_size(corpora, tmp_path, change):
    folder = records.dataset_dir(shutil.copytree(corpora["split"], tmp_path / "split"))
    _refused_after(next(folder.glob("*train*array_record*")), change, tmp_path)


def _refused_after(file, change, folder):
    """Every bit flip that is tried, or the one other change, is refused by the file's name and with the remedy."""
    content = file.read_bytes()
    places = np.random.default_rng(0).integers(0, 8 * len(content), 12).tolist() if change == "flip" else [None]
    for place in places:
        if change == "remove":
            file.unlink()
        else:
            changed = bytearray(content)
            if place is not None:
                changed[place // 8] ^= 1 << place % 8
            file.write_bytes({"cut": content[: len(content) * 2 // 3], "empty": b"", "flip": changed}[change])
        names = rf"({file.name}|corpus\.json)" if file.name == "digests.json" else re.escape(file.name)
        with pytest.raises((ValueError, FileNotFoundError), match=rf"{names}.*--output {folder}"):
            open_clips([CorpusConfig(str(folder / "split"))])


def test_an_index_with_other_labels_is_refused_as_damaged(corpora, tmp_path):
    path = Path(shutil.copytree(corpora["split"], tmp_path / "split"))
    index = read_index(path, "train")
    sad = dataclasses.replace(index.labels["emotion"], words=("sad",))
    write_index(path, "train", dataclasses.replace(index, labels={**index.labels, "emotion": sad}))
    with pytest.raises(DamagedError, match=r"index-train\.npz"):
        open_clips([CorpusConfig(str(path))])


def test_fingerprint_follows_the_selection(corpora):
    table = open_clips([CorpusConfig(corpora["plain"])])
    assert table.select(np.arange(39)).fingerprint != table.fingerprint
    assert table.select(np.arange(40)).fingerprint == table.fingerprint


def test_table_pickles_and_serves_threads(corpora):
    table = open_clips([CorpusConfig(corpora["plain"])])
    table.load(0)
    table = pickle.loads(pickle.dumps(table))
    with ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(table.load, range(40)))
    assert [clip.clip_id for clip in clips] == table.clip_ids


def test_validation_is_the_split_where_there_is_one(corpora):
    training, validation = training_and_validation(data_of(corpora["split"]))
    assert set(training.index.splits) == {"train"}
    assert set(validation.index.splits) == {"validation"}
    assert len(training) == len(validation) == 3


def test_validation_is_held_out_by_clip_id_elsewhere(corpora):
    training, validation = training_and_validation(data_of(corpora["plain"], validation_share=0.25))
    assert not set(training.clip_ids) & set(validation.clip_ids)
    assert len(training) + len(validation) == 40
    assert 4 <= len(validation) <= 16
    # The same clips, whatever else is in the mixture.
    _, mixed = training_and_validation(data_of(corpora["plain"], corpora["split"], validation_share=0.25))
    assert [name for name in mixed.clip_ids if name.startswith("plain/")] == [f"plain/{c}" for c in validation.clip_ids]


def test_held_out_share_has_at_least_one_clip_unless_it_is_0(corpora):
    assert len(training_and_validation(data_of(corpora["plain"], validation_share=1e-9))[1]) == 1
    assert len(training_and_validation(data_of(corpora["plain"], validation_share=0.0))[1]) == 0


def test_a_corpus_has_its_own_share_held_out_whatever_its_splits(corpora):
    data = data_of(corpora["plain"], corpora["split"], validation_share=0.25)
    data.corpora[0].validation_share = 0.0
    training, validation = training_and_validation(data)
    assert {clip_id.split("/")[0] for clip_id in validation.clip_ids} == {"split"}
    assert len(training) == 40 + 3
    data.corpora[1].validation_share = 0.0
    training, validation = training_and_validation(data)
    assert (len(training), len(validation)) == (40 + 6, 0), "the clips of its split validation are trained on too"


def test_validation_is_capped_for_each_corpus_by_clip_id(corpora):
    data = data_of(corpora["plain"], corpora["split"], validation_share=0.5)
    training, validation = training_and_validation(data)
    data.max_validation_clips = 2
    capped_training, capped = training_and_validation(data)
    assert [name.split("/")[0] for name in capped.clip_ids] == ["plain"] * 2 + ["split"] * 2
    assert set(capped.clip_ids) < set(validation.clip_ids)
    assert len(capped_training) + len(capped) == len(training) + len(validation) - 1, "but for one of the split"
    assert not set(capped_training.clip_ids) & set(capped.clip_ids)
    data.max_validation_clips = 0
    assert training_and_validation(data)[1].clip_ids == validation.clip_ids


def test_filters(corpora):
    data = data_of(
        corpora["plain"], exclude_speakers=("p1", "p3"), min_frames=20, bucket_frames=(30, 40), long_clips="drop"
    )
    for table in training_and_validation(data):
        assert not set(table.speakers) & {"p1", "p3"}
        assert table.lengths.min() >= 20
        assert table.lengths.max() <= 40
    cropping = training_and_validation(dataclasses.replace(data, long_clips="crop"))
    assert max(table.lengths.max() for table in cropping) == 49


def test_a_part_of_a_corpus_by_speakers_hours_and_language(corpora, tmp_path):
    data = data_of(corpora["plain"], corpora["split"], validation_share=0.2)
    data.corpora[0].speakers = ("p1", "p3")
    train, validation = training_and_validation(data)
    names = {"p1", "p3"} | {f"s{i}" for i in range(4)}
    assert set(train.speakers) | set(validation.speakers) <= names
    data.corpora[0].speakers = ()
    whole, validated = training_and_validation(data)
    ids = []
    for seconds in (6, 12, 10_000):
        data.corpora[0].hours = seconds / 3600
        train, validation = training_and_validation(data)
        assert validation.clip_ids == validated.clip_ids
        plain = [i for i, name in enumerate(train.clip_ids) if name.startswith("plain/")]
        frames = int(train.lengths[plain].sum())
        assert (
            frames == int(whole.lengths.sum() - train.lengths.sum() + frames)
            or 25 * seconds - 50 < frames <= 25 * seconds
        )
        ids.append({train.clip_ids[i] for i in plain})
        assert sum(name.startswith("split/") for name in train.clip_ids) == 3, "the other corpus is whole"
    assert ids[0] < ids[1] < ids[2], "more hours hold all of fewer"
    data.corpora[0].speakers = ("Anna",)
    with pytest.raises(ValueError, match=r"speakers=\('Anna',\) of .*plain: no clip is of 'Anna'; there are \['p0', "):
        training_and_validation(data)
    clips = [make_clip(f"c{i}", 20, size=8, labels={"language": ("fi", "en")[i % 2]}) for i in range(6)]
    path = write_corpus(tmp_path / "two", clips, 8, 24, {"language": "class"})
    corpus = CorpusConfig(str(path), languages=("fi",))
    train, _ = training_and_validation(DataConfig(corpora=(corpus,), validation_share=0.0))
    assert sorted(train.clip_ids) == ["c0", "c2", "c4"]


def test_require_drops_clips_without_any_of_the_modalities(corpora):
    table = open_clips([CorpusConfig(corpora["plain"])])
    assert len(table.require(("audio", "video"))) == 40
    assert len(table.require(("video",))) == 30
    with pytest.raises(
        ValueError, match=r"model\.modalities=\('video',\), but none of the 10 clips of .*plain has video"
    ):
        table.select(~table.has("video")).require(("video",))


def test_missing_corpus_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere' does not exist; make it with `python -m data_prep"):
        open_clips([CorpusConfig(str(tmp_path / "nowhere"))])
    with pytest.raises(ValueError, match=r"data\.corpora is empty"):
        open_clips([])


def test_half_written_corpus_is_refused(tmp_path):
    path = write_corpus(tmp_path / "half", [make_clip("a", 9, size=8)], 8, 24)
    (path / "corpus.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"half' is not a whole corpus: .* --output .*half`"):
        open_clips([CorpusConfig(str(path))])


def test_corpora_of_one_name_are_refused(corpora):
    with pytest.raises(ValueError, match=r"called \['plain', 'plain'\]"):
        open_clips([CorpusConfig(corpora["plain"]), CorpusConfig(corpora["plain"])])


def test_nothing_left_is_refused(corpora):
    with pytest.raises(
        ValueError, match=r"no clip to train on \(40 shorter than data\.min_frames=500, 0 for validation\)"
    ):
        training_and_validation(data_of(corpora["plain"], min_frames=500))
    with pytest.raises(ValueError, match=r"plain has no clip in test"):
        open_clips([CorpusConfig(corpora["plain"])], ["test"])


def test_unknown_speaker_is_refused(corpora):
    with pytest.raises(ValueError, match=r"data\.exclude_speakers=\['Anna'\]: no clip .* \['p0', 'p1'"):
        training_and_validation(data_of(corpora["plain"], exclude_speakers=("Anna", "p1")))


def test_broken_record_is_an_error_that_names_the_clip(tmp_path):
    clips = [make_clip(f"c{i}", 100, size=8) for i in range(3)]
    for clip in clips:  # noise, so that the file is as long as the clips
        clip.face[:] = np.random.default_rng(0).integers(0, 256, clip.face.shape)
    path = write_corpus(tmp_path / "broken", clips, 8, 24)
    (shard,) = records.dataset_dir(path).glob("face-*array_record*")
    content = bytearray(shard.read_bytes())
    content[100_000:101_000] = bytes(1000)
    shard.write_bytes(content)
    table = open_clips([CorpusConfig(str(path))])
    with pytest.raises(ValueError, match=r"clip 'c\d' \(record \d of 'train' in .*broken\) cannot be read"):
        [table.load(i) for i in range(3)]


def test_index_that_does_not_match_its_records_is_refused(tmp_path):
    path = write_corpus(tmp_path / "mixed", [make_clip(f"c{i}", 30 + i, size=8) for i in range(2)], 8, 24)
    index = read_index(path, "train").take(np.array([1, 0]))
    write_index(path, "train", index)
    finish_corpus(path, "mixed", records.read_schema(path), {"train": index}, wall_time_sec=0)
    with pytest.raises(ValueError, match=r"index-train\.npz says that record 0 is .* prepare the corpus again"):
        open_clips([CorpusConfig(str(path))]).load(0)


def test_a_part_of_a_corpus_is_for_pretraining_alone():
    config = tiny_run()
    config.data.corpora[0].hours = 1.0
    check(config)
    config.finetune.corpora = (CorpusConfig("labelled", speakers=("a",)),)
    with pytest.raises(ValueError, match=r"finetune\.corpora\[0\]\.speakers=.*pretraining alone"):
        check(config)

"""The target store: what is written is what is read, nothing half-written opens, and nothing that disagrees does."""

import json

import numpy as np
import pytest

from mmpretrain.targets.kmeans import Codebook
from mmpretrain.targets.store import FORMAT, LabelProgress, codebook_hash, open_store, store_fingerprint, write_store

CLIPS = {"b/2": [4, 4, 0], "a 1": [1], "empty": [], "c": [2, 0, 0, 0, 1]}
FIELDS = {
    "features": "hidden",
    "layer": 9,
    "source": "0123456789abcdef",
    "corpus_fingerprint": "feedbeef",
    "fit_splits": ["train"],
    "fit_clips": 2,
    "fit_frames": 8,
    "quality": {"pnmi": 0.25},
}


def write(path, clips=CLIPS, num_clusters=5, **kwargs):
    centroids = np.arange(num_clusters * 3, dtype=np.float32).reshape(num_clusters, 3)
    return write_store(
        path,
        clip_ids=list(clips),
        ids_per_clip=(np.array(ids, np.int32) for ids in clips.values()),
        codebook=Codebook(centroids, 1.5),
        lineage_fields=FIELDS,
        **kwargs,
    )


def change_lineage(path, **changes):
    lineage = json.loads((path / "lineage.json").read_text()) | changes
    (path / "lineage.json").write_text(json.dumps(lineage))


def test_clips_come_back_as_they_were(tmp_path):
    write(tmp_path / "t")
    store = open_store(tmp_path / "t", expect_num_clusters=5, expect_fingerprint="feedbeef")
    for clip_id, ids in CLIPS.items():
        np.testing.assert_array_equal(store.clip(clip_id), ids)
        assert store.clip(clip_id).dtype == np.int32
    assert store.ids.dtype == np.uint16
    assert isinstance(store.ids, np.memmap)
    np.testing.assert_array_equal(store.codebook.centroids, np.arange(15).reshape(5, 3))
    assert store.codebook.inertia == 1.5


def test_lineage_says_where_the_targets_come_from_and_counts_them(tmp_path):
    lineage = write(tmp_path / "t").lineage
    assert FIELDS.items() <= lineage.items()
    assert lineage["counts"] == [4, 2, 1, 0, 2]
    assert (lineage["clusters_used"], lineage["num_clusters"], lineage["feature_dim"]) == (4, 5, 3)
    assert (lineage["num_clips"], lineage["num_frames"], lineage["targets_per_frame"]) == (4, 9, 1)


def test_many_clusters_need_wider_ids(tmp_path):
    store = write(tmp_path / "t", {"a": [70_000, 0]}, num_clusters=70_001)
    assert store.ids.dtype == np.uint32
    assert store.clip("a").tolist() == [70_000, 0]


def test_lengths_may_differ_by_one_frame(tmp_path):
    store = write(tmp_path / "t")
    store.check_lengths(["c", "b/2", "a 1"], [6, 2, 1])
    with pytest.raises(ValueError, match=r"clip 'b/2' has 3 targets but 5 frames; remove .* make the targets again"):
        store.check_lengths(["c", "b/2"], [5, 5])
    with pytest.raises(ValueError, match="clip 'new' has no targets"):
        store.check_lengths(["new"], [5])
    with pytest.raises(ValueError, match="clip 'new' has no targets"):
        store.clip("new")


def test_a_stopped_write_leaves_no_store_and_can_be_repeated(tmp_path, monkeypatch):
    path = tmp_path / "t"

    def stop_half_way(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mmpretrain.targets.store.write_json", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            write(path)
    with pytest.raises(FileNotFoundError):
        open_store(path)
    with pytest.raises(FileNotFoundError):
        open_store(path.with_name("t.draft"))
    assert not path.exists()
    write(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t"]


def test_a_whole_store_is_not_overwritten(tmp_path):
    write(tmp_path / "t")
    with pytest.raises(FileExistsError, match="is there already; remove the folder"):
        write(tmp_path / "t")


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"expect_num_clusters": 6}, r"num_clusters is 5 but 6 was expected; set targets.num_clusters=5, or remove"),
        ({"expect_feature_dim": 39}, r"feature_dim of the codebook is 3 but 39 was expected; .*set targets.features"),
        ({"expect_fingerprint": "dead"}, r"corpus_fingerprint is 'feedbeef' but 'dead' was expected; .*data.corpora"),
        (
            {"expect_targets_per_frame": 4},
            r"targets_per_frame is 1 but 4 was expected; set reference.targets_per_frame=1",
        ),
    ],
)
def test_a_store_that_is_not_the_run_s_does_not_open(tmp_path, expected, message):
    write(tmp_path / "t")
    with pytest.raises(ValueError, match=message):
        open_store(tmp_path / "t", **expected)


@pytest.mark.parametrize("name", ["lineage.json", "ids.npy", "offsets.npy", "codebook.npy", "clip_ids.json"])
@pytest.mark.parametrize("keep", [None, 0, 0.6])
def test_a_missing_or_truncated_file_does_not_open(tmp_path, name, keep):
    path = tmp_path / "t"
    write(path)
    if keep is None:
        (path / name).unlink()
        with pytest.raises(FileNotFoundError, match=rf"{name} is missing.*make the targets again"):
            open_store(path)
    else:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: int(keep * len(content))])
        with pytest.raises(ValueError, match=r"damaged file .* make the targets again"):
            open_store(path)


def test_damage_that_keeps_the_files_readable_does_not_open(tmp_path):
    path = tmp_path / "t"

    def refused(message, name, array):
        whole = np.load(path / name)
        np.save(path / name, array)
        with pytest.raises(ValueError, match=message):
            open_store(path)
        np.save(path / name, whole)

    store = write(path)
    ids, centroids = np.array(store.ids), store.codebook.centroids
    refused("has id 5 but num_clusters is 5", "ids.npy", np.where(ids == 4, 5, ids).astype(np.uint16))
    refused("frames per cluster in ids.npy is", "ids.npy", np.zeros_like(ids))
    refused("length of ids.npy is 8 but 9", "ids.npy", ids[1:])
    refused("length of offsets.npy is 4 but 5", "offsets.npy", store.offsets[1:])
    refused("first and last offset", "offsets.npy", store.offsets + 1)
    refused("codebook.npy is empty", "codebook.npy", centroids[:0])
    refused(r"shape of codebook.npy is \(5, 2\) but \(5, 3\)", "codebook.npy", centroids[:, :2])
    refused("codebook_hash is", "codebook.npy", centroids + 1)
    change_lineage(path, num_clips=3)
    with pytest.raises(ValueError, match="number of clip ids is 4 but 3"):
        open_store(path)


def test_a_lineage_of_another_version_does_not_open(tmp_path):
    write(tmp_path / "t")
    (tmp_path / "t" / "lineage.json").write_text('{"frame_rate_hz": 25}')
    with pytest.raises(ValueError, match=r"is a target store of format None, but this version reads .*make the targ"):
        open_store(tmp_path / "t")
    (tmp_path / "t" / "lineage.json").write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(ValueError, match=r"lineage.json lacks clusters_used, codebook_hash, .*make the targets again"):
        open_store(tmp_path / "t")


def test_ids_that_cannot_be_are_not_written(tmp_path):
    for ids, message in (([5], "not all in 0..4"), ([-1], "not all in 0..4"), ([], "no frames")):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "t", {"a": ids})
    with pytest.raises(ValueError, match="2 clips are labelled for 1 distinct of 2 ids"):
        write_store(
            tmp_path / "t",
            clip_ids=["a", "a"],
            ids_per_clip=[np.array([0]), np.array([1])],
            codebook=Codebook(np.zeros((2, 1), np.float32), 0.0),
            lineage_fields=FIELDS,
        )
    assert not (tmp_path / "t").exists()


def test_labelling_goes_on_where_it_stopped(tmp_path):
    first = LabelProgress(tmp_path / "work", "f1")
    assert first.ids == {}
    first.add(["b", "a"], [np.array([3, 1]), np.array([], int)])
    first.add(["c"], [np.array([2, 2, 2])])
    (tmp_path / "work" / "f1" / "part-0-00002.npz.draft").write_bytes(b"killed here")
    again = LabelProgress(tmp_path / "work", "f1")
    assert sorted(again.ids) == ["a", "b", "c"]
    again.add(["d"], [np.array([0])])
    merged = LabelProgress(tmp_path / "work", "f1").merge(["a", "b", "c", "d"])
    assert [ids.tolist() for ids in merged] == [[], [3, 1], [2, 2, 2], [0]]
    with pytest.raises(KeyError):
        again.merge(["e"])


def test_validation_is_not_labelled_by_another_codebook_than_training(tmp_path):
    LabelProgress(tmp_path / "work", "f1").add(["a"], [np.array([1])])
    with pytest.raises(ValueError, match=r"another codebook or recipe \(f1, not f2\); remove .* to label all clips"):
        LabelProgress(tmp_path / "work", "f2")
    LabelProgress(tmp_path / "work", "f1").remove()
    assert LabelProgress(tmp_path / "work", "f2").ids == {}


def test_a_frame_may_have_several_ids_of_which_the_first_is_its_target(tmp_path):
    write(tmp_path / "t", {"a": [4, 0, 0, 0, 3, 1, 1, 1], "b": [2, 2, 2, 2]}, targets_per_frame=4)
    store = open_store(tmp_path / "t", expect_targets_per_frame=None)
    assert store.targets_per_frame == 4
    assert (store.frames("a").tolist(), store.frames("b").tolist()) == ([4, 3], [2])
    assert len(store.clip("a")) == 8
    store.check_lengths(["a", "b"], [3, 1])
    with pytest.raises(ValueError, match="clip 'a' has 8 targets but 4 frames"):
        store.check_lengths(["a"], [4])
    change_lineage(tmp_path / "t", targets_per_frame=0)
    with pytest.raises(ValueError, match=r"targets_per_frame is 0, not 1 or more; remove .*again"):
        open_store(tmp_path / "t", expect_targets_per_frame=None)


def test_a_store_knows_which_clips_it_has(tmp_path):
    store = write(tmp_path / "t")
    assert all(clip_id in store for clip_id in CLIPS)
    assert "new" not in store


def test_the_fingerprint_changes_with_what_made_the_targets_and_with_what_they_are(tmp_path):
    prints = [
        store_fingerprint(write(tmp_path / name, clips, targets_per_frame=per_frame).path)
        for name, clips, per_frame in (
            ("a", CLIPS, 1), ("again", CLIPS, 1), ("other ids", CLIPS | {"a 1": [3]}, 1), ("other rate", CLIPS, 4)
        )
    ]  # fmt: skip
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    change_lineage(tmp_path / "a", source="another encoder")
    assert store_fingerprint(tmp_path / "a") != prints[0]
    with pytest.raises(FileNotFoundError, match=r"lineage\.json is missing: .* make the targets first"):
        store_fingerprint(tmp_path / "nowhere")


def test_codebook_hash_sees_values_and_shape():
    codes = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert codebook_hash(codes) == codebook_hash(np.asfortranarray(codes).astype(np.float64))
    assert len({codebook_hash(codes), codebook_hash(codes.reshape(3, 2)), codebook_hash(codes + 1)}) == 3

"""The target store: what is written is what is read, nothing half-written opens, and nothing that disagrees does."""

import itertools
import json

import numpy as np
import pytest

from mmpretrain.files import DamagedError, seal
from mmpretrain.records import Clip
from mmpretrain.targets.kmeans import Codebook
from mmpretrain.targets.row_targets import RowTargets
from mmpretrain.targets.store import FORMAT, codebook_hash, open_store, store_fingerprint, write_store

CLIPS = {"b/2": [4, 4, 0], "a 1": [1], "empty": [], "c": [2, 0, 0, 0, 1]}
FIELDS = {
    "features": "hidden",
    "relative_to": "",
    "centres": "",
    "layer": 9,
    "source": "0123456789abcdef",
    "clips": "feedbeef",
    "fit_splits": ["train"],
    "fit_clips": 2,
    "fit_frames": 8,
}


def write(path, clips=CLIPS, num_clusters=5, **kwargs):
    centroids = np.arange(num_clusters * 3, dtype=np.float32).reshape(num_clusters, 3)
    write_store(
        path,
        clip_ids=list(clips),
        offsets=np.cumsum([0, *map(len, clips.values())]),
        ids_N=np.array([*itertools.chain(*clips.values())], np.int32),
        codebook=Codebook(centroids, 1.5),
        lineage_fields=FIELDS,
        **kwargs,
    )
    return open_store(path, expect_targets_per_frame=None)


def change_lineage(path, **changes):
    """As if it had been written so."""
    lineage = json.loads((path / "lineage.json").read_text()) | changes
    (path / "lineage.json").write_text(json.dumps(lineage))
    seal(path)


def test_clips_come_back_as_they_were(tmp_path):
    write(tmp_path / "t")
    store = open_store(tmp_path / "t", expect_num_clusters=5, expect_clips="feedbeef")
    assert store.clip_ids == tuple(CLIPS)
    for row, ids in enumerate(CLIPS.values()):
        np.testing.assert_array_equal(store.row(row), ids)
        assert store.row(row).dtype == np.int32
    assert store.ids.dtype == np.uint16
    assert isinstance(store.ids, np.memmap)
    np.testing.assert_array_equal(store.codebook.centroids, np.arange(15).reshape(5, 3))
    assert store.codebook.inertia == 1.5


def test_lineage_says_where_the_targets_come_from_and_counts_them(tmp_path):
    lineage = write(tmp_path / "t").lineage
    assert FIELDS.items() <= lineage.items()
    assert lineage["counts"] == [4, 2, 1, 0, 2]
    assert (lineage["clusters_used"], lineage["num_clusters"], lineage["feature_dim"]) == (4, 5, 3)
    assert lineage["quality"]["mean_run_frames"] == 9 / 6
    assert (lineage["num_clips"], lineage["num_frames"], lineage["targets_per_frame"]) == (4, 9, 1)


def test_many_clusters_need_wider_ids(tmp_path):
    store = write(tmp_path / "t", {"a": [70_000, 0]}, num_clusters=70_001)
    assert store.ids.dtype == np.uint32
    assert store.row(0).tolist() == [70_000, 0]


def test_true_units_are_counted_by_cluster_and_kept(tmp_path):
    unit_counts = np.array([[4, 0, 0, 0, 0], [0, 2, 1, 0, 2]])
    store = write(tmp_path / "t", unit_counts=unit_counts)
    np.testing.assert_array_equal(store.unit_counts, unit_counts)
    assert (store.lineage["quality"]["purity"], store.lineage["quality"]["cluster_purity"]) == (1, 6 / 9)
    without = write(tmp_path / "none")
    assert without.unit_counts is None
    assert "purity" not in without.lineage["quality"]


def test_lengths_may_differ_by_one_frame(tmp_path):
    store = write(tmp_path / "t")
    store.check_lengths(np.array([4, 0, 1, 6]))
    with pytest.raises(ValueError, match=r"clip 'b/2' has 3 targets but 5 frames; remove .* make the targets again"):
        store.check_lengths(np.array([5, 1, 0, 9]))
    with pytest.raises(ValueError, match=r"has 4 clips, not 3; remove .* make the targets again"):
        store.check_lengths(np.array([3, 1, 0]))


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
        (
            {"expect_num_clusters": 6},
            r"num_clusters is 5 but 6 was expected; set targets.num_clusters=5, or remove all of its st",
        ),
        ({"expect_feature_dim": 39}, r"feature_dim of the codebook is 3 but 39 was expected; .*set targets.features"),
        ({"expect_clips": "dead"}, r"clips is 'feedbeef' but 'dead' was expected; .*data.corpora"),
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


FILES = ["lineage.json", "ids.npy", "offsets.npy", "codebook.npy", "clip_ids.json", "unit_counts.npy", "digests.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [None, 0, 0.6])
def test_a_missing_or_truncated_file_does_not_open(tmp_path, name, keep):
    path = tmp_path / "t"
    write(path, unit_counts=np.ones((2, 5), int))
    if keep is None:
        (path / name).unlink()
        error, message = (FileNotFoundError, DamagedError), rf"{name}.* missing"
    else:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: int(keep * len(content))])
        error, message = DamagedError, rf"{name}.* damaged"
    with pytest.raises(error, match=message + ".*make the targets again"):
        open_store(path)


def test_no_bit_of_a_store_can_change(tmp_path):
    """Of every fifth byte of every file, headers, padding and numbers alike."""
    path = tmp_path / "t"
    write(path, unit_counts=np.ones((2, 5), int))
    tried = 0
    for name in FILES:
        whole = (path / name).read_bytes()
        for place in range(0, len(whole), 5):
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            (path / name).write_bytes(changed)
            with pytest.raises(ValueError, match="make the targets again"):
                open_store(path)
            tried += 1
        (path / name).write_bytes(whole)
    assert tried > 300
    open_store(path)


def test_damage_that_makes_sense_does_not_open(tmp_path):
    """Offsets that moved, ids and clip ids that were swapped: counts and lengths are as they were."""
    path = tmp_path / "t"
    store = write(path)

    def refused(name, write_it):
        whole = (path / name).read_bytes()
        write_it(path / name)
        with pytest.raises(DamagedError, match=rf"{name} is damaged: it is not what was written.*make the targets"):
            open_store(path)
        (path / name).write_bytes(whole)

    refused("ids.npy", lambda file: np.save(file, np.array(store.ids)[::-1]))
    refused("offsets.npy", lambda file: np.save(file, np.array([0, 2, 4, 4, 9])))
    refused("codebook.npy", lambda file: np.save(file, store.codebook.centroids[::-1]))
    refused("clip_ids.json", lambda file: file.write_text(json.dumps(list(CLIPS)[::-1])))
    (path / "extra.npy").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"extra.npy was not there"):
        open_store(path)


def test_a_lineage_of_another_version_does_not_open(tmp_path):
    write(tmp_path / "t")
    (tmp_path / "t" / "lineage.json").write_text('{"frame_rate_hz": 25}')
    with pytest.raises(ValueError, match=r"is a target store of format None, but this version reads .*make the targ"):
        open_store(tmp_path / "t")
    (tmp_path / "t" / "lineage.json").write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(
        ValueError, match=r"lineage.json lacks centres, clips, clusters_used, codebook_hash, .*make the targets again"
    ):
        open_store(tmp_path / "t")


def test_ids_that_cannot_be_are_not_written(tmp_path):
    for ids, message in (([5], "not all in 0..4"), ([-1], "not all in 0..4"), ([], "no frames")):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "t", {"a": ids})
    with pytest.raises(ValueError, match="2 clips are labelled for 1 distinct of 2 ids"):
        write_store(
            tmp_path / "t",
            clip_ids=["a", "a"],
            offsets=np.arange(3),
            ids_N=np.array([0, 1]),
            codebook=Codebook(np.zeros((2, 1), np.float32), 0.0),
            lineage_fields=FIELDS,
        )
    assert not (tmp_path / "t").exists()


def test_a_frame_may_have_several_ids_of_which_the_first_is_its_target(tmp_path, monkeypatch):
    store = write(
        tmp_path / "t", {"a": [4, 0, 0, 0, 3, 1, 1, 1], "b": [2, 2, 2, 2], "c": [3, 0, 0]}, targets_per_frame=4
    )
    assert store.targets_per_frame == 4
    assert len(store.row(0)) == 8
    for block in (1, 2, 100):
        monkeypatch.setattr("mmpretrain.targets.store._GATHER_FRAMES", block)
        assert store.counts(np.array([0, 1, 2])).tolist() == [0, 0, 1, 2, 1]
        assert store.counts(np.array([2])).tolist() == [0, 0, 0, 1, 0]
        assert store.counts(np.zeros(0, int)).tolist() == [0] * 5
    store.check_lengths(np.array([3, 1, 1]))
    with pytest.raises(ValueError, match="clip 'a' has 8 targets but 4 frames"):
        store.check_lengths(np.array([4, 1, 1]))


def test_a_table_asks_by_its_rows(tmp_path):
    store = write(tmp_path / "t")
    targets = RowTargets(store.ids, store.offsets, np.array([3, -1, 0]))
    clip = Clip("any", *[np.zeros(0)] * 3)
    assert targets.of(0, clip).tolist() == CLIPS["c"]
    assert targets.of(1, clip) is None
    assert targets.of(2, clip).tolist() == CLIPS["b/2"]


def test_the_fingerprint_changes_with_what_made_the_targets_and_with_what_they_are(tmp_path):
    prints = [
        store_fingerprint(write(tmp_path / name, clips, targets_per_frame=per_frame).path)
        for name, clips, per_frame in (
            ("a", CLIPS, 1), ("again", CLIPS, 1), ("other ids", CLIPS | {"a 1": [3]}, 1), ("other rate", CLIPS, 4),
            ("swapped", CLIPS | {"b/2": [4, 0, 4]}, 1),
        )
    ]  # fmt: skip
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
    change_lineage(tmp_path / "a", source="another encoder")
    assert store_fingerprint(tmp_path / "a") != prints[0]
    with pytest.raises(FileNotFoundError, match=r"digests\.json is missing: .* make the targets first"):
        store_fingerprint(tmp_path / "nowhere")


def test_codebook_hash_sees_values_and_shape():
    codes = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert codebook_hash(codes) == codebook_hash(np.asfortranarray(codes).astype(np.float64))
    assert len({codebook_hash(codes), codebook_hash(codes.reshape(3, 2)), codebook_hash(codes + 1)}) == 3

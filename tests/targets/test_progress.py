"""Labels on their way to a store: parts of many clips, nothing believed that is not as it was written."""

import itertools

import numpy as np
import pytest

from mmpretrain.files import DamagedError
from mmpretrain.targets import parts, progress
from mmpretrain.targets.progress import Labelled, LabelProgress, select_ids


def labelled(rows, *ids, units=None):
    return Labelled(
        np.array(rows), np.array([*map(len, ids)]), np.array([*itertools.chain(*ids)], np.int32),
        None if units is None else np.array(units, np.int32),
    )  # fmt: skip


def begin(folder, fingerprint="f1", **sizes):
    return LabelProgress(folder / "work", fingerprint, **dict(num_clips=4, num_clusters=9) | sizes)


def parts_of(folder):
    return sorted((folder / "work").glob("*/part-*"))


def test_labelling_goes_on_where_it_stopped(tmp_path):
    first = begin(tmp_path)
    assert first.find() == []
    first.add(labelled([1, 0], [3, 1], []))
    first.flush()
    first.add(labelled([2], [2, 2, 2]))
    assert len(parts_of(tmp_path)) == 1, "what has come is written when it is enough"
    first.flush()
    (tmp_path / "work" / "f1" / "part-0123.npz.draft").write_bytes(b"killed here")
    again = begin(tmp_path)
    assert sorted(again.find()) == sorted(first.written)
    assert again.done.tolist() == [True, True, True, False]
    with pytest.raises(KeyError, match="3"):
        again.merge(again.find())
    other = begin(tmp_path)  # another process
    other.add(labelled([3], [0]))
    other.flush()
    merged = again.merge([*again.find(), *other.written])
    assert (merged.offsets.tolist(), merged.ids.tolist()) == ([0, 0, 2, 5, 6], [3, 1, 2, 2, 2, 0])
    assert merged.unit_counts is None


def test_a_part_is_written_when_there_is_enough_or_it_has_been_long(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "PART_FRAMES", 5)
    kept = begin(tmp_path)
    kept.add(labelled([0], [1, 2, 3]))
    assert parts_of(tmp_path) == []
    kept.add(labelled([1], [1, 2]))
    assert len(parts_of(tmp_path)) == 1
    monkeypatch.setattr(parts, "PART_SEC", 0.0)
    kept.add(labelled([2], [1]))
    assert len(parts_of(tmp_path)) == 2
    kept.flush()
    assert len(kept.written) == 2


def test_a_clip_that_two_processes_labelled_counts_once_and_units_are_counted_by_cluster(tmp_path):
    one, two = begin(tmp_path), begin(tmp_path)
    one.add(labelled([0, 1], [1, 1], [2], units=[0, -1, 3]))
    one.flush()
    two.add(labelled([3], [4], units=[3]))
    two.add(labelled([1, 2], [2], [5, 6]))
    two.flush()
    assert len(parts_of(tmp_path)) == 2
    merged = begin(tmp_path).merge(one.written + two.written)
    assert (merged.offsets.tolist(), merged.ids.tolist()) == ([0, 2, 3, 5, 6], [1, 1, 2, 5, 6, 4])
    assert {(u, k): int(merged.unit_counts[u, k]) for u, k in np.argwhere(merged.unit_counts)} == {
        (0, 1): 1, (3, 2): 1, (3, 4): 1,
    }  # fmt: skip


@pytest.mark.parametrize(("num_clusters", "size"), [(65536, 2), (65537, 4)])
def test_ids_take_two_bytes_where_they_fit(tmp_path, num_clusters, size):
    kept = begin(tmp_path, num_clips=1, num_clusters=num_clusters)
    ids = [0, num_clusters - 1] * 5000
    kept.add(labelled([0], ids))
    kept.flush()
    (part,) = parts_of(tmp_path)
    assert size * 10_000 < part.stat().st_size < size * 10_000 + 2000
    merged = kept.merge(kept.written)
    assert (merged.ids.itemsize, merged.ids.tolist()) == (size, ids)


def damages(content):
    """Cut at every length of a few, and one bit changed at places all over."""
    for length in (0, 1, len(content) // 2, len(content) - 1):
        yield content[:length]
    for place in range(0, len(content), 11):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        yield bytes(changed)


def test_a_part_that_was_cut_or_changed_is_thrown_away_with_a_line(tmp_path, capsys):
    kept = begin(tmp_path)
    kept.add(labelled([0, 1], [3, 1], [2, 2]))
    kept.flush()
    kept.add(labelled([2], [7]))
    kept.flush()
    broken = tmp_path / "work" / "f1" / kept.written[0]
    content, tried = broken.read_bytes(), 0
    for damaged in damages(content):
        broken.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"part-.*is damaged"):
            begin(tmp_path).merge(kept.written)
        again = begin(tmp_path)
        assert again.find() == kept.written[1:]
        assert again.done.tolist() == [False, False, True, False]
        assert f"{broken.name} is damaged" in (told := capsys.readouterr().err)
        assert "its clips are made again" in told
        assert not broken.exists()
        tried += 1
    assert tried > 50
    # A part is of one labelling: where it lies counts too.
    (tmp_path / "work" / "f2").mkdir()
    (tmp_path / "work" / "f2" / broken.name).write_bytes(content)
    for part in (tmp_path / "work" / "f1").iterdir():
        part.unlink()
    assert begin(tmp_path, "f2").find() == []


def test_validation_is_not_labelled_by_another_codebook_than_training(tmp_path):
    first = begin(tmp_path)
    first.add(labelled([0], [1]))
    first.flush()
    with pytest.raises(ValueError, match=r"another codebook or recipe \(f1, not f2\); remove .* to label all clips"):
        begin(tmp_path, "f2").find()


def test_real_ids_are_taken_from_rows_with_padding():
    ids = np.array([[1, 2, 9], [9, 9, 9], [3, 4, 5]])
    assert select_ids(ids, np.array([2, 0, 3])).tolist() == [1, 2, 3, 4, 5]

"""A hundred broken files; ten thousand are in tests/endurance/test_media.py."""

import pytest

from tests.data_prep.fuzzing import try_cases


@pytest.mark.multiprocess
def test_every_broken_file_is_a_row_of_the_report(tmp_path):
    counts = try_cases(tmp_path, range(100))
    assert counts.total() == 100
    assert not [kind for kind in counts if "crashed" in kind or "hung" in kind or "killed" in kind]
    assert sum(count for kind, count in counts.items() if "kept" in kind) > 30  # most damage is small

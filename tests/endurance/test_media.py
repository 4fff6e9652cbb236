"""Ten thousand broken media files through the whole command: each is a kept, cut or refused row of the report.

Nine in ten without MediaPipe, which would take most of the time. `MMPRETRAIN_FUZZ_CASES` changes the number.
"""

import os
from collections import Counter

import pytest

from tests.data_prep.fuzzing import try_cases
from tests.data_prep.test_real_clips import MODEL

CASES = int(os.environ.get("MMPRETRAIN_FUZZ_CASES", "10000"))
BATCH = 500


@pytest.mark.endurance
@pytest.mark.timeout(20_000)
def test_no_file_reaches_beyond_its_row(tmp_path, capsys):
    counts: Counter[str] = Counter()
    for number, first in enumerate(range(0, CASES, BATCH)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with_faces = number % 10 == 9 and MODEL.is_file()
        counts += try_cases(folder, range(first, min(first + BATCH, CASES)), MODEL if with_faces else None)
        with capsys.disabled():
            print(capsys.readouterr().out, end="")
    with capsys.disabled():
        for outcome, count in sorted(counts.items()):
            print(f"{count:>6}  {outcome}")
        print(f"{counts.total()} broken files, each a row of the report")
    assert counts.total() == CASES

"""Where the real lists and recordings are."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", Path(__file__).parents[3].parent / "shared"))


@pytest.fixture
def real_data() -> Path:
    if not (data := SHARED / "data").is_dir():
        pytest.skip(f"no real data under {SHARED}; set MMPRETRAIN_SHARED_DIR")
    return data

"""Without torch or transformers these tests are skipped; what `transformers` copies goes to a folder of their own."""

import os
import tempfile

import pytest

if "HF_HOME" not in os.environ:
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-")
for package in ("torch", "transformers"):
    pytest.importorskip(package, reason=f"{package} is not installed (extra `torch`)", exc_type=ImportError)

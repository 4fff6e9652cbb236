"""What all tests share: JAX on the CPU, programs compiled fast and kept in `.jax_cache/`, and `--update-golden`.

The settings are environment variables, so that the processes which a test starts have them too.
"""

import os
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# A test spends most of its time in the compiler and little in what it made: a third less in all.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# And the compiler's older way of writing loops takes a third of the time. Known to JAX 0.7 to 0.10; 0.12, which ends at
# a flag that it does not know, has it no more.
if (0, 7) <= tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 10):
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false " + os.environ.get("XLA_FLAGS", "")

hypothesis.settings.register_profile("untimed", deadline=None)  # other work on the machine is no failure
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write the texts under tests/golden/ anew")


@pytest.fixture
def golden(request):
    """golden(name, text): compares `text` with tests/golden/NAME, or writes it there under --update-golden."""

    def compare(name: str, text: str) -> None:
        file = ROOT / "tests" / "golden" / name
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        assert file.exists(), f"{file} does not exist; write it with `pytest --update-golden`"
        assert text == file.read_text(), f"differs from {file}; if it should, run `pytest --update-golden`"

    return compare

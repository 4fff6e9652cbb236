"""What all tests share: JAX on the CPU, programs compiled fast and kept in `.jax_cache/`, and `--update-golden`.

Most settings are environment variables, so that the processes which a test starts have them too.
"""

import gc
import os
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]
ROOM_BYTES = 2 * 2**30

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# A test spends most of its time in the compiler and little in what it made: a third less in all.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Where in the source each operation of a program is from, which no test asks: a tenth of the time before compiling.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Two workers on two cores: threads of BLAS wait for one another by spinning, a hundred times what they compute.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# And the compiler's older way of writing loops takes a third of the time; small programs are not worth splitting for
# several threads, which other tests have. Known to JAX 0.7 to 0.10; 0.12, which ends at a flag that it does not know,
# has the first no more.
if (0, 7) <= tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 10):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
    os.environ["XLA_FLAGS"] = flags + os.environ.get("XLA_FLAGS", "")

import jax  # noqa: E402

hypothesis.settings.register_profile("untimed", deadline=None)  # other work on the machine is no failure
hypothesis.settings.load_profile("untimed")

# Tracing makes millions of small objects and next to no cycles: looking for those after every 700 takes a twentieth.
gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Files with slow tests come first: at the end one worker would wait for the other."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish():
    gc.freeze()  # what is imported stays


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write the texts under tests/golden/ anew")


@pytest.fixture(scope="session", autouse=True)
def short_refusals():
    """nnx asks each traced counter for its sharding; JAX, which has none, searches the program for what to say: a tenth
    of the time to build a model.
    """
    with pytest.MonkeyPatch.context() as patch:
        message = "jax._src.interpreters.partial_eval.DynamicJaxprTracer._origin_msg"
        patch.setattr(message, lambda self: "", raising=False)
        yield


def resident_bytes() -> int:
    """0 where the system does not say."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else 0


@pytest.fixture(scope="session")
def most_bytes() -> list[int]:
    return [resident_bytes() + ROOM_BYTES]


@pytest.fixture(scope="module", autouse=True)
def little_memory(most_bytes):
    """Forgets compiled programs when they have filled the room: all that a worker compiles would come to 6 GB."""
    yield
    if resident_bytes() > most_bytes[0]:
        jax.clear_caches()
        gc.collect()
        most_bytes[0] = resident_bytes() + ROOM_BYTES


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

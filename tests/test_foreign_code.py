"""Code that lies beside a file, or in the folder that a command is given in, is never run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data_prep.authored import tone, write_wav

ROOT = Path(__file__).parents[1]
# Names that a command imports, or would if they were there: of Python's library, of what is installed, and of what
# libraries look for by themselves.
DECOYS = (
    "abc", "argparse", "ast", "configparser", "csv", "dataclasses", "hashlib", "inspect", "json", "logging", "mmap",
    "multiprocessing", "pathlib", "pickle", "pickletools", "queue", "random", "secrets", "socket", "struct", "tempfile",
    "typing", "zipfile",
    "absl", "av", "cv2", "flax", "grain", "jax", "jaxlib", "librosa", "mediapipe", "ml_collections", "ml_dtypes",
    "numpy", "optax", "orbax", "safetensors", "tensorflow_datasets", "tqdm", "yaml",
    "conftest", "libtpu", "mmpretrain", "sitecustomize", "tensorflow", "torch", "usercustomize", "wandb",
)  # fmt: skip
RUNS = "import pathlib; pathlib.Path({marks!r}, __name__).touch()\n"
RECIPE = """
from mmpretrain.config import CorpusConfig, DataConfig, RoundConfig, RunConfig, encoder_size, mfcc
from {sibling} import SEED

def get_config():
    data = DataConfig(corpora=(CorpusConfig("no_corpus"),))
    return RunConfig("run", SEED, data, encoder_size("tiny"), (RoundConfig(targets=mfcc(5)),))
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of downloads: every decoy leaves a file named after it in `ran` when it is run."""
    here, marks = tmp_path / "downloads", tmp_path / "ran"
    marks.mkdir()
    for decoy in (*DECOYS, "jax_plugins/decoy/__init__"):
        file = here / f"{decoy}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(RUNS.format(marks=str(marks)))
    (here / "decoy.pth").write_text("import " + RUNS.format(marks=str(marks)).partition("import ")[2].strip())
    (here / "decoy-1.dist-info").mkdir()
    (here / "decoy-1.dist-info" / "entry_points.txt").write_text("[jax_plugins]\nmarked = jax_plugins.decoy\n")
    (here / "decoy-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: decoy\nVersion: 1\n")
    (here / "model.pt").write_bytes(b"PK\x03\x04")
    return here


@pytest.fixture
def command(tmp_path, folder):
    """command(form, *arguments): exit code and standard error, run in `folder` as the installed program or by -m."""
    program = tmp_path / "bin" / "mmpretrain"
    program.parent.mkdir()
    program.write_text("from mmpretrain.__main__ import main\nmain()\n")

    def run(form: str, *arguments: str) -> tuple[int, str]:
        start = [str(program)] if form == "installed" else ["-m", form]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, *start, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    return run


def ran(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder.parent / "ran").iterdir())


@pytest.mark.parametrize(
    ("form", "arguments", "words"),
    [
        ("installed", ("import-avhubert", "model.pt", "--output=encoder"), "model.pt: it is damaged"),
        ("mmpretrain", ("import-avhubert", "model.pt", "--output=encoder"), "model.pt: it is damaged"),
        ("mmpretrain", ("status", "."), "is no run"),
        ("data_prep", ("folder", "--source", "videos", "--output", "out"), "videos"),
    ],
)
def test_nothing_beside_a_file_is_run(folder, command, form, arguments, words):
    if form == "mmpretrain":
        (folder / "mmpretrain.py").unlink()  # which Python itself would take for the command
    code, err = command(form, *arguments)
    assert code in (1, 2), err
    assert words in err
    assert ran(folder) == []


def test_no_worker_process_runs_it_either(folder, command):
    write_wav(folder / "videos" / "a.wav", tone(1.0))
    code, err = command("data_prep", "folder", "--source", "videos", "--output", "out", "--workers", "1")
    assert (code, ran(folder)) == (0, []), err
    assert "kept" in (folder / "out" / "report.csv").read_text()


def test_of_a_recipes_folder_only_what_it_asks_for_is_run(folder, command):
    """Names that are installed keep their meaning, and those that are not are no longer found when it has been read."""
    (folder / "mine.py").write_text("SEED = 7\n" + RUNS.format(marks=str(folder.parent / "ran")))
    (folder / "recipe.py").write_text(RECIPE.format(sibling="mine"))
    code, err = command("installed", "refine", "--config=recipe.py")
    assert (code, "no_corpus' does not exist" in err) == (2, True), err
    assert '"seed": 7' in (folder / "run" / "config.json").read_text()
    assert ran(folder) == ["mine"]


@pytest.mark.parametrize("where", ["elsewhere", "."])
def test_recipes_import_one_another(tmp_path, folder, command, where):
    """By the name of their package wherever the command is given, and those of this checkout from anywhere."""
    package = (tmp_path if where == "elsewhere" else folder) / "mine"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "deep/__init__.py"):
        (package / name).touch()
    (package / "shared.py").write_text("from configs import demo\nSEED = demo.get_config().seed + 1\n")
    (package / "deep" / "recipe.py").write_text(RECIPE.format(sibling="mine.shared"))
    code, err = command("installed", "refine", f"--config={os.path.relpath(package / 'deep' / 'recipe.py', folder)}")
    assert (code, "no_corpus' does not exist" in err) == (2, True), err
    assert '"seed": 1338' in (folder / "run" / "config.json").read_text()
    assert ran(folder) == []

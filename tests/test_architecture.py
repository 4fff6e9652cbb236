"""Which room may import which (the arrows of the design), read from the source without running it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("mmpretrain", "data_prep", "configs")

# Room -> what of ours it may import, besides itself. The longest room that fits a module counts.
GROUND = (
    "mmpretrain.records", "mmpretrain.columns", "mmpretrain.storage", "mmpretrain.index", "mmpretrain.prepared",
    "mmpretrain.randomness", "mmpretrain.compiler", "mmpretrain.heap", "mmpretrain.decoding",
    "mmpretrain.output", "mmpretrain.files", "mmpretrain.addresses", "mmpretrain.lease", "mmpretrain.listing",
    "mmpretrain.doubles", "mmpretrain.config", "mmpretrain.features",
)  # fmt: skip
MEANS = (
    *GROUND, "mmpretrain.text", "mmpretrain.data", "mmpretrain.parallel", "mmpretrain.targets", "mmpretrain.encoders",
    "mmpretrain.export", "mmpretrain.evaluation", "mmpretrain.observe", "mmpretrain.report", "mmpretrain.cost",
)  # fmt: skip
LEARNING = ("mmpretrain.models", "mmpretrain.objectives", "mmpretrain.train")
ARROWS = {
    # The ground floor.
    "mmpretrain.records": (),
    "mmpretrain.randomness": (),
    "mmpretrain.compiler": (),
    "mmpretrain.heap": (),
    "mmpretrain.output": (),
    "mmpretrain.files": (),
    "mmpretrain.decoding": (),
    "mmpretrain.addresses": (),
    "mmpretrain.lease": ("mmpretrain.files",),
    "mmpretrain.listing": (),
    "mmpretrain.doubles": ("mmpretrain.index",),
    "mmpretrain.columns": (),
    "mmpretrain.index": ("mmpretrain.columns", "mmpretrain.records", "mmpretrain.randomness", "mmpretrain.files"),
    "mmpretrain.storage": ("mmpretrain.records", "mmpretrain.randomness"),
    "mmpretrain.prepared": ("mmpretrain.index", "mmpretrain.records", "mmpretrain.storage", "mmpretrain.files"),
    "mmpretrain.config": (),
    "mmpretrain.features": ("mmpretrain.records",),
    "mmpretrain.text": ("mmpretrain.records", "mmpretrain.files", "mmpretrain.output", "mmpretrain.decoding"),
    # The mathematics: no mesh, file or process.
    "mmpretrain.models": ("mmpretrain.records", "mmpretrain.randomness", "mmpretrain.config"),
    "mmpretrain.objectives": ("mmpretrain.records", "mmpretrain.randomness", "mmpretrain.config", "mmpretrain.models"),
    # Means: each for its purpose, none knows a run.
    "mmpretrain.data": (*GROUND, "mmpretrain.text"),
    "mmpretrain.observe": ("mmpretrain.records", "mmpretrain.files"),
    "mmpretrain.parallel": ("mmpretrain.config", "mmpretrain.output"),
    "mmpretrain.targets": (*GROUND, "mmpretrain.data", "mmpretrain.parallel", "mmpretrain.observe"),
    "mmpretrain.encoders": (*GROUND, "mmpretrain.data", "mmpretrain.models"),
    "mmpretrain.evaluation": (*GROUND, "mmpretrain.data"),
    "mmpretrain.export": (
        *GROUND, "mmpretrain.data", "mmpretrain.encoders", "mmpretrain.models", "mmpretrain.export.transformers",
    ),
    # copied beside weights, hence complete in themselves
    "mmpretrain.export.transformers.modeling_mmpretrain": ("mmpretrain.export.transformers.heads_mmpretrain",),
    "mmpretrain.export.transformers.heads_mmpretrain": (),
    "mmpretrain.export.transformers.processing_mmpretrain": (),
    "mmpretrain.torch": ("mmpretrain.export", "mmpretrain.files"),
    "mmpretrain.report": ("mmpretrain.records", "mmpretrain.files", "mmpretrain.observe"),
    "mmpretrain.cost": ("mmpretrain.config",),
    "mmpretrain.train": (
        *GROUND, "mmpretrain.models", "mmpretrain.objectives", "mmpretrain.parallel", "mmpretrain.observe",
    ),
    # What a user runs.
    "mmpretrain.run": (*MEANS, *LEARNING),
    "mmpretrain.downstream": (*MEANS, *LEARNING, "mmpretrain.run"),
    "mmpretrain.stages": (*MEANS, *LEARNING, "mmpretrain.run", "mmpretrain.downstream"),
    "mmpretrain.tools": (*MEANS, *LEARNING, "mmpretrain.run", "mmpretrain.downstream"),
    "mmpretrain.predict": (*MEANS, *LEARNING, "mmpretrain.run", "data_prep"),
    "mmpretrain.__main__": (
        "mmpretrain.heap", "mmpretrain.output", "mmpretrain.config", "mmpretrain.parallel", "mmpretrain.run",
        "mmpretrain.stages", "mmpretrain.tools", "mmpretrain.predict",
    ),
    "mmpretrain": ("mmpretrain.predict",),
    "configs": ("mmpretrain.config",),
    "data_prep": (
        "mmpretrain.records", "mmpretrain.storage", "mmpretrain.index", "mmpretrain.prepared", "mmpretrain.features",
        "mmpretrain.output", "mmpretrain.files", "mmpretrain.decoding",
        "mmpretrain.lease", "mmpretrain.listing", "mmpretrain.doubles",
    ),
}  # fmt: skip

# Room -> what of others it may not import.
FILES_AND_PROCESSES = ("os", "pathlib", "io", "shutil", "subprocess", "multiprocessing", "threading", "socket")
JAX = ("jax", "jaxlib", "flax", "optax", "orbax")
PICKLE = ("pickle", "dill", "cloudpickle", "joblib", "torch", "tensorflow")
MEMORY = "mmpretrain.data.shared"  # which pickles for its own processes, and reads no file
# The rooms that write, load and run networks of PyTorch, and read no file of `torch.save`.
TORCH = (
    "mmpretrain.export.transformers", "mmpretrain.export.onnx", "mmpretrain.torch", "mmpretrain.text.transcripts",
    "mmpretrain.encoders.foreign",
)  # fmt: skip
BANS = {
    "mmpretrain.records": JAX,
    "mmpretrain.output": JAX,
    "mmpretrain.columns": JAX,
    "mmpretrain.index": JAX,
    "mmpretrain.prepared": JAX,
    "mmpretrain.files": JAX,
    "mmpretrain.decoding": JAX,
    "mmpretrain.lease": JAX,
    "mmpretrain.listing": JAX,
    "mmpretrain.doubles": JAX,
    "mmpretrain.config": (*JAX, *FILES_AND_PROCESSES, "numpy"),
    "mmpretrain.features": (*JAX, *FILES_AND_PROCESSES),
    "mmpretrain.text": JAX,
    "mmpretrain.data": JAX,
    "mmpretrain.cost": (*JAX, *FILES_AND_PROCESSES),
    "mmpretrain.models": (*FILES_AND_PROCESSES, "jax.sharding"),
    "mmpretrain.objectives": (*FILES_AND_PROCESSES, "jax.sharding"),
    "configs": (*JAX, *FILES_AND_PROCESSES, "numpy"),
    "data_prep": JAX,
}


def modules() -> dict[str, Path]:
    files = [file for package in OURS for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = modules()


def imports(file: Path) -> list[tuple[str, int]]:
    """(module, line) of every import anywhere in the file; `from a import b` counts as a.b where that is a module."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            found += [(name.name, node.lineno) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            # What is copied beside weights finds its neighbours there, as transformers reads it.
            copied = node.level == 1 and file.name.endswith("_mmpretrain.py")
            assert node.level == 0 or copied, f"{file.relative_to(ROOT)}:{node.lineno}: write imports in full"
            module = f"mmpretrain.export.transformers.{node.module}" if copied else node.module
            whole = [f"{module}.{name.name}" for name in node.names]
            found += [(name if name in MODULES else module, node.lineno) for name in whole]
    return sorted(set(found))


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def room_of(module: str) -> str:
    return max((room for room in ARROWS if within(module, room)), key=len)


def turned_arrows(module: str, imported: list[tuple[str, int]], where: str) -> list[str]:
    room = room_of(module)
    wrong = []
    for name, line in imported:
        ours = name.split(".")[0] in OURS
        if ours and room_of(name) != room and not any(within(name, allowed) for allowed in ARROWS[room]):
            may = ", ".join(ARROWS[room]) or "nothing of ours"
            wrong.append(f"{where}:{line}: {room} -> {name} is turned round; {room} may import {may}")
        for banned in PICKLE + tuple(b for r in BANS if within(module, r) for b in BANS[r]):
            may_have_torch = banned == "torch" and any(within(module, room) for room in TORCH)
            if within(name, banned) and not may_have_torch and (module, banned) != (MEMORY, "pickle"):
                wrong.append(f"{where}:{line}: {room} may not import {name}")
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module):
    file = MODULES[module]
    wrong = turned_arrows(module, imports(file), str(file.relative_to(ROOT)))
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_one_another_in_a_circle():
    below = {
        module: {name for name, _ in imports(file) if name in MODULES} - {module} for module, file in MODULES.items()
    }
    while free := [module for module, needed in below.items() if not needed & below.keys()]:
        for module in free:
            del below[module]
    assert not below, f"a circle is among {', '.join(below)}"


def test_a_turned_arrow_is_named():
    wrong = turned_arrows("mmpretrain.models.encoder", [("mmpretrain.train.step", 3), ("os", 4), ("jax", 5)], "FILE")
    assert wrong == [
        "FILE:3: mmpretrain.models -> mmpretrain.train.step is turned round; mmpretrain.models may import "
        "mmpretrain.records, mmpretrain.randomness, mmpretrain.config",
        "FILE:4: mmpretrain.models may not import os",
    ]


def public_functions(body: list[ast.stmt], owner: str = "") -> list[tuple[str, ast.FunctionDef]]:
    """Functions and methods without a leading underscore, and what making and calling an object of a class takes."""
    found = []
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += public_functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (node.name in ("__init__", "__call__") or node.name[0] != "_"):
            found.append((owner + node.name, node))
    return found


def untyped(source: str, where: str) -> list[str]:
    wrong = []
    for name, function in public_functions(ast.parse(source).body):
        given, static = function.args, [ast.unparse(decorator) for decorator in function.decorator_list]
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        own = int("." in name and "staticmethod" not in static)  # `self` and `cls` need no type
        missing = [each.arg for each in arguments[own:] if each is not None and each.annotation is None]
        missing += ["what it returns"] if function.returns is None and not name.endswith(".__init__") else []
        wrong += [f"{where}:{function.lineno}: {name} has no type for {', '.join(missing)}"] if missing else []
    return wrong


@pytest.mark.parametrize("module", [name for name in MODULES if not within(name, "configs")])
def test_public_signatures_are_typed(module):
    file = MODULES[module]
    wrong = untyped(file.read_text(), str(file.relative_to(ROOT)))
    assert not wrong, "\n".join(wrong)


def test_an_untyped_signature_is_named():
    source = """
class Thing:
    def __init__(self, size): ...
    def _private(self, x): ...
    @staticmethod
    def make(kind) -> "Thing": ...
def load(path: str, *, strict, **rest): ...
"""
    assert untyped(source, "FILE") == [
        "FILE:3: Thing.__init__ has no type for size",
        "FILE:6: Thing.make has no type for kind",
        "FILE:7: load has no type for strict, rest, what it returns",
    ]


@pytest.mark.parametrize(
    "module",
    [
        "data_prep.preparation",
        "data_prep.__main__",
        "mmpretrain.config",
        "configs.demo",
        "mmpretrain.run.command",
        "mmpretrain.run.layout",
        "mmpretrain.targets.clip_features",
        "mmpretrain.targets.row_targets",
        "mmpretrain.tools.status",
        "mmpretrain.__main__",
    ],
)
def test_loading_it_does_not_load_jax(module):
    # Also through others, which reading the source of one file cannot see.
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_command_loads_what_it_may_never_use():
    # Importing these takes longer than all the rest of a start: they are imported where they are used.
    heavy = ("sklearn", "scipy.stats", "matplotlib", "PIL", "av", "cv2", "librosa", "numba", "tensorflow_datasets",
             "grain", "transformers", "torch", "mediapipe", "wandb", "tensorboardX")  # fmt: skip
    code = (
        "import sys; from mmpretrain import __main__ as command; list(map(command._load, command.command_names()));"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"


def test_files_are_put_in_their_place_by_one_module():
    by_hand = re.compile(r"os\.(replace|rename)\(|\.rename\(|\.write_text\(")
    found = [
        f"{file.relative_to(ROOT)}:{number}: write it with mmpretrain.files, which leaves it whole or not at all"
        for name, file in MODULES.items()
        if name not in ("mmpretrain.files", "mmpretrain.train.checkpoint")  # the latter puts damaged ones aside
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if by_hand.search(line)
    ]
    assert not found, "\n".join(found)


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_file_names_a_path_of_some_machine():
    # Written so that this file is not found itself.
    machine = re.compile(rb"(?<![\w.$}/])/" + rb"(work|root|home|tmp|Users|mnt)/\w")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.decode(errors='replace').strip()[:100]}"
        for file in tracked_files()
        for number, line in enumerate(file.read_bytes().splitlines(), start=1)
        if b"\0" not in line and machine.search(line)
    ]
    assert not found, "\n".join(found)


def test_python_files_are_ascii_and_short():
    wrong = []
    for file in tracked_files():
        if file.suffix == ".py":
            text = file.read_bytes()
            wrong += [] if text.isascii() else [f"{file.relative_to(ROOT)} is not ASCII"]
            wrong += [] if text.count(b"\n") <= 400 else [f"{file.relative_to(ROOT)} has more than 400 lines"]
    assert not wrong, "\n".join(wrong)

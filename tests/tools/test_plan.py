"""The plan beside what is really placed and exchanged, and the command."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmpretrain.__main__ import main
from mmpretrain.cost.chips import parse_topology
from mmpretrain.tools.plan import Plan
from tests.tiny import tiny_round, tiny_run

ROOT = Path(__file__).parents[2]
RECIPE = """
from mmpretrain.config import CorpusConfig, DataConfig, RoundConfig, RunConfig, encoder_size, mfcc

def get_config():
    return RunConfig(
        workdir="runs/planned",
        data=DataConfig(corpora=(CorpusConfig("no_corpus"),), batch_frames=320, bucket_frames=(10, 20)),
        model=encoder_size("tiny", modalities=("audio",), num_layers=2, dtype="bfloat16"),
        rounds=(RoundConfig(targets=mfcc(50), num_steps=40_000),),
    )
"""


@pytest.fixture(scope="module")
def report():
    done = subprocess.run(
        [sys.executable, "-m", "tests.cost.compiled"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mesh", ["data", "mixed"])
def test_memory_of_the_state_is_what_is_really_there(report, mesh):
    said, there = report[mesh]["said"], report[mesh]["there"]
    assert {part: said[part] for part in there} == there
    # Besides: the step's number and the key; of the batch, labels are not used.
    assert report[mesh]["arguments"] == pytest.approx(sum(said.values()), abs=100)


def test_data_parallelism_sends_each_gradient_around_the_ring(report):
    whole = report["data"]["whole_parameters"]
    assert report["data"]["there"]["parameters"] == whole
    sent = {(c["kind"], tuple(c["axes"])): c["sent"] for c in report["data"]["collectives"]}
    assert sum(sent.values()) == pytest.approx(2 * 7 / 8 * whole, rel=0.05)
    assert max(sent, key=sent.get) == ("all-reduce", ("data",))


def test_each_axis_has_its_own_exchange(report):
    kinds = {(c["kind"], tuple(c["axes"])) for c in report["mixed"]["collectives"]}
    assert ("all-gather", ("fsdp",)) in kinds  # parameters
    assert ("all-reduce", ("tensor",)) in kinds  # sums within a layer
    assert any(kind == "all-reduce" and "data" in axes for kind, axes in kinds)  # gradients


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    (folder / "recipe.py").write_text(RECIPE)
    # libtpu ends the process at a flag that only a CPU's compiler knows, as tests/conftest.py sets one.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", "mmpretrain", "plan", f"--config={folder / 'recipe.py'}", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


GPU_COMPILER = importlib.util.find_spec("jax_plugins") and importlib.util.find_spec("jax_plugins.xla_cuda13")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "compiler"), [("h100:8", "8 virtual CPU devices in place of GPUs"), ("v5e:2x4", "for TPU v5 lite")]
)
def test_the_command_plans_a_recipe_without_corpus_or_chips(tmp_path, topology, compiler):
    if topology.startswith("v5e") and not importlib.util.find_spec("libtpu"):
        pytest.skip("libtpu is not installed: pip install 'mmpretrain-jax[plan]'")
    if topology.startswith("h100") and GPU_COMPILER:
        pytest.skip("the compiler for GPUs is installed")
    done = command(tmp_path, f"--topology={topology}")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert f"Plan for {topology}: 8 chips, mesh data 8, fsdp 1, tensor 1" in text
    assert compiler in text
    assert "Batches of clips x frames: 32 x 10, 16 x 20" in text
    parameters = int(re.search(r"([\d,]+) parameters", done.stderr)[1].replace(",", ""))
    assert re.search(rf"parameters +{4 * parameters / 1e6:.3g} MB", text)
    assert re.search(rf"optimizer state +{8 * parameters / 1e6:.3g} MB", text)
    assert "  fits" in text
    sent = float(re.search(r"all-reduce +data +8 .* ([\d.]+) MB\n", text)[1])
    # A TPU sends the gradients of bfloat16 products as bfloat16 where it may.
    assert 0.4 < sent / (2 * 7 / 8 * 4 * parameters / 1e6) < 1.1
    assert re.search(r"1,024 +\d+\.\d+ ms +\d+\.\d%", text)
    assert re.search(r"all +40,000 ", text)
    assert not (ROOT / "runs" / "planned").exists()


@pytest.mark.slow
@pytest.mark.skipif(not GPU_COMPILER, reason="its compiler is not installed: pip install 'mmpretrain-jax[plan-gpu]'")
def test_a_gpu_that_is_not_here_sends_each_gradient_around_the_ring(tmp_path):
    done = command(tmp_path, "--topology=h200:8", "--config.model.dtype=float32")
    assert done.returncode == 0, done.stderr
    assert "compiled ahead of time for NVIDIA H200 with jax" in done.stdout
    assert not re.search("Traceback|Unable", done.stderr), done.stderr  # JAX has not looked for a GPU
    parameters = int(re.search(r"([\d,]+) parameters", done.stderr)[1].replace(",", ""))
    sent = float(re.search(r"all-reduce +data +8 .* ([\d.]+) MB\n", done.stdout)[1])
    assert sent == pytest.approx(2 * 7 / 8 * 4 * parameters / 1e6, rel=0.01)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("cuDNN not found.", r"model\.attention_dropout=.*cuDNN not found.*pip install nvidia-cudnn-cu13"),
        ("INTERNAL: libdevice not found at ./libdevice.10.bc", r"libdevice or ptxas: pip install .*plan-gpu"),
    ],
)
def test_what_the_compiler_for_gpus_lacks_is_named(missing, words):
    plan = Plan(SimpleNamespace(config=tiny_run(rounds=(tiny_round(),))), parse_topology("h100:8"))

    def lower(*_):
        raise RuntimeError(missing)

    vars(plan).update(state=None, trainer=SimpleNamespace(step=SimpleNamespace(lower=lower)))
    with pytest.raises(ValueError, match=words):
        plan.compile()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan"], "plan needs --topology=CHIP:SHAPE"),
        (["plan", "--topology=a100:8"], "--topology=a100:8 is not known; it is CHIP:SHAPE with a chip of v5e, v5p"),
        (["refine", "--topology=h100:8"], "--topology=h100:8 is for plan, not for refine"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    (tmp_path / "recipe.py").write_text(RECIPE)
    with pytest.raises(SystemExit) as left:
        main([arguments[0], f"--config={tmp_path / 'recipe.py'}", *arguments[1:]])
    assert left.value.code == 2
    assert words in capsys.readouterr().err

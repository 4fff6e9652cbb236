"""Checkpoints: what is saved is what was, while training goes on; only whole ones are found."""

import errno
import itertools
import os
import random
import resource
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mmpretrain import files
from mmpretrain.config import MaskingConfig, OptimizerConfig, ParallelConfig
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.parallel.mesh import make_mesh, shard_batch
from mmpretrain.train.checkpoint import Checkpointer, read
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer
from tests.tiny import random_batch, tiny_model, tiny_round

# Of a checkpoint that cannot be read or written, TensorStore finishes the other arrays after Orbax has given up on
# them, as late as in the next test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def checkpoints(tmp_path):
    """checkpoints(keep=2): opened in one folder, closed after the test."""
    opened = []

    def open_one(keep=2):
        opened.append(Checkpointer(tmp_path / "checkpoints", keep=keep))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def state_of(value: float) -> dict:
    return {"step": jnp.int32(value), "params": {"w": jnp.full((3, 2), value), "half": jnp.ones(2, jnp.bfloat16)}}


def assert_equal(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_training_may_go_on_while_a_checkpoint_is_written(checkpoints):
    model = tiny_model("audio", width=128, mlp_dim=1024, num_layers=4)  # some megabytes, so that writing takes a while
    round_ = tiny_round(masking=MaskingConfig("feature"))
    tx = make_optimizer(OptimizerConfig(peak_lr=1e-2, warmup_steps=0), 100)
    trainer = Trainer(MaskedPrediction(model, round_), tx, make_mesh(ParallelConfig()))
    batch = shard_batch(random_batch((14, 9), model=model), trainer.mesh)
    state, _ = trainer.step(trainer.init(0), batch)
    for attempt in range(3):
        saved = checkpoints(keep=1)
        step, copy = int(state.step), jax.tree.map(np.array, state)
        saved.save(step, state, {"best_value": 0.25})
        for _ in range(5):
            state, _ = trainer.step(state, batch)  # donates the buffers that are being written
        saved.wait()
        restored, extra = saved.restore(state)
        assert extra == {"best_value": 0.25}
        assert_equal(jax.tree.map(np.array, restored), copy)
        assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, state), attempt
    # The restored state is as good as the one that was saved: it trains on to the same numbers.
    for _ in range(5):
        restored, _ = trainer.step(restored, batch)
    assert_equal(restored, state)


def test_the_last_ones_are_kept_and_the_newest_is_restored(checkpoints):
    saved = checkpoints(keep=2)
    assert saved.latest() is None
    for step in (10, 20, 30):
        saved.save(step, state_of(step), {"step": step})
    saved.wait()
    assert saved.latest() == 30
    restored, extra = checkpoints().restore(state_of(0))
    assert_equal(restored, state_of(30))
    assert extra == {"step": 30}
    folder = saved._manager.directory
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ["20", "30"]


def test_a_step_can_be_saved_again(checkpoints):
    saved = checkpoints()
    saved.save(10, state_of(1), {"try": 1})
    saved.save(10, state_of(2), {"try": 2})
    saved.wait()
    restored, extra = checkpoints().restore(state_of(0))
    assert_equal(restored, state_of(2))
    assert extra == {"try": 2}


def test_an_unfinished_checkpoint_is_never_found(checkpoints, tmp_path):
    saved = checkpoints()
    saved.save(10, state_of(1), {})
    saved.wait()
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "10", folder / "20.orbax-checkpoint-tmp-1234")  # as a killed process leaves it
    again = checkpoints()
    assert again.latest() == 10
    again.save(20, state_of(2), {})
    again.wait()
    assert_equal(checkpoints().restore(state_of(0))[0], state_of(2))


DAMAGE = {
    "an array's file is missing": ("state/d/*", None),
    "an array's file is cut in half": ("state/d/*", 0.5),
    "the index is empty": ("state/manifest.ocdbt", 0.0),
    "the list of arrays is cut in half": ("state/_METADATA", 0.5),
    "the extra is missing": ("extra/metadata", None),
    "the digests of the arrays are missing": ("state/digests.json", None),
    "the digests of the extra are cut in half": ("extra/digests.json", 0.5),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(checkpoints, tmp_path, capsys, damage):
    saved = checkpoints(keep=3)
    for step in (10, 20):
        saved.save(step, state_of(step), {"step": step})
    saved.wait()
    pattern, share = DAMAGE[damage]
    files = list((tmp_path / "checkpoints" / "20").glob(pattern))
    assert files
    for file in files:
        content = file.read_bytes()
        file.unlink()
        if share is not None:
            file.write_bytes(content[: int(share * len(content))])
    again = checkpoints(keep=3)
    restored, extra = again.restore(state_of(0))
    assert_equal(restored, state_of(10))
    assert extra == {"step": 10}
    said = capsys.readouterr().err
    assert "20 is damaged" in said
    assert "going on from step 10" in said
    assert again.latest() == 10
    again.save(20, state_of(3), {"step": 20})
    again.wait()
    assert_equal(checkpoints(keep=3).restore(state_of(0))[0], state_of(3))


def flipped(file, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


NOTES_OF_ORBAX = ("_CHECKPOINT_METADATA", "commit_success.txt")  # that nobody reads


def test_no_changed_bit_is_believed(checkpoints, tmp_path, capsys):
    saved = checkpoints(keep=3)
    for step in (10, 20):
        saved.save(step, state_of(step), {"step": step})
    saved.wait()
    draw, folder, whole = random.Random(0), tmp_path / "checkpoints", tmp_path / "whole"
    shutil.copytree(folder, whole)
    names = [path.relative_to(whole / "20") for path in sorted((whole / "20").rglob("*")) if path.is_file()]
    assert len(names) > 10
    for name, _ in itertools.product(names, range(3)):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        bit = draw.randrange(8 * (folder / "20" / name).stat().st_size)
        flipped(folder / "20" / name, bit)
        restored, extra = checkpoints(keep=3).restore(state_of(0))
        said = capsys.readouterr().err
        if name.name in NOTES_OF_ORBAX:
            assert extra == {"step": 20}, (name, bit)
            assert_equal(restored, state_of(20))
        else:
            assert extra == {"step": 10}, (name, bit)
            assert_equal(restored, state_of(10))
            assert "20 is damaged" in said
            assert name.name in said
            assert (folder / "20.damaged").is_dir()


PASSING = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.EMFILE]


@pytest.mark.parametrize("number", PASSING)
@pytest.mark.parametrize("where", ["digest", "[OS error {}: {}]", "{1} [os_error_code='{0}']"])
def test_an_error_of_the_disk_is_no_damage(checkpoints, tmp_path, capsys, monkeypatch, number, where):
    saved = checkpoints(keep=3)
    for step in (10, 20):
        saved.save(step, state_of(step), {"step": step})
    saved.wait()
    monkeypatch.setattr("mmpretrain.train.checkpoint.AGAIN_AFTER_SEC", (0, 0.01))
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    left = 1

    def fails(*_, **__):
        nonlocal left
        if left:
            left -= 1
            if where == "digest":
                raise OSError(number, os.strerror(number), "d/0123")
            try:  # as TensorStore, an older and a newer one, and Orbax say it
                raise ValueError(f"UNKNOWN: Error reading d/0123: {where.format(number, os.strerror(number))}")
            except ValueError as error:
                raise Exception("Encountered error while reading array index: ()") from error
        return real(*_, **__)

    if where == "digest":
        real = files.file_digest
        monkeypatch.setattr(files, "file_digest", fails)
    else:
        real = ocp.StandardCheckpointHandler.restore
        monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", fails)
    restored, extra = checkpoints(keep=3).restore(state_of(0))
    assert_equal(restored, state_of(20))
    assert extra == {"step": 20}
    assert "20 cannot be read" in (said := capsys.readouterr().err)
    assert "trying again in 0 s" in said
    assert "damaged" not in said

    left = 10**6
    for restore in (checkpoints(keep=3).restore, lambda like: read(tmp_path / "checkpoints", 20, like)):
        with pytest.raises(OSError, match=r"20 cannot be read, not in 3 attempts over .* nothing was changed"):
            restore(state_of(0))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before


def test_training_does_not_wait_for_digests_and_a_kill_before_them_leaves_no_checkpoint(
    checkpoints, tmp_path, monkeypatch
):
    begun, may_go_on, real = threading.Event(), threading.Event(), files.file_digest
    monkeypatch.setattr(files, "file_digest", lambda path: begun.set() or (may_go_on.wait(60) and real(path)))
    saved = checkpoints()
    saved.save(10, state_of(1), {})  # returns
    assert begun.wait(60)
    copy = tmp_path / "as_a_kill_leaves_it"
    shutil.copytree(tmp_path / "checkpoints", copy)
    assert not (copy / "10").exists()
    may_go_on.set()
    saved.wait()
    assert checkpoints().latest() == 10
    for item in ("state", "extra"):
        assert (tmp_path / "checkpoints" / "10" / item / files.SEAL).exists()


def test_one_checkpoint_is_read_by_its_step_or_not_at_all(checkpoints, tmp_path):
    saved = checkpoints()
    for step in (10, 20):
        saved.save(step, state_of(step), {})
    saved.wait()
    folder = tmp_path / "checkpoints"
    assert_equal(read(folder, 10, state_of(0)), state_of(10))
    flipped(next((folder / "20" / "state" / "ocdbt.process_0" / "d").iterdir()), 5)
    with pytest.raises(ValueError, match=r"checkpoint 20 cannot be read .*is damaged"):
        read(folder, 20, state_of(0))
    assert (folder / "20").is_dir()


def test_only_damaged_checkpoints_are_an_error_and_stay(checkpoints, tmp_path):
    saved = checkpoints()
    saved.save(10, state_of(1), {})
    saved.wait()
    (tmp_path / "checkpoints" / "10" / "extra" / "metadata").unlink()
    with pytest.raises(ValueError, match=r"none of the checkpoints \[10\] can be read; .* remove the folder to start"):
        checkpoints().restore(state_of(0))
    assert (tmp_path / "checkpoints" / "10").is_dir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/checkpoints cannot be written .* make room or give rights"):
        Checkpointer(tmp_path / "file" / "checkpoints", keep=1)


def test_what_no_disk_would_take_is_no_matter_of_the_disk(checkpoints):
    with pytest.raises(ValueError, match=r"^Cannot save arrays"), checkpoints()._writing():
        raise ValueError("Cannot save arrays with zero size")  # as Orbax says it


def test_a_full_disk_is_said_and_the_checkpoint_before_stays(checkpoints, tmp_path):
    saved = checkpoints()
    saved.save(10, state_of(1), {})
    saved.wait()
    large = state_of(2) | {"large": jax.random.normal(jax.random.key(0), (512, 1024))}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # a write beyond fails, as on a full disk
    try:
        saved.save(20, large, {})
        with pytest.raises(OSError, match=r"checkpoints cannot be written .* make room or give rights"):
            saved.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = checkpoints()
    assert again.latest() == 10
    assert_equal(again.restore(state_of(0))[0], state_of(1))


def test_nothing_saved_is_nothing_latest_and_a_new_folder_is_made(checkpoints, tmp_path):
    assert checkpoints().latest() is None
    assert (tmp_path / "checkpoints").is_dir()

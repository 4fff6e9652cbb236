"""Export of the last round's encoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from flax import nnx

from mmpretrain.__main__ import main
from mmpretrain.addresses import Place, context
from mmpretrain.config import emotion
from mmpretrain.data.exposure import TrainingData
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.folder import read_training_data, save_description, save_encoder
from mmpretrain.encoders.weights import tensors_of
from mmpretrain.files import write_json
from mmpretrain.models.adapters import attach, merge
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.heads import ClipHead
from mmpretrain.run.checkpoint_encoder import DESCRIPTION, encoder_folder
from mmpretrain.run.run import Run
from mmpretrain.stages.export import export
from mmpretrain.train.checkpoint import Checkpointer
from tests.tiny import tiny_model, tiny_round, tiny_run


def test_it_compares_with_the_checkpoint_of_the_encoders_own_step(tmp_path, monkeypatch):
    config = tiny_run(
        workdir=str(tmp_path), model=tiny_model("audio"), rounds=(tiny_round(num_steps=7),), finetune=None
    )
    config.data.batch_multiple = jax.device_count()
    run = Run(config)
    folder = tmp_path / "round1" / "pretrain"
    write_json(folder / "result.json", {"wall_time_sec": 1.0})
    encoder = AVEncoder(config.model, rngs=nnx.Rngs(0))
    save_encoder(folder / "encoder", encoder, lineage={"fingerprint": "0123", "steps": 5})
    with pytest.raises(FileNotFoundError, match=r"checkpoints has no checkpoint of step 5, with which export compares"):
        export(run)

    trainer = run.round(1).trainer
    state = trainer.init(0)
    model = trainer.model(state)
    nnx.update(model.encoder, nnx.state(encoder))
    saved = Checkpointer(folder / "checkpoints", keep=1)
    saved.save(5, trainer.init(1), {})
    saved.wait()
    with pytest.raises(ValueError, match=r"encoder has other weights than the checkpoint of its step 5 in .* remove"):
        export(run)
    saved.save(5, trainer.with_model(state, model), {})  # of a run that was to have 5 steps
    saved.close()
    compared = []
    monkeypatch.setattr(
        "mmpretrain.stages.export._largest_difference", lambda run, trained, path: compared.append(trained) or 0.0
    )
    assert export(run)["path"] == str(tmp_path / "export" / "encoder")
    assert (tmp_path / "export" / "encoder" / "pretraining_head.safetensors").exists()
    result = tmp_path / "export" / "result.json"
    result.unlink()
    file = next((folder / "checkpoints" / "5" / "state" / "ocdbt.process_0" / "d").iterdir())
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    saved = Checkpointer(folder / "checkpoints", keep=2)
    saved.save(4, trainer.with_model(state, model), {})
    saved.close()
    with pytest.raises(ValueError, match=r"checkpoint 5 cannot be read .* is damaged: .* train the round anew"):
        export(run)  # and not the step before
    assert not result.exists()
    for ours, theirs in zip(*(jax.tree.leaves(nnx.state(each)) for each in (compared[0], encoder)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("inner", ["", "encoder", "export/encoder", "round2/pretrain/encoder"])
@pytest.mark.parametrize("address", ["", "memory://bucket/it"])
def test_an_encoder_is_found_in_what_a_run_or_a_stage_left(tmp_path, inner, address):
    write_json(tmp_path / "it" / "config.json", {"workdir": "x", "rounds": []})  # a run has one too
    for number in (1, 2):
        write_json(tmp_path / "it" / f"round{number}" / "pretrain" / "recipe.json", {})
    folder = tmp_path / "it" / inner
    encoder = AVEncoder(tiny_model("audio"), rngs=nnx.Rngs(0))
    save_encoder(folder, encoder, lineage={"fingerprint": "0123"})
    given = upload(tmp_path / "it", f"{address}/{inner or 'itself'}") if address else tmp_path / "it"
    found = encoder_folder(given, tmp_path / "scratch")
    assert (found == folder) is (not address)
    same_tensors(load_encoder(found).module, encoder)


@pytest.mark.parametrize("kind", ["folder", "stablehlo", "avhubert"])
def test_what_lies_at_the_output_is_never_replaced(tmp_path, kind, capsys):
    encoder = AVEncoder(tiny_model("audio"), rngs=nnx.Rngs(0))
    save_encoder(tmp_path / "it", encoder, lineage={"fingerprint": "0123"})
    mine, file = tmp_path / "mine", tmp_path / "mine.txt"
    write_json(mine / "clips.json", {})
    file.write_text("mine")
    for output in (tmp_path / "it", mine, file):
        with pytest.raises(SystemExit):
            main(["export", str(tmp_path / "it"), f"--format={kind}", f"--output={output}"])
        assert f"--output={output} is " in capsys.readouterr().err
    assert (mine / "clips.json").exists()
    assert file.read_text() == "mine"
    same_tensors(load_encoder(tmp_path / "it").module, encoder)


@pytest.fixture
def stage(tmp_path):
    """A stage of fine-tuning with adapters at its step 3, with moments, and its network, adapters merged."""
    folder, config, task = tmp_path / "fold1", tiny_model("audio"), emotion("happy", "sad")
    network = nnx.Dict(encoder=AVEncoder(config, rngs=nnx.Rngs(1)), other=nnx.Linear(64, 64, rngs=nnx.Rngs(2)))
    network.heads = nnx.Dict(emotion=ClipHead(config, 2, task.pooling, rngs=nnx.Rngs(3)),
                             arousal=ClipHead(config, 1, task.pooling, rngs=nnx.Rngs(4)))  # fmt: skip
    attach(network.encoder.transformer, 2, rngs=nnx.Rngs(5))
    for _, leaf in nnx.to_flat_state(nnx.state(network.encoder.transformer)):
        leaf.set_value(leaf.get_value() + 0.01)
    _, params, kept = nnx.split(network, nnx.Param, ...)
    state = _State(params, kept, [jax.tree.map(jnp.ones_like, params)] * 2)
    saved = Checkpointer(folder / "checkpoints", keep=1)
    saved.save(3, state, {})
    saved.close()
    data = TrainingData(clips=np.array([5], np.uint64))
    save_description(folder / DESCRIPTION, config, lineage={"fingerprint": "0123", "steps": 9}, training_data=data,
                     tasks=[task])  # fmt: skip
    merge(network.encoder.transformer)
    return folder, network


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class _State:
    params: nnx.State
    kept: nnx.State
    opt_state: list


@pytest.mark.parametrize("address", ["", "memory://bucket/fold1"])
def test_a_checkpoint_becomes_an_encoder_and_its_moments_are_not_read(tmp_path, stage, address, monkeypatch):
    folder, network = stage
    given = upload(folder, address) if address else str(folder)
    opened, open_ = [], tensorstore.open
    monkeypatch.setattr(tensorstore, "open", lambda spec, **more: opened.append(spec["kvstore"]) or open_(spec, **more))
    found = encoder_folder(f"{given}/checkpoints/3", tmp_path / "scratch")
    names = {each["path"] for each in opened}
    assert names
    assert all(name.startswith(("params.encoder.", "params.heads.emotion.", "kept.encoder.")) for name in names)
    encoder = load_encoder(found)
    same_tensors(encoder.module, network.encoder)
    same_tensors(encoder.heads.emotion, network.heads.emotion)
    assert encoder.lineage["fingerprint"] == "0123-3"
    assert encoder.lineage["steps"] == 3
    assert read_training_data(found).clips.tolist() == [5]


def test_what_is_no_checkpoint_and_no_run_is_said_in_a_line(tmp_path, stage):
    folder, scratch = stage[0], tmp_path / "scratch"
    for given, wanted in (
        (folder / "checkpoints" / "4", r"checkpoints has no checkpoint of step 4; it has 3$"),
        (folder, r"is no exported encoder, and no run .* give one of its checkpoints: .*checkpoints/3$"),
        (tmp_path / "nowhere", r"nowhere: there is no such folder$"),
        (tmp_path, r"`mmpretrain export --config=RECIPE` makes one$"),
        ("http://host/run", r"an address begins with gs:// or s3://"),
        ("memory://bucket/empty", r"is no exported encoder"),
    ):
        with pytest.raises((FileNotFoundError, ValueError), match=wanted):
            encoder_folder(given, scratch)
    file = max((folder / "checkpoints").rglob("d/*"), key=lambda file: file.stat().st_size)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged"):
        encoder_folder(folder / "checkpoints" / "3", scratch)


def upload(folder, address: str) -> str:
    store = tensorstore.KvStore.open(Place(address).url, context=context()).result()
    for file in folder.rglob("*"):
        if file.is_file():
            store.write(file.relative_to(folder).as_posix(), file.read_bytes()).result()
    return address


def same_tensors(one, other):
    ours, theirs = tensors_of(one), tensors_of(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)

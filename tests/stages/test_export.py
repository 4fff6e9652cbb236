"""Export of the last round's encoder."""

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.encoders.folder import save_encoder
from mmpretrain.files import write_json
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.run import Run
from mmpretrain.stages.export import encoder_in, export
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


@pytest.mark.parametrize("inner", ["", "encoder", "export/encoder"])
def test_an_encoder_is_found_in_what_a_run_or_a_stage_left(tmp_path, inner):
    write_json(tmp_path / "config.json", {"seed": 1})  # a run has one too
    folder = tmp_path / inner
    save_encoder(folder, AVEncoder(tiny_model("audio"), rngs=nnx.Rngs(0)), lineage={"fingerprint": "0123"})
    assert encoder_in(tmp_path) == folder

"""Heads in which sound and picture meet, each through the encoder alone, leave with it and say what they said."""

import jax
import numpy as np
import pytest
from flax import nnx

import mmpretrain
from mmpretrain.config import FinetuneConfig, TaskConfig
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.export import stablehlo
from mmpretrain.export.parity import cases_of, made_up_clips
from mmpretrain.export.transformers.write import check_heads
from mmpretrain.objectives.supervised import Supervised
from mmpretrain.predict.judge import Judge
from tests.export.encoder_folders import LINEAGE, TASK
from tests.slow import others_slow
from tests.tiny import initial, tiny_model

CONFIG = tiny_model("audio", "video")
LEVEL = TaskConfig("level", kind="ordinal", classes=("0", "1", "2"))
FUSIONS = ("gated", "intermediate", "bottleneck", "late_weights", "late_stacked")


@pytest.mark.parametrize("fusion", others_slow(FUSIONS, "gated"))
def test_a_folder_says_what_the_trained_network_says(fusion, tmp_path):
    tasks = (TASK,) if fusion == "late_stacked" else (TASK, LEVEL)
    objective = Supervised(CONFIG, FinetuneConfig(tasks=tasks, dropout=0.0, fusion=fusion))
    model, folder, random = nnx.merge(*initial(objective.make_model)), tmp_path / "encoder", np.random.default_rng(0)
    heads = nnx.state(model.heads, nnx.Param)  # of which blocks of attention begin with nothing to say
    nnx.update(model.heads, jax.tree.map(lambda x: x + 0.2 * random.normal(size=x.shape).astype(x.dtype), heads))
    graphdef, state = nnx.split(model)
    save_encoder(folder, model.encoder, lineage=LINEAGE, tasks=tasks, heads=model.heads, form=fusion)

    encoder, clips = mmpretrain.load_encoder(folder), made_up_clips(CONFIG, 2)
    cases = cases_of(clips, CONFIG)
    batch = stablehlo.batch_of(encoder, cases)
    wanted = jax.jit(lambda state, batch: objective.outputs(nnx.merge(graphdef, state), batch))(state, batch)
    for b, case in enumerate(cases):
        given = {"audio": case.audio, "video": case.video}
        made = encoder.outputs(**{name: x for name, x in given.items() if x is not None})
        for task in tasks:
            np.testing.assert_allclose(made.logits[task.name], wanted[task.name][b], atol=1e-4, err_msg=case.name)
    with pytest.raises(ValueError, match=rf"finetune\.fusion='{fusion}'.*--format=folder and --format=stablehlo do"):
        check_heads(encoder)
    if fusion == "intermediate":
        (said,) = stablehlo.write_folder(folder, tmp_path / "hlo", clips)
        assert "loaded back and compared on 7 inputs, 7 outputs of each" in said
    if fusion == "gated":
        answers = [encoder.outputs(audio=clip.audio, video=clip.mouth).answers["emotion"] for clip in clips]
        judged = Judge(encoder).says(clips, max(clip.num_frames for clip in clips))
        np.testing.assert_allclose(judged, answers, atol=1e-4)

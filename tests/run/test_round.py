"""What a round is made of, takes and leaves, as far as the recipe alone says it."""

import dataclasses

import pytest
from flax import nnx

from mmpretrain.config import InputConfig, ReferenceModelConfig, hidden, mfcc
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.run import Run
from mmpretrain.stages.refine import refine
from tests.tiny import IMAGE_SIZE, initial, tiny_model, tiny_round, tiny_run


def test_rounds_and_what_they_hold_are_made_once(tmp_path):
    run = Run(tiny_run(workdir=str(tmp_path)))
    assert run.round(1) is run.round(1)
    assert run.round(1).trainer is run.round(1).trainer
    assert run.round(2) is not run.round(1)
    assert run.round(2).targets_name == "round2/targets"
    assert run.round(2).encoder.path == tmp_path / "round2" / "pretrain" / "encoder"
    assert run.round(2).codebooks[0].store_folder == tmp_path / "round2" / "targets" / "codebook1" / "store"


@pytest.mark.parametrize(
    ("changes", "source", "start"),
    [
        ({"targets": mfcc(5)}, "", ""),
        ({"targets": hidden(2, 5)}, "round1", ""),
        ({"targets": mfcc(5) + hidden(2, 5), "encoder": "elsewhere"}, "elsewhere", ""),
        ({"targets": mfcc(5), "init": "previous_round"}, "", "round1"),
        ({"targets": hidden(2, 5), "encoder": "elsewhere", "init": "previous_round"}, "elsewhere", "round1"),
    ],
)
def test_what_a_round_takes_from_the_one_before(tmp_path, changes, source, start):
    run = Run(tiny_run(workdir=str(tmp_path), rounds=(tiny_round(), tiny_round(**changes))))
    round_, previous = run.round(2), run.round(1).encoder
    for taken, expected in ((round_.source, source), (round_.start, start)):
        if expected == "round1":
            assert taken == previous
        else:
            assert ("" if taken is None else str(taken.path)) == expected
    assert round_.needs_previous == ("round1" in (source, start))
    assert not run.round(1).needs_previous


@pytest.mark.parametrize(
    ("of_encoder", "said"),
    [
        (
            {"modalities": ("audio", "video")},
            r"model\.modalities=\('audio', 'video'\), but .* \('video', 'audio'\); set",
        ),
        ({"reference": ReferenceModelConfig(post_norm=True)}, r"model\.reference\.post_norm=True, but the .* False"),
        ({"inputs": InputConfig(audio_normalization="clip", image_size=IMAGE_SIZE)}, ""),
    ],
)
def test_an_encoder_that_would_be_another_network_is_no_start(tmp_path, capsys, of_encoder, said):
    """All its shapes may have a place: streams that are added, or that stand side by side in another order."""
    model = dataclasses.replace(tiny_model("video", "audio"), **of_encoder)
    encoder = nnx.merge(*initial(lambda rngs: AVEncoder(model, rngs=rngs)))
    save_encoder(tmp_path / "encoder", encoder, lineage={"fingerprint": "abc"})
    config = tiny_run(workdir=str(tmp_path / "run"), model=tiny_model("video", "audio"))
    config.rounds[1].init = str(tmp_path / "encoder")
    run = Run(config)
    if said:
        with pytest.raises(ValueError, match=rf"rounds\[1\]\.init='.*encoder' is an encoder with {said}"):
            refine(run)  # before anything is made
    else:
        run.round(2).check_start()
        assert "model.inputs.audio_normalization='clip', now 'frame'" in capsys.readouterr().err


def test_the_last_round_to_fine_tune_is_missing_where_there_are_none(tmp_path):
    run = Run(tiny_run(workdir=str(tmp_path), rounds=()))
    finetuning = Finetuning.__new__(Finetuning)  # without the clips, which this recipe does not have
    finetuning.run, finetuning.config = run, run.config.finetune
    with pytest.raises(ValueError, match=r"finetune\.encoder='last_round', but this recipe has no rounds; name an enc"):
        _ = finetuning.encoder

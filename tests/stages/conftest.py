"""What tests of fine-tuning share: labelled tones, an encoder of random weights, and runs of small recipes."""

import jax
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig, FinetuneConfig, LabelEfficiencyConfig, emotion
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.run import Run
from tests.stages.tones import PITCH_HZ, write_tones
from tests.tiny import tiny_model, tiny_run


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("corpora") / "tones")


@pytest.fixture(scope="session")
def tone_encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "encoder"
    save_encoder(folder, AVEncoder(tiny_model("audio"), rngs=nnx.Rngs(5)), lineage={"fingerprint": "of the test"})
    return folder


@pytest.fixture(scope="session")
def tone_run(tones, tone_encoder):
    """tone_run(folder, FIELD=...): a run of that encoder on the tones. FIELD: of the recipe's `finetune` part."""

    def make(path, efficiency: LabelEfficiencyConfig | None = None, **changes) -> Run:
        fields = dict(
            encoder=str(tone_encoder), tasks=(emotion(*PITCH_HZ),), protocol="speakers-3", num_steps=2, eval_every=2,
            batch_frames=100,
        )  # fmt: skip
        part = FinetuneConfig(**fields | changes)
        part.optimizer.warmup_steps = 0
        config = tiny_run(
            workdir=str(path), model=tiny_model("audio"), rounds=(), finetune=part, log_every=1,
            label_efficiency=efficiency or LabelEfficiencyConfig(),
        )  # fmt: skip
        config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(tones)),), jax.device_count()
        return Run(config)

    return make

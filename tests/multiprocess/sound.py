"""Every stage on sound alone, so that its programs compile in seconds."""

from mmpretrain.config import RunConfig, encoder_size, hidden
from tests.end_to_end import tiny


def get_config() -> RunConfig:
    config = tiny.get_config()
    inputs = config.model.inputs
    config.model = encoder_size(
        "tiny", modalities=("audio",), width=16, num_layers=2, num_heads=2, mlp_dim=32, pos_conv_kernel=4,
        pos_conv_groups=2, proj_dim=8, inputs=inputs,
    )  # fmt: skip
    config.data.batch_multiple = 4
    for round_ in config.rounds:
        round_.modality_dropout = 0.0
        round_.masking.kind = "feature"
        round_.num_steps = 8
    config.rounds[1].targets = hidden(layer=2, num_clusters=12, fit_passes=5, fit_restarts=1)
    config.label_efficiency.shares = ()
    config.units.labelled_clips = (20,)
    config.finetune.num_steps = 8
    config.finetune.masking = None
    config.finetune.compare_from_scratch = False
    return config

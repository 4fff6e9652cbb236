"""`configs/demo.py` shrunk until every stage takes seconds."""

from configs import demo
from mmpretrain.config import RunConfig, encoder_size


def get_config() -> RunConfig:
    config = demo.get_config()
    config.model = encoder_size(
        "tiny", width=32, num_layers=2, num_heads=2, mlp_dim=64, resnet_width=4, pos_conv_kernel=8, pos_conv_groups=2,
        proj_dim=16, inputs=config.model.inputs,
    )  # fmt: skip
    config.model.inputs.image_size = 16
    config.model.inputs.audio_normalization = "frame"  # the reference's, in whose form it is exported too
    config.data.batch_frames = 320
    config.data.corpora[0].prepare = ()
    for round_ in config.rounds:
        round_.num_steps = 12
        round_.optimizer.warmup_steps = 2
        round_.masking.visible_only = False  # for other modalities and masks, which tests set
        for targets in round_.targets:
            targets.num_clusters, targets.fit_passes, targets.fit_restarts = 12, 5, 1
        round_.targets[1].relative_to = "clip"  # of a few clips each is of another speaker
    config.finetune.num_steps = 12
    config.finetune.eval_every = 4
    config.finetune.batch_frames = 320
    config.finetune.optimizer.warmup_steps = 2
    config.label_efficiency.shares, config.label_efficiency.draws = (0.5,), 2
    config.label_efficiency.classifiers = ("frozen", "sound_statistics")
    config.units.labelled_clips, config.units.draws = (5, 20), 1
    config.units.num_steps = 12
    config.units.eval_every = 4
    config.units.optimizer.warmup_steps = 2
    config.health.min_accuracy_gain = -1.0  # a dozen steps learn nothing, and the walk shall go on
    config.checkpoint.every_steps = 4
    config.log_every = 2
    config.validation_every = 6
    return config

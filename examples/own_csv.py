"""Fine-tuning on one's own clips, named and labelled in `my_clips/labels.csv` (path,speaker,emotion), in one command:

mmpretrain finetune --config=examples/own_csv.py --config.finetune.encoder=runs/demo/export/encoder

The clips are prepared the first time. Each speaker is tested once, by a network that never heard them. Afterwards
`mmpretrain evaluate` with the same recipe says how good it is, and `mmpretrain predict` uses
`runs/own/finetune/pretrained/fold1/encoder`.
"""

from mmpretrain.config import CorpusConfig, DataConfig, FinetuneConfig, OptimizerConfig, RunConfig, emotion

CLIPS = ("folder", "--source", "my_clips", "--manifest", "my_clips/labels.csv", "--split-by", "speaker")


def get_config() -> RunConfig:
    return RunConfig(
        workdir="runs/own",
        data=DataConfig(
            corpora=(CorpusConfig("prepared/own", prepare=CLIPS),), batch_frames=2_000, bucket_frames=(100, 200, 400)
        ),
        finetune=FinetuneConfig(
            tasks=(emotion("neutral", "happy", "sad", "angry"),),
            protocol="speakers-5",
            compare_from_scratch=False,
            num_steps=1_000,
            eval_every=50,
            batch_frames=2_000,
            optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=100),
        ),
    )

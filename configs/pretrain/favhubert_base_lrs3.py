"""FAV-HuBERT Base: AV-HuBERT on whole aligned faces instead of mouths (Tran et al., SAAML, ACM MM 2023), on LRS3.

mmpretrain refine --config=configs/pretrain/favhubert_base_lrs3.py --config.data.corpora[0].path=prepared/lrs3

The paper names the size (103 M parameters) and the corpus; face size and rounds are not public: the 112 x 112 crop and
AV-HuBERT's five rounds are our choices. Hours and losses: not yet run.
"""

from configs.pretrain import avhubert_base_lrs3
from mmpretrain.config import InputConfig, RunConfig


def get_config() -> RunConfig:
    config = avhubert_base_lrs3.get_config()
    config.workdir = "runs/favhubert_base_lrs3"
    # 112 stored, 104 used: the same margin for random crops as 96 and 88.
    config.model.inputs = InputConfig(view="face", image_size=104)
    return config

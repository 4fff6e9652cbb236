"""`small_real` with affect in the targets of its first round: sound, prosody and the face, a codebook and head each.

python -m data_prep folder ... as for small_real
mmpretrain run --config=configs/pretrain/small_real_affect.py

The idea is that an encoder which must also tell how something is said keeps what emotion needs. Prosody is relative to
the speaker, which tells most of emotion, the appearance of the face to the clip (docs/targets.md); where the manifest
names no speaker, say `--config.rounds[0].targets[1].relative_to=clip`. Clips without sound or video are left out of the
first round; later rounds, of a hidden layer, take all.
Run for 30 steps of its first round only.
"""

from configs.pretrain import small_real
from mmpretrain.config import RunConfig, face_appearance, face_geometry, mfcc, prosody


def get_config() -> RunConfig:
    config = small_real.get_config()
    fit = dict(fit_share=1.0, fit_restarts=3)
    config.rounds[0].targets = mfcc(50, **fit) + prosody(50, relative_to="speaker", **fit) + face_geometry(50, **fit)
    config.rounds[0].targets += face_appearance(50, **fit)
    config.workdir = "runs/small_real_affect"
    return config

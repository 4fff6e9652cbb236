"""How what learns is changed, as recipes say it."""

# No `from __future__ import annotations`: the command line reads the fields' types as objects.
import dataclasses

from mmpretrain.config.ranges import above, below, one_of, setting, within

LARGE = 2**31 - 1


@dataclasses.dataclass
class OptimizerConfig:
    """AdamW, of whatever learns. schedule "polynomial" (linear warm-up, linear decay to 0) or "tri_stage"."""

    schedule: str = setting("polynomial", one_of("polynomial", "tri_stage"))
    peak_lr: float = setting(5e-4, above(0, most=1_000))
    warmup_steps: int = setting(32_000, within(0, LARGE))
    b1: float = setting(0.9, below(1, least=0))
    b2: float = setting(0.98, below(1, least=0))
    eps: float = setting(1e-6, above(0, most=1))
    weight_decay: float = setting(0.01, within(0, 1_000))
    clip_norm: float = setting(10.0, within(0, 1_000_000))  # 0: off

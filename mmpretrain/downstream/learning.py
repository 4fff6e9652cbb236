"""What learns in fine-tuning, from which step and how fast, as the recipe's `finetune` part says it."""

from __future__ import annotations

from mmpretrain.config import FITTED_FUSIONS, FinetuneConfig
from mmpretrain.train.trainable import Group, Trainable

OF_ENCODER = ("freeze_steps", "encoder_rate", "layer_decay", "unfreeze_every", "lora_rank")


def unread_from_scratch(config: FinetuneConfig) -> tuple[str, ...]:
    """The fields of `finetune` that say nothing of a network from random weights."""
    return tuple(name for name in OF_ENCODER if name != "encoder_rate" or config.head != "frozen_linear")


def what_learns(config: FinetuneConfig, num_layers: int, *, pretrained: bool) -> Trainable:
    """A network from random weights learns as a whole, and from the start.

    Under a head that is fitted its encoder has the rate of a pretrained one: that of the head would teach it nothing.
    """
    if pretrained:
        groups = _encoder_groups(config, num_layers)
    else:
        rate = config.encoder_rate if config.head == "frozen_linear" else 1.0
        groups = (Group("encoder", rate=rate),) if rate != 1 else ()
    set_once = Group(r"heads\.\w+\.(mean|scale)$", from_step=None)
    fitted = Group(r"heads\.\w+\.fitted\.", from_step=None)
    return Trainable(
        (*groups, *[set_once] * (config.head == "frozen_linear"), *[fitted] * (config.fusion in FITTED_FUSIONS))
    )


def _encoder_groups(config: FinetuneConfig, num_layers: int) -> tuple[Group, ...]:
    """What of a pretrained encoder learns, from which step and how fast. Layers are counted from the bottom."""

    def start(after: int) -> int | None:
        return None if config.freeze_steps + after >= config.num_steps else config.freeze_steps + after

    rate, decay, every = config.encoder_rate, config.layer_decay, config.unfreeze_every
    if config.lora_rank:
        return Group(r"encoder\..*\.lora_", rate=rate), Group("encoder", from_step=None)
    from_top = range(num_layers - 1, -1, -1)
    layers = Group(
        r"encoder\.transformer\.layers", start(0), rate,
        layer_rates=tuple(decay ** (k + 1) for k in from_top) if decay != 1 else (),
        layer_waits=tuple(every * k for k in from_top) if every else (),
    )  # fmt: skip
    rest = Group("encoder", start(every * num_layers), rate * decay ** (num_layers + 1))
    if decay == 1 and not every:
        return (rest,) if rest != Group("encoder") else ()
    return layers, rest

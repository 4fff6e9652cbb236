"""The README.md of an exported encoder."""

from __future__ import annotations

from typing import Any

from mmpretrain.config import ModelConfig
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.inputs import INPUTS

_CARD = """# Audio-visual encoder ({modalities})

{origin}: {width} wide, {num_layers} layers, {num_heads} heads,
{frames} frames a second.

```python
import mmpretrain

encoder = mmpretrain.load_encoder("THIS FOLDER")
features = encoder.features({arguments})   # float32 [T, {width}]
```

Input: {inputs}

| how it came about | |
|---|---|
{rows}

Weights are in `model.safetensors`, the architecture in `config.json`. {terms}
"""

_TERMS_OF_CLIPS = "They inherit the terms of the clips that they\nwere trained on."
_TERMS_OF_CHECKPOINT = (
    "The licence of the checkpoint that they\nwere read from goes with them; so do the terms of its clips."
)


def model_card(config: ModelConfig, lineage: dict[str, Any], training_data: TrainingData) -> str:
    """Markdown that says what the encoder is, how to load it and what it was trained on."""
    origin, imported = "Pretrained with mmpretrain by masked cluster prediction", "checkpoint" in lineage
    if imported:
        origin = "Imported from an AV-HuBERT checkpoint, pretrained by masked cluster prediction"
    elif "fine-tuned on" in lineage:
        origin = f"Fine-tuned with mmpretrain to tell {lineage['fine-tuned on']}"
    inputs = {name: INPUTS[name] for name in config.modalities}
    values = {"audio": "samples", "video": "crops"}
    rows = lineage | {"seen by it and its ancestors": training_data.describe()}
    return _CARD.format(
        origin=origin,
        terms=_TERMS_OF_CHECKPOINT if imported else _TERMS_OF_CLIPS,
        modalities=" and ".join(config.modalities),
        width=config.width, num_layers=config.num_layers, num_heads=config.num_heads, frames=25,
        arguments=", ".join(f"{made.needs}={values.get(name, name)}" for name, made in inputs.items()),
        inputs="; ".join(made.described(config.inputs) for made in inputs.values()) + ".",
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
    )  # fmt: skip

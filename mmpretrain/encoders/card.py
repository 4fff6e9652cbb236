"""The README.md of an exported encoder, a card as model hubs read it: YAML, then what people should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mmpretrain.config import ModelConfig, TaskConfig
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.inputs import INPUTS
from mmpretrain.models.task_heads import HEADS
from mmpretrain.records import FRAME_RATE_HZ

_CARD = """---
library_name: {library}
pipeline_tag: {pipeline}
license: other
license_name: {license_name}
tags: [{tags}]
---

# Audio-visual encoder ({modalities})

{origin}: {width} wide, {num_layers} layers, {num_heads} heads,
{frames} frames a second.

```python
{example}
```

Input: {inputs}
{labels}
## What it is for

Research on talking faces: features of sound and picture, alone or together, for emotion, speech and conversation; a
start for training on labels of one's own. Figures hold for clips like those that it was tested on.

**Not for** identifying or verifying people, surveillance, judging somebody's character, state of mind or truthfulness,
or decisions about people, in hiring, school, policing or medicine. Emotion that is acted is not emotion that is felt,
and errors differ by language, age, skin and camera; nothing here says how much.

## How it came about

| | |
|---|---|
{rows}

## Figures

{figures}

Weights are in `{weights}`, the architecture in `config.json`; `digests.json` says what the files were. {terms}
"""

_TERMS_OF_CLIPS = "They inherit the terms of the clips that they\nwere trained on."
_TERMS_OF_CHECKPOINT = (
    "The licence of the checkpoint that they\nwere read from goes with them; so do the terms of its clips."
)
_NO_FIGURES = "None were written beside this encoder."
STAYED = "heads that stayed behind"  # in a lineage: which, and why
CARD_FILE = "README.md"
_EXAMPLE = """import mmpretrain

encoder = mmpretrain.load_encoder("THIS FOLDER")
features = encoder.features({arguments})   # float32 [T, {width}]"""


def model_card(
    config: ModelConfig,
    lineage: dict[str, Any],
    training_data: TrainingData,
    tasks: Sequence[TaskConfig] = (),
    *,
    figures: Mapping[str, str] = MappingProxyType({}),
    library: str = "mmpretrain",
    example: str = "",
    weights: str = "model.safetensors",
    more: dict[str, Any] | None = None,
) -> str:
    """Markdown that says what the encoder is, how to load it, what it was trained on, and what it is not for.

    tasks: that it has heads for. figures: `figures.read_figures` of its folder. Of a folder in another format: library,
    the example and the name of the weights' file, and what was found when it was written (`more`).
    """
    origin, imported = "Pretrained with mmpretrain by masked cluster prediction", "checkpoint" in lineage
    if imported:
        origin = "Imported from an AV-HuBERT checkpoint, pretrained by masked cluster prediction"
    elif "fine-tuned on" in lineage:
        origin = f"Fine-tuned with mmpretrain to tell {lineage['fine-tuned on']}"
    inputs = {name: INPUTS[name] for name in config.modalities}
    values = {"audio": "samples", "video": "crops"}
    arguments = ", ".join(f"{made.needs}={values.get(name, name)}" for name, made in inputs.items())
    rows = lineage | {"seen by it and its ancestors": training_data.describe()}
    if terms := training_data.describe_terms():
        rows |= {"terms of its corpora": terms}
    rows |= more or {}
    tags = [
        "audio-visual",
        "talking-faces",
        "av-hubert",
        *["emotion-recognition"] * any(t.name == "emotion" for t in tasks),
    ]
    return _CARD.format(
        library=library, pipeline="audio-classification" if tasks else "feature-extraction", tags=", ".join(tags),
        license_name="terms-of-its-checkpoint-and-clips" if imported else "terms-of-its-training-clips",
        origin=origin,
        terms=_TERMS_OF_CHECKPOINT if imported else _TERMS_OF_CLIPS,
        modalities=" and ".join(config.modalities),
        width=config.width, num_layers=config.num_layers, num_heads=config.num_heads, frames=FRAME_RATE_HZ,
        example=example or _EXAMPLE.format(arguments=arguments, width=config.width),
        inputs="; ".join(made.described(config.inputs) for made in inputs.values()) + ".",
        labels="".join(f"\n{_told(task)}\n" for task in tasks),
        rows=_table(rows), weights=weights, figures="| | |\n|---|---|\n" + _table(figures) if figures else _NO_FIGURES,
    )  # fmt: skip


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _told(task: TaskConfig) -> str:
    """What its head says, in a sentence."""
    of_frames = ", of every frame" if HEADS[task.kind].of_frames else ""
    if task.kind == "embedding":
        apart = f" in which clips of one class lie close together: {', '.join(task.classes)}"
        return f"Of {task.name} it has an embedding of {task.embedding_dim} numbers{apart}."
    if not task.classes:
        return f"It gives a number for {task.name}, {task.range[0]:g} to {task.range[1]:g}{of_frames}."
    several = {"classes": ", several at once", "ordinal": ", a scale from the lowest on", "votes": ", as raters voted"}
    return f"It tells {task.name}{of_frames}: {', '.join(task.classes)}{several.get(task.kind, '')}."

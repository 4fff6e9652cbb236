"""Encoders in PyTorch from a folder of `mmpretrain export --format=transformers`, without running code that lies in it.

model, processor = mmpretrain.torch.load(DIR)
outputs = model(**processor(audio=samples, videos=crops, return_tensors="pt"), output_hidden_states=True)
"""

from __future__ import annotations

from pathlib import Path

from mmpretrain.export.transformers import modeling_mmpretrain, processing_mmpretrain
from mmpretrain.files import check_seal, present_folder, read_json

REMEDY = "copy the folder again, all of it, or export it anew"


def load(
    path: str | Path, *, head: bool | None = None
) -> tuple[modeling_mmpretrain.MMPretrainPreTrainedModel, processing_mmpretrain.MMPretrainProcessor]:
    """The model, in evaluation mode, and the processor of a folder.

    head: with its classifier, which is new where the folder has none; None: as the folder is. Raises ValueError or
    FileNotFoundError for a folder that is another, or not as it was written.
    """
    folder = present_folder(path)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json: `mmpretrain export --format=transformers` makes one")
    config = read_json(folder / "config.json", remedy=REMEDY)
    if config.get("model_type") != modeling_mmpretrain.MMPretrainConfig.model_type:
        raise ValueError(f"{folder}/config.json is of no encoder of ours in the format transformers; export it")
    check_seal(folder, "config.json", "model.safetensors", "preprocessor_config.json", "processor_config.json",
               remedy=REMEDY)  # fmt: skip
    classifier = modeling_mmpretrain.MMPretrainForAudioClassification
    has_head = config.get("architectures") == [classifier.__name__]
    kind = classifier if (has_head if head is None else head) else modeling_mmpretrain.MMPretrainModel
    model = kind.from_pretrained(folder, local_files_only=True)
    sound = processing_mmpretrain.MMPretrainFeatureExtractor.from_pretrained(folder, local_files_only=True)
    settings = read_json(folder / "processor_config.json", remedy=REMEDY)
    names = ("image_size", "pixel_mean", "pixel_std", "view")
    return model.eval(), processing_mmpretrain.MMPretrainProcessor(sound, **{name: settings[name] for name in names})

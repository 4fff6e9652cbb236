"""Features in PyTorch: python features_torch.py DIR SOUND, the folder of `mmpretrain export --format=transformers`."""

import sys

import soundfile
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
sound, _ = librosa.load(sys.argv[2], sr=16_000)
outputs = model(
    **processor(audio=[sound], sampling_rate=16_000, return_tensors="pt")
)  # videos=: crops, where there are
print(tuple(outputs.last_hidden_state.shape))

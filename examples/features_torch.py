"""Features in PyTorch: python features_torch.py DIR SOUND, the folder of `mmpretrain export --format=transformers`."""

import sys

import soundfile
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
sound, rate = soundfile.read(sys.argv[2])  # mono, 16 kHz
inputs = processor(audio=[sound], sampling_rate=rate, return_tensors="pt")  # videos=: crops, where there are any
print(tuple(model(**inputs).last_hidden_state.shape))

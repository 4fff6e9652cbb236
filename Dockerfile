# mmpretrain on an NVIDIA node: docker build --tag mmpretrain . && docker run --gpus all mmpretrain run --config=demo
# The node needs the driver and NVIDIA's container toolkit; CUDA and cuDNN come with JAX's packages.
FROM python:3.12-slim

# What MediaPipe and OpenCV load.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libgles2 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/mmpretrain
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY mmpretrain mmpretrain
COPY data_prep data_prep
COPY configs configs
# The CUDA plugin of the very JAX that is locked; the packages that it brings are not.
RUN pip install --no-cache-dir . "jax[cuda]==$(pip show jax | sed -n 's/^Version: //p')"

# Prepared corpora and runs: docker run --volume "$PWD:/work"
WORKDIR /work
ENTRYPOINT ["mmpretrain"]

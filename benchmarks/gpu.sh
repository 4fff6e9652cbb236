#!/usr/bin/env bash
# Everything that is to be known of a GPU, in one go, on a bare machine: JAX with CUDA, Flax, optax and PyTorch suffice.
#
#   benchmarks/gpu.sh [FOLDER]                all of it, into FOLDER (default: gpu_results); about an hour on an H100
#   QUICK=1 benchmarks/gpu.sh [FOLDER]        one shape of batch, short turns; about ten minutes
#   DEVICE=cpu QUICK=1 benchmarks/gpu.sh      tiny sizes on a CPU: whether it works, in minutes
#
# Leaves a text and a JSON file for each part. Rows that this machine cannot measure are named in FOLDER/summary.txt, and
# are no error. PYTHON: the interpreter; LIMIT: seconds that each part may take; FRAMES: of a batch of the step.
set -uo pipefail
folder="$(realpath -m "${1:-gpu_results}")"
cd "$(dirname "$0")/.." || exit 1
python="${PYTHON:-python3}" device="${DEVICE:-cuda}" limit="${LIMIT:-1500}" frames="${FRAMES:-4000}" quick="${QUICK:-}"
mkdir -p "$folder"
: > "$folder/summary.txt"

tell() { echo "$*" | tee -a "$folder/summary.txt"; }

measure() { # NAME MODULE ARGUMENT...
    local name="$1" status
    shift
    echo "== $name: python -m $*"
    timeout "$limit" "$python" -m "$@" --device "$device" --json "$folder/$name.json" 2> "$folder/$name.err" \
        | tee "$folder/$name.txt"
    status="${PIPESTATUS[0]}"
    if [ "$status" = 0 ]; then
        tell "$name: measured"
        grep -h 'not measured' "$folder/$name.txt" | sed 's/^/    /' | tee -a "$folder/summary.txt" > /dev/null
    elif [ "$status" = 124 ]; then
        tell "$name: not yet measured: it took longer than $limit s (LIMIT)"
    else
        tell "$name: not yet measured: $(tail -n 1 "$folder/$name.err")"
    fi
}

parts=(convolutions kernels_base kernels_large step_base step_large forward_base)
if [ "$device" = cuda ] && ! nvidia-smi > "$folder/machine.txt" 2>&1; then
    for part in "${parts[@]}"; do tell "$part: not yet measured: there is no GPU here"; done
    exit 0
fi
"$python" - >> "$folder/machine.txt" 2>&1 << 'EOF'
import importlib.metadata as metadata
for name in ("jax", "jaxlib", "flax", "optax", "torch"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        print(name, "not installed")
EOF

if [ "$device" = cuda ]; then
    turns=(--turns 5)
    [ -z "$quick" ] || turns=(--turns 3 --turn-sec 0.5)
    buckets=(100 200 300 400 500) # of the LRS3 recipes
    [ -z "$quick" ] || buckets=(400)
    measure convolutions benchmarks.convolutions --pictures 2000
    measure kernels_base benchmarks.kernels --clips 10 --frames 400 --square 8192
    measure kernels_large benchmarks.kernels --clips 10 --frames 400 --square 8192 --width 1024 --heads 16
    for size in base large; do
        for bucket in "${buckets[@]}"; do
            measure "step_${size}_$bucket" benchmarks.train_step --size "$size" --clips $((frames / bucket)) \
                --frames "$bucket" "${turns[@]}"
        done
    done
    measure forward_base benchmarks.train_step --size base --clips $((frames / 400)) --frames 400 --forward "${turns[@]}"
else
    measure convolutions benchmarks.convolutions --pictures 8 --width 4 --turns 1 --turn-sec 0.01
    measure kernels_base benchmarks.kernels --clips 2 --frames 20 --width 32 --heads 2 --square 64 --turns 1
    measure step_tiny_20 benchmarks.train_step --size tiny --clips 2 --frames 20 --turns 1 --turn-sec 0.1 --no-compile \
        --set model.inputs.image_size=32
fi
echo "results: $folder"

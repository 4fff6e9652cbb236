#!/usr/bin/env bash
# N processes of mmpretrain on this machine:
#
#   launch/local.sh 2 refine --config=configs/demo.py
#
# Each line of output begins with the process it came from. With NVIDIA GPUs process I has GPU I to itself. Ctrl-C,
# SIGTERM and SIGUSR1 reach every process, which saves and leaves with 75. Exits with the first code that is an error,
# else with 75 if the run was preempted (the same command continues it), else with 0.
set -uo pipefail

if ! [[ ${1-} =~ ^[1-9][0-9]*$ && $# -ge 2 ]]; then
  echo "usage: launch/local.sh NUM_PROCESSES COMMAND [--config=RECIPE] [...]" >&2
  exit 2
fi
num_processes=$1
shift
# The GPUs that the user allows, else all of this machine's.
all_gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd,)
IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES-$all_gpus}"
if ((${#gpus[@]} > 0 && num_processes > ${#gpus[@]})); then
  echo "launch/local.sh: $num_processes processes cannot share ${#gpus[@]} GPUs (one process can hold several);" \
    "to run on the CPU set CUDA_VISIBLE_DEVICES= and JAX_PLATFORMS=cpu" >&2
  exit 2
fi

port=$(python3 -I -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export MMPRETRAIN_COORDINATOR=127.0.0.1:$port MMPRETRAIN_NUM_PROCESSES=$num_processes
((num_processes > 1)) || gpus=()
# Not in bash: its `wait` now and then loses the code of a process that leaves while a signal is handled.
exec python3 -I "$(dirname "$0")/supervise.py" "$(IFS=,; echo "${gpus[*]}")" "$@"

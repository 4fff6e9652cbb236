#!/usr/bin/env bash
# N processes of mmpretrain on this machine:
#
#   launch/local.sh 2 refine --config=configs/demo.py
#
# Each line of output begins with the process it came from. With NVIDIA GPUs process I has GPU I to itself. Ctrl-C,
# SIGTERM and SIGUSR1 reach every process, which saves and leaves with 75. Exits with the first code that is an error,
# else with 75 if the run was preempted (the same command continues it), else with 0.
set -uo pipefail

grace_sec=${MMPRETRAIN_GRACE_SEC:-90} # how long the others may take to say why and leave once a process has failed

if ! [[ ${1-} =~ ^[1-9][0-9]*$ && $# -ge 2 ]]; then
  echo "usage: launch/local.sh NUM_PROCESSES COMMAND [--config=FILE] [...]" >&2
  exit 2
elif ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 501)); then
  echo "launch/local.sh: this is bash $BASH_VERSION; 5.1 or newer is needed" >&2
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

running=()
signal_all() {
  for pid in "${running[@]}"; do kill "-$1" "$pid" 2>/dev/null; done
}
trap 'signal_all TERM' TERM INT HUP
trap 'signal_all USR1' USR1

for ((id = 0; id < num_processes; id++)); do
  ((num_processes > 1 && ${#gpus[@]} > 0)) && export CUDA_VISIBLE_DEVICES=${gpus[id]}
  MMPRETRAIN_PROCESS_ID=$id mmpretrain "$@" > >(trap '' INT TERM HUP USR1 && exec sed --unbuffered "s/^/[$id] /") 2>&1 &
  running[id]=$!
done

failure=0 preempted=0 timer=
while ((${#running[@]})); do
  wait -n -p left "${running[@]}" ${timer:+"$timer"} 2>/dev/null
  code=$?
  if [[ -z ${left-} ]]; then # a signal came, or several left at once: bash then forgets a job, though not its code
    for pid in "${running[@]}" ${timer:+"$timer"}; do
      kill -0 "$pid" 2>/dev/null && continue
      left=$pid
      wait "$pid"
      code=$?
      break
    done
  fi
  if [[ -z ${left-} ]]; then
    continue
  elif [[ $left == "$timer" ]]; then
    signal_all KILL
    timer=
    continue
  fi
  for id in "${!running[@]}"; do
    [[ ${running[id]} == "$left" ]] && unset "running[$id]" && break
  done
  if ((code == 75)); then
    preempted=75
  elif ((code != 0 && failure == 0)); then
    failure=$code
    echo "launch/local.sh: process $id left with $code; the others have $grace_sec s to leave" >&2
    sleep "$grace_sec" >/dev/null 2>&1 &
    timer=$!
  fi
done
[[ -n $timer ]] && kill "$timer"
exit $((failure ? failure : preempted))

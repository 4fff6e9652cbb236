#!/usr/bin/env bash
# mmpretrain on all workers of a Cloud TPU VM, one process each:
#
#   launch/tpu_vm.sh NAME ZONE refine --config=configs/pretrain/avhubert_base_lrs3.py --config.workdir=shared/avhubert
#
# Needs gcloud, and on every worker the checkout with its environment at ~/mmpretrain and, mounted at the same place,
# storage that outlives the workers, here ~/mmpretrain/shared (docs/launch.md says how; gs://... is refused). Ctrl-C and
# SIGTERM make every process save and leave with 75. If they leave so by themselves (maintenance), the run goes on once
# the TPU is ready again; if the TPU is gone (a spot TPU is deleted), this exits with 75. Other codes are passed on.
set -uo pipefail

checkout=${MMPRETRAIN_TPU_CHECKOUT:-mmpretrain} # on the workers, from the home folder
poll_sec=${MMPRETRAIN_TPU_POLL_SEC:-30}

if (($# < 3)); then
  echo "usage: launch/tpu_vm.sh NAME ZONE COMMAND [--config=RECIPE] [...]" >&2
  exit 2
fi
name=$1 zone=$2
shift 2

on_all_workers() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --quiet --command="$1"
}

# What a worker runs. Its own number and everyone's addresses (ID:ID:ADDRESS,...) are what its metadata server says.
start="
set -e
attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes
metadata() { curl -fsS -H 'Metadata-Flavor: Google' \$attributes/\$1; }
IFS=, read -ra workers <<< \"\$(metadata worker-network-endpoints)\"
export MMPRETRAIN_COORDINATOR=\${workers[0]##*:}:8476 MMPRETRAIN_NUM_PROCESSES=\${#workers[@]}
export MMPRETRAIN_PROCESS_ID=\$(metadata agent-worker-number)
cd $checkout
echo \$\$ > .mmpretrain.pid
PATH=\$PWD/.venv/bin:\$PATH exec mmpretrain ${*@Q}"
stop="kill -TERM \$(cat $checkout/.mmpretrain.pid)"

stopped=
trap 'stopped=yes interrupted=yes; on_all_workers "$stop"' TERM INT HUP USR1

while true; do
  on_all_workers "$start" &
  workers=$!
  while interrupted=
    wait "$workers"
    code=$?
    [[ -n $interrupted ]]
  do :; done # a signal ended the wait; they are saving
  [[ $code == 75 && -z $stopped ]] || exit "$code"

  echo "launch/tpu_vm.sh: preempted; waiting for $name to be ready" >&2
  until [[ ${state-} == READY ]]; do
    sleep "$poll_sec"
    state=$(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format='value(state)') || state=gone
    case $state in gone | PREEMPTED | TERMINATED | DELETING)
      echo "launch/tpu_vm.sh: $name is $state; create it again and give the same command" >&2
      exit 75
      ;;
    esac
  done
  state=
done

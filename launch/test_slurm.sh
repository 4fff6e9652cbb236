#!/usr/bin/env bash
# launch/slurm.sbatch on a real Slurm: this machine as two nodes, a tiny run on both, preempted twice, resumed exactly.
#
# Installs Debian's slurm-wlm if it may (root) and none is there; where there can be no Slurm, says why and passes.
# Everything else is in a temporary folder: daemons on loopback as this user, no munge, a node's GPU by name only.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:/usr/sbin:$PATH

skip() {
  echo "test_slurm: skipped: $1"
  exit 0
}
if ! type slurmctld slurmd sbatch >/dev/null 2>&1; then
  type apt-get >/dev/null 2>&1 || skip "there is no Slurm and no apt-get to install it with"
  ((EUID == 0)) || skip "there is no Slurm, and installing it needs root"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update && apt-get install --yes --no-install-recommends slurm-wlm; } >/dev/null 2>&1 ||
    skip "apt-get cannot install slurm-wlm"
fi

work=$(mktemp -d)
export SLURM_CONF=$work/slurm.conf JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR=$PWD/.jax_cache
daemons=() jobs=()
finish() {
  local code=$?
  trap - EXIT
  set +e
  scancel --signal=KILL --full "${jobs[@]}" 2>/dev/null
  scancel "${jobs[@]}" 2>/dev/null
  for _ in {1..10}; do
    [[ -z $(squeue --noheader 2>/dev/null) ]] && break
    sleep 1
  done
  kill "${daemons[@]}" 2>/dev/null
  sleep 1
  kill -KILL "${daemons[@]}" 2>/dev/null
  ((code == 0)) || tail -n 20 "$work"/*.log
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 143' TERM INT

# --- two nodes on loopback -------------------------------------------------------------------------------------------

free_ports() {
  python3 -I - <<'END'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in sockets))
END
}
read -r controller_port port_1 port_2 < <(free_ports)
host=$(hostname -s)
cat >"$SLURM_CONF" <<END
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
GresTypes=gpu
NodeName=DEFAULT CPUs=2 RealMemory=16000 Gres=gpu:1
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$port_1
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$port_2
PartitionName=all Nodes=ALL Default=YES
END
echo "Name=gpu File=/dev/null" >"$work/gres.conf"
mkdir "$work/state"
slurmctld -D 2>/dev/null & daemons+=($!)
for node in node1 node2; do
  mkdir "$work/spool-$node"
  slurmd -D -N "$node" 2>/dev/null & daemons+=($!)
done
for _ in {1..30}; do
  idle=$(sinfo --noheader --states=idle --format=%D 2>/dev/null) && [[ $idle == 2 ]] && break
  sleep 1
done
[[ $idle == 2 ]] || { tail -n 20 "$work"/*.log; sinfo --list-reasons; skip "two nodes do not come up on this machine"; }

# --- a run left alone, and one that is preempted twice ---------------------------------------------------------------

python -m data_prep synthetic --output "$work/data" --clips 24 --mouth-size 36 --face-size 40 >/dev/null

patience_sec=${MMPRETRAIN_PATIENCE_SEC:-300} # for each state or step that is waited for

submit() { # submit FOLDER COMMAND: the job's number is then in $job
  job=$(sbatch --parsable --nodes=2 --cpus-per-task=1 --mem-per-cpu=1G --time=10 --output="$work/job-%j.log" \
    launch/slurm.sbatch "${@:2}" --round=1 --config=tests/multiprocess/sound.py --config.workdir="$work/$1" \
    --config.data.corpora[0].path="$work/data" --config.data.num_workers=0 --config.rounds[0].num_steps=160 \
    --config.checkpoint.every_steps=20 --config.log_every=2 --config.validation_every=80)
  jobs+=("$job")
}
state() { scontrol --oneliner show job "$1" | sed 's/.*JobState=\([A-Z_]*\).*/\1/'; }
until_state() { # until_state JOB STATE: waits for it
  for ((tries = 0; tries < patience_sec; tries++)); do
    now=$(state "$1")
    case $now in
      "$2") return ;;
      FAILED | CANCELLED | TIMEOUT | NODE_FAIL) break ;;
    esac
    sleep 1
  done
  echo "test_slurm: job $1 is $now, not $2"
  exit 1
}
until_step() { # until_step FOLDER STEP: waits until the run has logged that step
  for ((tries = 0; tries < 5 * patience_sec; tries++)); do
    step=$(sed -n 's|^{"stage": "round1/pretrain", "step": \([0-9]*\),.*|\1|p' "$work/$1/metrics.jsonl" 2>/dev/null | tail -n 1) ||
      step=0
    ((${step:-0} >= $2)) && return
    sleep 0.2
  done
  echo "test_slurm: $1 did not reach step $2"
  exit 1
}

submit straight targets
until_state "$job" COMPLETED
cp -r "$work/straight" "$work/preempted"

submit straight pretrain
until_state "$job" COMPLETED

submit preempted pretrain
until_step preempted 40
scancel --signal=USR1 "$job" # what Slurm sends two minutes before the time limit
until_state "$job" PENDING
until_step preempted 80
scontrol requeue "$job" # SIGTERM, and SIGKILL after KillWait
until_state "$job" PENDING
until_state "$job" COMPLETED

python - "$work" <<'END'
import json, pathlib, sys
from mmpretrain.observe.metric_log import read_metrics
from tests.metric_records import without_timings

def figures(run):
    folder = pathlib.Path(sys.argv[1], run)
    return [without_timings(record) for record in read_metrics(folder / "metrics.jsonl")]

straight, preempted = figures("straight"), figures("preempted")
assert straight == preempted, [pair for pair in zip(straight, preempted) if pair[0] != pair[1]][:3]
print(f"test_slurm: passed: {len(straight)} records equal; the last: {json.dumps(straight[-1])}")
END

#!/usr/bin/env bash
# launch/slurm.sh for real: a Slurm of one node in a temporary folder, and a job of two tasks, which is told to stop and
# queues again. In its place, since a job that queues again waits two minutes, a shorter one goes on to its end and
# doesn't queue again. Wants root and Debian's packages:
#   apt-get install --no-install-recommends slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins
# Prints the job's log and "slurm: ok". RAGDIFF is the command (default: python -m ragdiff_jax.cli.main in this checkout).
set -euo pipefail
unset CDPATH  # with it `cd` prints where it goes
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d) && chmod 755 "$dir"
host=$(hostname -s)
trap 'kill $(cat "$dir"/*.pid 2>/dev/null) 2>/dev/null; rm -rf "$dir"' EXIT
mkdir -p "$dir"/{state,spool,bin}

# The command, where the tasks find it.
printf '#!/bin/sh\ncd %q && exec %s "$@"\n' "$root" "${RAGDIFF:-${PYTHON:-python} -m ragdiff_jax.cli.main}" >"$dir/bin/ragdiff"
chmod +x "$dir/bin/ragdiff"
export PATH="$dir/bin:$PATH" JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=2 RAGDIFF_CACHE="$dir/cache"

dd if=/dev/urandom of="$dir/munge.key" bs=1024 count=1 2>/dev/null && chmod 600 "$dir/munge.key"
munged --force --socket="$dir/munge.socket" --key-file="$dir/munge.key" --pid-file="$dir/munge.pid" \
  --log-file="$dir/munge.log" --seed-file="$dir/munge.seed"
cat >"$dir/slurm.conf" <<CONF
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
SlurmctldPort=26817
SlurmdPort=26818
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
MpiDefault=none
JobRequeue=1
KillWait=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$dir/slurm.conf"
slurmctld -f "$SLURM_CONF" && slurmd -f "$SLURM_CONF"
for _ in $(seq 30); do sinfo -h -o %T 2>/dev/null | grep -q idle && break; sleep 1; done

${PYTHON:-python} -m ragdiff_jax.cli.main data synth --out "$dir/data" --count 32 --size 64 >"$dir/synth.log" 2>&1 || { cat "$dir/synth.log"; exit 1; }
run="$dir/run"
data=("$dir"/data/synth_garments/*/*)
fields=(data.folder="${data[0]}" model.preset=tiny train.steps="${STEPS:-400}" train.batch_size=8 train.log_every=5 model.vision=
  train.sample_every=0 train.validate_every=0 mesh.data=2 mesh.fsdp=2)
settings=()
for field in "${fields[@]}"; do settings+=(--set "$field"); done
submit() { NTASKS=2 CPUS=1 TIME=00:20:00 SBATCH_ARGS="--parsable" "$root/launch/slurm.sh" "$root/configs/structure_net/tiny.py" "$run" "${settings[@]}"; }

job=$(submit)
for _ in $(seq 300); do [[ -s "$run/metrics.jsonl" ]] && (($(wc -l <"$run/metrics.jsonl") > 10)) && break
  squeue -h -j "$job" | grep -q . || { cat "$run.slurm.log"; echo "slurm: the job ended early" >&2; exit 1; }
  sleep 1
done
scancel --signal=TERM "$job" # to every task, as before the machine is taken back
for _ in $(seq 120); do scontrol show job "$job" | grep -q Restarts=1 && break; sleep 1; done
grep -q "stopped at step" "$run.slurm.log" || { cat "$run.slurm.log"; echo "slurm: the job did not stop" >&2; exit 1; }
scontrol show job "$job" | grep -q Restarts=1 || { cat "$run.slurm.log"; echo "slurm: the job did not queue again" >&2; exit 1; }
scancel "$job"

STEPS=$(($(ls "$run/checkpoints" | grep -E '^[0-9]+$' | sort -n | tail -1) + 5))
settings+=(--set train.steps="$STEPS")
job=$(submit)
for _ in $(seq 300); do squeue -h -j "$job" 2>/dev/null | grep -q . || break; sleep 1; done
grep -v "^frozen\|^trained" "$run.slurm.log"
scontrol show job "$job" | grep -q JobState=COMPLETED || { scontrol show job "$job"; echo "slurm: the second job did not end" >&2; exit 1; }
grep -q "resuming .* at step" "$run.slurm.log" && [[ -d "$run/model" ]] && echo "slurm: ok"

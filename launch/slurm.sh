#!/usr/bin/env bash
# Slurm: one task a node, with all the cards there, or NTASKS tasks, one card each; the tasks find each other.
#   NODES=4 launch/slurm.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]
# A task that the scheduler takes back gets SIGTERM GRACE seconds before: all save at one step, and the job queues again.
set -euo pipefail
[[ "${1:-}" == --dry-run ]] && { DRY=1; shift; }
config=${1:?usage: NODES=N launch/slurm.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]}
workdir=${2:?name the workdir, on a file system that all nodes share}
shift 2
: "${NODES:=1}" "${NTASKS:=$NODES}" "${TIME:=24:00:00}" "${GRACE:=120}" "${SBATCH_ARGS:=}" "${DRY:=}"
printf -v line '%q ' ragdiff train --config "$config" --workdir "$workdir" "$@"
script=$(cat <<SCRIPT
#!/usr/bin/env bash
#SBATCH --job-name=ragdiff
#SBATCH --nodes=$NODES
#SBATCH --ntasks=$NTASKS
#SBATCH --time=$TIME
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=${workdir%/}.slurm.log
#SBATCH --signal=TERM@$GRACE
srun --kill-on-bad-exit=1 $line
SCRIPT
)
if [[ "$DRY" ]]; then echo "$script"; exit; fi
# shellcheck disable=SC2086  # SBATCH_ARGS holds several flags
sbatch $SBATCH_ARGS <<<"$script"

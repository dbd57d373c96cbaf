#!/usr/bin/env bash
# Slurm: one task a node, with all the cards there, or NTASKS tasks, one card each; the tasks find each other.
#   NODES=4 launch/slurm.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]
# GRACE seconds before the time limit every task gets SIGTERM: all save at one step, and the job queues again until the
# training is done (REQUEUE=0: it ends there). scancel ends it for good. CPUS: of a task (default: the cluster's).
set -euo pipefail
[[ "${1:-}" == --dry-run ]] && { DRY=1; shift; }
config=${1:?usage: NODES=N launch/slurm.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]}
workdir=${2:?name the workdir, on a file system that all nodes share}
shift 2
: "${NODES:=1}" "${NTASKS:=$NODES}" "${TIME:=24:00:00}" "${GRACE:=120}" "${SBATCH_ARGS:=}" "${DRY:=}" "${CPUS:=}" "${REQUEUE:=1}"
workdir=${workdir%/}
printf -v line '%q ' ragdiff train --config "$config" --workdir "$workdir" "$@"
printf -v dir '%q' "$workdir"
log=$workdir.slurm.log
[[ $log != *[[:space:]]* ]] || log=\"$log\"  # Slurm reads a directive as words
script=$(cat <<SCRIPT
#!/usr/bin/env bash
#SBATCH --job-name=ragdiff
#SBATCH --nodes=$NODES
#SBATCH --ntasks=$NTASKS
#SBATCH --time=$TIME
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=$log
#SBATCH --signal=TERM@$GRACE
${CPUS:+#SBATCH --cpus-per-task=$CPUS}
mkdir -p $dir && touch $dir/.started
# The step doesn't inherit the job's CPUs since Slurm 22.05.
srun --kill-on-bad-exit=1 ${CPUS:+--cpus-per-task=$CPUS }$line || exit
# A run that was told to stop ends with 0 as well; one that is done has written a model since it began.
[[ $REQUEUE == 0 ]] || find $dir/model -newer $dir/.started -print -quit 2>/dev/null | grep -q . || scontrol requeue "\$SLURM_JOB_ID"
SCRIPT
)
if [[ "$DRY" ]]; then echo "$script"; exit; fi
mkdir -p "$(dirname "$workdir")" # of the log: without its folder Slurm ends the job before its first line
# shellcheck disable=SC2086  # SBATCH_ARGS holds several flags
sbatch $SBATCH_ARGS <<<"$script"

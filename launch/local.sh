#!/usr/bin/env bash
# One machine, whatever is in it; or several processes on it, as a rehearsal of a pod.
#   launch/local.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]
#   PROCESSES=2 DEVICES=4 launch/local.sh CONFIG WORKDIR     two processes of four virtual CPU devices each
set -euo pipefail
run() { if [[ "${DRY:-}" ]]; then printf '%q ' "$@"; echo; else "$@"; fi; }
[[ "${1:-}" == --dry-run ]] && { DRY=1; shift; }
config=${1:?usage: launch/local.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]}
workdir=${2:?name the workdir}
shift 2
: "${PROCESSES:=1}" "${DEVICES:=}" "${PORT:=12355}"
[[ "$DEVICES" ]] && export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$DEVICES"

if ((PROCESSES == 1)); then
  run ragdiff train --config "$config" --workdir "$workdir" "$@"
  exit
fi
# A signal to the job is one to the training, not to a shell around it.
one() { if [[ "${DRY:-}" ]]; then run "$@"; else exec "$@"; fi; }
pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
for ((i = 0; i < PROCESSES; i++)); do
  (one ragdiff train --config "$config" --workdir "$workdir" "$@" \
    --coordinator "localhost:$PORT" --processes "$PROCESSES" --process "$i") &
  pids+=($!)
done
code=0
for pid in "${pids[@]}"; do
  while :; do  # the signal that is handed on ends a wait, while the process saves
    ended=0
    wait "$pid" || ended=$?
    kill -0 "$pid" 2>/dev/null || break
  done
  ((ended == 0)) || code=$ended
done
exit "$code"

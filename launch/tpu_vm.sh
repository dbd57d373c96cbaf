#!/usr/bin/env bash
# Cloud TPU: asks for a slice as a queued resource, waits until it is there, and starts the same line on every host.
#   NAME=run1 ZONE=us-east5-a TYPE=v5p-16 launch/tpu_vm.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]
# WORKDIR lies on a file system that all hosts mount (Filestore, a bucket through gcsfuse). SPOT=1 is cheaper and may be
# taken back: run the line again, it resumes.
set -euo pipefail
run() { if [[ "$DRY" ]]; then printf '%q ' "$@"; echo; else "$@"; fi; }
[[ "${1:-}" == --dry-run ]] && { DRY=1; shift; }
: "${DRY:=}" "${NAME:?a name for the slice}" "${ZONE:?e.g. us-east5-a}" "${TYPE:?e.g. v5p-16}" "${SPOT:=}"
: "${RUNTIME:=tpu-ubuntu2204-base}" "${PACKAGE:=ragdiff_jax[tpu]}"
config=${1:?usage: NAME= ZONE= TYPE= launch/tpu_vm.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]}
workdir=${2:?name the workdir}
shift 2
printf -v line '%q ' ragdiff train --config "$config" --workdir "$workdir" "$@"
on_all=(gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command)

run gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" --zone "$ZONE" \
  --accelerator-type "$TYPE" --runtime-version "$RUNTIME" ${SPOT:+--spot}
if [[ ! "$DRY" ]]; then
  until gcloud compute tpus queued-resources describe "$NAME" --zone "$ZONE" --format='value(state.state)' |
    grep -q ACTIVE; do sleep 30; done
fi
run gcloud compute tpus tpu-vm scp --recurse configs "$NAME": --zone "$ZONE" --worker=all
run "${on_all[@]}" "pip install -q '$PACKAGE'"
run "${on_all[@]}" "$line"

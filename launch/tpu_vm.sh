#!/usr/bin/env bash
# Cloud TPU: asks for a slice as a queued resource, waits until it is there, and starts the same line on every host.
#   NAME=run1 ZONE=us-east5-a TYPE=v5p-16 launch/tpu_vm.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]
# WORKDIR lies on a file system that all hosts mount: Filestore, or a bucket with hierarchical namespace through gcsfuse
# (a flat one can't rename folders, by which checkpoints and models become whole). SPOT=1 is cheaper and may be
# taken back: run the line again, it waits for the request that is there, or asks anew in the place of one that was
# suspended or failed, and the run resumes.
# PACKAGE: a wheel of ragdiff_jax (default: built from this checkout by a Python 3.11 or newer; PYTHON chooses it).
set -euo pipefail
run() { if [[ "$DRY" ]]; then printf '%q ' "$@"; echo; else "$@"; fi; }
[[ "${1:-}" == --dry-run ]] && { DRY=1; shift; }
: "${DRY:=}" "${NAME:?a name for the slice}" "${ZONE:?e.g. us-east5-a}" "${TYPE:?e.g. v5p-16}" "${SPOT:=}"
: "${RUNTIME:=tpu-ubuntu2204-base}" "${PACKAGE:=}" "${POLL:=30}"
config=${1:?usage: NAME= ZONE= TYPE= launch/tpu_vm.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]}
workdir=${2:?name the workdir}
shift 2
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
printf -v line '%q ' train --config "$config" --workdir "$workdir" "$@"
requests=(gcloud compute tpus queued-resources)
on_all=(gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command)
state() { "${requests[@]}" describe "$NAME" --zone "$ZONE" --format='value(state.state)'; }
ask() {
  run "${requests[@]}" create "$NAME" --node-id "$NAME" --zone "$ZONE" \
    --accelerator-type "$TYPE" --runtime-version "$RUNTIME" ${SPOT:+--spot}
}

if [[ "$DRY" ]]; then : "${PACKAGE:=ragdiff_jax.whl}"; fi
if [[ ! "$PACKAGE" ]]; then # before anything costs, and beside what an older build left in the checkout
  python=$(find_python)
  built=$(mktemp -d)
  trap 'rm -rf "$built"' EXIT
  "$python" -m pip wheel --quiet --no-deps -C--global-option=build -C--global-option=--build-base="$built/base" -w "$built" "$ROOT"
  PACKAGE=$(echo "$built"/*.whl)
fi

if [[ "$DRY" ]]; then ask; else
  now=$(state 2>/dev/null || true) # none: not asked for yet, or create will say what is wrong
  while [[ "$now" == SUSPENDING || "$now" == DELETING ]]; do sleep "$POLL"; now=$(state 2>/dev/null || true); done
  if [[ "$now" == SUSPENDED || "$now" == FAILED ]]; then
    run "${requests[@]}" delete "$NAME" --zone "$ZONE" --force --quiet
    now=
  fi
  [[ "$now" ]] || ask
  while now=$(state) || exit; [[ "$now" != ACTIVE ]]; do
    case "$now" in FAILED | SUSPEND*) echo "the request $NAME is $now; run the line again to ask anew" >&2; exit 1 ;; esac
    sleep "$POLL"
  done
fi
run gcloud compute tpus tpu-vm scp --recurse "$ROOT/configs" "$PACKAGE" "$NAME": --zone "$ZONE" --worker=all
# The image has Python 3.10. uv brings one of its own, and asks neither for root nor for apt's lock, which a new machine holds.
run "${on_all[@]}" "python3 -m pip install -q --user uv && python3 -m uv venv -q --allow-existing --python 3.11 ragdiff &&
python3 -m uv pip install -q --python ragdiff/bin/python --reinstall-package ragdiff_jax \"ragdiff_jax[tpu] @ file://\$HOME/${PACKAGE##*/}\""
run "${on_all[@]}" "ragdiff/bin/ragdiff $line"

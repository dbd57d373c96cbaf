#!/usr/bin/env bash
# One machine with several GPUs: one process drives them all.
#   launch/gpu_host.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]
set -euo pipefail
run() { if [[ "${DRY:-}" ]]; then printf '%q ' "$@"; echo; else exec "$@"; fi; }
[[ "${1:-}" == --dry-run ]] && { DRY=1; shift; }
config=${1:?usage: launch/gpu_host.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]}
workdir=${2:?name the workdir}
shift 2
# No quiet fall back to the CPU; nearly all of the cards' memory; collectives beside the arithmetic.
export JAX_PLATFORMS=cuda XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
export XLA_FLAGS="${XLA_FLAGS:---xla_gpu_enable_latency_hiding_scheduler=true}"

run ragdiff train --config "$config" --workdir "$workdir" "$@"

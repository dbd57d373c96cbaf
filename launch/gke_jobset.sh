#!/usr/bin/env bash
# GKE: a JobSet, one job a slice, one pod a host. --dry-run prints the manifest.
#   NAME=run1 IMAGE=REGISTRY/ragdiff:1 TPU=tpu-v5p-slice TOPOLOGY=2x2x2 HOSTS=2 VOLUME=runs \
#     launch/gke_jobset.sh [--dry-run] CONFIG WORKDIR [--set KEY=VALUE ...]
# VOLUME: a PersistentVolumeClaim that all pods may write to (ReadWriteMany: Filestore), at MOUNT (/mnt/runs): WORKDIR lies
# there, and so do the data and weights that CONFIG names; CONFIG itself is a file of the image.
# SLICES=2 joins two slices by the data axis. A pod that is taken back restarts all: they go on from the last checkpoint.
set -euo pipefail
[[ "${1:-}" == --dry-run ]] && { DRY=1; shift; }
: "${DRY:=}" "${NAME:?a name}" "${IMAGE:?an image with ragdiff_jax[tpu]}" "${TPU:?e.g. tpu-v5p-slice}"
: "${TOPOLOGY:?e.g. 2x2x2}" "${HOSTS:?hosts of a slice}" "${CHIPS:=4}" "${SLICES:=1}" "${RESTARTS:=100}"
: "${VOLUME:?a PersistentVolumeClaim that all pods may write to}" "${MOUNT:=/mnt/runs}"
config=${1:?usage: NAME= IMAGE= TPU= TOPOLOGY= HOSTS= VOLUME= launch/gke_jobset.sh [--dry-run] CONFIG WORKDIR [--set ...]}
workdir=${2:?name the workdir, a folder in MOUNT}
shift 2
[[ "$workdir" == "${MOUNT%/}"/?* ]] || { echo "$workdir: not in MOUNT=$MOUNT, the one place that all pods share" >&2; exit 2; }

# SIGTERM is handed on to the run, which saves and ends with 0: for the JobSet that would be success. A run is done when it
# has written a model since it began; another one fails, and the JobSet starts all again.
IFS= read -rd '' pod <<'POD' || true
mkdir -p "$0" && touch "$0/.started" || exit
trap 'kill -TERM $!' TERM
"$@" &
code=0; wait $! || code=$?
while kill -0 $! 2>/dev/null; do code=0; wait $! || code=$?; done  # the signal ended the wait, not the run
((code == 0)) || exit $code
find "$0/model" -newer "$0/.started" -print -quit 2>/dev/null | grep -q . || { echo "not done yet: to be started again"; exit 1; }
POD
# A JSON list is YAML too, whatever is in its strings; Kubernetes takes $$ for $, and so $(this) for no variable of its own.
list='import json, sys; print(json.dumps(sys.argv[1:], ensure_ascii=False).replace("$", "$$"))'
command=$(python3 -c "$list" bash -c "$pod" "$workdir" ragdiff train --config "$config" --workdir "$workdir" "$@")
manifest=$(cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $NAME
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy: {maxRestarts: $RESTARTS}
  replicatedJobs:
  - name: slice
    replicas: $SLICES
    template:
      spec:
        parallelism: $HOSTS
        completions: $HOSTS
        backoffLimit: 0
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 120
            hostNetwork: true
            dnsPolicy: ClusterFirstWithHostNet
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $TPU
              cloud.google.com/gke-tpu-topology: $TOPOLOGY
            containers:
            - name: train
              image: $IMAGE
              command: $command
              volumeMounts: [{name: shared, mountPath: $MOUNT}]
              resources:
                limits: {google.com/tpu: $CHIPS}
            volumes: [{name: shared, persistentVolumeClaim: {claimName: $VOLUME}}]
YAML
)
if [[ "$DRY" ]]; then echo "$manifest"; else kubectl apply -f - <<<"$manifest"; fi

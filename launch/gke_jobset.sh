#!/usr/bin/env bash
# GKE: a JobSet, one job a slice, one pod a host. --dry-run prints the manifest.
#   NAME=run1 IMAGE=REGISTRY/ragdiff:1 TPU=tpu-v5p-slice TOPOLOGY=2x2x2 HOSTS=2 launch/gke_jobset.sh [--dry-run] CONFIG WORKDIR
# SLICES=2 joins two slices by the data axis. A pod that is taken back restarts all: they go on from the last checkpoint.
set -euo pipefail
[[ "${1:-}" == --dry-run ]] && { DRY=1; shift; }
: "${DRY:=}" "${NAME:?a name}" "${IMAGE:?an image with ragdiff_jax[tpu]}" "${TPU:?e.g. tpu-v5p-slice}"
: "${TOPOLOGY:?e.g. 2x2x2}" "${HOSTS:?hosts of a slice}" "${CHIPS:=4}" "${SLICES:=1}" "${RESTARTS:=100}"
config=${1:?usage: NAME= IMAGE= TPU= TOPOLOGY= HOSTS= launch/gke_jobset.sh [--dry-run] CONFIG WORKDIR [--set ...]}
workdir=${2:?name the workdir, on storage that all pods share}
shift 2
printf -v line '%q ' ragdiff train --config "$config" --workdir "$workdir" "$@"
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
              # exec: SIGTERM reaches the run itself
              command: ["bash", "-c", "exec $line"]
              resources:
                limits: {google.com/tpu: $CHIPS}
YAML
)
if [[ "$DRY" ]]; then echo "$manifest"; else kubectl apply -f - <<<"$manifest"; fi

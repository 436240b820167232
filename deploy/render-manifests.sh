#!/usr/bin/env bash
# Writes the plain manifests of deploy/k8s (or of DIRECTORY) from the Helm chart with its default values.
#
#   deploy/render-manifests.sh [DIRECTORY]
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
to="${1:-$here/k8s}"
rendered="$(mktemp -d)"
trap 'rm -rf "$rendered"' EXIT
helm template run-steps "$here/helm/run-steps" --output-dir "$rendered" >/dev/null
for manifest in "$rendered"/run-steps/templates/*.yaml; do
  # Without Helm's own first lines (the document mark and the name of the template) and the space that templates leave.
  printf '%s\n' "$(sed '/^---$/d; /^# Source: /d; s/ *$//' "$manifest")" >"$to/$(basename "$manifest")"
done

#!/usr/bin/env bash
# Builds what an index takes, in OUT (emptied of earlier ones): the source archive, the wheel of Python alone, and for each
# of PYTHONS the wheel with the compiled core, under the oldest manylinux tag that its symbols allow. All wheels are made of
# the source archive, so that it is complete. Needs a C compiler, and auditwheel and patchelf in the PATH (`make wheels`).
#
#   PYTHONS="python3.11 python3.12 python3.13" deploy/build-wheels.sh [OUT]
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
out="$(mkdir -p "${1:-$here/dist}" && cd "${1:-$here/dist}" && pwd)"
read -ra pythons <<<"${PYTHONS:-python3.11 python3.12 python3.13}"
unset PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1

missing=()
for python in "${pythons[@]}"; do
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || missing+=("$python")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "build-wheels: not there, or older than 3.11: ${missing[*]}; a release has a wheel for each Python." >&2
  echo "  hint: install them, or name those that you have: make wheels PYTHONS=\"python3.11 /opt/python3.13/bin/python3\"" >&2
  exit 69
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
rm -f "$out"/run_steps-*.whl "$out"/run_steps-*.tar.gz

environment() { # of the build tools, for one Python
  "$1" -m venv "$work/$2"
  "$work/$2/bin/python" -m pip install --require-hashes -r "$here/requirements-build.lock"
}

wheel() { # of the source archive: compile or not, environment, where to
  HATCH_BUILD_HOOKS_ENABLE="$1" "$work/$2/bin/python" -m pip wheel --no-deps --no-build-isolation --wheel-dir "$3" "$archive"
}

number=0
for python in "${pythons[@]}"; do
  environment "$python" "$number"
  if [ "$number" = 0 ]; then
    (cd "$here" && "$work/0/bin/python" -m hatchling build --target sdist --directory "$out" >/dev/null)
    archive="$(echo "$out"/run_steps-*.tar.gz)"
    wheel 0 0 "$out"
  fi
  wheel 1 "$number" "$work/compiled"
  number=$((number + 1))
done
auditwheel repair --plat auto --wheel-dir "$out" "$work"/compiled/*.whl >/dev/null
ls -1 "$out"/run_steps-*

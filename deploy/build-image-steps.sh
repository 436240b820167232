#!/usr/bin/env bash
# Runs the build steps of the Dockerfile (FROM, WORKDIR, COPY, RUN; in order, as written) without a container
# engine: each stage gets a directory below ROOT in place of "/", and the base image's Python is a fresh virtual
# environment. Then it asks what was built for its version and its settings.
#
#   deploy/build-image-steps.sh [ROOT]       PYTHON=python3.12 to build with another one
set -euo pipefail
if ! command -v gcc >/dev/null; then # or a step would install it here
  echo "build-image-steps: gcc: not found; the core is compiled (Debian: apt-get install gcc libc6-dev)" >&2
  exit 69
fi
unset PYTHONPATH # what is asked at the end is what was built
here="$(cd "$(dirname "$0")/.." && pwd)"
root="${1:-$(mktemp -d)}"
[ $# -ge 1 ] || trap 'rm -rf "$root"' EXIT
"${PYTHON:-python3}" -m venv "$root/base"
export PATH="$root/base/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1

stage="" dir="/" entrypoint=""

in_stage() { # absolute paths of a command, moved below the stage's directory
  sed -E "s#(^|[[:space:]])/(src|wheels|opt)#\1$stage/\2#g" <<<"$1"
}

step() { # one instruction and its argument
  local args from="$here"
  case "$1" in
    FROM)
      read -ra args <<<"$2"
      stage="$root/${args[2]:-final}" dir="/"
      mkdir -p "$stage"
      ;;
    WORKDIR)
      dir="$2"
      mkdir -p "$stage$dir"
      ;;
    COPY)
      read -ra args <<<"$2"
      if [[ ${args[0]} == --from=* ]]; then
        from="$root/${args[0]#--from=}"
        args=("${args[@]:1}")
      fi
      local to="${args[-1]}"
      [[ $to == /* ]] && to="$stage$to" || to="$stage$dir/$to"
      mkdir -p "$(dirname "$to/x")"
      local source
      for source in "${args[@]:0:${#args[@]}-1}"; do
        if [ -d "$from/$source" ]; then cp -R "$from/$source/." "$to"; else cp "$from/$source" "$to"; fi
      done
      find "$to" -name __pycache__ -type d -prune -exec rm -rf {} + # as .dockerignore says
      ;;
    RUN)
      echo "RUN $2"
      (cd "$stage$dir" && bash -euc "$(in_stage "$2")")
      ;;
    ENTRYPOINT) entrypoint="$2" ;;
    ARG | LABEL | ENV | USER | EXPOSE | STOPSIGNAL | HEALTHCHECK | CMD) ;; # nothing to build
    *)
      echo "build-image-steps: $1: this script does not know the instruction" >&2
      exit 64
      ;;
  esac
}

while read -r instruction rest; do
  step "$instruction" "$rest"
done < <(sed -E '/^[[:space:]]*(#|$)/d' "$here/Dockerfile" | sed -e ':a' -e '/\\$/N; s/\\\n *//; ta')

# ["/a", "b"] -> words
read -ra command <<<"$(in_stage " $(tr -d '[],"' <<<"$entrypoint")")"
cd /
"${command[@]}" --version
"${command[@]}" check-config >/dev/null
echo "built $(du -sh "$stage" | cut -f1) in $stage"

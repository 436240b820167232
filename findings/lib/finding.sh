# shellcheck shell=bash
# What every script here shares: a temporary folder that is removed at the end, packages at exact versions, the verdict.
# Sourced, not run.
set -euo pipefail

WORK=$(mktemp -d)
LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) # what Python scripts here share, for PYTHONPATH
BACKGROUND=() # process ids that this script started
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 npm_config_update_notifier=false npm_config_audit=false npm_config_fund=false

# Ends one process that this script started: asks, waits up to 5 s, then forces.
end_process() {
  local pid=$1
  kill "$pid" 2>/dev/null || return 0
  for _ in {1..50}; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

clean_up() {
  local pid
  for pid in "${BACKGROUND[@]}"; do end_process "$pid"; done
  rm -rf "$WORK"
}
trap clean_up EXIT

# What the calling script's header says: surprise, versions, expected.
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"

# A virtual environment in $WORK/venv: python_packages NAME==VERSION...
python_packages() {
  python3 -m venv "$WORK/venv"
  "$WORK/venv/bin/python" -m pip install --quiet "$@"
}

# Node packages in $WORK/node: node_packages NAME@VERSION...
node_packages() {
  mkdir -p "$WORK/node"
  (cd "$WORK/node" && npm init --yes >/dev/null && npm install --silent --ignore-scripts "$@" >/dev/null)
}

# Node 22.22.0 in $NODE, for packages that need it, whatever node is on the path.
node_22() {
  local package
  package="node-$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')"
  mkdir -p "$WORK/node22"
  (cd "$WORK/node22" && npm init --yes >/dev/null && npm install --silent "$package@22.22.0" >/dev/null)
  export NODE=$WORK/node22/node_modules/$package/bin/node
}

# A Go module in $WORK/go whose main.go is read from standard input: go_program NAME@VERSION...
go_program() {
  mkdir -p "$WORK/go"
  cat >"$WORK/go/main.go"
  (cd "$WORK/go" && go mod init finding && go get "$@" && go build -o program .) >"$WORK/go.log" 2>&1 || {
    cat "$WORK/go.log" >&2
    return 1
  }
}

# A Rust program whose main.rs is read from standard input, $WORK/rust/target/debug/finding: rust_program NAME@VERSION...
# A version is exact; "NAME@VERSION --features A,B" is one argument.
rust_program() {
  local package words
  mkdir -p "$WORK/rust/src"
  cat >"$WORK/rust/src/main.rs"
  printf '[package]\nname = "finding"\nversion = "0.0.0"\nedition = "2021"\n[profile.dev]\ndebug = false\n' >"$WORK/rust/Cargo.toml"
  (
    cd "$WORK/rust"
    for package in "$@"; do
      read -ra words <<<"${package/@/@=}"
      cargo add --quiet "${words[@]}"
    done
    cargo build --quiet
  ) >"$WORK/rust.log" 2>&1 || {
    cat "$WORK/rust.log" >&2
    return 1
  }
}

# Jars and what they depend on in $WORK/NAME: java_packages NAME GROUP:ARTIFACT:VERSION...
java_packages() {
  local target=$WORK/$1 coordinates group artifact version
  shift
  mkdir -p "$target"
  {
    echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
    echo '<groupId>finding</groupId><artifactId>finding</artifactId><version>1</version><packaging>pom</packaging><dependencies>'
    for coordinates in "$@"; do
      IFS=: read -r group artifact version <<<"$coordinates"
      echo "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
    done
    echo '</dependencies></project>'
  } >"$target/pom.xml"
  mvn --quiet --batch-mode --file "$target/pom.xml" dependency:copy-dependencies -DoutputDirectory="$target" >"$WORK/mvn.log" 2>&1 || {
    cat "$WORK/mvn.log" >&2
    return 1
  }
}

# The verdict: verdict EXPECTED_OUTPUT_OF_THE_SURPRISE OUTPUT_SEEN. Exit 0 while they are equal.
verdict() {
  printf 'output:\n%s\n' "$2"
  if [[ "$1" == "$2" ]]; then
    echo "still there"
  else
    printf 'CHANGED. The surprise was:\n%s\n' "$1"
    exit 1
  fi
}

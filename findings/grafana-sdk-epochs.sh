#!/usr/bin/env bash
# surprise: Asking pip for grafana-foundation-sdk 11 or newer installs the types of Grafana 10.1, the oldest it has.
# versions: PyPI grafana-foundation-sdk up to 1769699998!10.1.0 (the release of January 2026); pip 26.1
# expected: with >=11 the package for Grafana 11, which exists in each release (11.6.0 is the newest number there).
# does: each release is published once per Grafana version, with the seconds of its upload as the version's epoch, and Grafana 10.1
#   is uploaded last. An epoch outranks all that follows it (PyPA's version specifiers, "Version epochs"), so the newest package is that of 10.1.0,
#   every bound without an epoch is met by it, and an upgrade of the package takes the dashboards' types back to Grafana 10.

. "$(dirname "$0")/lib/finding.sh"
python_packages pip==26.1
asked() { # the file that pip chooses for a requirement, of what stood on PyPI in January 2026
  rm -rf "$WORK/got"
  timeout 120 "$WORK/venv/bin/python" -m pip download --quiet --no-deps --dest "$WORK/got" "grafana-foundation-sdk$1" >&2
  (cd "$WORK/got" && echo ./*.whl)
}
seen=$(
  echo ">=11: $(asked '>=11,<=1769699998!10.1.0')"
  echo ">=11.6.0: $(asked '>=11.6.0,<=1769699998!10.1.0')"
  echo "with its epoch: $(asked '==1769699379!11.6.0')"
)
verdict ">=11: ./grafana_foundation_sdk-1769699998!10.1.0-py3-none-any.whl
>=11.6.0: ./grafana_foundation_sdk-1769699998!10.1.0-py3-none-any.whl
with its epoch: ./grafana_foundation_sdk-1769699379!11.6.0-py3-none-any.whl" "$seen"

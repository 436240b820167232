#!/usr/bin/env bash
# surprise: Dask's Client.map publishes one of several equal records, and reports success for each of them.
# versions: PyPI distributed 2026.8.0, dask 2026.8.0
# expected: a call for each item, as concurrent.futures, whose interface Client follows, makes them: two equal tokens of a
#   stream are two records.
# does: a task's name is a digest of its function and arguments, and one name is one task, so that equal items share one call and
#   its result. pure=False, which the documentation of map and submit names, gives each item a call of its own.

. "$(dirname "$0")/lib/finding.sh"
python_packages distributed==2026.8.0 dask==2026.8.0
cat >"$WORK/publish.py" <<'PYTHON'
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distributed import Client

topic = Path(sys.argv[1])


def publish(record):
    with topic.open("ab") as file:
        file.write(record + b" ")
    return "published"


if __name__ == "__main__":
    records = [b"ha", b"ha", b"!", b"ha"]

    def show(name, told):
        print(f"{name}: told {list(told)}, on the topic:", sorted(topic.read_text().split()))
        topic.unlink()

    with ThreadPoolExecutor(1) as executor:
        show("concurrent.futures", executor.map(publish, records))
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as client:
        show("dask", client.gather(client.map(publish, records)))
        show("dask, pure=False", client.gather(client.map(publish, records, pure=False)))
PYTHON
verdict "concurrent.futures: told ['published', 'published', 'published', 'published'], on the topic: ['!', 'ha', 'ha', 'ha']
dask: told ['published', 'published', 'published', 'published'], on the topic: ['!', 'ha']
dask, pure=False: told ['published', 'published', 'published', 'published'], on the topic: ['!', 'ha', 'ha', 'ha']" \
  "$(timeout 60 "$WORK/venv/bin/python" "$WORK/publish.py" "$WORK/topic")"

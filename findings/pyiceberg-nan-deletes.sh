#!/usr/bin/env bash
# surprise: pyiceberg's delete("score > 0.5") takes the row whose score is NaN, too, which its scan with the same filter does not find.
# versions: PyPI pyiceberg 0.12.0 with its extra sql-sqlite, pyarrow 26.0.1
# expected: what the scan finds is what the delete takes, and no more: NaN is not greater than 0.5, as pyiceberg's own evaluation of rows says,
#   and Iceberg keeps counts of NaN values apart because a file's bounds do not tell of them.
# does: the files that it writes have no such count, and it takes that for none. If the bounds of a file lie within the filter the whole
#   file goes, with rows that have no score yet, or one that could not be reckoned. A scan goes by the same: of a file whose other
#   scores are equal it finds no NaN, neither with "is nan" nor with "!=". With two different scores "is nan" finds it.
#   (For Iceberg's Java library pull request 17648 is about counts that are not known.)

. "$(dirname "$0")/lib/finding.sh"
python_packages "pyiceberg[sql-sqlite]==0.12.0" pyarrow==26.0.1
seen=$(cd "$WORK" && timeout 120 "$WORK/venv/bin/python" -W ignore - <<'PYTHON'
import os

import pyarrow
from pyiceberg.catalog.sql import SqlCatalog

warehouse = os.path.join(os.getcwd(), "warehouse")
os.mkdir(warehouse)
catalog = SqlCatalog("any", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}")
catalog.create_namespace("any")
number = 0
for scores in ([1.0, float("nan")], [0.75, 1.0, float("nan")]):
    for row_filter in ("score > 0.5", "score != 1.0", "score is nan"):
        number += 1
        steps = pyarrow.table({"step": pyarrow.array(range(len(scores))), "score": pyarrow.array(scores)})
        table = catalog.create_table(f"any.steps_{number}", schema=steps.schema)
        table.append(steps)
        found = table.scan(row_filter=row_filter).to_arrow()["step"].to_pylist()
        table.delete(row_filter)
        left = table.scan().to_arrow()["step"].to_pylist()
        print(f"scores {scores}, {row_filter}: scan finds {found}, delete leaves {left}")
PYTHON
)
verdict 'scores [1.0, nan], score > 0.5: scan finds [0], delete leaves []
scores [1.0, nan], score != 1.0: scan finds [], delete leaves [0, 1]
scores [1.0, nan], score is nan: scan finds [], delete leaves [0]
scores [0.75, 1.0, nan], score > 0.5: scan finds [0, 1], delete leaves []
scores [0.75, 1.0, nan], score != 1.0: scan finds [0, 2], delete leaves [1, 2]
scores [0.75, 1.0, nan], score is nan: scan finds [2], delete leaves [0, 1]' "$seen"

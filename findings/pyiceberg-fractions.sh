#!/usr/bin/env bash
# surprise: pyiceberg does not find 2 with "tokens > 1.5", and with "tokens = 1.9" it deletes the row that has 2.
# versions: PyPI pyiceberg 0.12.0, pyarrow 26.0.1; duckdb 2.0.1 for comparison
# expected: what the comparison says of the numbers, as in SQL, or an error: pyiceberg refuses GreaterThan("tokens", 1.5), whose
#   value is a float, and a filter on a decimal column whose literal has another scale.
# does: in a filter that is written as text, and with a Decimal, the literal is rounded to a whole number, half to even, before it
#   is compared with an integer column: 1.5 becomes 2, 2.5 becomes 2, 0.5 becomes 0. A scan by an average or another computed
#   bound gives too few rows or too many, and delete() and overwrite() take the same filter.

. "$(dirname "$0")/lib/finding.sh"
python_packages pyiceberg==0.12.0 pyarrow==26.0.1 sqlalchemy==2.0.46 duckdb==2.0.1
seen=$(timeout 60 "$WORK/venv/bin/python" -W ignore - "$WORK" <<'PYTHON'
import sys

import duckdb
import pyarrow
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import GreaterThan

catalog = SqlCatalog("any", uri=f"sqlite:///{sys.argv[1]}/catalog.db", warehouse=f"file://{sys.argv[1]}")
catalog.create_namespace("runs")
steps = pyarrow.table({"tokens": [1, 2, 3]})
for number, condition in enumerate(("> 1.5", "< 2.5", "= 0.5", "= 1.9", "!= 1.9", "in (1.9)")):
    table = catalog.create_table(f"runs.steps_{number}", steps.schema)
    table.append(steps)
    condition = f"tokens {condition}"
    found = table.scan(row_filter=condition).to_arrow()["tokens"].to_pylist()
    table.delete(condition)
    left = table.scan().to_arrow()["tokens"].to_pylist()
    sql = [tokens for (tokens,) in duckdb.sql(f"select tokens from steps where {condition}").fetchall()]
    print(f"{condition}: {sql} in SQL, {found} in pyiceberg; delete leaves {left}")
try:
    table.scan(row_filter=GreaterThan("tokens", 1.5)).to_arrow()
except TypeError as error:
    print("GreaterThan:", error)
PYTHON
)
verdict "tokens > 1.5: [2, 3] in SQL, [3] in pyiceberg; delete leaves [1, 2]
tokens < 2.5: [1, 2] in SQL, [1] in pyiceberg; delete leaves [2, 3]
tokens = 0.5: [] in SQL, [] in pyiceberg; delete leaves [1, 2, 3]
tokens = 1.9: [] in SQL, [2] in pyiceberg; delete leaves [1, 3]
tokens != 1.9: [1, 2, 3] in SQL, [1, 3] in pyiceberg; delete leaves [2]
tokens in (1.9): [] in SQL, [2] in pyiceberg; delete leaves [1, 3]
GreaterThan: Cannot convert DoubleLiteral into long" "$seen"

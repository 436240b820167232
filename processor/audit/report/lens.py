"""SQL access to the tables of a report folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb
import pyarrow as pa

from processor.audit.report.manifest import ReportError
from processor.audit.report.tables import SCHEMAS, table_of

NOW: Final = pa.schema([("partition", pa.int32()), ("stream_time", pa.int64())])

_VIEWS: Final = (
    # Differences of timestamps that anybody may have written: wide numbers, then cut to what a column holds.
    """
    CREATE VIEW ended AS
    SELECT *, least(greatest(ended_ms::HUGEINT - opened_ms, 0), 1::HUGEINT << 62)::BIGINT AS took_ms
    FROM steps WHERE revision = 0 AND opened_ms IS NOT NULL AND ended_ms IS NOT NULL
    """,
    """
    CREATE VIEW stuck AS
    SELECT steps.*,
        least(greatest(coalesce(stream_time::HUGEINT - opened_ms, 0), 0), 1::HUGEINT << 62)::BIGINT AS took_ms
    FROM steps LEFT JOIN now ON steps.partition = now.partition WHERE status = 'in_progress'
    """,
    """
    CREATE VIEW disagreeing AS
    SELECT *, verdict = 'unverifiable' AS undecided FROM findings WHERE verdict <> 'equal'
    """,
    """
    CREATE VIEW unaccounted AS SELECT * FROM coverage WHERE kind NOT IN ('data', 'marker', 'aborted')
    """,
)


class Lens:
    """SQL access to the tables of a report folder. Use as a context manager.

    Args:
        folder: the report.
        files: names of its files, as the manifest has them.

    Raises:
        ReportError: a table is not what the schema says.
    """

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self._folder = folder
        self._spill = TemporaryDirectory(prefix="run-steps-report-")
        self._db = duckdb.connect(
            config={"temp_directory": self._spill.name, "memory_limit": "1GB", "autoinstall_known_extensions": False}
        )
        try:
            for name, schema in SCHEMAS.items():
                paths = [_literal(folder / file) for file in sorted(files) if table_of(file) == name]
                if paths:
                    self._db.read_parquet(paths, hive_partitioning=False).create_view(name)
                else:
                    self.lay(name, schema.empty_table())
            self.lay("now", NOW.empty_table())
            for view in _VIEWS:
                self._db.execute(view)
        except (duckdb.Error, OSError) as error:
            self.close()
            raise _unusable(folder, error) from None

    def __enter__(self) -> Lens:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()
        self._spill.cleanup()

    def rows(self, query: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Raises ReportError where a table cannot be read."""
        try:
            cursor = self._db.execute(query, parameters or {})
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except (duckdb.Error, OSError) as error:
            raise self.unusable(error) from None

    def unusable(self, error: Exception) -> ReportError:
        return _unusable(self._folder, error)

    def lay(self, name: str, table: pa.Table) -> None:
        """Put a small table of our own beside the others."""
        self._db.register(name, table)

    def one(self, query: str, parameters: dict[str, Any] | None = None) -> Any:
        """The only value of the only row."""
        return next(iter(self.rows(query, parameters)[0].values()))


def _literal(path: Path) -> str:
    """A path as duckdb takes it: its letters for patterns made plain."""
    return re.sub(r"([\[*?])", r"[\1]", str(path.absolute()))


def _unusable(folder: Path, error: Exception) -> ReportError:
    told = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return ReportError(f"{folder}: tables: {told}", hint="the files have been changed, or another version wrote them")

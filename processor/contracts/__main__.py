"""`python -m processor.contracts DIRECTORY` writes the contracts for readers of the topics there (`make contracts`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from processor.contracts.asyncapi import asyncapi
from processor.contracts.snapshot import snapshot_schema

FILES: Final = {"published-step.schema.json": snapshot_schema, "asyncapi.json": asyncapi}


def text(document: dict[str, Any]) -> str:
    """A document as it stands in its file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main(directory: Path) -> None:
    """Write every file of `FILES`."""
    for name, document in FILES.items():
        (directory / name).write_text(text(document()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

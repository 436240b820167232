"""The documentation: every link leads somewhere, the reference is what the program says, and the site can be built."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final, cast

import click
import pytest
import typer
import yaml

from deploy.site.make_reference import PAGES
from deploy.site.stage import ROOT, links, pages
from processor.cli.main import app
from processor.config.settings import keys

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


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "[a](gone.md) [b](x.md#y) `[c](no)` [d](https://example.com/z)\n```\n[e](code)\n```\n[f](#own)"
    assert list(links(text)) == [("gone.md", ""), ("x.md", "#y"), ("no", ""), ("", "#own")]


def test_the_reference_has_every_command_option_and_setting() -> None:
    """The pages are written when the site is built."""
    commands = PAGES["commands.md"]()
    group = cast(click.Group, typer.main.get_command(app))
    told = list(group.commands.items())
    told += [(f"{name} {part}", own) for name, c in told for part, own in getattr(c, "commands", {}).items()]
    for name, command in told:
        section = commands.partition(f"# run-steps {name}\n")[2].partition("\n#")[0]
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

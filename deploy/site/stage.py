"""Stage the pages of the documentation site: every Markdown page, and the files that pages link to, as they lie here.

`python -m deploy.site.stage build/site-pages`. docs/reference is written from the program. README.md becomes index.md,
and links to it follow. Paths stay as they are, so that one page reads well here and there.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.site.make_reference import PAGES as REFERENCE

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**/*.md",
    "findings/**/*.md",
    "processor/samples/*.md",
)
LINK: Final = re.compile(r"(?<!!)\[[^\]\n]*\]\((?!\w+:)([^)\s#]*)(#[^)\s]*)?\)")
"""A link to a path here: its path, empty where it leads into its own page, and its anchor."""
_FENCE: Final = re.compile(r"(?ms)^(```+).*?^\1")


def pages() -> list[Path]:
    """The pages, relative to the project."""
    return sorted(path.relative_to(ROOT) for pattern in PAGES for path in ROOT.glob(pattern))


def links(text: str) -> Iterator[tuple[str, str]]:
    """Path and anchor (with its #) of each link to a path, code blocks left out."""
    yield from LINK.findall(_FENCE.sub("", text))


def stage(into: Path) -> None:
    """Copy the pages and what they link to into a new folder."""
    shutil.rmtree(into, ignore_errors=True)
    for page in pages():
        text = (ROOT / page).read_text("utf-8")
        for path, _ in links(text):
            target = (ROOT / page.parent / path).resolve()
            if target.is_file() and target.suffix != ".md" and target.is_relative_to(ROOT):
                copy = into / target.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(target, copy)
        shown = into / ("index.md" if page == Path("README.md") else page)
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.write_text(_for_the_site(page, text), "utf-8")
    reference = into / "docs" / "reference"
    reference.mkdir()
    for name, write in REFERENCE.items():
        (reference / name).write_text(write(), "utf-8")
    (into / "config").mkdir(exist_ok=True)
    shutil.copyfile(ROOT / "config" / "processor.toml", into / "config" / "processor.toml")


def _for_the_site(page: Path, text: str) -> str:
    """A folder has no page of its own there: links to one lead to its README, or are plain text."""

    def changed(found: re.Match[str]) -> str:
        path, anchor = found[1], found[2] or ""
        target = (ROOT / page.parent / path).resolve()
        if path and target.is_dir():
            if (target / "README.md").exists():
                return found[0].replace(f"({path}", f"({path.rstrip('/')}/README.md")
            return found[0][1 : found[0].index("]")]
        if target == ROOT / "README.md":
            return found[0].replace(f"({path}{anchor}", f"({path[: -len('README.md')]}index.md{anchor}")
        return found[0]

    return LINK.sub(changed, text)


if __name__ == "__main__":
    stage(Path(sys.argv[1]))

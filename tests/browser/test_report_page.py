"""report.html in a real browser: on a phone and a desktop, in light and dark, by keyboard, without its script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from processor.audit.judge.verdicts import Verdict
from tests.browser.chromium import BINARY, Tab, browser
from tests.shell.reports import make

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(BINARY is None, reason="chromium is not here: apt-get install chromium"),
]

PHONE, DESKTOP = 390, 1280
WRONG = tuple(verdict for verdict in Verdict if verdict is not Verdict.EQUAL)

# Of each element that shows text of its own: the least contrast between it and what is painted behind it.
CONTRAST = """
(() => {
  const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  let worst = [21, ""];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .nil, .skip")) continue;
    let behind = element;
    while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const [a, b] = [light(rgba(getComputedStyle(element).color)),
      light(rgba(getComputedStyle(behind ?? document.body).backgroundColor))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 120)];
  }
  return worst;
})()
"""

# Elements that reach out of the window to the right, and text that is cut off inside its own box.
SPILLS = """
[...document.querySelectorAll("body *")].filter((element) => {
  if (!element.checkVisibility() || element.closest(".skip, thead")) return false;
  return element.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
}).map((element) => element.outerHTML.slice(0, 100))
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of reports of every kind."""
    home = tmp_path_factory.mktemp("reports")
    make(home / "proven", steps=60)
    make(home / "different", steps=60, wrong=WRONG * 2, hole=3)
    make(home / "unprovable", steps=20, hole=3)
    make(home / "hostile", steps=30, hostile=True, wrong=(Verdict.DIFFERENT,) * 6, created="<b>now</b>")
    return {folder.name: (folder / "report.html").as_uri() for folder in home.iterdir()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tab]:
    async with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["proven", "different", "unprovable", "hostile"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
async def test_the_page_fits_and_can_be_read(
    tab: Tab, pages: dict[str, str], width: int, dark: bool, kind: str
) -> None:
    await tab.look(width=width, dark=dark)
    await tab.open(pages[kind])
    await tab.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert await tab.ask("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert await tab.ask(SPILLS) == []
    ratio, where = await tab.ask(CONTRAST)
    assert ratio >= 4.5, where
    back = await tab.ask("getComputedStyle(document.body).backgroundColor")
    assert (max(int(part) for part in back[4:-1].split(",")) < 60) is dark
    assert tab.complaints == []
    assert tab.requests == [pages[kind]], "the page asked for something"


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
async def test_the_verdict_is_seen_first(tab: Tab, pages: dict[str, str], width: int) -> None:
    """Without scrolling, and in words."""
    for kind, headline in (("proven", "Proven"), ("different", "Difference found"), ("unprovable", "Not provable")):
        await tab.look(width=width, height=800)
        await tab.open(pages[kind])
        assert (await tab.ask("document.querySelector('h2').textContent")).strip() == headline
        assert await tab.ask("document.querySelector('.verdict').getBoundingClientRect().bottom") < 800
        assert headline in await tab.ask("document.title")


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
async def test_one_chart_of_two_is_shown_at_its_own_size(tab: Tab, pages: dict[str, str], width: int) -> None:
    await tab.look(width=width)
    await tab.open(pages["different"])
    shown = "[...document.querySelectorAll('.chart svg')].filter((one) => one.checkVisibility())"
    charts = await tab.ask("document.querySelectorAll('.chart').length")
    assert charts >= 4
    assert await tab.ask(f"{shown}.length") == charts
    scale = await tab.ask(
        f"Math.min(...{shown}.map((one) => one.getBoundingClientRect().width / one.viewBox.baseVal.width))"
    )
    assert scale > 0.95, "letters of a chart that is scaled down cannot be read"


async def focused(tab: Tab) -> str:
    found: str = await tab.ask("document.activeElement.outerHTML.slice(0, 200)")
    return found


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without script"])
@pytest.mark.parametrize("key", ["Enter", " "])
async def test_a_finding_opens_by_keyboard(tab: Tab, pages: dict[str, str], script: bool, key: str) -> None:
    await tab.look(width=DESKTOP, script=script)
    await tab.open(pages["different"])
    for _ in range(40):
        await tab.press("Tab")
        if await tab.ask("document.activeElement.matches('.finding > summary')"):
            break
    else:
        pytest.fail(f"no finding can be reached, focus is on {await focused(tab)}")
    assert await tab.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus is not seen"
    inside = "document.querySelector('#finding-1 table').checkVisibility()"
    assert not await tab.ask(inside)
    await tab.press(key)
    assert await tab.ask("document.querySelector('#finding-1').open")
    assert await tab.ask(inside)
    await tab.press(key)
    assert not await tab.ask(inside)


async def test_the_first_tab_leads_past_the_head(tab: Tab, pages: dict[str, str]) -> None:
    await tab.look(width=PHONE)
    await tab.open(pages["proven"])
    await tab.press("Tab")
    assert await tab.ask("document.activeElement.className") == "skip"
    assert await tab.ask("document.activeElement.getBoundingClientRect().left") >= 0
    await tab.press("Enter")
    assert await tab.ask("location.hash") == "#findings"


async def test_without_the_script_nothing_is_missing_or_dead(tab: Tab, pages: dict[str, str]) -> None:
    await tab.look(width=DESKTOP, script=True)
    await tab.open(pages["different"])
    words = "[...document.querySelectorAll('main, header')].map((one) => one.textContent.replace(/\\s+/g, ' ')).join()"
    controls = "document.querySelectorAll('button, input').length"
    with_script = await tab.ask(words)
    assert await tab.ask(controls) > 10
    await tab.look(width=DESKTOP, script=False)
    await tab.open(pages["different"])
    assert await tab.ask(controls) == 0
    assert (await tab.ask(words)).replace(" ", "") == with_script.replace("Filter", "").replace(" ", "")


async def test_tables_are_sorted_by_keyboard(tab: Tab, pages: dict[str, str]) -> None:
    await tab.look(width=DESKTOP)
    await tab.open(pages["proven"])
    column = "[...document.querySelectorAll('#slow tbody tr')].map((row) => Number(row.cells[4].dataset.v))"
    heads = "document.querySelectorAll('#slow th')[4]"
    before = await tab.ask(column)
    assert before != sorted(before)
    await tab.ask(f"{heads}.querySelector('button').focus()")
    await tab.press("Enter")
    assert await tab.ask(column) == sorted(before)
    assert await tab.ask(f"{heads}.getAttribute('aria-sort')") == "ascending"
    await tab.press("Enter")
    assert await tab.ask(column) == sorted(before, reverse=True)


async def test_findings_are_filtered_by_what_is_typed(tab: Tab, pages: dict[str, str]) -> None:
    await tab.look(width=PHONE)
    await tab.open(pages["different"])
    seen = "[...document.querySelectorAll('.finding')].filter((one) => one.checkVisibility()).length"
    total = await tab.ask(seen)
    await tab.ask("document.querySelector('#filter-list').focus()")
    await tab.type("out of order")
    assert 0 < await tab.ask(seen) < total
    assert (await tab.ask("document.querySelector('#list output').textContent")).endswith(f"of {total}")
    await tab.type(" no such thing")
    assert await tab.ask(seen) == 0


async def test_texts_from_records_do_nothing(tab: Tab, pages: dict[str, str]) -> None:
    await tab.look(width=DESKTOP)
    await tab.open(pages["hostile"])
    assert await tab.ask("document.scripts.length") == 1
    assert await tab.ask("document.images.length") == 0
    assert await tab.ask("document.body.textContent.includes(\"<script>alert('x')</script>\")")
    assert tab.complaints == []


@pytest.fixture(scope="module")
def slipped(pages: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report in which texts were not escaped."""
    whole = Path(pages["proven"].removeprefix("file://")).read_text("utf-8")
    attack = (
        "<script>document.title = 'taken'</script>"
        "<img src='http://127.0.0.1:9/x' onerror='document.title = 1'>"
        "<b id=styled style='position: fixed'>x</b>"
    )
    file = tmp_path_factory.mktemp("slipped") / "report.html"
    file.write_text(whole.replace("<main>", f"<main>{attack}"), "utf-8")
    return file.as_uri()


async def test_the_policy_holds_in_the_browser(tab: Tab, slipped: str) -> None:
    """Were a text to slip through, the browser would still not run, fetch or style it, and say so."""
    await tab.look(width=DESKTOP)
    await tab.open(slipped)
    assert "Proven" in await tab.ask("document.title")
    assert await tab.ask("getComputedStyle(document.querySelector('#styled')).position") == "static"
    assert tab.requests == [slipped]
    assert len(tab.complaints) >= 3


# --- many findings ----------------------------------------------------------------------------------------------------

MANY = 10_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with 10,000 findings."""
    folder = tmp_path_factory.mktemp("many") / "report"
    make(folder, partitions=2, steps=MANY // 2, wrong=(WRONG * (MANY // len(WRONG) + 1))[:MANY])
    return (folder / "report.html").as_uri()


FILTERED = """
(async () => {
  const input = document.querySelector("#filter-list");
  input.value = WANTED;
  input.dispatchEvent(new Event("input"));
  const said = document.querySelector("#list output"), before = said.textContent;
  while (said.textContent === before) await new Promise((done) => setTimeout(done, 5));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return said.textContent;
})()
"""


async def test_ten_thousand_findings_open_and_filter_within_two_seconds(tab: Tab, many: str) -> None:
    """Of CPU time of the page's thread: what else runs on the machine is no part of it."""
    await tab.look(width=DESKTOP)
    await tab.open(many)
    opened_s = await tab.worked_s()
    assert await tab.ask("document.querySelectorAll('.finding, .brief li').length") == MANY
    charts = "[...document.querySelectorAll('.chart')].map((one) => one.getBoundingClientRect().top)"
    assert max(await tab.ask(charts)) < await tab.ask("document.querySelector('#list').getBoundingClientRect().top")
    groups = await tab.ask("[...document.querySelectorAll('#findings tbody tr')].map((row) => row.textContent)")
    assert len(groups) == len(WRONG)
    before_s = await tab.worked_s()
    said = await tab.ask(FILTERED.replace("WANTED", '"out of order partition 1"'))
    filtered_s = await tab.worked_s() - before_s
    shown, total = (int(part) for part in said.split(" of "))
    assert total == MANY
    assert 0 < shown < MANY // len(WRONG) + 1
    assert 0 < opened_s < 2
    assert 0 < filtered_s < 2

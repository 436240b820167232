"""Charts as SVG text: pure, without a library. Colours are CSS classes: the page sets them for light and dark.

Sizes are in CSS pixels and the text is 12 px high, so a chart is drawn at the width it is shown at, not scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup, escape

_LETTER: Final = 6.6  # width of a letter of 12 px, on the generous side
_TOP, _BOTTOM = 10, 26
_HEIGHT: Final = 220  # px, of upright bars
_STRIP_HEIGHT: Final = 14


def ticks(most: int) -> list[int]:
    """Round numbers from 0 up to the first that is not below `most`, in about four steps."""
    raw = max(most, 1) / 4
    power = 1
    while power * 10 <= raw:
        power *= 10
    step = next(s for s in (power, 2 * power, 5 * power, 10 * power) if s >= raw)
    return list(range(0, max(most, 1) + step, step))


def short(n: int) -> str:
    """A number for an axis: 950, 1.2k, 34k, 5M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size:
            return f"{n / size:.1f}".removesuffix(".0") + letter
    return str(n)


def stacked(
    title: str,
    bars: Sequence[tuple[str, Sequence[int]]],
    classes: Sequence[str],
    *,
    width: int,
    hints: Sequence[str] = (),
) -> Markup:
    """Upright bars, each a pile of one number per class, with a labelled scale on the left.

    Args:
        title: says what it shows to those who do not see it.
        bars: (label, numbers in the order of `classes`); labels that would touch are left out, not shrunk.
        classes: CSS class of each layer, lowest first.
        hints: text of each bar's tooltip.
    """
    scale = ticks(max((sum(numbers) for _, numbers in bars), default=0))
    left = int(max(len(short(tick)) for tick in scale) * _LETTER) + 10
    plot_width, plot_height = width - left - 2, _HEIGHT - _TOP - _BOTTOM
    slot = plot_width / max(len(bars), 1)
    gap = 1.0 if slot < 8 else slot * 0.2
    parts = [_open(title, width, _HEIGHT)]
    for tick in scale:
        y = _TOP + plot_height * (1 - tick / scale[-1])
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, width, _px(y), _px(y)))
        parts.append(Markup('<text class="y" x="{}" y="{}">{}</text>').format(left - 6, _px(y + 4), short(tick)))
    free_from = float(left - 4)
    for at, (label, numbers) in enumerate(bars):
        x, y = left + at * slot + gap / 2, float(_TOP + plot_height)
        parts.append(Markup("<g>"))
        if at < len(hints):
            parts.append(Markup("<title>{}</title>").format(hints[at]))
        for name, number in zip(classes, numbers, strict=True):
            if number:
                size = max(plot_height * number / scale[-1], 1.0)
                y -= size
                parts.append(_rect(name, x, y, slot - gap, size))
        parts.append(Markup("</g>"))
        middle, half = left + (at + 0.5) * slot, len(label) * _LETTER / 2
        middle = min(max(middle, free_from + half) if at == 0 else middle, width - half)
        if label and middle - half >= free_from:
            parts.append(Markup('<text class="x" x="{}" y="{}">{}</text>').format(_px(middle), _HEIGHT - 8, label))
            free_from = middle + half + 10
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def lying(title: str, rows: Sequence[tuple[str, int, str]], *, width: int) -> Markup:
    """Bars that lie, one row each: (label, number, CSS class). The label stands above its bar, the number behind it."""
    most = max((number for _, number, _ in rows), default=0) or 1
    room = max((len(f"{number:,}") for _, number, _ in rows), default=1) * _LETTER + 8
    line = 36
    parts = [_open(title, width, line * len(rows))]
    for at, (label, number, name) in enumerate(rows):
        y, size = at * line, (width - room) * number / most
        parts.append(Markup('<text class="l" x="0" y="{}">{}</text>').format(y + 13, label))
        parts.append(_rect(name, 0, y + 18, max(size, 1.0), 11))
        parts.append(
            Markup('<text class="n" x="{}" y="{}">{}</text>').format(_px(max(size, 1.0) + 6), y + 28, f"{number:,}")
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def strip(title: str, parts: Sequence[tuple[str, int]], *, width: int) -> Markup:
    """One bar cut in proportion to (CSS class, number); what is there at all is at least 3 px wide."""
    there = [(name, number) for name, number in parts if number]
    total = sum(number for _, number in there) or 1
    free = width - 3 * len(there)
    drawn, x = [_open(title, width, _STRIP_HEIGHT)], 0.0
    for name, number in there:
        size = 3 + free * number / total
        drawn.append(_rect(name, x, 0, size, _STRIP_HEIGHT))
        x += size
    return Markup("").join([*drawn, Markup("</svg>")])


def _open(title: str, width: int, height: int) -> Markup:
    return Markup('<svg viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-label="{2}">').format(
        width, height, title
    )


def _rect(name: str, x: float, y: float, width: float, height: float) -> Markup:
    shape = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>')
    return shape.format(escape(name), _px(x), _px(y), _px(width), _px(height))


def _px(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")

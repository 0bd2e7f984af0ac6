"""Charts as SVG, in the colors of the page that they are in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from markupsafe import Markup

__all__ = ["bar", "histogram", "lines", "spread", "ticks"]

# Of a phone's width, so that text has the size of the page's there.
_WIDTH, _HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 8, 8, 34
_COLORS = 4
Range = tuple[float, float]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, about `most` of them."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def bar(share: float) -> Markup:
    """Return a bar for the cell of a table; `share` is 0 to 1. What it says stands beside it as a number."""
    return Markup('<svg class="bar" aria-hidden="true"><rect width="{:.2f}%" height="100%"/></svg>').format(
        100 * share
    )


def lines(title: str, series: Mapping[str, Sequence[Range]], across: str, up: str) -> Markup:
    """Draw points (x, y) of each series, joined by a line; "" where there are none.

    Parameters
    ----------
    title : str
        What a reader who does not see it is told.
    series : mapping of str to sequence of (float, float)
    across, up : str
        Names of the axes.
    """
    drawn = {name: points for name, points in series.items() if points}
    if not drawn:
        return Markup("")
    every = [point for points in drawn.values() for point in points]
    plot = _Plot(*(spread(min(values), max(values)) for values in zip(*every, strict=True)))
    parts = [plot.axes(across, up)]
    for number, points in enumerate(drawn.values()):
        path = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in points)
        parts.append(Markup('<polyline class="line c{}" points="{}"/>').format(number % _COLORS, path))
        if len(points) == 1:
            x, y = path.split(",")
            parts.append(Markup('<circle class="c{}" cx="{}" cy="{}" r="3"/>').format(number, x, y))
    return _figure(title, parts, list(drawn))


def histogram(
    title: str, groups: Mapping[str, Sequence[int]], edges: Sequence[float], across: str, up: str = "images"
) -> Markup:
    """Draw how many values of each group lie between neighboring edges, one group above the other."""
    totals = [sum(column) for column in zip(*groups.values(), strict=True)]
    plot = _Plot((edges[0], edges[-1]), (0.0, max(1.0, float(max(totals)))))
    parts = [plot.axes(across, up)]
    below = [0] * len(totals)
    for number, counts in enumerate(groups.values()):
        for place, count in enumerate(counts):
            if count:
                parts.append(plot.box(edges[place : place + 2], below[place], count, number % _COLORS))
                below[place] += count
    return _figure(title, parts, list(groups))


def spread(low: float, high: float) -> Range:
    """Return a range to draw: that of the values or, where they are all equal, one around them."""
    # Half of one is nothing beside a large number.
    half = max(0.5, abs(low) / 1000)
    return (low, high) if high > low else (low - half, high + half)


class _Plot:
    """The area of a chart, and where values are in it."""

    def __init__(self, across: Range, up: Range) -> None:
        self._across, self._up = across, up

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _place(value, self._across)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * _place(value, self._up)

    def box(self, edges: Sequence[float], below: int, count: int, color: int) -> Markup:
        left, right = map(self.x, edges)
        top, bottom = self.y(below + count), self.y(below)
        return Markup('<rect class="box c{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            color, left, top, max(right - left - 0.5, 0.5), bottom - top
        )

    def axes(self, across: str, up: str) -> Markup:
        parts = [*self._ticks(self._across, self._tick_across), *self._ticks(self._up, self._tick_up)]
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        name = Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>')
        parts.append(name.format(middle, _HEIGHT - 4, across))
        turned = Markup(
            '<text class="name" transform="translate(9 {}) rotate(-90)" text-anchor="middle">{}</text>'
        )
        parts.append(turned.format((_TOP + _HEIGHT - _BOTTOM) / 2, up))
        return Markup("").join(parts)

    def _ticks(self, values: Range, draw: Callable[[float], Markup]) -> Iterator[Markup]:
        for value in ticks(*values):
            yield draw(value)

    def _tick_across(self, value: float) -> Markup:
        text = Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
        return text.format(self.x(value), _HEIGHT - _BOTTOM + 13, _number(value))

    def _tick_up(self, value: float) -> Markup:
        y = self.y(value)
        grid = Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(_LEFT, y, _WIDTH - _RIGHT)
        text = Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>')
        return grid + text.format(_LEFT - 4, y + 3.5, _number(value))


def _place(value: float, values: Range) -> float:
    low, high = values
    return (value - low) / (high - low)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def _figure(title: str, parts: Sequence[Markup], names: Sequence[str]) -> Markup:
    svg = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, title, Markup("").join(parts)
    )
    key = Markup(
        '<span class="key"><svg class="swatch" aria-hidden="true">'
        '<rect class="c{}" width="12" height="12"/></svg> {}</span>'
    )
    keys = (
        Markup(" ").join(key.format(n % _COLORS, name) for n, name in enumerate(names))
        if len(names) > 1
        else ""
    )
    caption = Markup("<figcaption>{} {}</figcaption>").format(title, keys)
    return Markup('<figure class="plot">{}{}</figure>').format(svg, caption)

"""The comparison as a picture: bars in plain SVG, readable in light and dark, with every figure written beside its bar."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tests.bench.targets import Seen

_WIDTH, _LABEL, _BAR, _ROW, _TITLE = 760, 250, 400, 24, 44
_OURS, _FLOOR, _OTHERS = "#2f6fdb", "#8a8f98", "#d98324"

_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}.tier{fill:#6a7078}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.tier{fill:#9aa2ac}}"
)


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    figure: Callable[[Seen], float]
    written: Callable[[float], str]


_PANELS = (
    _Panel(
        "Requests a second on one core, 64 connections (more is better)",
        lambda row: row.at(64).per_second,
        "{:,.0f}".format,
    ),
    _Panel(
        "CPU of a request, microseconds, 64 connections (less is better)", lambda row: row.at(64).cpu, "{:,.0f}".format
    ),
    _Panel(
        "Median latency of a request, ms, 1 connection (less is better)", lambda row: row.at(1).p50, "{:.2f}".format
    ),
)


def svg(rows: Sequence[Seen]) -> str:
    """The whole picture. Bars are of equal scale within a panel; one shorter than a pixel is drawn as a pixel."""
    height = len(_PANELS) * (_TITLE + len(rows) * _ROW) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Gateways compared">',
        f"<style>{_STYLE}</style>",
    ]
    top = 0
    for panel in _PANELS:
        parts += _panel(panel, rows, top)
        top += _TITLE + len(rows) * _ROW
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: _Panel, rows: Sequence[Seen], top: int) -> Sequence[str]:
    longest = max(panel.figure(row) for row in rows)
    parts = [f'<text class="title" x="0" y="{top + 28}">{escape(panel.title)}</text>']
    for number, row in enumerate(rows):
        value, y = panel.figure(row), top + _TITLE + number * _ROW
        width = max(1.0, value / longest * _BAR)
        parts += [
            f'<text x="0" y="{y + 13}">{escape(row.name)} <tspan class="tier">{escape(row.tier)}</tspan></text>',
            f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="17" rx="2" fill="{_colour(row)}"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 13}">{panel.written(value)}</text>',
        ]
    return parts


def _colour(row: Seen) -> str:
    if row.name.startswith("Tollhouse"):
        return _OURS
    return _FLOOR if row.name == "nginx" else _OTHERS

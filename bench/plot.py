"""The picture of the rates: bars on a logarithmic scale, a group for each work. One picture needs no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log10
from typing import Final

COLORS: Final = {
    "troth": "#1b6e53",
    "floor": "#9aa5ab",
    "dbos": "#c0603c",
    "absurd": "#c9a23f",
    "procrastinate": "#6b77b5",
    "pgqueuer": "#8c5a91",
}
BAR: Final = 14
GAP: Final = 14
TOP: Final = 44
LEFT: Final = 150
WIDTH: Final = 520
MARGIN: Final = 150
LEAST: Final = 10
DECADES: Final = 5


def plot(rates: Mapping[str, Mapping[str, float]], systems: Sequence[str], number: Mapping[str, str]) -> str:
    """Figure → system → rate a second; `number` says how `figure system` is written."""
    parts: list[str] = []
    y = TOP
    for figure, of in rates.items():
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 11}" text-anchor="end" class="f">{escape(figure)}</text>'
        )
        for system in systems:
            if system in of:
                length = _x(of[system]) - LEFT
                said = f"{number[f'{figure} {system}']} {system}"
                parts.append(
                    f'<rect x="{LEFT}" y="{y}" width="{length:.0f}" height="{BAR - 2}" fill="{COLORS[system]}"/>'
                    f'<text x="{LEFT + length + 5:.0f}" y="{y + 10}" class="n">{escape(said)}</text>'
                )
                y += BAR
        y += GAP
    lines = [
        f'<line x1="{_x(10**n):.0f}" y1="{TOP - 8}" x2="{_x(10**n):.0f}" y2="{y - GAP}" class="g"/>'
        f'<text x="{_x(10**n):.0f}" y="{TOP - 12}" text-anchor="middle" class="n">{10**n:,}</text>'
        for n in range(1, 1 + DECADES)
    ]
    style = "text{font:12px sans-serif;fill:#333}.n{font-size:10px}.f{font-weight:bold}.g{stroke:#ddd}"
    title = "per second, on a logarithmic scale"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + MARGIN}" height="{y}" role="img">'
        f'<title>{title}</title><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{LEFT}" y="16">{title}</text>{"".join(lines)}{"".join(parts)}</svg>\n'
    )


def _x(rate: float) -> float:
    return LEFT + log10(max(rate, LEAST) / LEAST) / DECADES * WIDTH

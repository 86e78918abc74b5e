"""Draw figures: as inline SVG for the page, and as SVG and PNG files. The module computes no numbers.

On the page, text stays text and colours are CSS variables, so that panels use the reader's font and colour scheme. The
files contain the same drawing in the colours of the light scheme, on white.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

# The light scheme. No two colours may be equal, because each is replaced with its CSS variable in the finished SVG.
PAPER, INK, MUTED, LINE = "#ffffff", "#1d2126", "#6a727c", "#d9dde2"
IMAGE, TEXT = "#005fa8", "#b34700"  # blue and orange mean image and text, here as in the explorer, and nothing else
FIRST, SECOND, THIRD = "#00806a", "#a6478c", "#6f7780"  # green, purple, grey: distinct with any colour blindness
FOURTH, FIFTH, SIXTH = "#8a6d00", "#8c2f39", "#454b52"  # olive, wine, dark grey: always drawn with a marker
VARIABLES = {
    PAPER: "--paper", INK: "--ink", MUTED: "--muted", LINE: "--line", IMAGE: "--image", TEXT: "--text",
    FIRST: "--first", SECOND: "--second", THIRD: "--third", FOURTH: "--fourth", FIFTH: "--fifth", SIXTH: "--sixth",
}  # fmt: skip
SERIES = (
    (FIRST, "o", ""),
    (SECOND, "s", "5 2"),
    (FOURTH, "^", "1.5 1.5"),
    (FIFTH, "D", "5 2 1.5 2"),
    (SIXTH, "v", "8 2"),
)
STYLE: Any = {  # typed Any, since matplotlib's type for it spells out every allowed key
    "svg.hashsalt": "bridgescope",  # a fixed salt gives equal ids of clip paths, and so equal bytes
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],  # matplotlib ships DejaVu Sans; a viewer of the SVG may lack it
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": INK,
    "text.parse_math": False,  # off, since captions may contain dollar signs
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.scale_dashes": False,  # dashes are then as long as in the page's legend
}
DPI = 150  # resolution of the PNG files
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # for SVG files: no date, no address of matplotlib

MARKS = {  # {matplotlib's letter for a marker: SVG path of the marker in the page's legend, in a box of 26 x 10}
    "o": "M10 5a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "s": "M10.4 2.4h5.2v5.2h-5.2z",
    "D": "M13 1.4L16.6 5L13 8.6L9.4 5z",
    "^": "M13 1.8L16.4 8H9.6z",
    "v": "M13 8.2L16.4 2H9.6z",
    "x": "M10.4 2.4L15.6 7.6M15.6 2.4L10.4 7.6",
    "+": "M13 1.6V8.4M9.6 5H16.4",
    "|": "M13 .5V9.5",
}

Draw = Callable[[Axes], None]


class LegendKey(NamedTuple):
    """One entry of a figure's legend, which is outside the axes."""

    label: str
    color: str  #: a colour of the palette
    dash: str = ""  #: SVG dash array; solid when empty
    filled: bool = False  #: True for an area instead of a line
    marker: str = ""  #: matplotlib's letter for the marker
    line: bool = True  #: False for a marker without a line
    opacity: float = 0.55  #: opacity of an area
    hollow: bool = False  #: True for a marker drawn as an outline

    @property
    def variable(self) -> str:
        """The CSS variable of the colour."""
        return VARIABLES[self.color]


class Panel(NamedTuple):
    """One panel of a figure: the function that draws it, its title, its label and its size."""

    draw: Draw
    title: str
    label: str  #: text for screen readers
    size: tuple[float, float] = (4.9, 2.8)  #: width and height in inches


class Drawn(NamedTuple):
    """A figure: its panels, its legend, its caption, and the SQL of its numbers."""

    name: str  #: stem of its files, and prefix of the ids of its inline SVG
    panels: list[Panel]
    keys: list[LegendKey]
    caption: str
    sql: str | list[str]
    columns: int


def dashes(dash: str) -> Any:
    """An SVG dash array as matplotlib's line style."""
    return (0, [float(length) for length in dash.split()]) if dash else "-"


def short(value: float, _: int = 0) -> str:
    """The label of an axis tick: the value without trailing zeros."""
    return f"{value:g}".replace("-", "−")


def say(axes: Axes, text: str) -> None:
    """Write a sentence into an empty panel that says why the panel shows nothing."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def inline(drawn: Drawn) -> list[str]:
    """The panels as SVG elements for one HTML page: colours are CSS variables, ids start with the figure's name."""
    return [_inline(panel, f"{drawn.name}{place}") for place, panel in enumerate(drawn.panels)]


def _inline(panel: Panel, name: str) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=panel.size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_title(panel.title)
        panel.draw(axes)
        svg = _svg(figure, transparent=True)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?) height="[^"]*"', r'\1 aria-hidden="true" focusable="false"', svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(f": {color}", f": var({variable})")  # ": #..." occurs in style attributes, not in text
    return svg.strip()


def _svg(figure: Figure, transparent: bool) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=transparent, metadata=NO_METADATA)
    return out.getvalue()


def write_files(folder: Path, drawn: Drawn) -> list[Path]:
    """Write `folder/<name>.svg` and `.png` with all panels and the legend. Equal figures give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # No warning is needed: a character that the font lacks is drawn as a box in the PNG, and stays text in the SVG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure = _whole(drawn)
        svg, png = folder / f"{drawn.name}.svg", folder / f"{drawn.name}.png"
        FigureCanvasSVG(figure)
        svg.write_text(_svg(figure, transparent=False), encoding="utf-8")
        figure.set_layout_engine("none")  # the PNG keeps the layout that was computed for the SVG
        FigureCanvasAgg(figure)
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return [svg, png]


def _whole(drawn: Drawn) -> Figure:
    """All panels in one drawing, with the legend above them."""
    columns = min(drawn.columns, len(drawn.panels))
    rows = math.ceil(len(drawn.panels) / columns)
    width = columns * max(panel.size[0] for panel in drawn.panels)
    heights = [max(panel.size[1] for panel in drawn.panels[row * columns :][:columns]) for row in range(rows)]
    per_row = max(1, int(width / 1.9))
    above = 0.1 + 0.24 * math.ceil(len(drawn.keys) / per_row)
    figure = Figure(figsize=(width, sum(heights) + above), facecolor=PAPER)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    grid = figure.add_gridspec(rows, columns, height_ratios=heights)
    for place, panel in enumerate(drawn.panels):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        axes.set_title(panel.title)
        panel.draw(axes)
    if drawn.keys:
        figure.legend(handles=[_handle(key) for key in drawn.keys], loc="outside upper left", ncols=per_row)
    return figure


def _handle(key: LegendKey) -> Artist:
    if key.filled:
        return Patch(color=key.color, alpha=key.opacity, linewidth=0, label=key.label)
    size = 8 if key.marker == "|" else 5
    return Line2D(
        [0], [0], color=key.color, label=key.label, linestyle=dashes(key.dash) if key.line else "none",
        marker=key.marker or None, markersize=size, markerfacecolor=PAPER if key.hollow else key.color,
    )  # fmt: skip

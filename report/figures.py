"""The figures as inline SVG: one panel a model and SAE setting, equal axes within a figure. Draws rows, counts nothing.

Text stays text and colours are the page's CSS variables, so that panels follow the reader's font and colour scheme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator, NullLocator

from report.queries import MIN_FIRINGS, UNIMODAL, Answer, Row

# matplotlib wants colours, the page has variables: these stand in and are replaced in the finished SVG
INK, MUTED, FIRST, SECOND, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "--ink", MUTED: "--muted", FIRST: "--first", SECOND: "--second", THIRD: "--third"}
STYLE: Any = {  # matplotlib types its own keys one by one
    "svg.hashsalt": "bridgescope",  # ids of clip paths: equal input, equal bytes
    "svg.fonttype": "none",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
}

Runs = list[tuple[str, str]]  # (model, sae), in the order of the page


class Key(NamedTuple):
    """One entry of a figure's legend, which the page draws itself, outside the data."""

    label: str
    color: str  #: name of the CSS variable
    dash: str = ""  #: SVG dash array; solid when empty
    filled: bool = False


class Panel(NamedTuple):
    """One drawing."""

    svg: str
    label: str  #: what a reader who does not see it is told


class Drawn(NamedTuple):
    """A figure: its panels side by side, its legend, and the statement that its numbers come from."""

    panels: list[Panel]
    keys: list[Key]
    caption: str
    sql: str
    columns: int


def columns_for(runs: Runs) -> int:
    """Panels a row: the models of one setting side by side; with one model its settings."""
    models = len({model for model, _ in runs})
    return 2 if models in (2, 4) else min(3, models if models > 1 else len(runs))


def _panel(
    draw: Callable[[Axes], None], name: str, title: str, label: str, size: tuple[float, float] = (4.9, 2.8)
) -> Panel:
    """Draw one panel. `name` is unique in the page: it is put before every id of the SVG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_title(title)
        draw(axes)
        out = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # no date and no address in the metadata
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?) height="[^"]*"', r'\1 aria-hidden="true" focusable="false"', svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return Panel(svg.strip(), label)


def _titled(runs: Runs) -> Iterator[tuple[str, str, str]]:
    """Model, setting and title of every panel: the setting is named only where there are several."""
    several = len({sae for _, sae in runs}) > 1
    for model, sae in runs:
        yield model, sae, f"{model}, {sae}" if several else model


def _short(value: float, _: int = 0) -> str:
    """A tick without trailing zeros."""
    return f"{value:g}".replace("-", "−")


def modality_histograms(answer: Answer, runs: Runs) -> Drawn:
    """Shares of concepts, and of their energy, over the modality score."""
    top = 1.06 * max((max(row["share"] or 0, row["energy_share"] or 0) for row in answer.rows), default=1) or 1
    panels, left_out = [], []
    for number, (model, sae, title) in enumerate(_titled(runs)):
        rows = answer.of(model=model, sae=sae)
        counted, out = sum(row["concepts"] for row in rows), rows[0]["left_out"] if rows else 0
        left_out.append(f"{title}: {counted} concepts counted, {out} left out")
        label = f"Histogram of the modality scores of {title}: {counted} concepts counted, {out} left out."
        panels.append(_panel(_histogram(rows, top), f"modality{number}", title, label))
    caption = (
        f"Modality score of the concepts with at least {MIN_FIRINGS} firings, 0 text, 1 image, all seeds together. "
        f"Dotted lines: the unimodal thresholds {UNIMODAL} and {1 - UNIMODAL}. {'; '.join(left_out)}."
    )
    keys = [Key("share of concepts", "--first", filled=True), Key("share of their energy", "--second")]
    return Drawn(panels, keys, caption, answer.sql, columns_for(runs))


def _histogram(rows: list[Row], top: float) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        if rows:
            edges = [row["low"] for row in rows] + [rows[-1]["high"]]
            axes.stairs([row["share"] or 0 for row in rows], edges, fill=True, color=FIRST, alpha=0.55, linewidth=0)
            axes.stairs([row["energy_share"] or 0 for row in rows], edges, color=SECOND, linewidth=1.6)
        for threshold in (UNIMODAL, 1 - UNIMODAL):
            axes.axvline(threshold, color=MUTED, linewidth=0.8, linestyle=":")
        axes.set(xlim=(0, 1), ylim=(0, top), xlabel="modality score (0 text, 1 image)", ylabel="share")
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        axes.yaxis.set_major_formatter(FuncFormatter(_short))

    return draw


def stability_curves(answer: Answer, runs: Runs) -> Drawn:
    """Stability of the K most energetic concepts against K, beside both floors."""
    lows = [row[name] for row in answer.rows for name in ("floor_random", "low") if row[name] is not None]
    bottom = min(0.0, *lows) if lows else 0.0
    widest = max((row["k"] for row in answer.rows), default=1)
    panels = []
    for number, (model, sae, title) in enumerate(_titled(runs)):
        rows = answer.of(model=model, sae=sae)
        label = f"Stability of the K most energetic concepts of {title} against K, with both floors."
        if rows and rows[-1]["stability"] is not None:
            last = rows[-1]
            label += f" Over all {last['k']}: {last['stability']:.3f}, floor_matched {last['floor_matched']:.3f}."
        panels.append(_panel(_stability(rows, bottom, widest), f"stability{number}", title, label))
    caption = (
        "Stability: mean cosine of concepts matched between two seeds, over the K with most energy. Band of the line: "
        "range over pairs of seeds. Bands of the floors: two standard deviations of their draws to either side. "
        "floor_matched keeps the mean and covariance of the dictionary and is the one that counts."
    )
    keys = [
        Key("stability", "--first"),
        Key("floor_matched", "--second", "5 3"),
        Key("floor_random", "--third", "1.5 2.5"),
    ]
    return Drawn(panels, keys, caption, answer.sql, columns_for(runs))


def _stability(rows: list[Row], bottom: float, widest: int) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for floor, color, dashes in (("floor_random", THIRD, (1, 1.6)), ("floor_matched", SECOND, (3.2, 1.9))):
            known = [row for row in rows if row[floor] is not None]
            k, mean = [row["k"] for row in known], [row[floor] for row in known]
            spread = [2 * (row[f"{floor}_sd"] or 0) for row in known]
            low = [m - s for m, s in zip(mean, spread, strict=True)]
            high = [m + s for m, s in zip(mean, spread, strict=True)]
            axes.fill_between(k, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(k, mean, color=color, dashes=dashes)
        known = [row for row in rows if row["stability"] is not None]
        k = [row["k"] for row in known]
        low, high = [row["low"] for row in known], [row["high"] for row in known]
        axes.fill_between(k, low, high, color=FIRST, alpha=0.25, linewidth=0)
        axes.plot(k, [row["stability"] for row in known], color=FIRST, marker="o", markersize=3)
        axes.set_xscale("log", base=2)
        axes.set(xlim=(0.9, widest * 1.1), ylim=(bottom, 1.02), ylabel="mean matched cosine")
        axes.set_xlabel("K most energetic concepts (log scale)")
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MultipleLocator(0.25))
        axes.yaxis.set_major_formatter(FuncFormatter(_short))

    return draw


def training_curves(answer: Answer, runs: Runs) -> Drawn:
    """R2 and the dead fraction over the epochs of training, a line a seed."""
    epochs = max((row["epoch"] for row in answer.rows), default=1) or 1
    # the first batches can be far below the mean predictor: their depth says nothing and would flatten the rest
    bottom = max(-0.25, min((row["r2"] for row in answer.rows if row["r2"] is not None), default=0.0))
    panels = []
    for number, (model, sae, title) in enumerate(_titled(runs)):
        rows = answer.of(model=model, sae=sae)
        seeds = len({row["seed"] for row in rows})
        label = f"Training of {title}: R squared and dead fraction by epoch, {seeds} seed{'s' * (seeds != 1)}."
        panels.append(_panel(_training(rows, min(0.0, bottom), epochs), f"training{number}", title, label, (4.9, 2.1)))
    caption = (
        "A line a seed. R² of the training batches, both modalities together (the table has each by itself); dead: "
        "concepts silent for the window that the auxiliary loss uses."
    )
    keys = [Key("R² of training batches", "--first"), Key("dead fraction", "--second", "5 3")]
    return Drawn(panels, keys, caption, answer.sql, columns_for(runs))


def _training(rows: list[Row], bottom: float, epochs: float) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for seed in sorted({row["seed"] for row in rows}):
            own = [row for row in rows if row["seed"] == seed]
            epoch = [row["epoch"] for row in own]
            axes.plot(epoch, [row["r2"] for row in own], color=FIRST, linewidth=1.2, alpha=0.8)
            axes.plot(
                epoch, [row["dead_fraction"] for row in own], color=SECOND, linewidth=1.2, alpha=0.8, dashes=(3.2, 1.9)
            )
        axes.set(xlim=(0, epochs), ylim=(bottom, 1.02), xlabel="epoch", ylabel="R², share dead")
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        axes.yaxis.set_major_formatter(FuncFormatter(_short))

    return draw

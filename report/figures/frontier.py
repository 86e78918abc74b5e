"""The frontier: how well each method rebuilds the embeddings, against its number of codes per row."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from report.drawing import (
    INK,
    MUTED,
    PAPER,
    VARIABLES,
    Draw,
    Drawn,
    LegendKey,
    Panel,
    dashes,
    short,
)
from report.figures.runs import Runs, models_of
from report.queries import Answer, Row
from sae import architectures


class Method(NamedTuple):
    """Name and style of a method in the figure."""

    name: str
    color: str
    dash: str
    marker: str


PALETTE = {variable.removeprefix("--"): colour for colour, variable in VARIABLES.items()}
METHODS = {
    row.name: Method(row.label, PALETTE[row.colour], row.dash, row.mark)
    for row in sorted(architectures.METHODS.values(), key=lambda row: row.legend)
}
DEEPEST = -0.1  # lowest R2 of the axis; lower values are cut off, since they would flatten the other curves


def r2_against_l0(answer: Answer, runs: Runs) -> Drawn | None:
    """R2 within images and within captions against L0 (codes per row), for all methods. None if there are no rows."""
    models = [model for model in models_of(runs) if answer.of(model=model)]
    if not models:
        return None
    names = list(dict.fromkeys(row["method"] for row in answer.rows))
    styles = {name: METHODS.get(name, Method(name, INK, "", "")) for name in names}
    values = [row[name] for row in answer.rows for name in ("r2_image", "r2_text") if row[name] is not None]
    bottom = max(DEEPEST, min([0.0, *values]))
    spread = [row["l0"] for row in answer.rows if row["l0"]]
    limits = min(spread, default=1) / 1.15, max(spread, default=1) * 1.15
    panels = []
    for model in models:
        for column, title in (("r2_image", "images"), ("r2_text", "captions")):
            rows = [row for row in answer.of(model=model) if row["l0"] and row[column] is not None]
            best = max(rows, key=lambda row: row[column], default=None)
            label = f"R squared within {title} of {model} against L0, {len(styles)} methods"
            if best:
                label += f"; the highest is {styles[best['method']].name}, {best[column]:.3f} at L0 {best['l0']:.1f}"
            panels.append(
                Panel(_lines(rows, column, styles, bottom, limits), f"{model}: {title}", f"{label}.", (4.9, 3.1))
            )
    cut_off = sorted({styles[row["method"]].name for row in answer.rows if _below(row, bottom)})
    caption = (
        "R² within each modality, about its own mean, on held-out rows, against L0, the mean number of codes that "
        "are not 0 (log scale). SAEs are solid lines in colour; baselines are grey and black. "
        "k-means has one code per row; PCA and ICA keep the k largest; NMF, spherical k-means, data sample and random "
        "directions are encoded by non-negative matching pursuit."
    )
    caption += f" Points below {short(bottom)} are cut off: {', '.join(cut_off)}." if cut_off else ""
    order = [name for name in METHODS if name in styles] + [name for name in names if name not in METHODS]
    keys = [
        LegendKey(
            styles[name].name, styles[name].color, styles[name].dash, marker=styles[name].marker,
            line=len({row["k"] for row in answer.of(method=name)}) > 1, hollow=styles[name].color in (INK, MUTED),
        )
        for name in order
    ]  # fmt: skip
    return Drawn("frontier", panels, keys, caption, answer.sql, 2)


def _below(row: Row, bottom: float) -> bool:
    return any(row[name] is not None and row[name] < bottom for name in ("r2_image", "r2_text"))


def _lines(rows: list[Row], column: str, styles: dict[str, Method], bottom: float, limits: tuple[float, float]) -> Draw:
    def draw(axes: Axes) -> None:
        for name, style in styles.items():
            own = sorted((row for row in rows if row["method"] == name), key=lambda row: (row["width"] or 0, row["l0"]))
            for width in dict.fromkeys(row["width"] for row in own):
                line = [row for row in own if row["width"] == width]
                axes.plot(
                    [row["l0"] for row in line], [row[column] for row in line],
                    color=style.color, linestyle=dashes(style.dash), marker=style.marker or None, markersize=5,
                    markerfacecolor=style.color if style.color not in (INK, MUTED) else PAPER, linewidth=1.4,
                )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set(xlim=limits, ylim=(bottom, 1), xlabel="L0 (log scale)", ylabel="R²")
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(short))
        axes.grid(axis="y")

    return draw

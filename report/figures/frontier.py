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
ENCODERS = {"own": "own encoders", "pursuit": "matching pursuit"}
DEEPEST = -0.1  # lowest R2 of the axis; lower values are cut off, since they would flatten the other curves


def r2_against_l0(answer: Answer, runs: Runs) -> Drawn | None:
    """R2 within images and within captions against L0 (codes per row), for all methods. None if there are no rows.

    Each kind of encoder has its own panels, so that the curves of a panel differ in the dictionary alone, or in methods
    that each use an encoder of their own.
    """
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
        for encoder, by in ENCODERS.items():
            of_encoder = answer.of(model=model, encoder=encoder)
            for column, title in (("r2_image", "images"), ("r2_text", "captions")) if of_encoder else ():
                rows = [row for row in of_encoder if row["l0"] and row[column] is not None]
                best = _best_at_k(of_encoder, f"{column}_at_k")
                drawn = len({row["method"] for row in of_encoder})
                label = f"R squared within {title} of {model} against L0 by {by}, {drawn} methods"
                if best:
                    label += (
                        f"; at an L0 of {best['k']} the highest is {styles[best['method']].name}, "
                        f"{best[f'{column}_at_k']:.3f}"
                    )
                draw = _lines(rows, column, styles, bottom, limits)
                panels.append(Panel(draw, f"{model}: {title}, {by}", f"{label}.", (4.9, 3.1)))
    cut_off = sorted({styles[row["method"]].name for row in answer.rows if _below(row, bottom)})
    caption = (
        "R² within each modality, about its own mean, on held-out rows, against L0, the mean number of codes that "
        "are not 0 (log scale). Methods are comparable within a panel, at equal L0: the panels of own encoders show "
        "each method with its own encoder (PCA and ICA keep the k largest coefficients, k-means has one code per row), "
        "the panels of matching pursuit show every dictionary with the same encoder, non-negative matching pursuit. "
        "SAEs are solid lines in colour; baselines are grey and black."
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


def _best_at_k(rows: list[Row], column: str) -> Row | None:
    """The row with the highest R2 at an L0 of k, at the largest k that most methods have; None if it is not known.

    column: r2_image_at_k or r2_text_at_k. At different L0 the highest R2 would be that of the largest L0.
    """
    known = [row for row in rows if row[column] is not None]
    methods = {row["k"]: {other["method"] for other in known if other["k"] == row["k"]} for row in known}
    if not methods:
        return None
    k = max(methods, key=lambda k: (len(methods[k]), k))
    return max((row for row in known if row["k"] == k), key=lambda row: row[column])


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

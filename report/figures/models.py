"""The models side by side: their main results on one scale, and the share of energy of the top concepts."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from report.drawing import LINE, MUTED, SERIES, THIRD, Draw, Drawn, LegendKey, Panel, dashes, short
from report.figures.runs import Runs, titled
from report.figures.stability import energetic_axis
from report.queries import MIN_FIRINGS, TOP, Answer, Row

STATISTICS = {
    "r2_image": "R² within images",
    "r2_text": "R² within captions",
    "alive": "concepts that fire",
    "stability": "stability of seeds",
    "top_energy": f"energy in the top {TOP}",
    "unimodal": "unimodal concepts",
    "raw_opposite": "raw bridges, image × text",
    "covariance_opposite": "covariance bridges, image × text",
}


def side_by_side(answer: Answer, runs: Runs) -> Drawn | None:
    """One line per statistic and one mark per model, on a scale from 0 to 1; None with a single model and setting."""
    answer = answer.known("value", "low", "high")
    runs = [run for run in runs if answer.of(model=run[0], sae=run[1])][: len(SERIES)]
    if len(runs) < 2:
        return None
    names = [name for name in STATISTICS if answer.of(statistic=name)]
    titles = [title for _, _, title in titled(runs)]
    values = []
    for (model, sae), title in zip(runs, titles, strict=True):
        rows = {row["statistic"]: row for row in answer.of(model=model, sae=sae)}
        values.append(f"{title}: " + ", ".join(f"{STATISTICS[n]} {rows[n]['value']:.2f}" for n in names if n in rows))
    panel = Panel(
        _side_by_side(answer, runs, names), "", "; ".join(values) + ".",
        (6.4, 0.8 + (0.2 + 0.16 * len(runs)) * len(names)),
    )  # fmt: skip
    caption = (
        "Marks: mean over seeds, or pairs of seeds; bars: their range. Vertical strokes: chance, which is "
        "floor_matched for stability, shuffled modalities for unimodal concepts (with at least "
        f"{MIN_FIRINGS} firings), and permuted images for bridges. Bridges, image × text: the share of the positive "
        "total between unimodal concepts of opposite modality."
    )
    keys = [LegendKey(t, s[0], marker=s[1], line=False) for t, s in zip(titles, SERIES, strict=False)]
    keys.append(LegendKey("chance", MUTED, marker="|", line=False))
    return Drawn("models", [panel], keys, caption, answer.sql, 1)


def _side_by_side(answer: Answer, runs: Runs, names: list[str]) -> Draw:
    def draw(axes: Axes) -> None:
        for place, name in enumerate(names):
            if place % 2:
                axes.axhspan(place - 0.5, place + 0.5, color=LINE, alpha=0.35, linewidth=0)
            for number, ((model, sae), (color, marker, _)) in enumerate(zip(runs, SERIES, strict=False)):
                y = place + (number - (len(runs) - 1) / 2) * 0.72 / len(runs)
                for row in answer.of(model=model, sae=sae, statistic=name):
                    _mark(axes, row, y, color, marker)
        lowest = min((row["low"] for row in answer.rows), default=0)  # an R² below -.5 is not shown
        axes.set_yticks(range(len(names)), [STATISTICS[name] for name in names])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(min(-0.02, max(-0.5, lowest)), 1.02), ylim=(len(names) - 0.5, -0.5))
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.grid(axis="x")

    return draw


def _mark(axes: Axes, row: Row, y: float, color: str, marker: str) -> None:
    if row["chance"] is not None:
        axes.plot(row["chance"], y, color=MUTED, marker="|", markersize=8, markeredgewidth=1.8)
    axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2.4, alpha=0.5, solid_capstyle="round")
    axes.plot(row["value"], y, color=color, marker=marker, markersize=5.5, clip_on=False)


def concentration(answer: Answer, runs: Runs) -> Drawn | None:
    """Share of the energy in the K most energetic concepts, one line per model, and its value for equal energies."""
    answer = answer.known("energy_share", "low", "high")
    panels, series = [], dict(zip(dict.fromkeys(model for model, _ in runs), SERIES, strict=False))
    saes = list(dict.fromkeys(sae for _, sae in runs))
    for sae in saes:
        rows = [row for row in answer.of(sae=sae) if row["model"] in series]
        if not rows:
            continue
        tops = [row for row in rows if row["k"] == TOP]
        shares = [f"the top {TOP} of {row['model']} hold {row['energy_share']:.2f}" for row in tops]
        title = f"SAE {sae}" if len(saes) > 1 else ""
        panels.append(Panel(_concentration(rows, series), title, "Energy concentration: " + "; ".join(shares) + "."))
    if not panels:
        return None
    caption = (
        "Share of the energy held by the K most energetic concepts; bands: range over seeds. Dotted: the share that K "
        "concepts would hold if all had the same energy."
    )
    keys = [LegendKey(model, color, dash) for model, (color, _, dash) in series.items()]
    keys.append(LegendKey("equal energies", THIRD, "1.5 2.5"))
    return Drawn("energy", panels, keys, caption, answer.sql, min(3, max(2, len(panels))))


def _concentration(rows: list[Row], series: dict[str, tuple[str, str, str]]) -> Draw:
    def draw(axes: Axes) -> None:
        for model, (color, _, dash) in series.items():
            own = [row for row in rows if row["model"] == model]
            k = [row["k"] for row in own]
            axes.fill_between(
                k, [row["low"] for row in own], [row["high"] for row in own], color=color, alpha=0.2, lw=0
            )
            axes.plot(
                k, [row["energy_share"] for row in own], color=color, linestyle=dashes(dash), marker="o", markersize=3
            )
            axes.plot(k, [row["even_share"] for row in own], color=THIRD, linestyle=dashes("1.5 2.5"))
        energetic_axis(axes, max(row["k"] for row in rows))
        axes.set(ylim=(0, 1.02), ylabel="share of energy")
        axes.yaxis.set_major_formatter(FuncFormatter(short))
        axes.grid(axis="y")

    return draw

"""How far each headline result moves when one setting of an SAE changes, beside how far the seeds move it."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from report.drawing import INK, LINE, SERIES, THIRD, Draw, Drawn, LegendKey, Panel, short
from report.figures.runs import Runs, columns_for, titled
from report.queries import Answer, Row
from report.wording import number

VARIED = ("init", "learning_rate", "k", "width")  # the settings that the key `sensitivity` varies have own marks
OTHER = (INK, "x")
SPREAD = 0.7  # part of a result's line over which the marks of the other settings are spread, so that bars stay apart


def moves(answer: Answer, runs: Runs) -> Drawn | None:
    """Distance of every neighbouring setting's results from those of a setting; None where no setting has neighbours.

    answer: rows of the macro `sensitivity` with the columns model and sae before them.
    """
    answer = answer.known("moved")
    panels = []
    for model, sae, title in titled(runs):
        rows = answer.of(model=model, sae=sae)
        if not rows:
            continue
        names = list(dict.fromkeys(row["statistic"] for row in rows))
        far = max(rows, key=lambda row: abs(row["moved"]))
        label = (
            f"How far the results of {title} move with its settings; {far['statistic']} moves farthest, by "
            f"{number(far['moved'])} with {far['varied']} = {far['value']}."
        )
        if single := [name for name in names if _range(rows, name) is None]:
            label += f" The range over seeds is not known for {', '.join(single)}."
        panels.append(Panel(_moves(rows, names), title, label, (4.9, 1.0 + 0.4 * len(names))))
    if not panels:
        return None
    banded = [row["by_seeds"] is not None for row in answer.rows]
    caption = (
        "Each mark is one other setting that differs in a single key: its result, averaged over seeds, minus that of "
        "the setting itself. Bar: range over the seeds of the other setting. "
    )
    caption += "Band: range over the seeds of the setting itself, to either side. " if any(banded) else ""
    if not any(banded):
        caption += "No band is drawn: with one seed, it is not known how far the seeds move a result."
    elif not all(banded):
        caption += (
            "Results without a band have one value (one seed; for stability, one pair of seeds): it is not known how "
            "far the seeds move them. "
        )
    if any(banded):
        caption += "A claim that rests on a result which moves farther than the band is a claim about the setting."
    if any(row["varied"] == "k" for row in answer.rows):
        caption += (
            " Settings that differ in k have another L0: their R² is not comparable and is left out, and their other "
            "results may move for this reason alone."
        )
    shown = {row["varied"] for row in answer.rows}
    marks = [(name.replace("_", " "), _mark(name)) for name in VARIED if name in shown]
    marks += [("another setting", OTHER)] if shown - set(VARIED) else []
    keys = [LegendKey(label, colour, marker=marker, line=False) for label, (colour, marker) in marks]
    if any(banded):
        keys.append(LegendKey("range over seeds", THIRD, filled=True, opacity=0.3))
    return Drawn("sensitivity", panels, keys, caption, answer.sql, columns_for(runs))


def _mark(varied: str) -> tuple[str, str]:
    """Colour and marker of a key."""
    return SERIES[VARIED.index(varied)][:2] if varied in VARIED else OTHER


def _range(rows: list[Row], statistic: str) -> float | None:
    """The range over seeds of a result of the setting itself; None if it has one value only."""
    return next((row["by_seeds"] for row in rows if row["statistic"] == statistic), None)


def _places(rows: list[Row]) -> dict[str, float]:
    """{other setting: its distance from the middle of a result's line}; those of one key follow one another."""
    keys = [*VARIED, *(row["varied"] for row in rows)]
    others = list(dict.fromkeys(row["other"] for row in sorted(rows, key=lambda row: keys.index(row["varied"]))))
    return {other: SPREAD * ((place + 0.5) / len(others) - 0.5) for place, other in enumerate(others)}


def _moves(rows: list[Row], names: list[str]) -> Draw:
    def draw(axes: Axes) -> None:
        for y, statistic in enumerate(names):
            if (seeds := _range(rows, statistic)) is not None:
                axes.barh(y, 2 * seeds, left=-seeds, height=0.8, color=THIRD, alpha=0.3, linewidth=0)
        axes.axvline(0, color=LINE)
        places = _places(rows)
        for row in rows:
            at = names.index(row["statistic"]) + places[row["other"]]
            colour, marker = _mark(row["varied"])
            if None not in (row["low"], row["high"]):
                bar = [row["low"] - row["reference"], row["high"] - row["reference"]]
                axes.plot(bar, [at, at], color=colour, linewidth=1.2, alpha=0.6)
            axes.plot(row["moved"], at, color=colour, marker=marker, markersize=4, linestyle="none")
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="change of the result")
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.tick_params(axis="y", length=0)

    return draw

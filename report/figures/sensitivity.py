"""How far each headline result moves when one setting of an SAE changes, beside how far the seeds move it."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from report.drawing import INK, LINE, SERIES, THIRD, Draw, Drawn, LegendKey, Panel, short
from report.figures.runs import Runs, columns_for, titled
from report.queries import Answer, Row
from report.sentences import number

VARIED = ("init", "learning_rate", "k", "width")  # the settings that the key `sensitivity` varies have own marks
OTHER = (INK, "x")


def moves(answer: Answer, runs: Runs) -> Drawn | None:
    """Distance of every neighbouring setting's results from those of a setting; None where no setting has neighbours.

    answer: rows of the macro `sensitivity` with the columns model and sae before them.
    """
    answer = answer.known("moved", "by_seeds")
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
        panels.append(Panel(_moves(rows, names), title, label, (4.9, 1.0 + 0.32 * len(names))))
    if not panels:
        return None
    caption = (
        "Each mark is one other setting that differs in a single key: its result, averaged over seeds, minus that of "
        "the setting itself. Band: range over the seeds of the setting itself, to either side. A claim that rests on a "
        "result which moves farther than the band is a claim about the setting."
    )
    shown = {row["varied"] for row in answer.rows}
    marks = [(name.replace("_", " "), _mark(name)) for name in VARIED if name in shown]
    marks += [("another setting", OTHER)] if shown - set(VARIED) else []
    keys = [LegendKey(label, colour, marker=marker, line=False) for label, (colour, marker) in marks]
    keys.append(LegendKey("range over seeds", THIRD, filled=True, opacity=0.3))
    return Drawn("sensitivity", panels, keys, caption, answer.sql, columns_for(runs))


def _mark(varied: str) -> tuple[str, str]:
    """Colour and marker of a key."""
    return SERIES[VARIED.index(varied)][:2] if varied in VARIED else OTHER


def _moves(rows: list[Row], names: list[str]) -> Draw:
    def draw(axes: Axes) -> None:
        for statistic, seeds in {row["statistic"]: row["by_seeds"] for row in rows}.items():
            y = names.index(statistic)
            axes.barh(y, 2 * seeds, left=-seeds, height=0.7, color=THIRD, alpha=0.3, linewidth=0)
        for row in rows:
            y = names.index(row["statistic"])
            colour, marker = _mark(row["varied"])
            axes.plot(row["moved"], y, color=colour, marker=marker, markersize=5, linestyle="none")
        axes.axvline(0, color=LINE)
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="change of the result")
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.tick_params(axis="y", length=0)

    return draw

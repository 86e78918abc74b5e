"""Training: R2 and the dead fraction over the epochs."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from report.drawing import FIRST, SECOND, Draw, Drawn, LegendKey, Panel, dashes, short
from report.figures.runs import Runs, columns_for, titled
from report.queries import Answer, Row


def curves(answer: Answer, runs: Runs) -> Drawn | None:
    """R2 and the dead fraction over the epochs of training, one line per seed; None where no SAE has a curve."""
    answer = answer.known("epoch")
    epochs = max((row["epoch"] for row in answer.rows), default=1) or 1
    # The R2 of the first batches can be far below 0; showing it would flatten the rest.
    bottom = max(-0.25, min((row["r2"] for row in answer.rows if row["r2"] is not None), default=0.0))
    panels = []
    trained = [run for run in runs if answer.of(model=run[0], sae=run[1])]  # imported SAEs have no curve
    if not trained:
        return None
    for model, sae, title in titled(trained):
        rows = answer.of(model=model, sae=sae)
        seeds = len({row["seed"] for row in rows})
        label = f"Training of {title}: R squared and dead fraction by epoch, {seeds} seed{'s' * (seeds != 1)}."
        panels.append(Panel(_curves(rows, min(0.0, bottom), epochs), title, label, (4.9, 2.1)))
    caption = (
        "One line per seed. R² of the training batches, both modalities together (the table has each separately); "
        "dead: concepts that hardly fired of late, which the auxiliary loss trains and restarts replace."
    )
    keys = [LegendKey("R² of training batches", FIRST), LegendKey("dead fraction", SECOND, "5 3")]
    return Drawn("training", panels, keys, caption, answer.sql, columns_for(trained))


def _curves(rows: list[Row], bottom: float, epochs: float) -> Draw:
    def draw(axes: Axes) -> None:
        for seed in sorted({row["seed"] for row in rows}):
            own = [row for row in rows if row["seed"] == seed]
            epoch = [row["epoch"] for row in own]
            axes.plot(epoch, [row["r2"] for row in own], color=FIRST, linewidth=1.2, alpha=0.8)
            dead = [row["dead_fraction"] for row in own]
            axes.plot(epoch, dead, color=SECOND, linewidth=1.2, alpha=0.8, linestyle=dashes("5 3"))
        axes.set(xlim=(0, epochs), ylim=(bottom, 1.02), xlabel="epoch", ylabel="R², share dead")
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.yaxis.set_major_formatter(FuncFormatter(short))

    return draw

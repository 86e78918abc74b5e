"""The claims table at the top of the page. A claim has a figure, its value under chance, a range and a verdict."""

from __future__ import annotations

from typing import NamedTuple

from report.figures.runs import Runs
from report.queries import Answer, Row
from report.sentences import number

SQL = 'SELECT model, sae, claim, figure, "null", low, high, holds FROM findings'
VERDICTS: dict[bool | None, str] = {True: "holds", False: "does not", None: "not known"}  # words for the column `holds`


class ModelClaim(NamedTuple):
    """A claim for one model, as the cells of its row."""

    model: str
    figure: str
    null: str
    interval: str
    holds: bool | None  #: whether the claim holds; None if it cannot be judged

    @property
    def verdict(self) -> str:
        """The verdict in words, for the last column of the table."""
        return VERDICTS[self.holds]


class Claim(NamedTuple):
    """One claim, with one line per model."""

    text: str
    models: list[ModelClaim]


def claims(answer: Answer, runs: Runs, sae: str) -> list[Claim]:
    """The claims about one SAE setting, in the order of `answer`. Within a claim, models are in the order of `runs`."""
    place = {model: i for i, (model, name) in enumerate(runs) if name == sae}
    by_claim: dict[str, list[Row]] = {}
    for row in answer.of(sae=sae):
        by_claim.setdefault(row["claim"], []).append(row)
    return [
        Claim(text.replace("_", " "), [_line(row) for row in sorted(rows, key=lambda row: place.get(row["model"], 0))])
        for text, rows in by_claim.items()
    ]


def _line(row: Row) -> ModelClaim:
    low, high = row["low"], row["high"]
    interval = "–" if low is None or high is None else f"{number(low)} – {number(high)}"
    return ModelClaim(row["model"], number(row["figure"]), number(row["null"]), interval, row["holds"])


def tally(claims: list[Claim]) -> str:
    """A sentence that counts the claims that hold in all models, in some, in none, and those that cannot be judged."""
    judged = [claim for claim in claims if all(line.holds is not None for line in claim.models)]
    everywhere = sum(all(line.holds for line in claim.models) for claim in judged)
    nowhere = sum(not any(line.holds for line in claim.models) for claim in judged)
    several = max((len(claim.models) for claim in claims), default=0) > 1
    parts = [f"{everywhere} hold{' in every model' if several else ''}"]
    parts += [f"{nowhere} do{' so in none' if several else ' not'}"] if nowhere else []
    if mixed := len(judged) - everywhere - nowhere:
        parts.append(f"{mixed} depend{'s' * (mixed == 1)} on the model")
    if unjudged := len(claims) - len(judged):
        parts.append(f"{unjudged} cannot be judged")
    return f"Of {len(claims)} claims {_joined(parts)}."


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

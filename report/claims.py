"""The claims table at the top of the page: the result of each claim, its chance level, and the verdict."""

from __future__ import annotations

from typing import NamedTuple

import duckdb

from report.figures.runs import Runs
from report.queries import Answer, Row, ask, has_columns, holds
from report.wording import number

SQL = """\
SELECT
    model, sae, question, claim, figure, low, high, interval_over, null_name, null_mean, null_low, null_high, rule,
    threshold, margin, bound, seeds, answer, verdict, holds, note
FROM findings"""
VERDICTS: dict[bool | None, str] = {True: "holds", False: "fails", None: "undecided"}  # words for the column `holds`
HEAD = ("claim", "model", "result", "95 % interval", "chance", "must be", "verdict")


class ModelClaim(NamedTuple):
    """A claim for one model, as the cells of its row."""

    model: str
    figure: str
    interval: str
    null: str  #: what the result is compared with: its name, its mean and its 95 % range
    bound: str  #: what the whole interval must be for the claim to hold, such as "> 0.500"
    holds: bool | None  #: whether the claim holds; None if it is undecided
    answer: str  #: where the interval lies, in words
    note: str

    @property
    def verdict(self) -> str:
        """The verdict in words, for the last column of the table."""
        return VERDICTS[self.holds] if self.answer == "open" else f"{VERDICTS[self.holds]}: {self.answer}"


class Claim(NamedTuple):
    """One claim, with one line per model."""

    text: str
    rule: str
    models: list[ModelClaim]

    @property
    def notes(self) -> list[str]:
        """The notes of the claim: one if it is the same for all models, else one per model, after the model's name."""
        notes = dict.fromkeys(line.note for line in self.models if line.note)
        return list(notes) if len(notes) < 2 else [f"{line.model}: {line.note}" for line in self.models if line.note]


def ask_claims(con: duckdb.DuckDBPyConnection) -> Answer:
    """The findings of a catalog. Without rows if the study has none, or if an older version of the code made them."""
    if holds(con, "findings") and has_columns(con, "findings", "verdict"):
        return ask(con, SQL)
    return Answer(SQL, [], [])


def claims(answer: Answer, runs: Runs, sae: str) -> list[Claim]:
    """The claims about one SAE setting, in the order of `answer`. Within a claim, models are in the order of `runs`."""
    place = {model: i for i, (model, name) in enumerate(runs) if name == sae}
    by_claim: dict[str, list[Row]] = {}
    for row in answer.of(sae=sae):
        by_claim.setdefault(row["claim"], []).append(row)
    return [
        Claim(text, _rule(rows), [_line(row) for row in sorted(rows, key=lambda row: place.get(row["model"], 0))])
        for text, rows in by_claim.items()
    ]


def _rule(rows: list[Row]) -> str:
    """The rule of a claim, with its margin, or with its threshold if this is the same for all models."""
    margin, thresholds = rows[0]["margin"], {row["threshold"] for row in rows}
    value = margin if margin is not None else thresholds.pop() if len(thresholds) == 1 else None
    return rows[0]["rule"] if value is None else f"{rows[0]['rule']} ({value:.3g})"


def _line(row: Row) -> ModelClaim:
    known = [abs(row[name]) for name in ("figure", "low", "high", "null_high", "bound") if row[name] is not None]
    digits = 3 if max(known, default=1) >= 0.1 else 4
    null = row["null_name"].replace("_", " ")
    null += ", not known" if row["null_mean"] is None else f" {number(row['null_mean'], digits)}"
    if row["null_low"] is not None:
        null += f" ({_range(row['null_low'], row['null_high'], digits)})"
    sign = "<" if row["rule"].startswith("below") else ">"
    bound = "–" if row["bound"] is None else f"{sign} {number(row['bound'], digits)}"
    interval = _range(row["low"], row["high"], digits)
    figure = number(row["figure"], digits)
    return ModelClaim(row["model"], figure, interval, null, bound, row["holds"], row["answer"], row["note"] or "")


def _range(low: float | None, high: float | None, digits: int) -> str:
    return "–" if low is None or high is None else f"{number(low, digits)} – {number(high, digits)}"


def tally(claims: list[Claim]) -> str:
    """A sentence that counts the claims that hold in all models, in some, in none, and those that are undecided."""
    judged = [claim for claim in claims if all(line.holds is not None for line in claim.models)]
    everywhere = sum(all(line.holds for line in claim.models) for claim in judged)
    nowhere = sum(not any(line.holds for line in claim.models) for claim in judged)
    several = max((len(claim.models) for claim in claims), default=0) > 1
    parts = [f"{everywhere} hold{'s' * (everywhere == 1)}{' in every model' if several else ''}"]
    parts += [f"{nowhere} fail{'s' * (nowhere == 1)}{' in every model' if several else ''}"] if nowhere else []
    if mixed := len(judged) - everywhere - nowhere:
        parts.append(f"{mixed} depend{'s' * (mixed == 1)} on the model")
    if unjudged := len(claims) - len(judged):
        parts.append(
            f"{unjudged} {'is' if unjudged == 1 else 'are'} undecided{' in one model or more' if several else ''}"
        )
    return f"Of {len(claims)} claims {_joined(parts)}."


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

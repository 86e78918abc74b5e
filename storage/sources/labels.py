"""The border for labels and groups: which labels a value of a source holds, and which group it names."""

from __future__ import annotations

import math
from datetime import date, time
from decimal import Decimal
from typing import Any

from storage.sources.captions import EMPTY, clean, shown, texts_of

NO_GROUP, NO_LABEL = "group is no text", "label is no text"  # the causes why a value names no group or no label
SEVERAL_GROUPS = "several groups"  # the cause why a group is not that of its image: an earlier row names another
EXACT = 2**53  # a float below it holds a whole number exactly


def group_of(value: Any) -> str | None:
    """Return the group that a value names: a text, or the text of a number or date; "" for null; None for the rest.

    7, 7.0 and Decimal("7.00") name one group: a column of whole numbers with a null is one of floats in many files.
    """
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return f"{int(value)}"
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return f"{int(value)}"
    return str(value) if isinstance(value, (int, float, date, time, Decimal)) else None


def group_after(held: str, found: str | None) -> tuple[str, str]:
    """Return the group of an item in the group `held` after a row that names `found`, and the detail for the ledger.

    The first group counts. The detail is "" unless the row names another one.
    """
    if not found or found == held:
        return held, ""
    return (held, f"{held} and {found}") if held else (found, "")


def label_texts(value: Any) -> list[tuple[str, str]]:
    """Return the labels in a value, each as (label, ""), and what is no label as ("", type and value).

    Labels are texts, finite numbers (42 and 42.0 give "42", 0.5 gives "0.5"), true and false, and lists of these. Null
    and blank texts give no label. A whole number that a float may not hold exactly is none either: it is reported.
    """
    if isinstance(value, bool):
        return [("true" if value else "false", "")]
    if isinstance(value, int):
        return [(f"{value}", "")]
    if isinstance(value, float) and math.isfinite(value):
        if value.is_integer():
            return [(f"{int(value)}", "")] if abs(value) < EXACT else [("", shown(value))]
        return [(repr(value), "")]
    if isinstance(value, (list, tuple)):
        return [label for one in value for label in label_texts(one)]
    found = texts_of(value)
    wrong = [("", detail) for cause, detail in found.left_out if cause != EMPTY]
    return [(text, "") for text in found.texts] + wrong

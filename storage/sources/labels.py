"""The border for labels and groups: which labels a value of a source holds, and which group it names."""

from __future__ import annotations

import math
from datetime import date, time
from decimal import Decimal
from typing import Any

from storage.sources.captions import EMPTY, clean, shown, texts_of

NO_GROUP, NO_LABEL = "group is no text", "label is no text"  # the causes why a value names no group or no label
EXACT = 2**53  # a float below it holds a whole number exactly


def group_of(value: Any) -> str | None:
    """Return the group that a value names: a text, or the text of a number or date; "" for null; None for the rest."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return clean(value)
    return str(value) if isinstance(value, (int, float, date, time, Decimal)) else None


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

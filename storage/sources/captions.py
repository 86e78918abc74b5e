"""The border for text: one function decides which captions a value of a source holds. All other values are counted.

No value that is not text becomes text here. A number or an object in a column of captions is a fault of the source.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from storage import syntax
from storage.sources import Caption, Dropped

EMPTY, NO_TEXT = "caption is empty", "caption is no text"  # the causes why a value gives no caption
RAW = ("raw", "caption", "text")  # keys of an object that is a caption, as in Karpathy's files and those of the hub
SHOWN = 80  # characters of a value that the ledger shows
DEPTH = 4  # levels of lists in lists
_LITERAL = re.compile(r"""'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+\"""")
_PRINTED = re.compile(rf"\[\s*(?:{_LITERAL.pattern})(?:(?:\s*,\s*|\s+)(?:{_LITERAL.pattern}))*+\s*\]")


class Texts(NamedTuple):
    """The captions in one value of a source, and the values that are no captions."""

    texts: list[str]
    left_out: list[tuple[str, str]]  #: (cause, detail) of each value that is no caption


def texts_of(value: Any) -> Texts:
    """Return the captions in a value: one text, bytes in UTF-8, a list of texts, or a list of objects {"raw": text}.

    A text that is a list of texts in JSON, or as Python prints it, counts as this list. Blanks around a text are
    removed. None, NaN and blank texts are left out as EMPTY; numbers, dates and other objects as NO_TEXT. Lone
    surrogates and bytes that are not UTF-8 become U+FFFD.
    """
    if type(value) is str and value.isascii() and (text := value.strip()) and text[-1] != "]":  # most values are such
        return Texts([text], [])
    found = Texts([], [])
    _add(value, found, DEPTH)
    return found


def captions_of(key: str, texts: Iterable[str]) -> tuple[Caption, ...]:
    """Return the captions of the item `key`. The key of a caption depends on its text, not on its row in the table.

    `texts` are texts that `texts_of` returned. Equal texts are separate captions, whose keys are numbered.
    """
    captions: list[Caption] = []
    seen: dict[str, int] = {}
    for text in texts:
        seen[text] = seen.get(text, 0) + 1
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        captions.append(Caption(f"{key}#{digest}" + (f"-{seen[text]}" if seen[text] > 1 else ""), text))
    return tuple(captions)


def left_out(key: str, values: Iterable[tuple[str, str]]) -> list[Dropped]:
    """Return what the ledger lists for the values of the item `key` that are no captions (`Texts.left_out`)."""
    return [Dropped(key, cause, detail) for cause, detail in values]


def clean(text: str) -> str:
    """Return a text that UTF-8 can encode: pairs of surrogates are joined, lone surrogates become U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _add(value: Any, found: Texts, depth: int) -> None:
    """Add the captions in `value` to `found`."""
    if isinstance(value, bytes):
        value = value.decode("utf-8-sig", "replace")
    if isinstance(value, str):
        text = clean(value).strip()
        listed = _listed(text)
        if listed is not None:
            _add(listed, found, depth)
        elif text:
            found.texts.append(text)
        else:
            found.left_out.append((EMPTY, "blank"))
    elif value is None or (isinstance(value, float) and value != value):
        found.left_out.append((EMPTY, "null" if value is None else "NaN"))
    elif isinstance(value, (list, tuple)) or type(value).__name__ in ("Series", "ndarray"):
        values = list(value)
        if depth == 0:
            found.left_out.append((NO_TEXT, "lists in lists"))
            return
        for one in values:
            _add(one, found, depth - 1)
    elif isinstance(value, dict) and (raw := [value[key] for key in RAW if isinstance(value.get(key), str)]):
        _add(raw[0], found, 0)
    else:
        found.left_out.append((NO_TEXT, shown(value)))


def _listed(text: str) -> list[Any] | None:
    """Return the list of texts, or of objects with a text, that a text is in JSON. None for any other text."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _printed(text)
    texts = [isinstance(one, str) or (isinstance(one, dict) and any(key in one for key in RAW)) for one in value]
    return value if value and all(texts) else None


def _printed(text: str) -> list[Any] | None:
    """Return the list of texts that a text is as Python or numpy print it, with blanks or commas between the texts."""
    if not _PRINTED.fullmatch(text):
        return None
    try:
        return [syntax.literal(one) for one in _LITERAL.findall(text)]
    except (ValueError, SyntaxError):  # an escape that Python does not know
        return None


def shown(value: Any) -> str:
    """Return the type of a value and the beginning of the value, for the ledger and for errors."""
    text = clean(repr(value))
    return f"{type(value).__name__} {text[:SHOWN]}{'...' if len(text) > SHOWN else ''}"

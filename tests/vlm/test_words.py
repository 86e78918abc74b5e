"""The tokenizer that remembers words gives the ids of open_clip's own, for any text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip import SimpleTokenizer

from vlm.words import remembering

OWN = SimpleTokenizer()
FAST = remembering(OWN)
ASCII = st.text(st.characters(max_codepoint=126), max_size=60)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.one_of(ASCII, st.text(max_size=40)), min_size=1, max_size=4))
@example(
    texts=[
        "Two  DOGS' toys\t& a cat's <end_of_text>",
        "",
        "caf\u00e9 &amp; \u201cquotes\u201d \u2014 \u01b5",
        "a" * 300,
    ]
)
@example(texts=["it's 12:30 -- they'll \\ run", "&lt;p&gt;", "\x1b[31mred", "word " * 100])
def test_ids_are_those_of_the_library(texts: list[str]) -> None:
    assert torch.equal(FAST(texts), OWN(texts))
    assert torch.equal(FAST(texts, context_length=9), OWN(texts, context_length=9))


def test_other_tokenizers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (SimpleTokenizer(clean="canonicalize"), SimpleTokenizer(reduction_mask="simple"), str.split):
        assert remembering(other) is other
    monkeypatch.setattr("vlm.words.MOST_WORDS", 0)
    assert torch.equal(remembering(OWN)(["red apples"]), OWN(["red apples"]))

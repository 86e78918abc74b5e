"""CLIP's tokenizer of open_clip with a memory for words: the same token ids in a sixth of the time.

open_clip cleans every caption with ftfy and looks up each byte of each word. Here the ids of a word are looked up once,
and text of printable ASCII without "&", which ftfy and the HTML decoder leave as it is, is not given to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MOST_WORDS = 2**18  # words in memory; about 40 MB


def remembering(tokenizer: Any) -> Callable[..., torch.Tensor]:
    """A tokenizer that gives what `tokenizer` gives. Any other than open_clip's own for CLIP is returned as it is."""
    from open_clip.tokenizer import SimpleTokenizer

    plain = type(tokenizer) is SimpleTokenizer and tokenizer.reduction_fn is None
    lower = plain and getattr(tokenizer.clean_fn, "__name__", "") == "_clean_lower"
    found: Callable[..., torch.Tensor] = _Remembering(tokenizer) if lower else tokenizer
    return found


class _Remembering:
    def __init__(self, tokenizer: Any) -> None:
        self._own = tokenizer
        self._words: dict[str, list[int]] = {}
        self.context_length = tokenizer.context_length

    def _encoded(self, text: str) -> list[int]:
        if text.isascii() and text.isprintable() and "&" not in text:
            cleaned = " ".join(text.split()).lower()
        else:
            cleaned = self._own.clean_fn(text)
        found: list[int] = []
        for word in self._own.pat.findall(cleaned):
            ids = self._words.get(word)
            found += self._looked_up(word) if ids is None else ids
        return found

    def _looked_up(self, word: str) -> list[int]:
        own = self._own
        letters = "".join(own.byte_encoder[byte] for byte in word.encode())
        ids = [own.encoder[piece] for piece in own.bpe(letters).split(" ")]
        if len(self._words) < MOST_WORDS:
            self._words[word] = ids
        return ids

    def __call__(self, texts: list[str], context_length: int | None = None) -> torch.Tensor:
        """Token ids, int64 [B, context length], cut and padded as open_clip does."""
        import numpy as np
        import torch

        length = context_length or self.context_length
        out = np.zeros((len(texts), length), np.int64)
        for row, text in enumerate(texts):
            ids = [self._own.sot_token_id, *self._encoded(text), self._own.eot_token_id]
            if len(ids) > length:
                ids = [*ids[: length - 1], self._own.eot_token_id]
            out[row, : len(ids)] = ids
        return torch.from_numpy(out)

"""The beginning and the end that a tokenizer of transformers adds to each text, as its settings state them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def stated_settings(folder: Path) -> dict[str, Any]:
    """The settings of a folder's tokenizer; none if it has no file of them."""
    path = folder / "tokenizer_config.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def end_texts(tokenizer: Any, folder: Path) -> None:
    """Let a tokenizer append the end of text and nothing else, if its settings say so and it does not do so yet.

    The settings of SigLIP2's tokenizer, which is Gemma's, say add_eos_token. transformers 4 goes by them, but
    transformers 5 by the file tokenizer.json alone, which may be Gemma's own, with a beginning and without an end.
    """
    stated = stated_settings(folder)
    if not stated.get("add_eos_token") or stated.get("add_bos_token") or not hasattr(tokenizer, "backend_tokenizer"):
        return
    if tokenizer("")["input_ids"] != [tokenizer.eos_token_id]:
        from tokenizers.processors import TemplateProcessing

        eos = str(tokenizer.eos_token)
        special = [(eos, int(tokenizer.eos_token_id))]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {eos}", special_tokens=special)

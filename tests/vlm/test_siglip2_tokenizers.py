"""SigLIP2's tokenizer in the classes and files in which it is released, beside the generic one.

The keys of the settings are those that transformers' conversion of the checkpoints writes: Gemma's tokenizer without a
beginning of text, with an end, padded to the right, lower-cased, and without a mask.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_models import CAPTIONS, OPEN_CLIP_CONFIG, build, build_open_clip
from tokenizers import Tokenizer

import vlm
from vlm.encoder import Encoder

TEXTS = [*CAPTIONS, "", "A Cat SLEEPS, on a red sofa!", "wet grass " * 60, "élan über naïve"]
RELEASED = {
    "add_bos_token": False, "add_eos_token": True, "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
    "unk_token": "<unk>", "clean_up_tokenization_spaces": False, "do_lower_case": True, "padding_side": "right",
    "model_input_names": ["input_ids"], "model_max_length": 1000000000000000019884624838656,
    "spaces_between_special_tokens": False, "processor_class": "SiglipProcessor",
}  # fmt: skip
PAIR = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]


def template(before: list[str], after: list[str]) -> dict[str, object]:
    def special(name: str) -> dict[str, object]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    ids = {"<eos>": 1, "<bos>": 2}
    single = [*map(special, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(special, after)]
    tokens = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (*before, *after)}
    return {"type": "TemplateProcessing", "single": single, "pair": PAIR, "special_tokens": tokens}


#: How tokenizer.json ends a text: as SigLIP2's is saved, as Gemma's own file has it, and not at all.
ENDS = {"siglip2": template([], ["<eos>"]), "gemma": template(["<bos>"], []), "none": None}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    return {family: build(family, place / family) for family in ("siglip2", "naflex")}


@pytest.fixture(scope="module")
def generic(folders: dict[str, Path]) -> dict[str, np.ndarray]:
    """The embeddings of the texts with the generic tokenizer."""
    return {family: vlm.load(f"hf:{folder}").encode_texts(TEXTS) for family, folder in folders.items()}


def released(folder: Path, built: Path, tokenizer_class: str, ends: str, **more: object) -> Encoder:
    """An encoder of a built checkpoint whose tokenizer has the files of a released one."""
    shutil.copytree(built, folder)
    as_released(folder, tokenizer_class, ends, **more)
    return vlm.load(f"hf:{folder}")


def as_released(folder: Path, tokenizer_class: str, ends: str, **more: object) -> None:
    """Change the files of the generic tokenizer in a folder into those of a released one."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    tokenizer |= {"pre_tokenizer": split, "post_processor": ENDS[ends]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {**RELEASED, "tokenizer_class": tokenizer_class, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def expected(built: Path) -> list[list[int]]:
    """The ids of the lower-cased texts by the library `tokenizers` alone: an end of text, padded with 0 to 64."""
    tokenizer = Tokenizer.from_file(str(built / "tokenizer.json"))
    rows = [tokenizer.encode(text.lower(), add_special_tokens=False).ids[:63] for text in TEXTS]
    return [[*row, 1, *[0] * (63 - len(row))] for row in rows]


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("tokenizer_class", ["GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"])
@pytest.mark.parametrize("family", ["siglip2", "naflex"])
def test_the_tokens_and_embeddings_are_those_of_the_generic_tokenizer(
    folders: dict[str, Path],
    generic: dict[str, np.ndarray],
    tmp_path: Path,
    family: str,
    tokenizer_class: str,
    ends: str,
) -> None:
    encoder = released(tmp_path / "model", folders[family], tokenizer_class, ends)
    tokens = encoder.tokenize(TEXTS)
    assert set(tokens.inputs) == {"input_ids"}
    assert tokens.inputs["input_ids"].tolist() == expected(folders[family])
    assert tokens.truncated.tolist() == [text.startswith("wet grass wet") for text in TEXTS]
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), generic[family], atol=1e-6)


@pytest.mark.parametrize("ends", ENDS)
def test_open_clip_gets_the_same_tokens(folders: dict[str, Path], tmp_path: Path, ends: str) -> None:
    text_cfg = OPEN_CLIP_CONFIG["model_cfg"]["text_cfg"] | {"context_length": 64, "vocab_size": 256}
    text_cfg |= {"hf_tokenizer_name": "owner/siglip2", "tokenizer_kwargs": {"clean": "lower"}}
    config = {**OPEN_CLIP_CONFIG, "model_cfg": {**OPEN_CLIP_CONFIG["model_cfg"], "text_cfg": text_cfg}}
    folder = build_open_clip(tmp_path / "model", config)
    shutil.copy(folders["siglip2"] / "tokenizer.json", folder)
    as_released(folder, "GemmaTokenizer", ends)
    encoder = vlm.load(f"open_clip:local-dir:{folder}")
    assert encoder.tokenize(TEXTS).inputs["ids"].tolist() == expected(folders["siglip2"])


def test_a_tokenizer_that_does_not_state_an_end_is_left_as_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    encoder = released(tmp_path / "model", folders["siglip2"], "GemmaTokenizer", "gemma", add_eos_token=False)
    assert encoder.tokenize([""]).inputs["input_ids"][0, :2].tolist() == [2, 0]

"""Checkpoints of the four model families with a few thousand random weights, in the file layout of the hub.

They are built from the families' own configuration classes. The tokenizers need no network. The merges of CLIP's
tokenizer come with open_clip. The sentencepiece model of SigLIP's tokenizer and the Gemma-like BPE of SigLIP2's
tokenizer are trained here on a few captions.
"""

from __future__ import annotations

import gzip
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CAPTIONS = [
    "a cat sleeps on a red sofa",
    "two dogs run over wet grass",
    "a man rides a wave on top of a surfboard",
    "a plate of food with vegetables and meat",
    "seven red apples in a wooden bowl, near a window",
    "a very old steam train crosses a stone bridge in the mountains",
]
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def build(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint of "clip", "siglip", "siglip2" (fixed resolution), "naflex" or "aimv2" into a folder."""
    import torch

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    {"clip": _clip, "aimv2": _aimv2, "siglip": _siglip, "siglip2": _siglip2, "naflex": _naflex}[family](folder)
    return folder


def hub_cache(home: Path, repository: str, built: Path, commit: str) -> Path:
    """Copy a built checkpoint into the layout of the hub's cache. Returns the cache (HF_HUB_CACHE)."""
    repo = home / "hub" / f"models--{repository.replace('/', '--')}"
    shutil.copytree(built, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    return home / "hub"


def _save(model: Any, folder: Path) -> None:
    """Save the model with weights so large that every part affects its output."""
    import torch

    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)


def _clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    vocabulary = _clip_tokenizer(folder)
    text = {**TOWER, "vocab_size": vocabulary, "max_position_embeddings": 77, "eos_token_id": vocabulary - 1}
    text |= {"bos_token_id": vocabulary - 2, "pad_token_id": vocabulary - 1}
    config = CLIPConfig(text_config=text, vision_config={**TOWER, "image_size": 32, "patch_size": 8}, projection_dim=16)
    _save(CLIPModel(config), folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def _aimv2(folder: Path) -> None:
    from transformers import Aimv2Config, Aimv2Model, CLIPImageProcessor

    vocabulary = _clip_tokenizer(folder)
    text = {**TOWER, "vocab_size": vocabulary, "max_position_embeddings": 77, "eos_token_id": vocabulary - 1}
    vision = {**TOWER, "image_size": 32, "patch_size": 8, "use_head": True, "is_native": False}
    _save(Aimv2Model(Aimv2Config(text_config=text, vision_config=vision, projection_dim=16)), folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def _siglip(folder: Path) -> None:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    vocabulary = _sentencepiece(folder)
    text = {**TOWER, "vocab_size": vocabulary, "max_position_embeddings": 64}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    _save(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)), folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def _siglip2(folder: Path) -> None:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    vocabulary = _gemma_like(folder)
    text = {**TOWER, "vocab_size": vocabulary, "max_position_embeddings": 64}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    _save(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)), folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}, resample=2).save_pretrained(folder)


def _naflex(folder: Path) -> None:
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model

    vocabulary = _gemma_like(folder)
    text = {**TOWER, "vocab_size": vocabulary, "max_position_embeddings": 64}
    vision = {**TOWER, "num_patches": 16, "patch_size": 8}
    _save(Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)), folder)
    Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)


def _clip_tokenizer(folder: Path, merges: int = 600) -> int:
    """Write CLIP's byte-level BPE tokenizer with its first `merges` merges.

    Returns the size of the vocabulary. The last token is the end of text.
    """
    from transformers import CLIPTokenizer

    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    packed = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : merges + 1]
    from open_clip.tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(line.split()) for line in lines)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines))
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return len(words)


def _sentencepiece(folder: Path) -> int:
    """Write a unigram tokenizer like SigLIP's. Returns the size of the vocabulary.

    The id of the end of text is 1, the id of the unknown token 2.
    """
    import sentencepiece
    from transformers import SiglipTokenizer

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS * 4), model_prefix=str(folder / "spiece"), vocab_size=64, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_input_names=["input_ids"])
    tokenizer.save_pretrained(folder)
    return int(tokenizer.vocab_size)


def _gemma_like(folder: Path) -> int:
    """Write a BPE tokenizer like SigLIP2's in transformers 4. Returns the size of the vocabulary.

    It has Gemma's special tokens, appends the end of text and pads to the right. It does not lower-case by itself.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Replace("▁", " ")
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(vocab_size=220, special_tokens=special, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(CAPTIONS * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>",
        padding_side="right", model_max_length=64, model_input_names=["input_ids"], do_lower_case=True,
    ).save_pretrained(folder)  # fmt: skip
    return int(tokenizer.get_vocab_size())


OPEN_CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
        "text_cfg": {"width": 32, "heads": 2, "layers": 2, "context_length": 77, "vocab_size": 49408},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


def build_open_clip(folder: Path, config: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """Write a checkpoint in open_clip's format into a folder: its configuration, and weights as safetensors."""
    import torch
    from open_clip.model import CLIP, CustomTextCLIP
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    config = config or OPEN_CLIP_CONFIG
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model_class = CustomTextCLIP if "hf_model_name" in config["model_cfg"]["text_cfg"] else CLIP
    model = model_class(**config["model_cfg"])
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.3)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder

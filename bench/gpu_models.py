"""Encoders at full size with random weights for the GPU bench, and how they are fed. Needs torch and transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from vlm.hf import FAMILIES, HFEncoder, pooled

WORDS = ("a", "the", "man", "woman", "dog", "cat", "street", "table", "on", "in", "with")


class Size(NamedTuple):
    """A model at its released size: the configuration of its towers, where it differs from the family's defaults."""

    name: str
    family: str  #: a key of vlm.hf.FAMILIES
    vision: dict[str, Any]
    text: dict[str, Any]
    projection: int | None  #: dimensions of the joint space, where the family's configuration has them apart
    timm: str  #: the same image tower in timm
    published: dict[str, float]  #: images/s of timm's published inference benchmark, by card


SIZES = (
    Size(
        "CLIP B/32", "clip", {"patch_size": 32}, {}, 512,
        "vit_base_patch32_clip_224", {"RTX 4090": 12645, "RTX 3090": 5121},
    ),
    Size(
        "SigLIP B/16-224", "siglip", {}, {}, None,
        "vit_base_patch16_siglip_224", {"RTX 4090": 3278, "RTX 3090": 1566},
    ),
    Size(
        "CLIP L/14", "clip",
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         "patch_size": 14},
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}, 768,
        "vit_large_patch14_clip_224", {"RTX 4090": 805, "RTX 3090": 358},
    ),
    Size("AIMv2 L/14", "aimv2", {}, {}, 768, "aimv2_large_patch14_224", {"RTX 4090": 791}),
    Size(
        "SigLIP2 so400m-384", "siglip",
        {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
         "patch_size": 14, "image_size": 384},
        {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
         "vocab_size": 256000},
        None, "vit_so400m_patch14_siglip_384", {"RTX 4090": 195},
    ),
)  # fmt: skip


def model_of(size: Size, device: str, share: float = 1.0) -> Any:
    """The model with random weights. share: the share of its layers that it keeps, at least one a tower."""
    import transformers

    family = FAMILIES[size.family]
    config_class = getattr(transformers, family.model.replace("Model", "Config"))
    towers = {}
    for tower, given in (("vision_config", size.vision), ("text_config", size.text)):
        layers = given.get("num_hidden_layers", getattr(config_class(), tower).num_hidden_layers)
        towers[tower] = {**given, "num_hidden_layers": max(1, round(layers * share))}
    towers["text_config"] |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}  # those of `_tokenizer`
    options = {} if size.projection is None else {"projection_dim": size.projection}
    with torch.device(device):  # random weights of a large model take long on a CPU
        return getattr(transformers, family.model)(config_class(**towers, **options))


def built(size: Size, device: str, dtype: str, share: float = 1.0) -> HFEncoder:
    """The encoder with random weights. share: that of `model_of`."""
    import transformers

    torch.manual_seed(0)
    model = model_of(size, device, share)
    edge = model.config.vision_config.image_size
    if size.family == "siglip":
        processor = transformers.SiglipImageProcessor(size={"height": edge, "width": edge})
    else:
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}
        )
    family = FAMILIES[size.family]
    return HFEncoder(model, family, processor, _tokenizer(family.context), {"model": size.name}, device, dtype)


def _tokenizer(context: int) -> Any:
    """A tokenizer of whole words: the released vocabularies come with the checkpoints, and captions are not timed."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(("<pad>", "<eos>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(words, "<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", model_max_length=context,
        model_input_names=["input_ids"],
    )  # fmt: skip


def batch_on_device(encoder: HFEncoder, rows: int) -> torch.Tensor:
    """Prepared pictures [rows, 3, H, W] of noise, on the device in the encoder's dtype."""
    edge = encoder.model.config.vision_config.image_size
    return torch.randn(rows, 3, edge, edge, device=encoder.device, dtype=encoder.dtype)


@torch.inference_mode()
def forward_alone(encoder: HFEncoder, batch: torch.Tensor, times: int) -> None:
    """Run the image tower on a batch that lies on the device."""
    for _ in range(times):
        features = pooled(encoder.model.get_image_features(pixel_values=batch))
    assert bool(torch.isfinite(features).all())  # waits for the device


def timm_forward(size: Size, device: str, dtype: torch.dtype, share: float) -> torch.nn.Module | None:
    """timm's own model of the same image tower, with random weights; None where timm has none of this name."""
    try:
        import timm
    except ImportError:
        return None
    if size.timm not in timm.list_models():
        return None
    tower = timm.create_model(size.timm, num_classes=0)
    if share < 1:
        tower = timm.create_model(size.timm, num_classes=0, depth=max(1, round(len(tower.blocks) * share)))
    return tower.to(device=device, dtype=dtype).eval()


def embed_from_memory(
    encoder: HFEncoder, images: Sequence[bytes], batch: int, decoding_free: bool = False
) -> np.ndarray:
    """Embed JPEGs that lie in memory by the batches that the stage embed runs: float32 [n, dim].

    decoding_free: one picture at model size is taken for every image, so that decoding and resizing cost nothing.
    This function alone knows how `vlm.batches` is fed. Raises what the model raised.
    """
    from vlm.batches import Images, Target
    from vlm.feed import Feed

    given = encoder.pixels
    target = Target(0, 0, lambda rows: np.empty((0, encoder.dim), np.float32))
    with contextlib.ExitStack() as stack:
        if decoding_free:
            ready = given.resize(Image.new("RGB", (640, 480), "grey"))
            encoder.pixels = given._replace(resize=lambda picture: ready, key=None)  # without a key, in threads
            stack.callback(setattr, encoder, "pixels", given)
            stack.enter_context(patch("vlm.decoders.decode", lambda data, most: None))
        feed = stack.enter_context(Feed([encoder], batch))
        shard = Images(
            feed, lambda start: iter(images[start:]), np.arange(len(images)), [target], chunk=len(images)
        )  # fmt: skip
        found = [rows for _, _, (rows,) in shard.chunks() if rows is not None]
    if target.error is not None:
        raise target.error
    return np.concatenate(found)


def decode_alone(encoder: HFEncoder, images: Sequence[bytes]) -> None:
    """Decode, resize and crop the JPEGs on all cores, and drop the result."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    from vlm.pictures import decode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda data: len(encoder.pixels.resize(decode(data))), images):
            pass

"""Encoders from open_clip: its own pre-trained models, repositories of the hub, and folders such as the demo's.

open_clip's own functions load the models. In addition, captions are padded only to the longest caption of their batch
if this changes no result, and convolutional towers run channels-last on a CPU. A `local-dir:` checkpoint never needs
the network.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vlm import hub
from vlm.checkpoint import OPEN_CLIP, TRANSFORMERS, CheckpointError, file_hashes, library_versions, weight_files
from vlm.encoder import Encoder, Tokens, resolve_device
from vlm.pixels import of_transform
from vlm.spec import LOCAL_DIR, Spec, SpecError
from vlm.text_ends import end_texts
from vlm.thin import BICUBIC, BILINEAR, Crop, centre, fitted, squashed, unchanged
from vlm.words import remembering

if TYPE_CHECKING:
    import torch
    from PIL import Image

PICKLED = "open_clip_pytorch_model.bin"  # under this name open_clip reads any file of torch.save, with weights_only
LIBRARIES = ("open_clip_torch", "torch", "torchvision", "timm", "transformers", "tokenizers", "pillow")
#: Largest number of pictures in a forward pass of a convolutional tower on a CPU; larger batches are split. The
#: activations of 64 pictures do not fit the cache: EfficientNet-Lite0 on two cores embeds 79 images/s with 8 pictures
#: at a time, 60 with 32 and 42 with 64. The number is not below 32, because with few pictures the threads synchronise
#: so often that another busy process slows them down: to 5 images/s with 8 pictures, but only to 40 images/s with 32.
CACHE_BATCH = 32


class Loaded(NamedTuple):
    """A model with what goes with it; the first arguments of `OpenClipEncoder`."""

    model: Any
    transform: Callable[[Image.Image], torch.Tensor]
    tokenizer: Any
    source: dict[str, Any]


class OpenClipEncoder(Encoder):
    """An open_clip model with its preprocessing and tokenizer.

    Args:
        model: from `open_clip.create_model`, float32 on the CPU; it is moved, cast and set to evaluation mode.
        transform: the evaluation preprocessing, PIL picture to tensor [3, H, W].
        tokenizer: strings to token ids [B, context length]; a keyword `context_length` asks for another length.
        source: the JSON-ready part of the identity that says which weights the model has.
        device: a torch device; "auto" is already resolved.
        dtype: one of `vlm.encoder.DTYPES`.
    """

    def __init__(
        self,
        model: Any,
        transform: Callable[[Image.Image], torch.Tensor],
        tokenizer: Callable[..., torch.Tensor],
        source: dict[str, Any],
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        import torch

        self.device, self.dtype = device, getattr(torch, dtype)
        self.model = model.to(device=device, dtype=self.dtype).eval()
        self.model.requires_grad_(False)
        self.transform, self.tokenizer = transform, remembering(tokenizer)
        self.bounded = _bounded(getattr(model.visual, "preprocess_cfg", {}))
        self.pixels = of_transform(transform, self.preprocess, self.bounded)
        self.text_length = exact_text_length(model)
        self.channels_last = device == "cpu" and is_convolutional(model.visual)
        if self.channels_last:  # channels-last is three times as fast
            self.model.visual.to(memory_format=torch.channels_last)
        with torch.inference_mode():  # encoding an empty caption gives the width of the joint space for any model class
            self.dim = int(self.model.encode_text(tokenizer([""]).to(device)).shape[1])
        self.identity = {
            **source,
            "dim": self.dim,
            "dtype": dtype,
            "preprocess": _jsonable(getattr(model.visual, "preprocess_cfg", {})),
            "tokenizer": _tokenizer_settings(tokenizer),
            "versions": library_versions(LIBRARIES),
        }

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return self.transform(self.bounded(image if image.mode == "RGB" else image.convert("RGB")))

    def image_features(self, batch: torch.Tensor) -> torch.Tensor:
        import torch

        if not len(batch):
            return torch.empty(0, self.dim)
        with torch.inference_mode():
            if not self.channels_last:
                return self.model.encode_image(batch.to(device=self.device, dtype=self.dtype)).float()
            parts = batch.to(dtype=self.dtype, memory_format=torch.channels_last).split(CACHE_BATCH)
            return torch.cat([self.model.encode_image(part).float() for part in parts])

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        import torch

        ids = self.tokenizer(list(texts))
        lengths = self.text_length(ids) if self.text_length else torch.full((len(ids),), ids.shape[1])
        return Tokens({"ids": ids}, lengths, self._truncated(texts, ids))

    def _truncated(self, texts: Sequence[str], ids: torch.Tensor) -> torch.Tensor:
        """Which captions were truncated, bool [B]. The tokenizers do not report truncation, so captions that
        fill the context are tokenized again with a context that is one token longer."""
        import torch

        cut = torch.zeros(len(ids), dtype=torch.bool)
        padding = self.tokenizer([""])[0, -1]
        full = torch.nonzero(ids[:, -2:].ne(padding).any(dim=1)).flatten()
        if len(full):
            one_more = self.tokenizer([texts[int(row)] for row in full], context_length=ids.shape[1] + 1)
            cut[full] = one_more[:, : ids.shape[1]].ne(ids[full]).any(dim=1)
        return cut

    def token_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        import torch

        ids = inputs["ids"].to(self.device)
        tower = getattr(self.model, "text", self.model)
        causal = getattr(tower, "attn_mask", None) is not None
        with torch.inference_mode():
            if self.text_length and causal and ids.shape[1] < tower.attn_mask.shape[0]:
                return causal_text_features(tower, ids).float()
            return self.model.encode_text(ids).float()


def _bounded(settings: dict[str, Any]) -> Callable[[Image.Image], Image.Image]:
    """What an extremely thin picture goes through before the preprocessing of these settings; see `vlm.thin`."""
    given, mode = settings.get("size"), settings.get("resize_mode", "shortest")
    if given is None:
        return unchanged
    height, width = (given, given) if isinstance(given, int) else given
    resample = BILINEAR if settings.get("interpolation") == "bilinear" else BICUBIC
    if mode == "squash":
        return functools.partial(squashed, size=(width, height), resample=resample)
    if mode == "longest":
        return functools.partial(fitted, longest=min(height, width), resample=resample)
    if width != height:
        resample = BICUBIC  # in this case open_clip takes no other filter
    return functools.partial(centre, crop=Crop((width, height), (width, height), resample, rounds=True))


def causal_text_features(tower: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Run a causal text tower on fewer tokens than its context length: [B, L] -> [B, dim].

    The steps are those of open_clip's forward. That method cannot be called with fewer tokens: it slices neither the
    mask nor (in class CLIP) the positions.
    """
    import torch

    length = tokens.shape[1]
    embedded = tower.token_embedding(tokens)
    hidden = embedded + tower.positional_embedding[:length].to(embedded.dtype)
    hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length]))
    pooled = hidden[torch.arange(len(tokens), device=tokens.device), _end_of_text(tower, tokens)]
    projection = tower.text_projection
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection


def _pool_type(tower: Any) -> str:
    return str(getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", ""))


def _end_of_text(tower: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Position of the token whose embedding represents the caption, [B]."""
    if _pool_type(tower) == "argmax":  # in CLIP's vocabulary the end of text has the highest number
        return tokens.argmax(dim=-1)
    eos = getattr(tower, "text_eos_id", None) or tower.eos_id
    return (tokens == eos).int().argmax(dim=-1)


def exact_text_length(model: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """A function from token ids [B, L] to the number of tokens [B] to keep per caption; None when all must be kept.

    For two kinds of towers the padding can be removed without any change of the embedding. Causal towers that take the
    embedding at the end of text never attend to a token after it. Hugging Face towers with masked mean pooling mask
    padding out of the attention and out of the mean. SigLIP's towers attend to their padding and must get all of it.
    """
    from open_clip.hf_model import HFTextEncoder, MeanPooler
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer

    tower = getattr(model, "text", model)
    if isinstance(tower, HFTextEncoder) and isinstance(tower.pooler, MeanPooler):
        pad = tower.config.pad_token_id

        def last_token(tokens: torch.Tensor) -> torch.Tensor:
            kept = tokens != pad
            return (tokens.shape[1] - kept.int().flip(1).argmax(dim=1)).clamp(min=1)

        return last_token
    causal = type(model) is CLIP or (type(model) is CustomTextCLIP and isinstance(tower, TextTransformer))
    plain = getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
    if causal and plain and tower.attn_mask is not None and _pool_type(tower) in ("argmax", "eos"):
        return lambda tokens: _end_of_text(tower, tokens) + 1
    return None


def is_convolutional(visual: Any) -> bool:
    """Whether an image tower is made of convolutions; a vision transformer has one convolution, for its patches."""
    import torch

    return sum(isinstance(module, torch.nn.Conv2d) for module in visual.modules()) > 2


def load_open_clip(spec: Spec, device: str, dtype: str) -> OpenClipEncoder:
    """The encoder of a spec of the kind "open_clip". Raises `SpecError`.

    It is one of open_clip's own pre-trained models, a repository of the hub in open_clip's format, or such a folder.
    """
    place = resolve_device(device)
    if spec.on_hub:
        commit = hub.resolve(spec)
        source: dict[str, Any] = {"kind": "open_clip", "repository": spec.repository()[0], "revision": commit}
        loaded = _from_folder(spec, hub.snapshot(spec, commit), source)
    elif spec.path is not None:
        loaded = _from_folder(spec, Path(spec.path).expanduser().absolute(), {"kind": "open_clip"})
    else:
        loaded = _pretrained(spec)
    return OpenClipEncoder(*loaded, place, dtype)


def _pretrained(spec: Spec) -> Loaded:
    """The model, with all that goes with it, of a spec NAME/PRETRAINED."""
    import open_clip

    name, tag = spec.pretrained()
    if name not in open_clip.list_models():
        raise SpecError(f"model spec {spec}: open_clip has no model {name!r}; `open_clip.list_models()` names them all")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise SpecError(f"model spec {spec}: allowed after open_clip:{name}/ are {', '.join(tags) or 'none'}")
    settings = open_clip.get_pretrained_cfg(name, tag)
    # With GELU, weights trained with QuickGELU give slightly wrong embeddings, and open_clip only warns.
    options = {"force_quick_gelu": True} if settings.get("quick_gelu") else {}
    source = {"kind": "open_clip", "model": name, "pretrained": tag, "repository": settings.get("hf_hub", "")}
    try:
        loaded = Path(open_clip.download_pretrained(settings))
        tokenizer = open_clip.get_tokenizer(name)
    except OSError as error:  # open_clip's error without a network
        raise hub.refused(str(spec), error, settings.get("hf_hub", "").rpartition("/")[0]) from error
    if hub.COMMIT.fullmatch(loaded.parent.name):  # the hub's cache names folders by revision
        source["revision"] = loaded.parent.name
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            name, pretrained=tag, require_pretrained=True, **options
        )
    except Exception as error:
        raise _unloadable(spec, error) from error
    return Loaded(model, transform, tokenizer, source)


def _from_folder(spec: Spec, folder: Path, source: dict[str, Any]) -> Loaded:
    """The model of a checkpoint folder, with all that goes with it. `source` is added to.

    open_clip looks for weights by their names, and makes a random model if it finds none, for example beside the
    epoch_32.pt of its own training. So it is given a folder that holds the chosen weights alone, under a name that it
    knows. It refuses weights of which not all fit.
    """
    import open_clip

    if not folder.is_dir():
        raise SpecError(f"model spec {spec}: there is no such folder")
    text_cfg = _text_config(spec, folder)
    try:
        weights = weight_files(folder, OPEN_CLIP)[0]
    except CheckpointError as error:
        raise SpecError(f"model spec {spec}: {error}") from error
    if spec.path is not None:
        source["files"] = file_hashes(folder, OPEN_CLIP)
    text_folder = _settings_of(spec, folder, text_cfg, "hf_model_name", source)
    tokenizer_folder = _settings_of(spec, folder, text_cfg, "hf_tokenizer_name", source)
    options: dict[str, Any] = {}
    if text_folder is not None:
        options["text_cfg"] = {**text_cfg, "hf_model_name": str(text_folder), "hf_model_pretrained": False}
    try:
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / OPEN_CLIP.config).symlink_to((folder / OPEN_CLIP.config).absolute())
            name = OPEN_CLIP.weights[0] if weights.suffix == ".safetensors" else PICKLED
            (Path(place) / name).symlink_to(weights.absolute())
            model, _, transform = open_clip.create_model_and_transforms(
                f"{LOCAL_DIR}{place}", require_pretrained=True, **options
            )
        tokenizer = _tokenizer(text_cfg, tokenizer_folder)
    except Exception as error:  # open_clip, timm, the unpickler and the tokenizers each raise their own errors
        raise _unloadable(spec, error) from error
    return Loaded(model, transform, tokenizer, source)


def _unloadable(spec: Spec, error: Exception) -> SpecError:
    reason = " ".join((str(error).strip() or type(error).__name__).split())[:300]
    return SpecError(f"model spec {spec}: open_clip cannot load it: {reason}")


def _text_config(spec: Spec, folder: Path) -> dict[str, Any]:
    """`model_cfg.text_cfg` of a folder's configuration. Raises `SpecError`."""
    try:
        return dict(json.loads((folder / OPEN_CLIP.config).read_text())["model_cfg"]["text_cfg"])
    except FileNotFoundError:
        instead = f": write {spec.as_kind('hf')}" if (folder / TRANSFORMERS.config).is_file() else ""
        raise SpecError(f"model spec {spec}: the folder holds no {OPEN_CLIP.config}{instead}") from None
    except (ValueError, KeyError, TypeError):
        raise SpecError(f"model spec {spec}: {OPEN_CLIP.config} is not JSON with model_cfg.text_cfg") from None


def _settings_of(spec: Spec, folder: Path, text_cfg: dict[str, Any], key: str, source: dict[str, Any]) -> Path | None:
    """The folder with the settings of the text tower, or of its tokenizer, that `text_cfg[key]` names, if any.

    open_clip would read the name as a repository of the hub, or as a path relative to the working directory. Here a
    checkpoint folder must hold these files itself, so that it can be moved and needs no network. A repository of the
    hub may name another repository, whose commit is noted in `source`.
    """
    name = text_cfg.get(key)
    if not name:
        return None
    if spec.on_hub and name != spec.repository()[0]:
        found, source[key] = hub.settings(str(name))
        source[key] = f"{name}@{source[key]}"
        return found
    if key == "hf_model_name" and not (folder / "config.json").is_file():
        raise SpecError(
            f"model spec {spec}: the text tower's config.json must lie in the folder too (no network is used)"
        )
    return folder


def _tokenizer(text_cfg: dict[str, Any], folder: Path | None) -> Any:
    """The tokenizer as `open_clip.get_tokenizer` makes it, from the files of a folder, or CLIP's own without one."""
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    length = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = {**text_cfg.get("tokenizer_kwargs", {})}
    if folder is None:
        return SimpleTokenizer(context_length=length, **options)
    options |= {"trust_remote_code": False, "local_files_only": True}
    mode = text_cfg.get("tokenizer_mode")
    tokenizer = HFTokenizer(str(folder), context_length=length, tokenizer_mode=mode, **options)
    end_texts(tokenizer.tokenizer, folder)
    return tokenizer


def _tokenizer_settings(tokenizer: Any) -> dict[str, Any]:
    clean = getattr(tokenizer, "clean_fn", None)
    return {
        "class": type(tokenizer).__name__,
        "context_length": getattr(tokenizer, "context_length", None),
        "clean": getattr(clean, "__name__", None),
        "mode": getattr(tokenizer, "tokenizer_mode", None) or None,
    }


def _jsonable(settings: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(settings))

"""A trained sparse autoencoder: encode, decode, save, load.

Inference only. Training lives in `sae.train`; nothing here knows where embeddings come from.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from sae.sparsity import above

WEIGHTS_FILE = "sae.safetensors"
CONFIG_FILE = "config.json"
TENSORS = ("encoder", "encoder_bias", "dictionary", "bias", "threshold")


class SAEFormatError(ValueError):
    """An SAE's files or tensors are not what this project writes; the message names the file and the fault."""

    exit_code: ClassVar[int] = 2


@dataclasses.dataclass(frozen=True)
class Config:
    """What an SAE is and how it was trained. Holds no times, paths or versions: equal SAEs have equal files."""

    architecture: str
    dim: int  # d, length of an embedding
    width: int  # C, number of concepts
    k: int  # mean number of codes a row at training
    decoder_bias: bool
    image_share: float | str  # share of image rows in a batch, or "natural"
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    auxk: float  # weight of the auxiliary loss
    dead_after_epochs: float
    rows_seen: int  # training draws in all
    preprocessing: str = "l2"  # rows are L2-normalised before encoding


def pre_activations(x_BD: Tensor, encoder_CD: Tensor, encoder_bias_C: Tensor, bias_D: Tensor) -> Tensor:
    """(x - b) W_enc^T + b_enc: [B, C] from rows [B, d] that are already preprocessed."""
    return torch.addmm(encoder_bias_C, x_BD - bias_D, encoder_CD.T)


class SAE:
    """A sparse autoencoder with its inference threshold; float32 tensors.

    encoder: [C, d]. encoder_bias: [C]. dictionary: [C, d], rows of unit norm, row i the direction of concept i.
    bias: [d], zeros where the architecture has none. threshold: scalar >= 0.
    Raises SAEFormatError where a shape, a norm or a value is not so.
    """

    def __init__(
        self, encoder: Tensor, encoder_bias: Tensor, dictionary: Tensor, bias: Tensor, threshold: Tensor, config: Config
    ) -> None:
        tensors = dict(zip(TENSORS, (encoder, encoder_bias, dictionary, bias, threshold), strict=True))
        _check_tensors(tensors, config, "SAE")
        self.encoder = encoder.detach()
        self.encoder_bias = encoder_bias.detach()
        self.dictionary = dictionary.detach()
        self.bias = bias.detach()
        self.threshold = threshold.detach()
        self.config = config

    @torch.no_grad()
    def encode(self, x: np.ndarray | Tensor) -> Tensor:
        """Codes [N, C] >= 0 of embeddings x [N, d] (any float type, any norm): pre where pre > threshold, else 0.

        Raises ValueError where x has another width or holds NaN or infinity: such a row would pass for one on
        which no concept fires.
        """
        x_ND = self._rows(x, self.config.dim, "x")
        if self.config.preprocessing == "l2":
            x_ND = normalize(x_ND, dim=1)
        return above(pre_activations(x_ND, self.encoder, self.encoder_bias, self.bias), self.threshold)

    @torch.no_grad()
    def decode(self, codes: np.ndarray | Tensor) -> Tensor:
        """Reconstructions x_hat = z D + b, [N, d], of codes [N, C]."""
        return torch.addmm(self.bias, self._rows(codes, self.config.width, "codes"), self.dictionary)

    def save(self, folder: str | Path) -> None:
        """Write `sae.safetensors` and `config.json` into folder (made if absent). Equal SAEs give equal bytes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: getattr(self, name).cpu().contiguous() for name in TENSORS}, folder / WEIGHTS_FILE)
        text = json.dumps(dataclasses.asdict(self.config), indent=2, sort_keys=True)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "SAE":
        """Read what `save` wrote. Raises SAEFormatError, naming the file, where something is missing or wrong."""
        folder = Path(folder)
        config = _read_config(folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        try:
            tensors = load_file(path, device=str(device))
        except FileNotFoundError:
            raise SAEFormatError(f"{path}: no such file") from None
        except SafetensorError as error:
            raise SAEFormatError(f"{path}: not a readable safetensors file ({error})") from error
        _check_tensors(tensors, config, str(path))
        return cls(**{name: tensors[name] for name in TENSORS}, config=config)

    def _rows(self, values: np.ndarray | Tensor, columns: int, name: str) -> Tensor:
        rows = torch.as_tensor(values).to(self.dictionary.device, torch.float32)
        if rows.ndim != 2 or rows.shape[1] != columns:
            raise ValueError(f"{name} has shape {tuple(rows.shape)}; this SAE takes [rows, {columns}]")
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"{name} holds NaN or infinity")
        return rows


def _read_config(path: Path) -> Config:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SAEFormatError(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SAEFormatError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(entries, dict):
        raise SAEFormatError(f"{path}: holds a {type(entries).__name__}; an object of settings is needed")
    fields = [field.name for field in dataclasses.fields(Config)]
    if missing := sorted(set(fields) - set(entries)):
        raise SAEFormatError(f"{path}: missing key {', '.join(missing)}")
    if unknown := sorted(set(entries) - set(fields)):
        raise SAEFormatError(f"{path}: unknown key {', '.join(unknown)}; known are {', '.join(fields)}")
    _check_config(entries, path)
    return Config(**entries)


def _check_config(entries: dict[str, Any], path: Path) -> None:
    for key in ("dim", "width", "k", "seed", "epochs", "batch_size", "rows_seen"):
        value, least = entries[key], 0 if key in ("seed", "rows_seen") else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise SAEFormatError(f"{path}: {key} is {value!r}; a whole number from {least} is needed")
    if entries["preprocessing"] not in ("l2", "none"):
        raise SAEFormatError(f'{path}: preprocessing is {entries["preprocessing"]!r}; "l2" or "none" is allowed')


def _check_tensors(tensors: dict[str, Tensor], config: Config, where: str) -> None:
    width, dim = config.width, config.dim
    shapes = {
        "encoder": (width, dim),
        "encoder_bias": (width,),
        "dictionary": (width, dim),
        "bias": (dim,),
        "threshold": (),
    }
    for name, shape in shapes.items():
        if name not in tensors:
            raise SAEFormatError(f"{where}: missing tensor {name}")
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise SAEFormatError(f"{where}: {name} has shape {tuple(tensor.shape)}; the config says {shape}")
        if tensor.dtype != torch.float32:
            raise SAEFormatError(f"{where}: {name} is {tensor.dtype}; torch.float32 is needed")
        if not bool(torch.isfinite(tensor).all()):
            raise SAEFormatError(f"{where}: {name} holds NaN or infinity")
    off = float((tensors["dictionary"].norm(dim=1) - 1).abs().max())
    if off > 1e-4:
        raise SAEFormatError(f"{where}: a row of dictionary has a norm {off:.2g} away from 1; unit atoms are needed")
    if float(tensors["threshold"]) < 0:
        raise SAEFormatError(f"{where}: threshold is {float(tensors['threshold']):.3g}; it was never calibrated")

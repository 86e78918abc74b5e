"""The preparation of pictures in two steps: uint8 pixels at model size on the host, then normalising on the device.

The image processors of the libraries resize and crop in uint8 and normalise at the end. Here both steps are apart, so
that a quarter of the bytes is copied to the device, and the device does the arithmetic on floating-point numbers. The
steps are those of the processor itself. For a few drawn pictures the result is compared with what the processor gives;
a processor that differs (one that someone wrote, or that resizes in floating point) is called whole, as it is.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from PIL import Image

#: Largest difference between both ways, in units of the normalised pixels (up to about 2.7): rounding of float32.
TOLERANCE = 1e-6
PROBES = ((64, 48), (31, 50), (333, 250), (500, 620))  # sizes of the drawn pictures


class Constants(NamedTuple):
    """Normalising: (pixels x factor / divisor - mean) / std, in this order, in float32."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    factor: float = 1.0
    divisor: float = 1.0


class Pixels(NamedTuple):
    """Both steps for one model. A tuple of functions that can be pickled, so that other processes can resize."""

    #: for an RGB picture of any size, the tensors that go to the device: the same names, shapes and dtypes for each
    resize: Callable[[Image.Image], Mapping[str, torch.Tensor]]
    #: for a batch of these tensors on the device, the input of the image tower
    finish: Callable[[Mapping[str, torch.Tensor]], Any]
    #: two models with equal keys resize every picture in the same way; None equals no other
    key: str | None = None


def whole(preprocess: Callable[[Image.Image], Any]) -> Pixels:
    """A processor that is called whole: its result goes to the device as it is."""
    return Pixels(functools.partial(_named, preprocess), _unnamed)


def of_transform(
    transform: Any, preprocess: Callable[[Image.Image], Any], bounded: Callable[[Image.Image], Image.Image]
) -> Pixels:
    """The steps of a torchvision transform, such as open_clip's, that ends with `ToTensor` and `Normalize`.

    preprocess: the whole preparation of a picture, with which both steps are compared.
    bounded: what a picture goes through before the transform; see `vlm.thin`.
    """
    steps = getattr(transform, "transforms", None) or []
    if len(steps) < 3 or not {"mean", "std"} <= set(vars(steps[-1])):
        return whole(preprocess)
    constants = Constants(_floats(steps[-1].mean), _floats(steps[-1].std), divisor=255.0)
    return _checked(
        Pixels(
            functools.partial(_by_steps, bounded, tuple(steps[:-2])),
            functools.partial(_finish_rows, constants),
            f"open_clip {bounded} {steps[:-2]}",
        ),
        preprocess,
    )


def of_processor(
    processor: Any, preprocess: Callable[[Image.Image], Any], bounded: Callable[[Image.Image], Image.Image]
) -> Pixels:
    """The steps of an image processor of transformers; the arguments are those of `of_transform`."""
    given = processor.to_dict()
    if not (given.get("do_normalize") and given.get("do_rescale")):
        return whole(preprocess)
    factor = float(given["rescale_factor"])
    if getattr(processor, "backend", "") == "torchvision":  # which normalises by the constants over the factor
        import torch

        mean, std = (torch.tensor(given[name]) * (1.0 / factor) for name in ("image_mean", "image_std"))
        constants = Constants(_floats(mean), _floats(std))
    else:
        constants = Constants(_floats(given["image_mean"]), _floats(given["image_std"]), factor=factor)
    names = tuple(processor.model_input_names)
    finish: Callable[..., Any] = _finish_planes if len(names) == 1 else _finish_patches
    key = json.dumps([str(bounded), given], sort_keys=True, default=str)
    whole_call = Pixels(
        functools.partial(_by_processor, bounded, processor, names), functools.partial(finish, constants), key
    )
    crops = bool(given.get("do_center_crop"))
    short = Pixels(
        functools.partial(_by_methods, bounded, processor, crops), functools.partial(_finish_rows, constants), key
    )
    plain = len(names) == 1 and given.get("do_resize") and not given.get("do_pad")
    for pixels in (short, whole_call) if plain and hasattr(processor, "center_crop") else (whole_call,):
        if agrees(pixels, preprocess):
            return pixels
    return whole(preprocess)


def agrees(pixels: Pixels, preprocess: Callable[[Image.Image], Any]) -> bool:
    """Whether both steps give what `preprocess` gives, for a few drawn pictures, up to the rounding of float32."""
    import numpy as np
    import torch
    from PIL import Image

    draw = np.random.default_rng(0)
    shapes = set()
    try:
        for width, height in PROBES:
            noise = Image.fromarray(draw.integers(0, 255, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8))
            picture = noise.resize((width, height))
            expected, prepared = preprocess(picture), pixels.resize(picture)
            shapes.add(tuple((name, values.dtype, tuple(values.shape)) for name, values in prepared.items()))
            found = pixels.finish({name: values[None] for name, values in prepared.items()})
            both = [(found, expected)] if not isinstance(found, dict) else [(found[n], expected[n]) for n in expected]
            if any(a[0].shape != b.shape or a.dtype != b.dtype for a, b in both):
                return False
            if any(not torch.allclose(a[0].float(), b.float(), rtol=0, atol=TOLERANCE) for a, b in both):
                return False
    except Exception:  # a processor of another kind, for which these steps have no meaning
        return False
    return len(shapes) == 1 and any(dtype == torch.uint8 for _, dtype, _ in next(iter(shapes)))


def _checked(pixels: Pixels, preprocess: Callable[[Image.Image], Any]) -> Pixels:
    return pixels if agrees(pixels, preprocess) else whole(preprocess)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _named(preprocess: Callable[[Image.Image], Any], image: Image.Image) -> Mapping[str, torch.Tensor]:
    found = preprocess(image)
    return found if isinstance(found, dict) else {"pixels": found}


def _unnamed(batch: Mapping[str, torch.Tensor]) -> Any:
    return batch["pixels"] if "pixels" in batch else dict(batch)


def _rows(image: Image.Image) -> torch.Tensor:
    """The pixels of an RGB picture, uint8 [H, W, 3]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB")))


def _by_steps(
    bounded: Callable[[Image.Image], Image.Image], steps: tuple[Any, ...], image: Image.Image
) -> Mapping[str, torch.Tensor]:
    """Resized by the steps of a torchvision transform: uint8 [H, W, 3], as Pillow lays pixels out."""
    picture = bounded(image if image.mode == "RGB" else image.convert("RGB"))
    for step in steps:
        picture = step(picture)
    return {"rows": _rows(picture)}


def _by_methods(
    bounded: Callable[[Image.Image], Image.Image], processor: Any, crops: bool, image: Image.Image
) -> Mapping[str, torch.Tensor]:
    """Resized by the methods that an image processor calls itself, without its checks of every argument.

    The pixels stay as Pillow lays them out, for which torch resizes 2 to 3 times as fast. Returns uint8 [H, W, 3].
    """
    planes = _rows(bounded(image)).permute(2, 0, 1)
    planes = processor.resize(image=planes[None], size=processor.size, resample=processor.resample)
    if crops:
        planes = processor.center_crop(planes, processor.crop_size)
    return {"rows": planes[0].permute(1, 2, 0)}


def _by_processor(
    bounded: Callable[[Image.Image], Image.Image], processor: Any, names: tuple[str, ...], image: Image.Image
) -> Mapping[str, torch.Tensor]:
    """Resized by an image processor that is told not to normalise."""
    rgb = bounded(image if image.mode == "RGB" else image.convert("RGB"))
    given = processor(images=rgb, return_tensors="pt", do_rescale=False, do_normalize=False)
    return {"planes": given[names[0]][0]} if len(names) == 1 else {name: given[name][0] for name in names}


def _normalised(constants: Constants, values: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Normalise float32 values that this function may overwrite."""
    if constants.factor != 1.0:
        values.mul_(constants.factor)
    if constants.divisor != 1.0:
        values.div_(constants.divisor)
    return values.sub_(mean).div_(std)


@functools.lru_cache(maxsize=64)
def _on(device: torch.device, values: tuple[float, ...]) -> torch.Tensor:
    """The constants on a device: [C]. Copied there once, since a copy from the host waits for the device."""
    import torch

    return torch.tensor(values, dtype=torch.float32, device=device)


def _finish_rows(constants: Constants, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W]."""
    return _planes(constants, batch["rows"].permute(0, 3, 1, 2))


def _finish_planes(constants: Constants, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """uint8 [B, 3, H, W] to float32 [B, 3, H, W]."""
    return _planes(constants, batch["planes"])


def _planes(constants: Constants, planes: torch.Tensor) -> torch.Tensor:
    import torch

    values = planes.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    mean, std = (_on(planes.device, each)[:, None, None] for each in (constants.mean, constants.std))
    return _normalised(constants, values, mean, std)


def _finish_patches(constants: Constants, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Patches of NaFlex: uint8 [B, N, P x P x 3], where the padding has zeros after normalising too."""
    import torch

    patches = batch["pixel_values"]
    repeats = patches.shape[-1] // len(constants.mean)
    mean, std = (_on(patches.device, each).repeat(repeats) for each in (constants.mean, constants.std))
    values = _normalised(constants, patches.to(torch.float32, copy=True), mean, std)
    return {**batch, "pixel_values": values.mul_(batch["pixel_attention_mask"][..., None])}

"""Loads the encoder that a spec names, with the library for this kind of spec."""

from __future__ import annotations

from vlm.encoder import DTYPES, Encoder
from vlm.spec import Spec, SpecError, forms

LOADED = ("open_clip", "hf")  # kinds of specs that `load` accepts


def load(spec: str, device: str = "auto", dtype: str = "float32") -> Encoder:
    """The encoder that a spec names.

    Args:
        spec: `open_clip:NAME/PRETRAINED`, `open_clip:hf-hub:REPOSITORY[@REVISION]`, `open_clip:local-dir:PATH`,
            `hf:REPOSITORY[@REVISION]`, `hf:local-dir:PATH` (`hf:PATH` too, when PATH starts with /, ./, ../ or ~), or a
            short name of `vlm.zoo`.
        device: "auto" (CUDA when there is one, else the CPU) or a torch device name.
        dtype: "float32", "float16" or "bfloat16". The weights are cast once; autocast would cast them at every call
            (15.0 images/s instead of 38.1, ViT-B-32 in bfloat16 on a CPU with AVX512-BF16). `vlm.precision` casts with
            a check.

    Raises `SpecError` for any other spec, device or dtype, for a folder, a pre-trained tag or a repository that does
    not exist or gives no access, and for a checkpoint of which not all weights can be loaded.
    """
    if dtype not in DTYPES:
        raise SpecError(f"dtype {dtype!r} of model {spec!r}: allowed are {', '.join(DTYPES)}")
    parsed = Spec.parse(spec)
    if parsed.kind not in LOADED or not parsed.rest:
        raise SpecError(
            f"model spec {spec!r}: allowed are {', '.join(forms(*LOADED))}"
            + (" (a demo model is first made by a study, then loaded from its folder)" if parsed.kind == "demo" else "")
        )
    if parsed.kind == "hf":
        from vlm.hf import load_hf

        return load_hf(parsed, device=device, dtype=dtype)
    from vlm.open_clip import load_open_clip

    return load_open_clip(parsed, device=device, dtype=dtype)

"""Encoders of vision-language models behind one interface, and the decoding of pictures for them.

This package imports no other package of the project, so that notebooks can use it without the rest. Each public name
is imported when it is first used, and torch is imported when a model is loaded. So reading a study file, which imports
`vlm.spec`, does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm.encoder import Encoder
    from vlm.loading import load
    from vlm.pictures import DecodeError, decode, measure
    from vlm.spec import SpecError

__all__ = ["DecodeError", "Encoder", "SpecError", "decode", "load", "measure"]

_MODULES = {
    "DecodeError": "vlm.pictures",
    "Encoder": "vlm.encoder",
    "SpecError": "vlm.spec",
    "decode": "vlm.pictures",
    "load": "vlm.loading",
    "measure": "vlm.pictures",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)

"""Encoders of vision-language models behind one interface, and the decoding of pictures for them.

Plain Python for notebooks too: imports nothing else of the project, and torch only when a model is loaded.
"""

from vlm.decode import DecodeError, decode, measure
from vlm.encoder import Encoder, SpecError, load

__all__ = ["DecodeError", "Encoder", "SpecError", "decode", "load", "measure"]

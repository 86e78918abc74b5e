"""A site on loopback, and pictures to serve or store."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image
from web_support import Web, serving


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as site:
        yield site


@pytest.fixture
def jpeg() -> bytes:
    return picture("red")


def picture(colour: str, form: str = "jpeg", size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form)
    return out.getvalue()

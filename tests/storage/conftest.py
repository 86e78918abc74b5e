"""The fixture `web`: a real HTTP server on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from web_support import Web, serving


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as site:
        yield site

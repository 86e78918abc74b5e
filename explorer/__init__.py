"""The explorer: a read-only web page over a finished study, served on the loopback address."""

from __future__ import annotations

from explorer.front import built_site
from explorer.listen import serve

__all__ = ["built_site", "serve"]

"""The explorer: a web page over a finished study, served on loopback and read-only; finds its built front end."""

from __future__ import annotations

from explorer.front import built_site
from explorer.listen import serve

__all__ = ["built_site", "serve"]

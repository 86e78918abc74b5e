"""The explorer: a read-only web page over a finished study on the loopback address, and its catalog for agents."""

from __future__ import annotations

from explorer.agents import serve_agents
from explorer.front import built_site
from explorer.listen import serve

__all__ = ["built_site", "serve", "serve_agents"]

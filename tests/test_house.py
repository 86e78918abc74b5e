"""No module of the house imports itself through others, not even inside a function or for its types."""

import tomllib
from pathlib import Path

import grimp
import networkx

HOUSE = Path(__file__).parents[1]


def test_there_is_no_import_circle() -> None:
    rooms = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    graph = grimp.build_graph(*rooms, cache_dir=None)
    imports = networkx.DiGraph(
        (module, imported) for module in graph.modules for imported in graph.find_modules_directly_imported_by(module)
    )
    assert {"vlm.loading", "flows.cli", "explorer.live"} <= set(imports)
    circles = [sorted(circle) for circle in networkx.strongly_connected_components(imports) if len(circle) > 1]
    assert circles == []

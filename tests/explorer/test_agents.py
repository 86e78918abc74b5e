"""`bridgescope mcp` with the client of the library `mcp`: tools are listed and called, and attacks are refused."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.types import TextContent

from flows.cli import main
from storage.runs import last_run

ATTACKS = Path(__file__).parents[1] / "storage" / "attacks.sql"


def speak(store: Path, talk: Callable[[ClientSession, str], Coroutine[Any, Any, None]]) -> None:
    """Start the command as an agent's host does, and hold a talk with it. The talk gets the server's instructions."""
    command = ["-m", "flows.cli", "mcp", "pictures", "--store", str(store)]
    server = StdioServerParameters(
        command=sys.executable, args=command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    )

    async def talked() -> None:
        async with stdio_client(server) as (reading, writing), ClientSession(reading, writing) as session:
            begun = await session.initialize()
            await talk(session, begun.instructions or "")

    anyio.run(talked)


async def call(session: ClientSession, tool: str, **arguments: Any) -> tuple[str, bool]:
    """(text of the answer, whether it is an error) of a tool."""
    result = await session.call_tool(tool, arguments)
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text, bool(result.is_error)


def test_a_client_lists_and_calls_the_tools(pictured: tuple[Path, Path]) -> None:
    async def talk(session: ClientSession, instructions: str) -> None:
        assert "Study pictures, run 1 of" in instructions
        assert "models: tiny; SAE settings: main." in instructions
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert set(tools) == {"list_tables", "describe", "query"}
        assert all(tool.description and tool.annotations and tool.annotations.read_only_hint for tool in tools.values())

        tables, _ = await call(session, "list_tables")
        assert "\nsaes: every trained SAE" in tables
        assert "\nstability(m, s): " in tables
        columns, _ = await call(session, "describe", name="saes")
        assert "- dead_fraction DOUBLE: share of concepts that fire on no training row" in columns
        macro, _ = await call(session, "describe", name="top_bridges(m, s, seed, n)")
        assert macro.startswith("top_bridges(m, s, seed, n, by): the highest bridges of one SAE")
        assert "Columns: image_concept, text_concept" in macro
        text, failed = await call(session, "describe", name="sae")
        assert failed
        assert "No table or function named 'sae'. Available: " in text

        text, failed = await call(session, "query", sql="SELECT seed, k FROM saes ORDER BY seed")
        assert (json.loads(text), failed) == (
            {"columns": ["seed", "k"], "rows": [[0, 3], [1, 3]], "truncated": False},
            False,
        )
        text, _ = await call(session, "query", sql="FROM range(10)", rows=2)
        assert json.loads(text) == {"columns": ["range"], "rows": [[0], [1]], "truncated": True}
        text, failed = await call(session, "query", sql="FROM range(10)", rows=10_001)
        assert failed
        assert "must be from 1 to 10000" in text
        text, failed = await call(session, "query", sql="FROM conceps")
        assert failed
        assert "Views: " in text

    speak(pictured[1], talk)


def test_attacks_are_refused_and_change_nothing(pictured: tuple[Path, Path]) -> None:
    store = pictured[1]
    run = last_run(store, "pictures")
    assert run is not None
    table = store / run.of("analyze")[0].dataset.path / "findings.parquet"
    lines = [line for line in ATTACKS.read_text().splitlines() if line and not line.startswith("--")]
    attacks = [line.replace("{store}", str(store)).replace("{table}", str(table)) for line in lines]
    assert len(attacks) >= 50

    def files() -> dict[str, tuple[int, int]]:
        found = (path for path in store.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in found}

    async def talk(session: ClientSession, _: str) -> None:
        for attack in attacks:
            text, failed = await call(session, "query", sql=attack)
            assert failed, attack
            assert "Traceback" not in text
        assert await call(session, "query", sql="SELECT 1 AS one") == (
            '{"columns": ["one"], "rows": [[1]], "truncated": false}', False,
        )  # fmt: skip

    before = files()
    speak(store, talk)
    assert files() == before


def test_without_the_library_the_command_says_what_to_install(
    pictured: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    assert main(["mcp", "pictures", "--store", str(pictured[1])]) == 2
    needs = "bridgescope mcp needs the library mcp: pip install -c constraints.txt -e '.[mcp]'"
    assert needs in capsys.readouterr().err

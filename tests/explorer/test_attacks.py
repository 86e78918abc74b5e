"""Queries that must be refused (tests/storage/attacks.sql) or answered (tests/storage/honest.sql).

Each query is sent to a real store, through the command line and through the explorer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from explorer.asker import Asker
from flows.cli import main
from storage.errors import BadInput
from storage.runs import last_run

pytestmark = pytest.mark.slow  # sends all queries in both ways; `tests/storage/test_guard.py` is the quick test

CORPUS = Path(__file__).parents[1] / "storage"
ATTACKS = [line for line in (CORPUS / "attacks.sql").read_text().splitlines() if not line.startswith("--")]
HONEST = (CORPUS / "honest.sql").read_text().splitlines()
OVERWRITE = "WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x"
UNGUARDED = """
import sys
import {asks} as asks
import storage.wall
asks.check = lambda con, query: query  # the first wall is switched off
if {open}:
    storage.wall.forbid_writing = lambda: "none"  # the second too
from {command} import main
sys.exit(main({arguments}))
"""


@pytest.fixture(scope="module")
def canary(pictured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("canary") / "store"
    shutil.copytree(pictured[1], store)
    assert main(["sql", "SELECT 1", "--store", str(store)]) == 0  # writes the catalog file of the moved store
    return store


@pytest.fixture(scope="module")
def asker(canary: Path) -> Iterator[Asker]:
    asker = Asker(canary, "pictures", 1)
    yield asker
    asker.close()


def contents(store: Path) -> dict[str, str]:
    """Every file of a store with the digest of its bytes."""
    files = [path for path in store.rglob("*") if path.is_file()]
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def table_of(store: Path) -> Path:
    """The Parquet file of the findings, which the catalog reads."""
    run = last_run(store, "pictures")
    assert run is not None
    (entry,) = run.of("analyze")
    return store / entry.dataset.path / "findings.parquet"


def aimed(query: str, store: Path) -> str:
    return query.replace("{store}", str(store)).replace("{table}", str(table_of(store)))


def test_attacks_are_refused_and_change_nothing(
    canary: Path, asker: Asker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(canary)
    assert table_of(canary).is_file()
    for query in (aimed(attack, canary) for attack in ATTACKS):
        assert main(["sql", query, "--store", str(canary)]) == 2, query
        assert "Traceback" not in capsys.readouterr().err
        with pytest.raises(BadInput):
            asker.ask(query)
    assert contents(canary) == before
    assert not list(tmp_path.iterdir())


def test_honest_questions_are_answered(canary: Path, asker: Asker, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(canary)
    for query in HONEST:
        code = main(["sql", query, "--store", str(canary), "--format", "json"])
        printed = capsys.readouterr()
        assert code == 0, f"{query}: {printed.err}"
        assert len(json.loads(printed.out)) == len(asker.ask(query).rows), query
    assert main(["sql", HONEST[0], "--store", str(canary)]) == 0
    assert contents(canary) == before


@pytest.mark.parametrize(("path", "form"), [("command line", ""), ("explorer", "json"), ("explorer", "parquet")])
def test_the_second_wall_holds_when_the_first_is_switched_off(
    canary: Path, tmp_path: Path, path: str, form: str
) -> None:
    shutil.copytree(canary, tmp_path / "store")
    store = tmp_path / "store"
    query = aimed(OVERWRITE, store)
    if path == "explorer":
        asks, command, arguments = "explorer.ask", "explorer.asking", [str(store), "pictures", "1"]
    else:
        asks, command, arguments = "storage.query", "flows.cli", ["sql", query, "--store", str(store)]
    call = f"*{arguments}" if path == "explorer" else repr(arguments)

    def attack(unwalled: bool) -> str:
        program = UNGUARDED.format(asks=asks, command=command, arguments=call, open=unwalled)
        request = json.dumps({"query": query, "form": form, "seconds": 10, "rows": 10}) + "\n"
        done = subprocess.run(
            [sys.executable, "-c", program], input=request, capture_output=True, text=True, check=False, env=os.environ
        )
        return done.stdout + done.stderr

    assert main(["sql", "SELECT 1", "--store", str(store)]) == 0
    before = contents(store)
    assert "Permission denied" in attack(unwalled=False)
    assert contents(store) == before
    # Without both walls the same attack changes the store. So the second wall stopped the attack above.
    attack(unwalled=True)
    assert contents(store) != before

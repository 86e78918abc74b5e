"""The command line: bad input ends with exit code 2 and one sentence, and changes no data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests_support import FinishedStudy

from flows.cli import main
from storage.record import write_run
from storage.runs import Run, last_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, finished_study: FinishedStudy) -> Path:
    return Path(shutil.copytree(finished_study.store, tmp_path_factory.mktemp("cli") / "store"))


def ask(store: Path, query: str, *more: str) -> int:
    return main(["sql", query, "--store", str(store), *more])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "none.toml"], "no such study file"),
        (["status", "none.toml"], "no such study file"),
        (["run", "STUDY", "--set", "saes.main.k=-1"], "saes.0.k"),
        (["run", "STUDY", "--set", "saes.main.knob=1"], "unknown key"),
        (["run", "STUDY", "--only", "bake"], "no such stage; stages are acquire"),
        (["sql", "select 1", "--store", "nowhere"], "there is no store at"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(
    study_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(study_file) if word == "STUDY" else word for word in arguments]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "store").exists()


def test_an_unknown_command_ends_with_2() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bake"])
    assert ended.value.code == 2


def test_a_store_that_cannot_be_written_is_bad_input(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert main(["run", str(study_file), "--store", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert main(["run", str(study_file), "--store", "/proc/none"]) == 2
    assert "cannot be made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("COPY (SELECT 1) TO 'out.csv'", "COPY is not allowed"),
        ("ATTACH 'x.db'", "ATTACH is not allowed"),
        ("INSTALL httpfs", "is not allowed"),
        ("LOAD httpfs", "is not allowed"),
        ("SET threads = 1", "SET is not allowed"),
        ("CREATE TABLE x AS SELECT 1", "CREATE is not allowed"),
        ("DROP VIEW images", "DROP is not allowed"),
        ("PRAGMA version", "PRAGMA is not allowed"),
        ("CALL pragma_version()", "CALL is not allowed"),
        ("EXPORT DATABASE 'x'", "EXPORT is not allowed"),
        ("SELECT 1; SELECT 2", "holds 2 statements"),
        ("", "holds 0 statements"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'", "COPY is not allowed"),
        ("EXPLAIN (ANALYZE) CREATE TABLE x AS SELECT 1", "CREATE is not allowed"),
        ("/* x */ EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'", "COPY is not allowed"),
        ("SELEC 1", "syntax error"),
        ("FROM nothing_here", "Views: activations"),
        ("SELECT * FROM read_csv('/etc/passwd')", "the function read_csv is not allowed"),
        ("SELECT * FROM read_text('/etc/passwd')", "the function read_text is not allowed"),
        ("SELECT 'a'::INTEGER", "Could not convert"),
    ],
)
def test_sql_that_does_more_than_read_is_refused(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    query: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ask(store, query) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "FROM images LIMIT 1",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE FROM images",
        "DESCRIBE concepts",
        "SHOW TABLES",
    ],
)
def test_sql_that_reads_is_answered(store: Path, query: str) -> None:
    assert ask(store, query) == 0


def test_formats(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    query = "SELECT source_key, split_u > 2 AS never, NULL AS nothing FROM images ORDER BY image_id LIMIT 2"
    assert ask(store, query, "--format", "csv") == 0
    assert capsys.readouterr().out == "source_key,never,nothing\nk00000,false,\nk00001,false,\n"
    assert ask(store, query, "--format", "json") == 0
    rows = [{"source_key": f"k0000{i}", "never": False, "nothing": None} for i in range(2)]
    assert json.loads(capsys.readouterr().out) == rows
    assert ask(store, query, "--format", "jsonl") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    assert ask(store, "SELECT 1 WHERE false", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == []
    command = [sys.executable, "-m", "flows.cli", "sql", query, "--store", str(store), "--format", "parquet"]
    (tmp_path / "x.parquet").write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    assert pq.read_table(tmp_path / "x.parquet")["source_key"].to_pylist() == ["k00000", "k00001"]


def test_formats_hold_every_column_and_value(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    query = (
        "SELECT a.seed, b.seed, 1 AS seed_1 FROM saes AS a JOIN saes AS b USING (model) ORDER BY ALL LIMIT 1; -- done"
    )
    assert ask(store, query, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == [{"seed": 0, "seed_1": 0, "seed_1_1": 1}]
    assert ask(store, query) == 0  # the comment after the semicolon does not belong to the statement
    capsys.readouterr()
    values = """SELECT 'nan'::DOUBLE AS n, ['-inf'::FLOAT, 1] AS l, {'a': 'inf'::DOUBLE} AS s, 0.5 AS d,
        'a'::BLOB AS b, 9007199254740993 AS i, MAP {1: 2} AS m, DATE '2020-01-02' AS t"""
    assert ask(store, values, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert row == {
        "n": None, "l": [None, 1], "s": {"a": None}, "d": 0.5, "b": "YQ==", "i": 9007199254740993, "m": {"1": 2},
        "t": "2020-01-02",
    }  # fmt: skip
    command = [sys.executable, "-m", "flows.cli", "sql", query, "--store", str(store), "--format", "parquet"]
    with (tmp_path / "x.parquet").open("wb") as out:  # standard output is a file, which stays writable
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, check=True)
    (line,) = done.stderr.decode().splitlines()  # the line that names the run is the only one on standard error
    assert line.startswith("study small, run 1 of ")
    assert pq.read_table(tmp_path / "x.parquet").column_names == ["seed", "seed_1", "seed_1_1"]


def test_a_reader_that_leaves_early_and_ctrl_c_end_the_command(store: Path) -> None:
    query = "SELECT range AS n, repeat('x', 100) FROM range(100000000)"
    command = [sys.executable, "-m", "flows.cli", "sql", query, "--store", str(store), "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as left:
        assert left.stdout is not None
        assert left.stdout.readline() == b"n,\"repeat('x', 100)\"\n"
        left.stdout.close()
        assert left.wait(20) == 1
        assert left.stderr is not None
        assert b"Traceback" not in left.stderr.read()
    command[4] = "SELECT count(*) FROM range(100000000000) AS a, range(1000) AS b"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as stopped:
        time.sleep(3)  # seconds: the query starts within .5 s, and never ends by itself
        stopped.send_signal(signal.SIGINT)
        assert stopped.wait(20) == 1
        assert stopped.stderr is not None
        assert stopped.stderr.read().splitlines()[1].startswith(b"interrupted")


@pytest.mark.parametrize(
    "query",
    [
        "FROM top_bridges('own', 'main', 0, 3)",
        "FROM top_bridges('own', 'main', 0, 3, by := 'correlation_bridge')",
        "FROM stability('own', 'main')",
        "FROM stability_by_energy('own', 'main')",
        "FROM modality_histogram('own', 'main', 10)",
        "FROM top_items('own', 'main', 0, 1, 'text', 3)",
        "FROM concept_profile('own', 'main', 0, 1)",
        "FROM nulls_of('own', 'main')",
        "FROM ledger",
        "FROM image_bytes",
    ],
)
def test_every_macro_answers_from_any_folder(store: Path, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("BRIDGESCOPE_STORE", str(store))
    assert main(["sql", query]) == 0


def test_the_catalog_file_serves_duckdbs_own_shell(store: Path) -> None:
    import duckdb

    with duckdb.connect(str(store / "studies" / "small" / "catalog.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM concept_profile('own', 'main', 0, 1)").fetchone() == (1,)


def test_the_prompt_answers_statements_and_goes_on_after_a_wrong_one(store: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "sql", "--store", str(store), "--format", "csv"]
    statements = "SELECT 41 + 1\nAS answer;\nSELEC;\nSELECT 7 AS seven"
    done = subprocess.run(command, input=statements, capture_output=True, text=True, check=False)
    assert done.stdout == "answer\n42\nseven\n7\n"
    assert "syntax error" in done.stderr
    assert done.returncode == 2


def test_several_studies_must_be_named(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(store, tmp_path / "two")
    shutil.copytree(tmp_path / "two" / "studies" / "small", tmp_path / "two" / "studies" / "other")
    assert ask(tmp_path / "two", "SELECT 1") == 2
    assert "holds 2 studies: name one with --study: other, small" in capsys.readouterr().err
    assert ask(tmp_path / "two", "SELECT 1", "--study", "small") == 0
    assert ask(tmp_path / "two", "SELECT 1", "--study", "none") == 2


def test_a_study_that_has_run_is_known_by_its_name(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its settings are those of its newest run, wherever the study file is."""
    monkeypatch.chdir(tmp_path)
    at = ["--store", str(store)]
    assert main(["status", "small", *at]) == 0
    assert " fresh, 0 stale, 0 missing" in capsys.readouterr().out
    assert main(["status", "small", "--set", "saes.main.k=2", *at]) == 0
    assert "k 3 -> 2" in capsys.readouterr().out
    assert main(["run", "small", *at]) == 0
    assert "nothing new" in capsys.readouterr().err
    assert main(["plan", "small", *at]) == 0
    assert "0 to make" in capsys.readouterr().out
    for command in (["status"], ["run"], ["plan"], ["report"], ["explore"], ["diff"], ["publish", "--to", "out"]):
        assert main([command[0], "smell", *command[1:], *at]) == 2, command
        assert "smell: no such study file, and no study of this name has run in" in capsys.readouterr().err
    assert main(["status", "small", "--set", "saes.main.k=0", *at]) == 2
    assert re.search(r"study small, run \d+: saes.0.k", capsys.readouterr().err)


def test_status_and_an_older_run_need_no_run_that_is_shown_by_default(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    shutil.copytree(store, tmp_path / "copy")
    run = last_run(tmp_path / "copy", "small")
    assert run is not None
    older = run.model_dump_json().replace(run.of("train")[0].dataset.digest, "0" * 64)
    newest = write_run(tmp_path / "copy", Run.model_validate_json(older))  # its SAE was made again since
    at = ["--store", str(tmp_path / "copy")]
    assert main(["status", "small", *at]) == 0
    assert "the catalog file of small is not written again: no run of study 'small' can be shown" in caplog.text
    assert f"run {newest.number} of " in capsys.readouterr().out
    assert main(["sql", "SELECT 6 * 7 AS answer", "--run", str(run.number), "--format", "csv", *at]) == 0
    assert capsys.readouterr().out == "answer\n42\n"
    assert main(["sql", "SELECT 1", *at]) == 2
    assert "no run of study 'small' can be shown" in capsys.readouterr().err


def test_sql_answers_when_the_catalog_file_cannot_be_written(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    shutil.copytree(store, tmp_path / "copy")
    (tmp_path / "copy" / "studies" / "small" / "catalog.partial" / "folder").mkdir(parents=True)
    assert ask(tmp_path / "copy", "SELECT 6 * 7 AS answer", "--format", "csv") == 0  # of a store that was moved
    assert capsys.readouterr().out == "answer\n42\n"
    assert "catalog.duckdb is not written again: " in caplog.text


def test_doctor_finds_changed_bytes(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(store, tmp_path / "copy")
    assert main(["doctor", "--store", str(tmp_path / "copy")]) == 0
    assert "0 not sound" in capsys.readouterr().out
    weights = next((tmp_path / "copy").glob("saes/*/sae.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert main(["doctor", "--store", str(tmp_path / "copy")]) == 1
    assert "its bytes are not those that were written" in capsys.readouterr().out


def test_doctor_prints_the_size_of_the_downloads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "downloads" / "coco").mkdir(parents=True)
    (tmp_path / "downloads" / "coco" / "val2017.zip").write_bytes(bytes(2_500_000))
    assert main(["doctor", "--store", str(tmp_path)]) == 0
    assert "downloads: 2.5 MB, which gc never deletes" in capsys.readouterr().out


def test_help_and_sql_start_without_heavy_libraries(store: Path) -> None:
    code = """
import sys
from flows.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print([name for name in ("torch", "prefect", "transformers", "matplotlib") if name in sys.modules])
"""
    environment = {**os.environ, "BRIDGESCOPE_STORE": str(store)}
    for arguments in (["--help"], ["sql", "SELECT 1"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout.endswith("[]\n")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"bridgescope \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)

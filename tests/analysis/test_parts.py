"""The parts of an analysis: what each computes and reads, what a change makes stale, and what a kill loses."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
from parts_case import analyse, files_of, given_of, stale, study_of, tables_of

import analysis as room
import analysis.inputs
import analysis.statistic
import storage.rows
from analysis.parts import declared, pairs_of_seeds, versions
from analysis.statistic import statistics
from storage.runs import Entry, Key, last_run

ROOT = Path(__file__).parents[2]
SPACE = Key("space", "planted")


def measured(seed: int) -> Key:
    return Key("measures", "planted", "main", seed)


def named(seed: int) -> Key:
    return Key("names", "planted", "main", seed)


def matched(seed: int, other: int) -> Key:
    return Key("matching", "planted", "main", seed, other_seed=other)


def partnered(seed: int, other: int) -> Key:
    return Key("partners", "planted", "main", seed, other_seed=other)


@pytest.fixture(scope="module")
def three(planter: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a planted study of three seeds. None of them is analysed yet."""
    store = tmp_path_factory.mktemp("three")
    planter.write(planter.plant(300, 900, 5, 32), store, 32, dim=16, seeds=3, embedded=True)
    return store


@pytest.fixture
def seeds(three: Path, tmp_path: Path) -> Path:
    return shutil.copytree(three, tmp_path / "store")


@pytest.mark.slow
def test_a_new_seed_computes_its_own_parts_and_gets_the_bytes_of_a_full_recomputation(
    seeds: Path, study: str, tmp_path: Path
) -> None:
    entries = last_run(seeds, study).entries
    elsewhere = shutil.copytree(seeds, tmp_path / "elsewhere")
    # Seed 1 is added to seeds 0 and 2, which are analysed first.
    before = given_of(seeds, entries, study_of([0, 2]))
    assert set(analyse(before)) == {
        SPACE, measured(0), measured(2), named(0), named(2), matched(0, 2), partnered(0, 2), Key("analyze"),
    }  # fmt: skip
    after = given_of(seeds, entries, study_of([0, 1, 2]))
    assert set(analyse(after)) == {
        measured(1), named(1), matched(0, 1), matched(1, 2), partnered(0, 1), partnered(1, 2), Key("analyze"),
    }  # fmt: skip
    full = given_of(elsewhere, entries, study_of([0, 1, 2]))
    assert len(analyse(full)) == 1 + 3 + 3 + 3 + 3 + 1
    assert files_of(after) == files_of(full)
    assert set(files_of(full)) == {f"{name}.parquet" for one in statistics() for name in one.tables}
    # The rows of seeds 0 and 2 are the same as before seed 1 was added.
    old, new = tables_of(before), tables_of(after)
    for name in ("concepts", "nulls", "bridges", "floors", "retrieval", "saes"):
        assert new[name].filter(new[name]["seed"].is_in([0, 2]) | new[name]["seed"].is_null()).equals(old[name])


KILLED = """
import os, signal, sys
from pathlib import Path
from parts_case import analyse, given_of, study_of
import analysis.retrieval as last
from storage.runs import last_run

def make(con, analysis):
    if analysis.sae[0].seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(con, analysis)

real = last.STATISTIC.make
last.STATISTIC = last.STATISTIC._replace(make=make)
store = Path(sys.argv[1])
analyse(given_of(store, last_run(store, sys.argv[2]).entries, study_of([0, 1, 2])))
"""


@pytest.mark.slow
def test_a_kill_in_the_last_statistic_of_the_last_part_loses_that_part(seeds: Path, study: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(seeds), study], env=environment, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(seeds.glob("measures/*.partial"))
    again = given_of(seeds, last_run(seeds, study).entries, study_of([0, 1, 2]))
    pairs = [partnered(0, 1), partnered(0, 2), partnered(1, 2)]  # listed after the parts of SAEs
    assert analyse(again) == [measured(2), *pairs, *map(named, (0, 1, 2)), Key("analyze")]


def test_a_version_makes_stale_the_parts_that_compute_it_and_the_join(
    seeds: Path, study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = last_run(seeds, study).entries
    analyse(given_of(seeds, entries, study_of([0, 1])))
    changed = shutil.copytree(room.__path__[0], tmp_path / "room")
    monkeypatch.setattr(room, "__path__", [str(changed)])
    computes = {
        # The names of an SAE wait for its other tables, which its geometry is a part of.
        "geometry": {measured(0), measured(1), named(0), named(1)},
        "names": {named(0), named(1)},
        "stability": {matched(0, 1)},
        "partners": {partnered(0, 1)},
        "findings": set(),
    }
    for name, parts in computes.items():
        source = (changed / f"{name}.py").read_text()
        raised, count = re.subn(r'version="(\d+)"', r'version="\g<1>0"', source)
        assert count == 1
        (changed / f"{name}.py").write_text(raised)
        missing = {job.key for job in stale(given_of(seeds, entries, study_of([0, 1])))}
        assert missing == {*parts, Key("analyze")}
        (changed / f"{name}.py").write_text(source)
    assert stale(given_of(seeds, entries, study_of([0, 1]))) == []


def test_a_part_reads_embeddings_and_activations_once(seeds: Path, study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read, check, compute = storage.rows.read, analysis.inputs._check_values, analysis.statistic.compute

    def counted(store: Path, dataset: object, *options: object) -> object:
        reads.append("embeddings")
        return read(store, dataset, *options)  # type: ignore[arg-type]

    def checked(con: duckdb.DuckDBPyConnection, store: Path, exported: list[Entry]) -> None:
        check(con, store, exported)
        ((saes,),) = con.execute("SELECT count(DISTINCT seed) FROM activations").fetchall()
        for entry in exported:
            reads.append("activations")
            file = store / entry.dataset.path / "0.parquet"
            if saes == 1:  # the file is out of its place until the part ends, so a second read of it fails
                gone.append((file.rename(file.with_suffix(".gone")), file))

    def computed(*part: Any) -> int:
        try:
            return compute(*part)
        finally:
            for file, place in gone:
                file.rename(place)
            gone.clear()

    gone: list[tuple[Path, Path]] = []
    monkeypatch.setattr(storage.rows, "read", counted)
    monkeypatch.setattr(analysis.inputs, "_check_values", checked)
    monkeypatch.setattr(analysis.statistic, "compute", computed)
    analyse(given_of(seeds, last_run(seeds, study).entries, study_of([0, 1])))
    # There is one shard. The part of the model reads its embeddings, and the parts of the two SAEs read both. The part
    # of both SAEs reads the activations of each, and so does the part of the names of each; vectors without an encoder
    # are not read for names.
    assert sorted(reads) == ["activations"] * 6 + ["embeddings"] * 3


def test_pairs_of_seeds() -> None:
    saes = [("main", 0), ("main", 2), ("main-half-a", 0), ("main-half-a", 2)]
    assert pairs_of_seeds(saes) == {
        (0, 0): [(("main", 0), ("main-half-a", 0))],
        (0, 2): [
            (("main", 0), ("main", 2)),
            (("main", 0), ("main-half-a", 2)),
            (("main", 2), ("main-half-a", 0)),
            (("main-half-a", 0), ("main-half-a", 2)),
        ],
        (2, 2): [(("main", 2), ("main-half-a", 2))],
    }
    # Every pair of SAEs is in exactly one group, and a new seed does not change the existing groups.
    more = pairs_of_seeds([*saes, ("main", 1), ("main-half-a", 1)])
    assert sum(map(len, more.values())) == 6 * 5 // 2
    assert {seeds: pairs for seeds, pairs in more.items() if 1 not in seeds} == pairs_of_seeds(saes)
    assert pairs_of_seeds([("main", 0)]) == {}


def test_declarations_are_read_without_loading_what_computes() -> None:
    loads = "import sys; import analysis.parts as p; p.versions(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loads], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not {"numpy", "torch", "duckdb", "polars", "prefect", "numba"} & set(done.stdout.split())
    assert {one.name: (one.version, one.per) for one in declared()} == {
        one.name: (one.version, one.per) for one in statistics()
    }
    assert versions("study") == {"findings": "3"}
    assert versions("model").keys() | versions("sae").keys() | versions("pair").keys() < versions().keys()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('Statistic("odd", VERSION, {}, make)', r"analysis/odd\.py: name, version and per of a statistic must be lit"),
        (
            'Statistic("odd", "1", {}, make, per="shard")',
            r"analysis/odd\.py: .* sae, names, pair, seeds, models, study, not per 's",
        ),
        ('Statistic("odd")', r"analysis/odd\.py: name, version and per of a statistic must be literals"),
    ],
)
def test_a_declaration_that_cannot_be_read_names_the_file(
    call: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd.py").write_text(f"VERSION = '1'\n\nSTATISTIC = {call}\n")
    monkeypatch.setattr(room, "__path__", [str(tmp_path)])
    with pytest.raises(ValueError, match=message):
        declared()

"""The ledger of a pair by the explorer and by the command `pair`: its sum, what leaving out does, and its refusals."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from explorer.live import Live
from flows.cli import main
from storage import open_catalog
from storage.errors import BadInput

KEY = "tiny/main/0"


def ask(client: TestClient, body: Any, key: str = KEY) -> Any:
    return client.post(f"/api/pair?key={key}", content=json.dumps(body).encode())


def test_the_explorer_and_sql_split_a_pair_of_the_study_alike(client: TestClient, live: Live) -> None:
    answer = ask(client, {"image": 3, "caption": 9})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert sum(body["terms"].values()) == pytest.approx(body["similarity"], abs=1e-5)
    with open_catalog(live.store, "pictures", guarded=True) as con:
        rows = con.execute("FROM pair_ledger('tiny', 'main', 0, 3, 9)").fetchall()
        (dim,) = con.execute("SELECT DISTINCT len(direction) FROM atoms").fetchall()[0]
    assert sum(row[3] for row in rows) == pytest.approx(body["similarity"], abs=1e-5)
    pairs = {(row["image_concept"], row["text_concept"]): row["contribution"] for row in body["rows"]}
    assert {(row[1], row[2]): row[3] for row in rows if row[0] == "concepts"} == pytest.approx(pairs, abs=1e-5)
    assert dim == live.shown.encoders.sae(KEY).config.dim
    assert body["what_if"] is None
    held = live.shown.ask("SELECT count(*) FROM images WHERE split = 'heldout'", [])[0][0]
    assert body["gallery"]["images"] == held
    assert 1 <= body["before"]["image"]["rank"] <= held + 1


def test_ranks_are_those_of_the_held_out_embeddings(client: TestClient, live: Live) -> None:
    rows = live.shown.encoders.rows("tiny")
    held = np.flatnonzero(rows.split_u < 0.25)
    own = int(held[0])
    text = int(np.flatnonzero(rows.owner == own)[0])
    before = ask(client, {"image": int(rows.image_id[own]), "caption": int(rows.pair_id[text])}).json()["before"]
    x, y = rows.image.astype(np.float64), rows.text.astype(np.float64)
    texts = np.flatnonzero(np.isin(rows.owner, held))
    for found, cosines in (
        (before["caption"], y[texts[texts != text]] @ x[own]),
        (before["image"], x[held[held != own]] @ y[text]),
    ):
        assert found["rank"] == 1 + (cosines >= x[own] @ y[text] - 1e-6).sum()
        assert found["tied"] == (np.abs(cosines - x[own] @ y[text]) <= 1e-6).sum()


def test_a_picture_and_a_caption_of_the_users_own(client: TestClient, pictured: tuple[Path, Path]) -> None:
    data = (pictured[0].parent / "pictures" / "p007.png").read_bytes()
    given = {"image": base64.b64encode(data).decode(), "caption": "two dogs on a beach"}
    whole = ask(client, given).json()
    assert (whole["image"], whole["caption"]) == (None, None)
    concept = whole["rows"][0]["image_concept"]
    body = ask(client, {**given, "without": [concept]}).json()
    assert body["before"] == whole["before"]
    found = body["what_if"]
    assert found["concepts"] == [concept]
    assert found["draws"] == 20
    assert found["energy"] > 0
    for name in ("similarity", "inner", "caption", "image", "energy"):
        assert found["random"][name]["low"] <= found["random"][name]["mean"] <= found["random"][name]["high"]
    assert found["random"]["energy"]["high"] <= found["energy"] + 1e-9
    nothing = ask(client, {**given, "without": list(range(16))}).json()["what_if"]
    # All concepts together are one set, and so are the random sets of their energy.
    assert nothing["random"]["inner"]["low"] == pytest.approx(nothing["after"]["inner"])


def test_a_ledger_without_ranks_and_the_terms_of_what_is_left(client: TestClient) -> None:
    ledger = ask(client, {"image": 3, "caption": 9, "ranks": False}).json()
    assert (ledger["gallery"], ledger["before"], ledger["what_if"]) == (None, None, None)
    whole = ask(client, {"image": 3, "caption": 9}).json()
    assert {name: ledger[name] for name in ("rows", "terms", "codes")} == {
        name: whole[name] for name in ("rows", "terms", "codes")
    }
    assert {row["image_concept"] for row in ledger["rows"]} == set(ledger["codes"]["image"]["concept"])
    out = ledger["codes"]["image"]["concept"][0]
    found = ask(client, {"image": 3, "caption": 9, "without": [out]}).json()["what_if"]
    assert sum(found["terms"].values()) == pytest.approx(found["after"]["inner"], abs=1e-6)
    rows = [row["contribution"] for row in whole["rows"] if out not in (row["image_concept"], row["text_concept"])]
    assert found["terms"]["concepts"] == pytest.approx(sum(rows), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"image": 3}, "the body must be"),
        ({"image": True, "caption": 9}, "the body must be"),
        ({"image": 3, "caption": -1}, "the body must be"),
        ({"image": 3, "caption": 9, "without": ["1"]}, "the body must be"),
        ({"image": 3, "caption": 9, "ranks": 1}, "the body must be"),
        ([], "the body must be"),
        ({"image": "not base64!", "caption": 9}, "neither an image_id nor a picture in base64"),
        ({"image": "AAAA", "caption": 9}, "the picture cannot be read"),
        ({"image": 3, "caption": "\ud800"}, "the caption holds half a character"),
        ({"image": 3, "caption": " "}, "the caption is empty"),
        ({"image": 99999, "caption": 9}, "image 99999: the study has no such image"),
        ({"image": 3, "caption": 9, "without": [16]}, "concept 16: tiny/main/0 has the concepts 0 to 15"),
    ],
)
def test_a_wrong_pair_is_answered_by_a_sentence(client: TestClient, body: Any, says: str) -> None:
    answer = ask(client, body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_an_sae_that_is_not_there_is_refused(client: TestClient, live: Live) -> None:
    assert "no SAE 'tiny/main/9'" in ask(client, {"image": 3, "caption": 9}, "tiny/main/9").json()["error"]
    with pytest.raises(BadInput, match="no SAE"):
        live.shown.pairs.pair("", 3, 9)


def test_the_command_prints_the_ledger(pictured: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(pictured[1])]
    assert main(["pair", "3", "9", *store, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sum(answer["terms"].values()) == pytest.approx(answer["similarity"], abs=1e-5)
    picture = str(pictured[0].parent / "pictures" / "p007.png")
    assert main(["pair", picture, "9", *store, "--sae", "tiny/main/1", "--without", "3, 4", "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("similarity ")
    assert any("without the concepts 3, 4" in line for line in lines)
    assert any(line.startswith("rank of the caption") for line in lines)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["3", "9999999"], "caption 9999999: the study has no such caption"),
        (["nowhere.png", "9"], "picture nowhere.png: No such file or directory"),
        (["3", "9", "--without", "3,x"], "--without 3,x: 'x' is no concept"),
        (["3", "9", "--without", "16"], "concept 16: tiny/main/0 has the concepts 0 to 15"),
        (
            ["3", "9", "--sae", "main"],
            "--sae main: no SAE of this name in study pictures. Available: tiny/main/0, tiny/main/1.",
        ),
        (["3", "9", "--study", "none"], "none"),
    ],
)
def test_bad_input_of_the_command_ends_with_2(
    pictured: tuple[Path, Path], capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["pair", *words, "--store", str(pictured[1])]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert "Traceback" not in errors

"""The explorer's server: its answers and its refusals."""

from __future__ import annotations

import datetime
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from explorer.application import MAX_QUESTION, application
from explorer.guard import PAGE_POLICY, POLICY
from explorer.live import Live
from report.explorer.release import handed_out
from report.queries import MIN_FIRINGS, UNIMODAL
from sae import SAE
from storage import open_catalog
from storage.errors import BadInput
from storage.record import write_run
from storage.rows import select
from storage.site import SITE, put_json, writing

HERE = "http://127.0.0.1:8123"
KEY = "tiny/main/0"


def test_the_page_and_its_files_are_served_with_a_strict_policy(client: TestClient) -> None:
    for name, kind in (
        ("/", "text/html"),
        ("/assets/main.js", "text/javascript"),
        ("/data/compare.json", "application/json"),
    ):
        answer = client.get(name)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'")
    assert client.get("/nowhere").headers["content-security-policy"] == POLICY  # answers of errors have the policy too
    assert client.post("/").status_code == 405


def test_the_front_end_is_sent_compressed_to_who_can_read_it(client: TestClient, front: Path) -> None:
    script = front / "assets" / "main.js"
    plain = client.get("/assets/main.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for text in ("export {}", "export const rebuilt = 1"):
        script.write_text(text)
        os.utime(script, (len(text), len(text)))
        short = client.get("/assets/main.js", headers={"accept-encoding": "gzip, br"})
        assert (short.headers["content-encoding"], short.headers["vary"]) == ("gzip", "accept-encoding")
        assert short.text == text
    assert "content-encoding" not in client.get("/data/compare.json").headers
    script.write_text("export {}")


def test_the_study_page_has_its_own_policy_and_links_to_the_views(client: TestClient) -> None:
    answer = client.get(f"/{client.get('/data/manifest.json').json()['page']}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == PAGE_POLICY
    assert "script" not in PAGE_POLICY
    assert 'href="index.html#/concept/' in answer.text
    assert "explorer.html" not in answer.text


def test_the_manifest_is_the_stored_one_but_live_and_with_definitions(client: TestClient, live: Live) -> None:
    manifest = client.get("/data/manifest.json").json()
    assert manifest.pop("live") is True
    assert manifest.pop("definitions") == {
        "unimodal": UNIMODAL,
        "min_firings": MIN_FIRINGS,
        "verdicts": {"holds": "holds", "fails": "fails", "open": "undecided"},  # the words of the study's page
    }
    stored = json.loads(live.shown.site.read("data/manifest.json"))
    assert stored.pop("live") is False
    assert manifest == stored
    assert [run["key"] for run in manifest["runs"]] == [KEY, "tiny/main/1"]
    assert manifest["pairs"] == {"images": 120, "captions": 240, "licence": "CC0-1.0"}


def test_a_file_that_did_not_change_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/thumbs/0.webp")
    assert first.headers["content-type"] == "image/webp"
    again = client.get("/thumbs/0.webp", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/assets/%5c..%5c..%5cetc%5cpasswd", "/data/../../studies/pictures/runs/1.json", "/%00", "/assets",
        "/api/image/../../etc/passwd", "/api/image/-1", "/api/image/99999999999999999999999",
    ],
)  # fmt: skip
def test_no_path_leads_out(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert b"root:" not in answer.content


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8123"}, 200),
        ({"host": "localhost:8123", "origin": "http://localhost:8123"}, 200),
        ({"host": "[::1]:8123", "origin": "http://[::1]:8123"}, 200),
        ({"host": "LOCALHOST:8123", "origin": "http://localhost:8123"}, 200),
        ({"host": "evil.example:8123"}, 403),  # an attacker's name may resolve to 127.0.0.1
        ({"host": "127.0.0.1:8124"}, 403),
        ({"host": "127.0.0.1"}, 403),
        ({"host": "127.0.0.1.evil.example:8123"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://127.0.0.1:8123"}, 403),
        ({"origin": "http://localhost:8123"}, 403),  # an origin other than the host of the request
    ],
)
def test_only_loopback_hosts_and_the_own_origin_are_answered(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    assert client.get("/data/manifest.json", headers=headers).status_code == status
    assert client.post("/api/sql", json={"query": "SELECT 1"}, headers=headers).status_code == status


def test_reading_needs_no_origin_but_asking_does(live: Live, front: Path) -> None:
    stranger = TestClient(application(live, front, 8123), base_url=HERE)  # sends no Origin, as when a link is followed
    assert stranger.get("/").status_code == 200
    refused = stranger.post("/api/sql", json={"query": "SELECT 1"})
    assert (refused.status_code, refused.json()) == (403, {"error": "only the explorer's own page is answered here"})


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("same-origin", "cors", 200), ("none", "navigate", 200), ("cross-site", "navigate", 200),  # a link is followed
        ("cross-site", "no-cors", 403), ("same-site", "no-cors", 403), ("cross-site", "cors", 403),
    ],
)  # fmt: skip
def test_pictures_and_scripts_of_other_pages_get_nothing(
    live: Live, front: Path, site: str, mode: str, status: int
) -> None:
    stranger = TestClient(application(live, front, 8123), base_url=HERE)
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
    assert stranger.get("/thumbs/0.webp", headers=headers).status_code == status


def test_a_question_is_answered_with_columns_rows_and_time(client: TestClient) -> None:
    answer = client.post(
        "/api/sql", json={"query": "SELECT 1 + 1 AS two, 'a' AS letter, NULL::INTEGER AS nothing"}
    ).json()
    types = {"two": "INTEGER", "letter": "VARCHAR", "nothing": "INTEGER"}
    assert answer["columns"] == [{"name": name, "type": kind} for name, kind in types.items()]
    assert answer["rows"] == [[2, "a", None]]
    assert answer["truncated"] is False
    assert answer["seconds"] >= 0
    text = client.post("/api/sql.csv", json={"query": "SELECT 1 AS a, 'x,\"y' AS b"})
    assert text.headers["content-type"] == "text/csv; charset=utf-8"
    assert text.text == 'a,b\n1,"x,""y"\n'


def test_a_question_is_answered_as_parquet_with_its_types_under_the_same_guard(client: TestClient) -> None:
    query = "SELECT 1::SMALLINT AS a, 'x' AS b, DATE '2020-01-02' AS c, [0.5, NULL] AS d"
    answer = client.post("/api/sql.parquet", json={"query": query})
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.content))
    assert [str(field.type) for field in table.schema][:3] == ["int16", "string", "date32[day]"]
    assert table.to_pylist() == [{"a": 1, "b": "x", "c": datetime.date(2020, 1, 2), "d": [0.5, None]}]
    assert "x-truncated" not in answer.headers
    cut = client.post("/api/sql.parquet", json={"query": "FROM range(30000)"})
    assert pq.read_table(io.BytesIO(cut.content)).num_rows == 10_000
    assert cut.headers["x-truncated"] == "true"
    for refused in ("COPY (SELECT 1) TO 'x.parquet'", "FROM read_text('/etc/passwd')", "SELEC"):
        answer = client.post("/api/sql.parquet", json={"query": refused})
        assert answer.status_code == 400, refused
        assert answer.json()["error"]


def test_the_examples_of_the_manifest_run(client: TestClient) -> None:
    examples = client.get("/data/catalog.json").json()["examples"]
    assert len(examples) >= 5
    for example in examples:
        answer = client.post("/api/sql", json={"query": example["query"]})
        assert answer.status_code == 200, example
        assert answer.json()["columns"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"query": "SELEC"}, "syntax error"),
        ({"query": "FROM nowhere"}, "Views: activations"),
        ({"query": "SELECT '\ud800'"}, "the query holds half a character"),
        ({"question": "SELECT 1"}, 'the body must be {"query": "..."}'),
        ({"query": 1}, 'the body must be {"query": "..."}'),
        ([], 'the body must be {"query": "..."}'),
    ],
)
def test_a_wrong_question_is_answered_by_a_sentence(client: TestClient, body: object, says: str) -> None:
    answer = client.post("/api/sql", content=json.dumps(body).encode())
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_bodies_that_are_not_json_or_too_large_are_refused(client: TestClient) -> None:
    assert client.post("/api/sql", content=b"{").status_code == 400
    assert client.post("/api/sql", content=b"\xff\xfe{").status_code == 400
    assert client.post("/api/sql", content=b"[" * 50_000).status_code == 400
    assert client.post("/api/sql", content=b" " * (MAX_QUESTION + 1)).status_code == 413
    parts = (b" " * 1000 for _ in range(MAX_QUESTION // 1000 + 1))  # chunked: no length is declared
    assert client.post("/api/sql", content=parts).status_code == 413


def test_a_caption_is_encoded_by_the_studys_own_model(client: TestClient, live: Live) -> None:
    codes = client.get(f"/data/runs/{KEY}/codes/0.json").json()["texts"]
    captions = {i: text["caption"] for i, text in client.get("/data/items/0.json").json()["texts"].items()}
    pair = max((i for i in codes if len(captions[i]) < 100), key=lambda i: len(codes[i]["concept"]))
    stored, caption = codes[pair], captions[pair]
    answer = client.post(f"/api/encode?key={KEY}", json={"text": caption})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["modality"] == "text"
    # The answer must equal the stored codes of the caption. The tolerance is needed because the embedding behind the
    # stored codes was rounded to float16.
    assert [one["concept"] for one in body["concepts"]] == stored["concept"]
    assert [one["activation"] for one in body["concepts"]] == pytest.approx(stored["activation"], abs=5e-3)
    assert sum(one["share"] for one in body["concepts"]) + body["bias"] == pytest.approx(1)
    kinds = [near["modality"] for near in body["nearest"]]
    assert kinds == ["image"] * 12 + ["text"] * 12
    assert body["nearest"][12]["cosine"] == pytest.approx(1, abs=1e-3)
    assert body["nearest"][12]["caption"] == caption
    cosines = [near["cosine"] for near in body["nearest"][:12]]
    assert cosines == sorted(cosines, reverse=True)
    assert all(near["thumb"] == f"thumbs/{near['item']}.webp" for near in body["nearest"][:12])


def test_items_just_below_the_threshold_are_those_of_the_exported_codes(client: TestClient, live: Live) -> None:
    with open_catalog(live.store, run=live.shown.run) as con:
        concept, firing = con.execute(
            "SELECT concept_id, list(item_id) FROM activations WHERE sae = 'main' AND seed = 0 AND modality = 'image' "
            "GROUP BY ALL ORDER BY count(*) DESC, concept_id LIMIT 1"
        ).fetchall()[0]
    pairs, embeddings = ([entry.dataset for entry in live.shown.run.of(stage)] for stage in ("acquire", "embed"))
    rows = select(live.store, pairs, embeddings, heldout=0.0)
    net = SAE.load(live.store / live.shown.run.of("train", seed=0)[0].dataset.path)
    x = rows.image / np.linalg.norm(rows.image, axis=1, keepdims=True)
    pre = (x - net.bias.numpy()) @ net.encoder[concept].numpy() + net.encoder_bias[concept].item()
    silent = [i for i in np.argsort(-pre) if rows.image_id[i] not in firing]
    items = client.get(f"/api/below/{concept}?key={KEY}").json()["items"]
    assert [one["modality"] for one in items] == ["image"] * 6 + ["text"] * 6
    assert [one["item"] for one in items[:6]] == [rows.image_id[i] for i in silent[:6]]
    assert [one["pre_activation"] for one in items[:6]] == pytest.approx(pre[silent[:6]], abs=1e-4)
    assert items[0]["thumb"] == f"thumbs/{items[0]['item']}.webp"
    assert items[6]["caption"]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        (f"/api/below/16?key={KEY}", 400, "no concept 16; concepts of tiny/main/0 go from 0 to 15"),
        ("/api/below/0?key=tiny/main/7", 400, "no SAE 'tiny/main/7'"),
        ("/api/below/0", 400, "no SAE ''"),
        (f"/api/below/-1?key={KEY}", 404, "there is no such page"),
    ],
)
def test_a_concept_that_is_not_there_has_nothing_below(client: TestClient, path: str, status: int, says: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text


def test_a_picture_finds_itself(client: TestClient, pictured: tuple[Path, Path]) -> None:
    data = (pictured[0].parent / "pictures" / "p007.png").read_bytes()
    answer = client.post(f"/api/encode?key={KEY}", content=data, headers={"content-type": "image/png"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["modality"] == "image"
    assert [near["modality"] for near in body["nearest"]] == ["text"] * 12 + ["image"] * 12
    items = client.get("/data/items/0.json").json()["images"]
    assert items[str(body["nearest"][12]["item"])]["key"].startswith("p007")
    original = client.get(f"/api/image/{body['nearest'][12]['item']}")
    assert (original.headers["content-type"], original.content) == ("image/png", data)


def bomb() -> bytes:
    """A picture of 60 million pixels in a few kilobytes."""
    out = io.BytesIO()
    Image.new("1", (10_000, 6_000)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("key", "content", "kind", "says"),
    [
        (KEY, b"not a picture", "image/png", "the picture cannot be read: not an image"),
        (KEY, b"", "image/png", "the picture cannot be read: empty file"),
        (KEY, bomb(), "image/png", "the picture cannot be read: too many pixels"),
        (KEY, b'{"text": "  "}', "application/json", "the caption is empty"),
        (KEY, json.dumps({"text": "y" * 10_001}).encode(), "application/json", "at most 10000 are read"),
        (KEY, b"a cat", "text/plain", "application/json with a text, or image/*"),
        ("tiny/main/7", b'{"text": "a cat"}', "application/json", "no SAE 'tiny/main/7'"),
        ("../../x", b'{"text": "a cat"}', "application/json", "no SAE '../../x'"),
    ],
)
def test_input_that_cannot_be_encoded_is_refused(
    client: TestClient, key: str, content: bytes, kind: str, says: str
) -> None:
    answer = client.post(f"/api/encode?key={key}", content=content, headers={"content-type": kind})
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_captions_of_every_kind_come_as_they_are(client: TestClient, live: Live) -> None:
    with open_catalog(live.store, "pictures") as con:
        captions = dict(con.execute("SELECT pair_id, caption FROM pairs").fetchall())
    search = client.get("/data/items/search.json").json()
    assert dict(zip(search["id"], search["caption"], strict=True)) == captions
    assert max(map(len, captions.values())) == 10_005


def test_a_newer_run_takes_the_place_of_the_last(pictured: tuple[Path, Path], front: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(pictured[1], store)
    opened = Live(store, "pictures")
    client = TestClient(application(opened, front, 8123), base_url=HERE, headers={"origin": HERE})
    assert client.get("/data/manifest.json").json()["title"] == "Concepts and bridges of tiny"
    first = opened.shown.run
    (published,) = first.of("explorer")
    others = [entry for entry in first.entries if entry.kind != "explorer"]
    write_run(store, first.model_copy(update={"entries": others}))  # a run cut short before it made the explorer's data
    assert client.get("/data/manifest.json").json()["title"] == "Concepts and bridges of tiny"
    newer = published.dataset.model_copy(update={"path": "explorers/newer", "digest": "f" * 64})
    (store / newer.path).mkdir()
    with writing(store / newer.path / SITE) as site:
        put_json(site, "data/manifest.json", {"title": "Newer"})
    write_run(store, first.model_copy(update={"entries": [*others, published.model_copy(update={"dataset": newer})]}))
    assert client.get("/data/manifest.json").json() == handed_out({"title": "Newer"}, live=True)
    assert client.get("/data/compare.json").status_code == 404  # only files of the newer run are served
    assert client.post("/api/sql", json={"query": "SELECT count(*) FROM saes"}).json()["rows"] == [[2]]
    opened.close()


def test_nothing_to_show_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has not run in"):
        Live(tmp_path, "pictures")


def test_the_socket_is_on_loopback_and_a_port_in_use_is_reported() -> None:
    from explorer.listen import listening

    with listening(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        listener.listen()
        with pytest.raises(BadInput, match=f"--port {port}: "):
            listening(port)
    with pytest.raises(BadInput, match="--port 70000: "):
        listening(70000)

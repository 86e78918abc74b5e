"""Labels that users give to concepts: kept in the store, refused with a sentence, and published when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from explorer.live import Live
from storage.errors import BadInput
from storage.user_labels import LONGEST, checked, path_of, read_labels

KEY = "tiny/main/0"


def give(client: TestClient, **body: Any) -> Any:
    return client.post("/api/labels", content=json.dumps(body).encode())


@pytest.fixture(autouse=True)
def unlabelled(live: Live) -> Iterator[None]:
    yield
    path_of(live.store, "pictures").unlink(missing_ok=True)


def test_a_label_is_kept_replaced_and_removed(client: TestClient, live: Live) -> None:
    assert client.get("/data/labels.json").json() == {"labels": []}
    given = give(client, key=KEY, concept=3, label="  <b>dogs</b> ").json()["labels"]
    assert [(one["key"], one["concept"], one["label"]) for one in given] == [(KEY, 3, "<b>dogs</b>")]
    assert client.get("/data/labels.json").json()["labels"] == given
    give(client, key="tiny/main/1", concept=0, label="שלום")
    labels = give(client, key=KEY, concept=3, label="cats").json()["labels"]
    assert [one["label"] for one in labels] == ["cats", "שלום"]
    assert read_labels(live.store, live.shown.run) == labels
    assert [one["label"] for one in give(client, key=KEY, concept=3, label="").json()["labels"]] == ["שלום"]
    left = sorted(path.name for path in path_of(live.store, "pictures").parent.glob("labels.json*"))
    assert left == ["labels.json", "labels.json.lock"]  # and no half-written file


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"key": KEY, "concept": 3}, "the body must be"),
        ({"key": KEY, "concept": "3", "label": "a"}, "the body must be"),
        ({"key": KEY, "concept": True, "label": "a"}, "the body must be"),
        ({"key": KEY, "concept": 16, "label": "a"}, "concepts 0 to 15"),
        ({"key": "tiny/main/9", "concept": 3, "label": "a"}, "no SAE 'tiny/main/9'"),
        ({"key": "../x", "concept": 3, "label": "a"}, "no SAE '../x'"),
        ({"key": KEY, "concept": 3, "label": "a" * (LONGEST + 1)}, f"at most {LONGEST}"),
        ({"key": KEY, "concept": 3, "label": "a\nb"}, "control character"),
        ({"key": KEY, "concept": 3, "label": "\ud800"}, "half a character"),
    ],
)
def test_a_wrong_label_is_refused_with_a_sentence(client: TestClient, live: Live, body: Any, says: str) -> None:
    answer = give(client, **body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert not path_of(live.store, "pictures").exists()


def test_another_page_cannot_set_a_label(client: TestClient, live: Live) -> None:
    body = json.dumps({"key": KEY, "concept": 3, "label": "a"}).encode()
    for headers in ({"origin": "http://evil.example"}, {"origin": ""}):
        assert client.post("/api/labels", content=body, headers=headers).status_code == 403
    assert client.post("/api/labels", content=b"a" * 100_001).status_code == 413
    assert client.get("/api/labels").status_code in (404, 405)
    assert not path_of(live.store, "pictures").exists()


def test_a_label_of_an_sae_that_was_trained_anew_is_not_shown(client: TestClient, live: Live) -> None:
    give(client, key=KEY, concept=3, label="dogs")
    path = path_of(live.store, "pictures")
    stored = json.loads(path.read_text())
    stored["labels"][0]["dataset"] = "saes/another"
    path.write_text(json.dumps(stored))
    assert client.get("/data/labels.json").json() == {"labels": []}


def test_a_spoiled_file_of_labels_is_named(client: TestClient, live: Live) -> None:
    path_of(live.store, "pictures").write_text("[]")
    answer = client.get("/data/labels.json")
    assert answer.status_code == 400
    assert "does not hold labels" in answer.json()["error"]


def test_publish_takes_labels_along_when_asked(client: TestClient, live: Live, front: Path, tmp_path: Path) -> None:
    from tasks.publish import publish_study

    give(client, key=KEY, concept=3, label="dogs")
    for labels, shown in ((False, []), (True, ["dogs"])):
        target = tmp_path / str(labels)
        publish_study(live.store, "pictures", target, front, labels=labels)
        published = json.loads((target / "data" / "labels.json").read_text())
        assert [one["label"] for one in published["labels"]] == shown


def test_a_label_loses_the_spaces_at_its_ends() -> None:
    assert checked("  a b ") == "a b"
    with pytest.raises(BadInput):
        checked("a\u2028b")

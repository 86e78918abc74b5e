"""Acquiring from a list of URLs: failures are counted by cause and retried, and bytes stay with their item."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError
from web_support import Web, picture

from storage import failures
from storage.dataset import Dataset
from storage.duplicates import digest_of_duplicates, read_duplicates
from storage.errors import BadInput
from storage.failures import Progress, Tally, TooFewPairs, likely, tally
from storage.listing import Scan, read_attempts, scan, write_ledger
from storage.pairs import read_captions, read_failures, read_images
from storage.sources import SourceError
from storage.sources.registry import open_source
from storage.sources.section import rules_of, source_of
from storage.sources.urls import Urls, UrlsSection
from tasks.acquire import distinct, duplicates, fetch, image_check
from tasks.stage import Runtime


class Acquired:
    """A list of URLs and a store. `run` executes the steps of the stage acquire as the flow does."""

    def __init__(self, folder: Path) -> None:
        self.list, self.store = folder / "list.jsonl", folder / "store"
        self.store.mkdir()
        self.runtime = Runtime(store=self.store)

    def write(self, *rows: dict[str, Any]) -> None:
        self.list.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, **keys: Any) -> tuple[Scan, list[Dataset]]:
        common = {"shard_size": 4, "allow_private_addresses": True, "timeout": 10, "tries": 1, "retry_after": 0}
        pairs = UrlsSection(source="urls", path=str(self.list), **{**common, **keys})
        source, rules = source_of(pairs), rules_of(pairs)
        scanned = scan(self.store, open_source(source, self.store), pairs.shard_size)
        shards: list[Dataset] = []
        progress = Progress()

        def fetched(shard: int, listing: Dataset) -> None:
            moved = failures.moved(self.store, scanned.source, shard, scanned.moved.get(shard, []))
            options = {"progress": progress, "moved": moved, "min_success": pairs.min_success}
            shards.append(fetch.make(self.runtime, listing=listing, source=source, rules=rules, **options))
            progress.add(self.store, shards[-1])

        for shard, listing in enumerate(scanned.listings):
            fetched(shard, listing)
        again = failures.retry(
            self.store, open_source(source, self.store), scanned.source, scanned.listings, shards,
            image_check(rules["max_pixels"]), retry_after=pairs.retry_after, most=100,
        )  # fmt: skip
        if again is not None:
            fetched(len(scanned.listings), again)
        if pairs.duplicates == "drop":
            table = duplicates.make(self.runtime, pairs=shards)
            found = read_duplicates(self.store, table)
            shards = [
                distinct.make(self.runtime, pairs=shard, dropped=digest_of_duplicates(found.get(shard.digest, {})),
                              table=table)
                for shard in shards
            ]  # fmt: skip
        tally(self.store, shards).check(pairs.min_success)
        return scanned, shards

    def images(self, shards: list[Dataset]) -> pl.DataFrame:
        return pl.concat([read_images(self.store, shard) for shard in shards])


@pytest.fixture
def acquired(tmp_path: Path) -> Acquired:
    return Acquired(tmp_path)


def key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:24]


def row(url: str, caption: str = "a thing", **more: str) -> dict[str, str]:
    return {"url": url, "caption": caption, **more}


def serve(web: Web, count: int) -> list[dict[str, str]]:
    return [row(web.serve(f"/{n}.jpg", picture((n, n, n))), f"number {n}") for n in range(count)]


def test_lists_as_img2dataset_takes_them(tmp_path: Path) -> None:
    digest = "A" * 64
    pl.DataFrame(
        {
            "URL": ["http://a/1", "http://a/2", "http://a/1", "", "http://a/3"],
            "TEXT": ["one", "two", "uno", "x", ""],
            "sha256": [digest, "nonsense", None, None, None],
        }
    ).write_parquet(tmp_path / "list.parquet")
    listing = Urls(tmp_path / "list.parquet", tmp_path, identity={}).list()
    assert {i.source_key: [c.text for c in i.captions] for i in listing.items} == {
        key("http://a/1"): ["one", "uno"],
        key("http://a/2"): ["two"],
    }
    assert {json.loads(i.locator)[0]: json.loads(i.locator)[1] for i in listing.items} == {
        "http://a/1": digest.lower(),
        "http://a/2": "",
    }
    assert Counter(d.cause for d in listing.dropped) == {"no URL": 1, "no caption": 1, "caption is empty": 1}


def test_a_folder_of_lists_is_one_list(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('url,caption\nhttp://a/1,"one, two"\n')
    (tmp_path / "b.tsv").write_text("url\tcaption\nhttp://a/2\tthree\n")
    items = Urls(tmp_path, tmp_path, identity={}).list().items
    assert {c.text for item in items for c in item.captions} == {"one, two", "three"}


def test_columns_are_found_in_each_file_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("url,caption,group,tags\nhttp://a/1,one,g,x\n")
    (tmp_path / "b.csv").write_text("TEXT,URL,group_key\ntwo,http://a/2,h\n")
    (tmp_path / "c.jsonl").write_text('{"image_url": "http://a/3", "title": "three"}\n')
    listing = Urls(tmp_path, tmp_path, identity={}, labels=["tags"]).list()
    assert {(json.loads(i.locator)[0], i.group_key, *(c.text for c in i.captions)) for i in listing.items} == {
        ("http://a/1", "g", "one"),
        ("http://a/2", "h", "two"),
        ("http://a/3", "", "three"),
    }
    assert (listing.labels, listing.dropped) == ([(key("http://a/1"), "tags", "x")], [])
    for named, says in (
        (
            {"url_column": "url"},
            r"b\.csv: there is no column 'url'; set pairs\.url_column to one of TEXT, URL, group_key",
        ),
        ({"group_column": "group"}, r"b\.csv: there is no column 'group'"),
        ({"labels": ["none"]}, r"a\.csv: there is no column 'none'"),
        ({"splits": ["train"]}, r"a\.csv: there is no column 'split'"),
    ):
        with pytest.raises(BadInput, match=says):
            Urls(tmp_path, tmp_path, identity={}, **named).list()  # type: ignore[arg-type]
    (tmp_path / "b.csv").write_text("link,text\nhttp://a/2,two\n")
    with pytest.raises(BadInput, match=r"b\.csv: there is no column named url, URL, image_url; .*one of link, text"):
        Urls(tmp_path, tmp_path, identity={}).list()


def test_a_list_without_a_header_line_and_with_labels(tmp_path: Path) -> None:
    file = tmp_path / "cc3m.tsv"
    file.write_text('a "bus" station\thttp://a/1\tx\nyoung girl\t\ty\nyoung girl\thttp://a/2\n')
    with pytest.raises(BadInput, match=r"no header line.*pairs.header = false"):
        Urls(file, tmp_path, identity={}).list()
    options = {"url_column": 2, "caption_column": "1", "labels": "3", "header": False}
    section = UrlsSection.model_validate({"source": "urls", "path": str(file), **options})
    listing = open_source(source_of(section), tmp_path).list()
    assert {c.text for item in listing.items for c in item.captions} == {'a "bus" station', "young girl"}
    assert listing.labels == [(key("http://a/1"), "3", "x")]
    assert listing.dropped == [("cc3m.tsv: line 2", "no URL", "")]


def test_lists_of_two_kinds_are_one_list(tmp_path: Path) -> None:
    pl.DataFrame({"url": ["http://a/1"], "caption": ["one"]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"url": ["http://a/1"], "caption": [["two", "zwei"]]}).write_parquet(tmp_path / "b.parquet")
    (item,) = Urls(tmp_path, tmp_path, identity={}).list().items
    assert [c.text for c in item.captions] == ["one", "two", "zwei"]


@pytest.mark.parametrize("separator", ["ab", "a", '"', "\n", "é", ""])
def test_a_separator_is_one_sign(separator: str) -> None:
    with pytest.raises(ValidationError, match="one ASCII character other than a letter"):
        UrlsSection(source="urls", path="x", separator=separator)
    assert UrlsSection(source="urls", path="x", separator="\\t").separator == "\t"


def test_every_failure_is_counted_by_its_cause(web: Web, acquired: Acquired) -> None:
    good = serve(web, 12)
    web.routes["/short"] = lambda h: h.short(picture("red"))
    web.routes["/slow"] = lambda h: h.drip(8)
    bad = {
        web.refuse("/404", 404): "HTTP 404",
        web.refuse("/410", 410): "HTTP 410",
        web.refuse("/429", 429): "HTTP 429",
        web.refuse("/500", 500): "HTTP 500",
        web.refuse("/file", 302, Location="file:///etc/hostname"): "redirect to another scheme",
        web.serve("/page", b"<html>sign in</html>"): "not an image",
        web.serve("/empty", b""): "empty file",
        web.serve("/torn", picture("blue", size=(200, 200))[:-60]): "corrupt image",
        web.serve("/noai", picture("blue"), X_Robots_Tag="noai"): "X-Robots-Tag",
        web("/short"): "cut short",
        web("/slow"): "timeout",
        "file:///etc/hostname": "bad URL",
    }
    wrong = row(web.serve("/wrong", picture("green")), sha256="0" * 64)
    acquired.write(*good, *(row(url) for url in bad), wrong)
    scanned, shards = acquired.run(shard_size=100, timeout=3, min_success=0.48)
    counted = tally(acquired.store, shards)
    assert counted.causes == Counter(bad.values()) + Counter({"wrong hash": 1})
    assert (counted.images, counted.images - counted.causes.total()) == (25, 12)
    failures = read_failures(acquired.store, shards)
    assert dict(zip(failures["source_key"], failures["cause"], strict=True)) == {
        **{key(url): cause for url, cause in bad.items()},
        key(wrong["url"]): "wrong hash",
    }
    ledger = write_ledger(acquired.store, scanned.dropped, failures)
    assert ledger.rows == 13
    assert counted.told().startswith("12 of 25 images acquired (48.0%); 1 ")
    # The store keeps the rows and captions of failed items, but not their partial downloads.
    assert acquired.images(shards).height == 25
    assert read_captions(acquired.store, shards[0]).height == 25
    assert not [path for path in (acquired.store / "downloads").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_url_with_half_a_character_fails_alone(web: Web, acquired: Acquired) -> None:
    bad = [row("http://\udfff.invalid/b.jpg"), row(web("/\ud83d.jpg"))]
    acquired.write(*serve(web, 5), *bad)  # json.dumps writes each surrogate as an escape, which JSON allows
    scanned, shards = acquired.run(shard_size=100)
    failures = read_failures(acquired.store, shards)
    assert acquired.images(shards)["error"].null_count() == 5
    assert sorted(failures["cause"]) == ["HTTP 404", "bad URL"]
    assert all(detail.count("\ufffd") == 1 for detail in failures["detail"])
    assert write_ledger(acquired.store, scanned.dropped, failures).rows == 2


def test_ids_and_bytes_stay_together_whatever_fails_around_them(web: Web, acquired: Acquired) -> None:
    rows = serve(web, 12)
    for n in (0, 5, 11):
        web.refuse(f"/{n}.jpg", 404)
    acquired.write(*rows)
    _, shards = acquired.run(min_success=0.0)  # keys depend on the port, so one shard may hold all three failures
    images = acquired.images(shards)
    captions = pl.concat([read_captions(acquired.store, shard) for shard in shards])
    joined = images.join(captions, on="image_id")
    assert joined.height == 12
    for image, caption, error in joined.select("image", "caption", "error").iter_rows():
        n = int(caption.removeprefix("number "))
        assert (image, error) == ((None, "HTTP 404") if n in (0, 5, 11) else (picture((n, n, n)), None))


def test_a_failed_item_that_succeeds_later_is_stored_in_a_new_shard(web: Web, acquired: Acquired) -> None:
    rows = serve(web, 8)
    web.refuse("/2.jpg", 503)
    acquired.write(*rows)
    _, first = acquired.run()
    failed = key(rows[2]["url"])
    assert read_failures(acquired.store, first)["source_key"].to_list() == [failed]

    _, same = acquired.run()  # the item is retried and fails again
    assert same == first
    web.serve("/2.jpg", picture((2, 2, 2)))
    _, third = acquired.run()
    assert third[:2] == first
    assert len(third) == 3
    new = read_images(acquired.store, third[2])
    assert new.select("image_id", "source_key", "error", "image").rows() == [
        (2 << 20, failed, None, picture((2, 2, 2)))
    ]
    assert read_captions(acquired.store, third[2])["caption"].to_list() == ["number 2"]
    old = acquired.images(first).filter(pl.col("source_key") == failed)
    assert old.select("error", "image").rows() == [("HTTP 503", None)]  # the old shard keeps the row, id and cause
    counted = tally(acquired.store, third)
    assert (counted.images, counted.causes) == (8, Counter())
    assert acquired.run()[1] == third  # another run changes nothing


def test_a_shard_made_again_leaves_out_what_moved_on(web: Web, acquired: Acquired) -> None:
    import shutil

    rows = serve(web, 4)
    web.refuse("/2.jpg", 503)
    acquired.write(*rows)
    acquired.run()
    web.serve("/2.jpg", picture((2, 2, 2)))
    _, shards = acquired.run()
    assert len(shards) == 2
    shutil.rmtree(acquired.store / shards[0].path)
    _, again = acquired.run()
    assert again == shards  # equal bytes, although the server now has the item that failed in the old shard
    assert acquired.images(again).filter(pl.col("error").is_null())["source_key"].is_unique().all()


def test_an_item_is_tried_three_times_in_all(web: Web, acquired: Acquired) -> None:
    rows = serve(web, 4)
    web.refuse("/1.jpg", 500)
    acquired.write(*rows)
    for _ in range(5):
        scanned, shards = acquired.run()
    assert web.counts()["/1.jpg"] == 3
    assert len(shards) == 1
    assert read_attempts(acquired.store, scanned.source)[key(rows[1]["url"])].tries == 3


def test_a_cause_that_became_permanent_ends_the_tries(web: Web, acquired: Acquired) -> None:
    rows = serve(web, 4)
    web.in_turn("/1.jpg", lambda h: h.answer(503, b""), lambda h: h.answer(404, b""))
    acquired.write(*rows)
    for _ in range(4):
        acquired.run()
    assert web.counts()["/1.jpg"] == 2


def test_permanent_failures_are_never_tried_again(web: Web, acquired: Acquired) -> None:
    rows = serve(web, 4)
    web.refuse("/1.jpg", 404)
    acquired.write(*rows)
    scanned, first = acquired.run()
    web.serve("/1.jpg", picture("red"))
    assert acquired.run()[1] == first
    assert web.counts()["/1.jpg"] == 1
    assert read_attempts(acquired.store, scanned.source) == {}


def test_the_pause_before_a_try_doubles(web: Web, acquired: Acquired, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(failures.time, "time", lambda: now)
    rows = serve(web, 4)
    web.refuse("/1.jpg", 500)
    acquired.write(*rows)
    asked = []
    for now in (1_000_000.0, 1_000_599.0, 1_000_600.0, 1_001_799.0, 1_001_800.0, 9_000_000.0):  # noqa: B007
        acquired.run(retry_after=600)
        asked.append(web.counts()["/1.jpg"])
    # The first try fails at 0 s. The second try is due at 600 s, the third at 1,800 s. There is no fourth try.
    assert asked == [1, 1, 2, 2, 3, 3]


def test_too_few_stop_with_the_likely_cause_and_what_came_is_not_asked_for_again(web: Web, acquired: Acquired) -> None:
    rows = serve(web, 4)
    for n in (0, 1, 2):
        web.refuse(f"/{n}.jpg", 503)
    acquired.write(*rows)
    with pytest.raises(
        TooFewPairs, match=r"1 of 4 images .* pairs.min_success = 0.5. Most likely the server is broken"
    ):
        acquired.run()
    for n in (0, 1, 2):
        web.serve(f"/{n}.jpg", picture((n, n, n)))
    _, shards = acquired.run()
    assert tally(acquired.store, shards).causes == Counter()
    assert len(shards) == 1  # the first run made no shard, so its failures need no second shard
    assert web.counts()["/3.jpg"] == 1


def test_a_few_dead_links_in_a_grown_list_do_not_stop_it(web: Web, acquired: Acquired) -> None:
    rows = serve(web, 8)
    acquired.write(*rows)
    acquired.run()
    acquired.write(*rows, row(web("/dead1")), row(web("/dead2")))
    _, shards = acquired.run()
    assert tally(acquired.store, shards).causes == {"HTTP 404": 2}


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        ("DNS failure", "names do not resolve"),
        ("timeout", "too slowly"),
        ("HTTP 404", "the list is old"),
        ("HTTP 503", "broken or busy"),
        ("private address", "allow_private_addresses"),
        ("something new", "something new"),
    ],
)
def test_the_likely_cause_is_that_of_most_failures(cause: str, says: str) -> None:
    assert says in likely(Counter({cause: 5, "HTTP 410": 2, "duplicate": 9}))


def test_success_is_counted_exactly() -> None:
    # Of 100 images 45 failed. The 10 duplicates were fetched before they were dropped, so 55 images count as a success.
    counted = Tally(100, Counter({"HTTP 404": 45, "duplicate": 10}), 10, 0)
    counted.check(0.55)
    with pytest.raises(TooFewPairs):
        counted.check(0.56)


def test_growth_makes_new_shards_and_removed_and_changed_pairs_touch_only_theirs(web: Web, acquired: Acquired) -> None:
    rows = sorted(serve(web, 12), key=lambda one: key(one["url"]))
    acquired.write(*rows[:8])
    _, first = acquired.run()
    asked = web.counts().total()
    acquired.write(*rows)
    _, grown = acquired.run()
    assert grown[:2] == first
    assert len(grown) == 3
    assert web.counts().total() - asked == 4  # only the new images are fetched
    changed = {**rows[1], "caption": "other words"}
    acquired.write(rows[0], changed, *rows[2:6], *rows[7:])  # one image changed in shard 0, one removed in shard 1
    _, third = acquired.run()
    assert third[2] == grown[2]
    assert {third[n] != grown[n] for n in (0, 1)} == {True}
    kept = acquired.images(third)
    assert kept["source_key"].to_list() == [key(one["url"]) for one in (*rows[:6], *rows[7:])]
    before = acquired.images(grown)
    ids = dict(zip(before["source_key"], before["image_id"], strict=True))
    assert all(ids[name] == number for name, number in kept.select("source_key", "image_id").iter_rows())


def test_duplicates_are_counted_kept_or_dropped_and_lie_on_one_side(web: Web, acquired: Acquired) -> None:
    rows = serve(web, 6)
    rows += [row(web.serve(f"/copy{n}.jpg", picture((1, 1, 1)))) for n in range(3)]
    acquired.write(*rows)
    _, kept = acquired.run(duplicates="keep")
    counted = tally(acquired.store, kept)
    assert (counted.images, counted.duplicates, counted.causes, counted.torn) == (9, 3, Counter(), 0)
    assert "3 are copies of another image" in counted.told()
    same = acquired.images(kept).filter(pl.col("sha256") == hashlib.sha256(picture((1, 1, 1))).hexdigest())
    assert (same.height, same["split_u"].n_unique()) == (4, 1)

    _, dropped = acquired.run(duplicates="drop")
    counted = tally(acquired.store, dropped)
    assert (counted.causes, counted.duplicates, counted.failed) == (Counter({"duplicate": 3}), 3, 0)
    images = acquired.images(dropped)
    assert images["image_id"].to_list() == acquired.images(kept)["image_id"].to_list()
    assert images.filter(pl.col("error").is_null())["sha256"].is_unique().all()
    assert images.filter(pl.col("error") == "duplicate")["image"].null_count() == 3


def test_a_duplicate_comes_back_when_the_first_of_its_bytes_is_removed_and_the_rule_fetches_nothing(
    web: Web, acquired: Acquired
) -> None:
    rows = sorted([*serve(web, 8), *(row(web.serve(f"/{n}.png", picture("teal"))) for n in range(4))],
                  key=lambda one: key(one["url"]))  # fmt: skip
    acquired.write(*rows)
    acquired.run(duplicates="keep")
    asked = web.counts().total()
    _, dropped = acquired.run(duplicates="drop")
    assert web.counts().total() == asked
    images = acquired.images(dropped)
    twins = images.filter(pl.col("sha256") == hashlib.sha256(picture("teal")).hexdigest())
    assert twins["error"].to_list() == [None, *["duplicate"] * 3]
    original = twins["source_key"][0]
    assert set(twins["error_detail"][1:]) == {f"same bytes as {original}"}

    acquired.write(*(one for one in rows if key(one["url"]) != original))
    _, later = acquired.run(duplicates="drop")
    left = acquired.images(later).filter(pl.col("sha256") == twins["sha256"][0])
    assert left["error"].to_list() == [None, "duplicate", "duplicate"]
    assert left["source_key"].to_list() == twins["source_key"].to_list()[1:]
    assert left["image"][0] == picture("teal")
    counted = tally(acquired.store, later)
    assert (counted.images, counted.causes, counted.duplicates) == (11, Counter({"duplicate": 2}), 2)


def test_every_shard_is_read_once_for_the_counts_of_a_run(web: Web, acquired: Acquired) -> None:
    acquired.write(*serve(web, 8), row(web.refuse("/gone.png", 404)))
    _, shards = acquired.run()
    progress = Progress()
    for shard in shards[:-1]:
        progress.check(acquired.store, shard, 0.5)
        progress.add(acquired.store, shard)
    with pytest.raises(TooFewPairs, match="8 of 9 images"):
        progress.check(acquired.store, shards[-1], 0.99)
    assert (progress.acquired, len(progress.failed)) != (8, 1)  # `check` adds nothing to the counts
    progress.add(acquired.store, shards[-1])
    assert (progress.acquired, Counter(progress.failed.values())) == (8, tally(acquired.store, shards).causes)


def test_changed_rules_fetch_again_and_keep_ids(web: Web, acquired: Acquired) -> None:
    rows = serve(web, 4)
    acquired.write(*rows, row(web.serve("/noai", picture("red"), X_Robots_Tag="noai")))
    _, first = acquired.run(shard_size=8)
    _, second = acquired.run(shard_size=8, respect_noai=False)
    assert (first[0].rows, second[0].rows) == (4, 5)
    assert acquired.images(first)["image_id"].equals(acquired.images(second)["image_id"])


def test_private_addresses_need_the_study_s_leave(web: Web, acquired: Acquired) -> None:
    acquired.write(*serve(web, 4))
    with pytest.raises(TooFewPairs, match="allow_private_addresses = true lets them in"):
        acquired.run(allow_private_addresses=False)
    assert web.asked == []


def test_reading_reports_bodies_as_they_arrive(web: Web, tmp_path: Path) -> None:
    pl.DataFrame(serve(web, 6)).write_csv(tmp_path / "list.csv")
    section = UrlsSection(source="urls", path=str(tmp_path / "list.csv"), allow_private_addresses=True)
    source = open_source(source_of(section), tmp_path)
    locators = [item.locator for item in source.list().items]
    early: dict[int, bytes] = {}
    bodies = list(source.read(locators, lambda place, data: early.update({place: data()})))
    assert [early[place] for place in range(6)] == bodies
    assert not [one for one in bodies if isinstance(one, SourceError)]
    asked = web.counts().total()
    assert list(source.read(locators)) == bodies  # no URL is fetched twice
    assert web.counts().total() == asked
    source.release(locators)
    assert not [path for path in (tmp_path / "downloads").rglob("*") if path.is_file() and path.suffix != ".lock"]

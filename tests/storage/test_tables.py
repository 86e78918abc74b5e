"""Tables of captions: what was written comes out on its own row, and a fault of a line costs at most this line."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.sources.captions import EMPTY, NO_TEXT, texts_of
from storage.sources.delimited import Body, Form, Parsed, _records, _strict, _tolerant, lossy, parse, separator_of, utf8
from storage.sources.labels import group_of, label_texts
from storage.sources.rows import Row, Rows, add_row
from storage.sources.tables import column, read_table
from storage.sources.urls import Urls

fast = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIECES = ['"', '""', ",", "\t", "\n", "\r\n", "a", "b c", " ", "é", "😀", ";", "|", "\\", "'", "\u2028", "[", "{"]
texts = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


def rows_in(parsed: Parsed | None) -> list[tuple[Any, ...]]:
    assert parsed is not None
    return list(zip(*(list(values) for values in parsed.columns.values()), strict=True))


def read(tmp_path: Path, name: str, content: bytes | str, form: Form = Form()) -> list[tuple[Any, ...]]:  # noqa: B008
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read_table(file, form)
    return list(zip(*(table[column] for column in table.columns), strict=True))


def counted(tmp_path: Path, name: str, content: str) -> list[tuple[str, str]]:
    (tmp_path / name).write_text(content)
    return [(one.source_key, one.cause) for one in read_table(tmp_path / name).left_out()]


# CSV and TSV


@fast
@given(
    captions=st.lists(texts, min_size=1, max_size=6),
    delimiter=st.sampled_from([",", ";", "|", "\t"]),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    mark=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_the_csv_module_writes_comes_out(
    captions: list[str], delimiter: str, end: str, quoting: Any, mark: str
) -> None:
    """Also with tabs, where quotes of CSV are told from quotes that are text."""
    held = io.StringIO(newline="")
    writer = csv.writer(held, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["file_name", "caption"])
    writer.writerows([f"{n}.png", caption] for n, caption in enumerate(captions))
    data = utf8(held.getvalue().encode(mark))
    found = rows_in(parse(data, Form(), separator_of(data, delimiter)))
    assert [(name, caption or "") for name, caption in found] == [(f"{n}.png", c) for n, c in enumerate(captions)]


lines = st.lists(
    st.lists(st.sampled_from([*PIECES, "1.png", "2.png", "http://a/b"]), max_size=8).map("".join),
    min_size=1,
    max_size=6,
).map("\n".join)


@settings(max_examples=600, deadline=None)
@given(text=lines, separator=st.sampled_from([",", "\t"]), quoted=st.booleans())
def test_both_parsers_agree_on_what_the_strict_one_takes(text: str, separator: str, quoted: bool) -> None:
    text = text.strip("\r\n")
    first = next(_records(text, separator, quoted, None), None)
    if first is None:
        return
    names = [str(number) for number in range(len(first[1]))]
    read = _strict(Body(text.encode(), None, 0, 0), separator, quoted, names)
    if read is not None:
        assert read[0].rows() == rows_in(_tolerant(text, separator, quoted, names, 0))


@fast
@given(text=lines)
def test_without_quoting_every_line_is_a_row_or_counted(text: str) -> None:
    parsed = parse(utf8(("file_name\tcaption\n" + text).encode()), Form(quoting="none"), "\t")
    assert parsed is not None
    kept = text.rstrip("\r\n")
    there = kept.count("\n") + 1 if kept else 0
    assert parsed.rows + len(parsed.left_out) == there
    assert sorted([*parsed.numbers, *(number for number, _, _ in parsed.left_out)]) == list(range(2, there + 2))


@pytest.mark.parametrize("name", ["t.tsv", "t.csv"])
@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        (["0.png|red", '1.png|"to be', '2.png|or not to be"', "3.png|x"], ["red", '"to be', 'or not to be"', "x"]),
        (["0.png|red", '1.png|a 5" screen', "2.png|a dog"], ["red", 'a 5" screen', "a dog"]),
        (['0.png|a 5" by 7" print', '1.png|"big" screen', '2.png|12"'], ['a 5" by 7" print', '"big" screen', '12"']),
        (['0.png|"never closed', "1.png|b", "2.png|c"], ['"never closed', "b", "c"]),
        (['0.png|"', "1.png|b", '2.png|"'], ['"', "b", '"']),
    ],
)
def test_a_stray_quote_is_text(name: str, lines: list[str], rows: list[str], tmp_path: Path) -> None:
    sign = "\t" if name == "t.tsv" else ","
    content = "\n".join(["file_name|caption", *lines]).replace("|", sign)
    assert read(tmp_path, name, content) == [(f"{n}.png", caption) for n, caption in enumerate(rows)]


@pytest.mark.parametrize(
    ("lines", "kept", "wide"),
    [
        (["f,c", '1.png,"to be, said he', "2.png,a cat", '3.png,or not to be"', "4.png,x"], [3, 4, 5], [2]),
        (["f,c", '1.png,"to be', "2.png,a cat, a dog", '3.png,or not to be"', "4.png,x"], [2, 4, 5], [3]),
        (["f,c", '1.png,"to be', "2.png,a, b, c", '3.png,or not, so"', "4.png,x"], [2, 5], [3, 4]),
        (["f,c", '1.png,"to be', '2.png,"a cat, a dog"', '3.png,or not"', "4.png,x"], [2, 3, 4, 5], []),
        (["f,c", '1.png,"to ""be"", he', "2.png,a cat", '3.png,or not"'], [3, 4], [2]),
        (["c,f", '"to be, he,1.png', "a cat,2.png", 'or not to be",3.png', "x,4.png"], [3, 4, 5], [2]),
        (["g,f,c", '7,1.png,"to be, he', "8,2.png,a cat", '7,3.png,or not"', "8,4.png,x"], [3, 4, 5], [2]),
        (["c,f,g", '"to be, he,1.png,7', "a cat,2.png,8", 'or not",3.png,7', "x,4.png,8"], [3, 4, 5], [2]),
        (["url,c", 'https://a/1,"to be, said', "https://a/2,a cat", 'https://a/3,or not"'], [3, 4], [2]),
        (["f,c", '1,"to be', "2,x", '3,or not to be"', "4,x"], [2, 3, 4, 5], []),
        (["c,f", '"to be, he,img_1', "x,img_2", 'or not to be",img_3'], [3, 4], [2]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("more", ["", '5.png,a 5" screen'])
def test_a_stray_quote_beside_separators_joins_no_rows(
    lines: list[str], kept: list[int], wide: list[int], end: str, more: str, tmp_path: Path
) -> None:
    """By both parsers: `more` has a fault, which polars refuses."""
    (tmp_path / "t.csv").write_bytes(end.join([*lines, more]).encode())
    table = read_table(tmp_path / "t.csv")
    places = [f"t.csv: line {number}" for number in [*kept, *([len(lines) + 1] if more else [])]]
    assert [table.place(row) for row in range(table.height)] == places
    assert [one.source_key for one in table.left_out()] == [f"t.csv: line {number}" for number in wide]


def test_a_tsv_has_no_quoting_unless_its_quotes_are_csv_s(tmp_path: Path) -> None:
    assert read(tmp_path, "a.tsv", 'f\tc\n0\t"hello"\n1\t""\n') == [("0", '"hello"'), ("1", '""')]
    assert read(tmp_path, "b.tsv", 'f\tc\n0\t"say ""hi"""\n1\tx\n') == [("0", 'say "hi"'), ("1", "x")]
    assert read(tmp_path, "c.tsv", 'f\tc\n0\t"say ""hi"""\n1\t5" x\n') == [("0", '"say ""hi"""'), ("1", '5" x')]
    assert read(tmp_path, "d.tsv", 'f\tc\n0\t"two\nlines"\n') == [("0", "two\nlines")]
    form = Form(quoting="none")
    assert read(tmp_path, "e.tsv", 'f\tc\n0\t"say ""hi"""\n', form) == [("0", '"say ""hi"""')]
    assert read(tmp_path, "f.tsv", 'f\tc\n0\t"hello"\n', Form(quoting="csv")) == [("0", "hello")]


def test_a_line_with_too_many_fields_costs_itself(tmp_path: Path) -> None:
    content = 'file_name,caption\n0.png,a\n1.png,b, c\n2.png,"d, e"\n3.png\n4.png,f,,\n'
    assert read(tmp_path, "t.csv", content) == [("0.png", "a"), ("2.png", "d, e"), ("3.png", None), ("4.png", "f")]
    assert counted(tmp_path, "t.csv", content) == [("t.csv: line 3", "line has more fields than columns")]
    assert read_table(tmp_path / "t.csv").place(1) == "t.csv: line 4"


def test_a_field_with_line_ends_keeps_them(tmp_path: Path) -> None:
    content = 'file_name,caption\n0.png,"first, 1.png\nsecond, by me"\n1.png,x\n'
    assert read(tmp_path, "t.csv", content) == [("0.png", "first, 1.png\nsecond, by me"), ("1.png", "x")]


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("0.png", "Look, a dog.\nIt is brown, and small,\nand runs, 1.png"),
        ("0.png", "one, 1.png\ntwo, 2.png\nthree, 3.png"),
        ("https://a/1", "A dog, see http://b/2\na cat, see http://b/3, or so"),
        ("17", "A dog, brown.\nSecond, by me, 5\n3 cats, and 2 dogs, 4"),
        ("17", 'He said, ""no"",\n""2"", he meant'),
        ("dog", "roses, red\nviolets,blue"),
    ],
)
@pytest.mark.parametrize("more", ["", '5.png,a 5" screen\n'])
def test_a_field_with_line_ends_and_separators_is_one(name: str, caption: str, more: str, tmp_path: Path) -> None:
    text = caption.replace('""', '"')
    found = read(tmp_path, "t.csv", f'file_name,caption\n{name},"{caption}"\n1.png,x\n{more}')
    assert found[:2] == [(name, text), ("1.png", "x")]
    found = read(tmp_path, "u.csv", f'caption,file_name\n"{caption.replace(".png", "")}",{name}\nx,1.png\n')
    if "http" not in caption:
        assert found == [(text.replace(".png", ""), name), ("x", "1.png")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding: str, end: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    content = (mark + end.join(["file_name,caption", "0.png,é😀", "1.png,b", ""])).encode(encoding)
    assert read(tmp_path, "t.csv", content) == [("0.png", "é😀"), ("1.png", "b")]


def test_bytes_that_are_not_utf_8_become_replacement_signs(tmp_path: Path) -> None:
    assert read(tmp_path, "t.csv", b"f,c\n0,caf\xe9\n1,na\xc3\xafve\n") == [("0", "caf\ufffd"), ("1", "naïve")]
    assert read(tmp_path, "t.tsv", b'f\tc\n0\tcaf\xe9\n1\t"x\n') == [("0", "caf\ufffd"), ("1", '"x')]
    assert read(tmp_path, "t.jsonl", b'{"f": "caf\xe9"}\n') == [("caf\ufffd",)]
    assert lossy("é\ufffd".encode() + b"\xff") == "é\ufffd\ufffd".encode()


def test_without_a_header_line_columns_are_numbered_from_one(tmp_path: Path) -> None:
    content = "a bus station\thttp://a/1\nsierra\thttp://a/2\n"
    file = tmp_path / "Train.tsv"
    file.write_text(content)
    with pytest.raises(BadInput, match=r'no header line.*a bus station.*pairs.header = false.*column "2" holds URLs'):
        column(read_table(file), None, ["url"], "url_column")
    table = read_table(file, Form(header=False))
    assert (table.columns, table["1"], table["2"]) == (
        ["1", "2"], ["a bus station", "sierra"], ["http://a/1", "http://a/2"],
    )  # fmt: skip
    assert table.place(0) == "Train.tsv: line 1"


def test_separators(tmp_path: Path) -> None:
    flickr = 'image_name| comment_number| comment\n1.jpg| 0| Two dogs , one "big" .\n2.jpg| 4   A dog runs .\n'
    file = tmp_path / "results.csv"
    file.write_text(flickr)
    table = read_table(file)
    assert table.columns == ["image_name", "comment_number", "comment"]
    assert table["comment"] == [' Two dogs , one "big" .', None]
    assert column(table, None, ["image_name"], "image_column") == ["image_name"]
    assert column(table, " comment", [], "caption_column") == ["comment"]
    assert read(tmp_path, "german.csv", 'f;c\n0;"a; b"\n') == [("0", "a; b")]
    assert read(tmp_path, "odd.csv", "f,x~c\n0~b\n", Form(separator="~")) == [("0", "b")]


def test_lines_without_content_at_the_ends_are_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "t.csv", "\n\r\nf,c\n0,a\n\n\r\n\n") == [("0", "a")]
    assert read_table(tmp_path / "t.csv").place(0) == "t.csv: line 4"
    with pytest.raises(BadInput, match="it is empty"):
        read(tmp_path, "t.csv", "\n\n")
    assert read(tmp_path, "t.csv", "f,c\n") == []


def test_names_of_columns_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"é f", c ,c,,\n0,1,2,3,4\n')
    assert read_table(tmp_path / "t.csv").columns == ["é f", "c", "c_duplicated_0", "", "_duplicated_0"]


# JSON

leaves = st.one_of(
    texts, st.none(), st.integers(-3, 3), st.just(2**70), st.floats(allow_nan=False), st.booleans(),
    st.sampled_from(["2020-01-01", "2020-01-01T00:00:00", "\ud83d", "x\udce9", "1", "null"]),
)  # fmt: skip
values = st.one_of(
    leaves,
    st.lists(leaves, max_size=3),
    st.dictionaries(st.sampled_from(["raw", "en", "text"]), leaves, max_size=2),
    st.lists(st.dictionaries(st.sampled_from(["raw", "id"]), leaves, max_size=2), max_size=2),
)
one_kind = st.sampled_from([texts, st.lists(texts, max_size=3), st.integers(), st.floats(), st.just({"en": "x"})])
columns_of_values = st.one_of(
    st.lists(values, min_size=1, max_size=5),
    one_kind.flatmap(lambda kind: st.lists(st.one_of(kind, st.none()), min_size=1, max_size=5)),
)


def outcome(value: Any) -> tuple[list[str], list[str]]:
    found = texts_of(value)
    return found.texts, [cause for cause, _ in found.left_out]


@fast
@given(held=columns_of_values, ascii_only=st.booleans())
def test_values_of_json_lines_keep_their_kinds(tmp_path: Path, held: list[Any], ascii_only: bool) -> None:
    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    data = "".join(dump({"n": f"n{n}", "v": value}) + "\n" for n, value in enumerate(held))
    expected = [outcome(json.loads(dump(value).encode(errors="replace"))) for value in held]
    (tmp_path / "t.jsonl").write_bytes(data.encode(errors="replace"))
    table = read_table(tmp_path / "t.jsonl")
    assert table["n"] == [f"n{n}" for n in range(len(held))]
    assert [outcome(value) for value in table["v"]] == expected
    assert [table.place(row) for row in range(len(held))] == [f"t.jsonl: line {n + 1}" for n in range(len(held))]
    document = [{"n": f"n{n}", "v": value} for n, value in enumerate(held)]
    (tmp_path / "t.json").write_bytes(json.dumps(document).encode())
    assert [outcome(value) for value in read_table(tmp_path / "t.json")["v"]] == [outcome(value) for value in held]


def test_kinds_may_be_mixed(tmp_path: Path) -> None:
    rows = [["a red dog", "ein roter Hund"], ["a cat"], "a bird", {"en": "a fish"}, 42]
    content = "".join(json.dumps({"caption": value}) + "\n" for value in rows)
    assert [value for (value,) in read(tmp_path, "t.jsonl", content)] == rows


def test_a_broken_line_of_json_costs_itself(tmp_path: Path) -> None:
    content = '{"a": "x"}\n{"a": "y"\n\n[1]\n"z"\n{"a":\n "w"} {"a": "v"}\n'
    assert read(tmp_path, "t.jsonl", content) == [("x",), ("w",), ("v",)]
    assert counted(tmp_path, "t.jsonl", content) == [(f"t.jsonl: line {n}", "no JSON object") for n in (2, 4, 5)]
    assert read_table(tmp_path / "t.jsonl").place(1) == "t.jsonl: line 6"
    with pytest.raises(BadInput, match=r"cannot be read as jsonl: no row can be read"):
        read(tmp_path, "t.jsonl", "{'a': 1}\n")


def test_a_comma_behind_an_object_is_no_loss(tmp_path: Path) -> None:
    for name in ("t.jsonl", "t.json"):
        content = '{"a": "x"},\n{"a": "y"} ,\r\n\n{"a": "z"}, {"a": "w"}\n,{"a": "v"},\n'
        assert read(tmp_path, name, content) == [("x",), ("y",), ("z",), ("w",), ("v",)]
        assert counted(tmp_path, name, content) == []
        assert counted(tmp_path, name, content + ",\n") == [(f"{name}: line 6", "no JSON object")]
    with pytest.raises(BadInput, match="cannot be read as JSON"):
        read(tmp_path, "cut.json", '[{"a": "w"},\n{"a": "x"},\n{"a": "y"},\n{"a": "z"},\n{"a"')


def test_a_long_line_of_json_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sources.annotations.BLOCK", 64)
    content = "".join(json.dumps({"a": sign * 50 * n}) + "\n" for n, sign in enumerate("abcdef"))
    assert [len(value) for (value,) in read(tmp_path, "t.jsonl", content)] == [0, 50, 100, 150, 200, 250]


def test_arrays_and_karpathy_s_files(tmp_path: Path) -> None:
    assert read(tmp_path, "t.json", '[{"image": "0.png", "caption": "a"}, 7, {"image": "1.png"}]') == [
        ("0.png", "a"), ("1.png", None),
    ]  # fmt: skip
    assert counted(tmp_path, "u.json", '[{"image": "0.png"}, 7]') == [("u.json: entry 2", "no JSON object")]
    sentences = [{"raw": "A man.", "tokens": ["a", "man"], "sentid": 1}, {"raw": "Ein Mann."}, {"tokens": ["x"]}]
    image = {"filepath": "val2014", "filename": "COCO_1.jpg", "sentences": sentences, "split": "test", "cocoid": 1}
    flickr = {"filename": "2.jpg", "sentences": sentences[:1], "split": "train"}
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": [image, flickr], "dataset": "coco"}))
    table = read_table(tmp_path / "dataset_coco.json")
    assert table["file_name"] == ["val2014/COCO_1.jpg", "2.jpg"]
    assert [outcome(value) for value in table["caption"]] == [(["A man.", "Ein Mann."], [NO_TEXT]), (["A man."], [])]
    assert (table["split"], table["cocoid"]) == (["test", "train"], [1, None])
    assert read(tmp_path, "lines.json", '{"a": "x"}\n{"a": "y"}\n') == [("x",), ("y",)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"images": [{"id": 1}], "annotations": []}', 'pairs.source = "coco"'),
        ('{"info": 1, "data": []}', "keys 'info', 'data'.*known are"),
        ("[1, 2]", "an array of int 1"),
        ("3", "it is int 3"),
        ("{", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
    ],
)
def test_another_document_is_refused_with_what_was_seen(content: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says):
        read(tmp_path, "t.json", content)


def test_conversations_are_no_captions(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    file = tmp_path / "llava.json"
    file.write_text(json.dumps([{"id": "1", "image": "1.jpg", "conversations": turns}]))
    with pytest.raises(BadInput, match="Conversations are questions and answers"):
        column(read_table(file), None, ["caption"], "caption_column")


def test_tokens_of_flickr(tmp_path: Path) -> None:
    content = '1000.jpg#0\tA child "in pink" .\n1000.jpg#1\tA girl , "x\n2#3.jpg#0\t\n'
    rows = [("1000.jpg", 'A child "in pink" .'), ("1000.jpg", 'A girl , "x'), ("2#3.jpg", None)]
    assert read(tmp_path, "results_20130124.token", content) == rows
    assert read(tmp_path, "Flickr8k.token.txt", content) == rows
    assert read(tmp_path, "captions.txt", 'image,caption\n1.jpg,"A dog , running ."\n') == [
        ("1.jpg", "A dog , running .")
    ]


# Parquet, and tables of several files


@fast
@given(held=st.one_of(st.lists(st.one_of(texts, st.none())), st.lists(st.one_of(st.none(), st.lists(texts)))))
def test_values_of_parquet_come_out(tmp_path: Path, held: list[Any]) -> None:
    kind = pa.list_(pa.string()) if any(isinstance(value, list) for value in held) else pa.string()
    pq.write_table(pa.table({"v": pa.array(held, kind)}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["v"] == held


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array([b"a", None], pa.binary()),
        pa.array([None, None], pa.null()),
        pa.array([[("k", "v")], None], pa.map_(pa.string(), pa.string())),
        pa.array([{"bytes": None, "path": "x.jpg"}]),
        pa.array(["a"], pa.large_string()),
        pa.array([b"ab"], pa.binary(2)),
        pa.array([1, 2], pa.duration("s")),
    ],
    ids=lambda values: str(values.type),
)
def test_columns_of_other_kinds_hinder_no_table(values: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": ["x"] * len(values), "other": values}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert (table["caption"], len(table["other"])) == (["x"] * len(values), len(values))


def test_files_of_one_table_may_hold_other_columns_and_kinds(tmp_path: Path) -> None:
    pl.DataFrame({"url": ["http://a/1"], "caption": ["one"]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"caption": [["two", "zwei"]], "more": [1]}).write_parquet(tmp_path / "b.parquet")
    table = read_table(tmp_path)
    assert (table.columns, table.height) == (["url", "caption", "more"], 2)
    assert (table["url"], table["caption"], table["more"]) == (
        ["http://a/1", None], ["one", ["two", "zwei"]], [None, 1],
    )  # fmt: skip
    assert (table.place(0), table.place(1)) == ("a.parquet: row 1", "b.parquet: row 1")


# What becomes of the rows


def leaves_of(value: Any) -> int:
    found = texts_of(value)
    return len(found.texts) + len(found.left_out)


@fast
@given(rows=st.lists(st.tuples(st.sampled_from(["http://a/1", "http://a/2", "", None, 7]), values), min_size=1))
def test_captions_and_counted_values_are_the_values_of_the_rows(tmp_path: Path, rows: list[tuple[Any, Any]]) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"url": u, "caption": c}) + "\n" for u, c in rows))
    listing = Urls(tmp_path / "t.jsonl", tmp_path, identity={}).list()
    causes = Counter(one.cause for one in listing.dropped)
    there = [caption for url, caption in rows if isinstance(url, str) and url]
    captions = sum(len(item.captions) for item in listing.items)
    assert captions + causes[EMPTY] + causes[NO_TEXT] == sum(map(leaves_of, there))
    assert causes["no URL"] == len(rows) - len(there)
    urls = {url for url, _ in rows if isinstance(url, str) and url}
    assert len(listing.items) + causes["no caption"] == len(urls)


@settings(max_examples=300, deadline=None)
@given(value=st.one_of(st.text(), st.lists(st.sampled_from([*'[]"a ,', "\x1c", "\x85", "é"]), max_size=8).map("".join)))
def test_the_short_way_for_plain_texts_gives_what_the_long_one_does(value: str) -> None:
    assert texts_of(value) == texts_of([value])


def test_a_table_that_is_not_utf8_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_bytes("file_name,caption\n1.png,un café à Paris\n2.png,\n".encode("latin-1"))
    table = read_table(tmp_path / "t.csv")
    assert table["caption"] == ["un caf\ufffd \ufffd Paris", None]
    assert [one.message for one in caplog.records] == [
        f"{tmp_path / 't.csv'}: 2 places are not UTF-8 and are read as U+FFFD: save it as UTF-8"
    ]


def test_the_rows_of_an_item_name_one_group() -> None:
    rows: dict[str, Rows] = {}
    values = [("a", None), ("a", "g2"), ("b", "g2"), ("a", "g3"), ("a", ""), ("c", 1), ("c", 1.0), ("a", ["g2"])]
    told = [one for key, group in values for one in add_row(rows, key, Row(0, key, "text", group, ()), ())]
    assert {key: held.group for key, held in rows.items()} == {"a": "g2", "b": "g2", "c": "1"}
    assert told == [("a", "several groups", "g2 and g3"), ("a", "group is no text", "list ['g2']")]
    assert len(rows["a"].texts.texts) == 4  # not that of the row whose group is unknown


def test_groups_and_labels_are_exact() -> None:
    nan = float("nan")
    assert [group_of(value) for value in ("g", 5, 5.0, 5.5, None, nan, True)] == ["g", "5", "5", "5.5", "", "", "True"]
    assert [group_of(Decimal(value)) for value in ("5", "5.00", "5E2", "5.5")] == ["5", "5", "500", "5.5"]
    assert group_of(2.0**53) == "9007199254740992.0"  # 2^53 + 1 is the same float
    assert [group_of(value) for value in ({"a": 1}, ["g"], b"g")] == [None] * 3
    assert label_texts(["dog", 42, 42.0, 0.5, True, None, " "]) == [
        ("dog", ""), ("42", ""), ("42", ""), ("0.5", ""), ("true", ""),
    ]  # fmt: skip
    assert label_texts('["a", "b"]') == [("a", ""), ("b", "")]
    assert label_texts([[1], ("a", [True])]) == [("1", ""), ("a", ""), ("true", "")]
    wrong = [{"k": 1}, 1e20, float("inf")]
    assert [(text, bool(detail)) for text, detail in label_texts(wrong)] == [("", True)] * 3
    assert label_texts(nan) == []


@pytest.mark.parametrize(
    "line", ["null", " null", '{"image": "c.png", "caption": "c", "more": ' + "[" * 5000 + "]" * 5000 + "}"]
)
@pytest.mark.parametrize("first", [True, False])
def test_lines_of_json_at_which_pyarrow_would_end_the_process(line: str, first: bool, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    good = '{"image": "a.png", "caption": "a"}'
    path.write_text("\n".join([line, good] if first else [good, line]))
    table = read_table(path)
    assert table["caption"] == ["a"]
    assert [(one.source_key, one.cause) for one in table.left_out()] == [
        (f"c.jsonl: line {1 if first else 2}", "no JSON object")
    ]


def test_a_first_line_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("image,caption," + "x" * (1 << 20) + "\na.png,a\n")
    with pytest.raises(BadInput, match=r"c\.csv: its first line is longer than 1,048,576 bytes"):
        read_table(path)


def test_an_array_in_a_file_of_json_lines_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('[\n{"image": "a.png", "caption": "a"},\n{"image": "b.png", "caption": "b"}\n]\n')
    assert read_table(path)["caption"] == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ("['a dog', \"it's\"]", ["a dog", "it's"]),  # as pandas writes lists to CSV
        ("['a dog' 'a, cat'\n 'b\\'s']", ["a dog", "a, cat", "b's"]),  # as it writes arrays of numpy
        ("['a dog', 5]", ["['a dog', 5]"]),
        ("['a' or 'b']", ["['a' or 'b']"]),
        ("[a dog]", ["[a dog]"]),
        ("['\\xzz']", ["['\\xzz']"]),
    ],
)
def test_a_list_as_python_prints_it_is_a_list(value: str, held: list[str]) -> None:
    assert texts_of(value) == (held, [])

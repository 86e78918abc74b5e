"""`bridgescope init` writes a valid study file for each kind of data, and refuses unknown data with a reason."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests_support import write_study

from flows.cli import main
from flows.config import Study, load_study
from flows.plan import plan
from storage.runs import last_run


@pytest.fixture(autouse=True)
def no_store_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store above the working folder would keep what `init` reads."""
    monkeypatch.setenv("BRIDGESCOPE_STORE", str(tmp_path / "no store"))


def picture(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 10, 10)).save(data, "PNG")
    return data.getvalue()


def a_folder_with_a_table(at: Path) -> Path:
    rows = []
    for i in range(6):
        (at / f"p{i}.png").write_bytes(picture(i))
        rows += [
            {"file_name": f"p{i}.png", "alt_text": f"picture {i}"},
            {"file_name": f"p{i}.png", "alt_text": "again"},
        ]
    pl.DataFrame(rows).write_csv(at / "table.tsv", separator="\t")
    return at


def a_folder_with_sidecars(at: Path) -> Path:
    for i in range(6):
        (at / f"p{i}.png").write_bytes(picture(i))
        (at / f"p{i}.txt").write_text(f"first {i}\nsecond {i}\n")
    return at


def a_list_of_urls(at: Path) -> Path:
    rows = {"link": [f"http://127.0.0.1:9/{i}.png" for i in range(6)], "caption": [f"picture {i}" for i in range(6)]}
    pl.DataFrame(rows).write_parquet(at / "list.parquet")
    return at / "list.parquet"


def tars(at: Path) -> Path:
    for shard in range(2):
        with tarfile.open(at / f"{shard:05d}.tar", "w") as archive:
            for i in range(3):
                for name, data in ((f"{i}.png", picture(10 * shard + i)), (f"{i}.json", b'{"text": "a picture"}')):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return at


def tars_in_folders(at: Path) -> Path:
    (at / "more").mkdir()
    tars(at)
    for file in at.glob("*.tar"):
        (at / "more" / f"more-{file.name}").write_bytes(file.read_bytes())
    return at


def compressed_tars(at: Path) -> Path:
    """Tars with gzip and zstd, from macOS, with dots in the keys of their samples."""
    import pyarrow

    for shard, name in enumerate(("00000.tar.gz", "00001.tar.zst")):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as archive:
            for i in range(3):
                for of, data in ((f"._a.{i}.png", b"x"), (f"a.{i}.png", picture(10 * shard + i)), (f"a.{i}.txt", b"a")):
                    member = tarfile.TarInfo(of)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        zstd = pyarrow.Codec("zstd")
        data = gzip.compress(held.getvalue()) if shard == 0 else zstd.compress(held.getvalue(), asbytes=True)
        (at / name).write_bytes(data)
    return at


def coco(at: Path) -> Path:
    (at / "annotations").mkdir()
    (at / "tiny2017").mkdir()
    for i in range(6):
        (at / "tiny2017" / f"{i}.png").write_bytes(picture(i))
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(6)]
    captions = [{"id": 2 * i + j, "image_id": i, "caption": f"picture {i}"} for i in range(6) for j in range(2)]
    held = json.dumps({"images": images, "annotations": captions})
    (at / "annotations" / "captions_tiny2017.json").write_text(held)
    return at


def parquet_with_pictures(at: Path) -> Path:
    pictures = [{"bytes": picture(i), "path": None} for i in range(6)]
    pl.DataFrame({"picture": pictures, "caption": [f"picture {i}" for i in range(6)]}).write_parquet(
        at / "train.parquet"
    )
    (at / "._train.parquet").write_bytes(b"Mac OS X")
    return at


def vectors(at: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, rows in (("img_emb", 6), ("text_emb", 6)):
        (at / name).mkdir()
        np.save(at / name / f"{name}_0.npy", rng.standard_normal((rows, 12)).astype(np.float16))
    (at / "metadata").mkdir()
    pl.DataFrame({"caption": [f"picture {i}" for i in range(6)]}).write_parquet(at / "metadata" / "metadata_0.parquet")
    return at


def a_list_without_a_header_line(at: Path) -> Path:
    lines = [f'picture "{i}" of six\thttp://127.0.0.1:9/{i}.png\n' for i in range(6)]
    (at / "Train_GCC-training.tsv").write_text("".join(lines))
    return at


def files_of_img2dataset(at: Path) -> Path:
    (at / "00000").mkdir()
    for i in range(6):
        (at / "00000" / f"{i:09d}.png").write_bytes(picture(i))
        (at / "00000" / f"{i:09d}.txt").write_text(f"picture {i}")
    rows = {"url": ["http://a/b"], "caption": ["x"], "key": ["0"], "status": ["success"], "error_message": [None]}
    pl.DataFrame(rows).write_parquet(at / "00000.parquet")
    return at


def parquet_with_paths_of_pictures(at: Path) -> Path:
    for i in range(6):
        (at / f"p{i}.png").write_bytes(picture(i))
    pictures = [{"bytes": None, "path": f"p{i}.png"} for i in range(6)]
    pl.DataFrame({"image": pictures, "text": [f"picture {i}" for i in range(6)]}).write_parquet(at / "t.parquet")
    return at


def karpathy(at: Path) -> Path:
    (at / "Images").mkdir()
    for i in range(6):
        (at / "Images" / f"p{i}.png").write_bytes(picture(i))
    images = [{"filename": f"p{i}.png", "sentences": [{"raw": "one"}, {"raw": "two"}]} for i in range(6)]
    (at / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    return at


KINDS = {
    a_list_without_a_header_line: ("urls", 6, 6),
    files_of_img2dataset: ("folder", 6, 6),
    parquet_with_paths_of_pictures: ("folder", 6, 6),
    karpathy: ("folder", 6, 12),
    a_folder_with_a_table: ("folder", 6, 12),
    a_folder_with_sidecars: ("folder", 6, 12),
    a_list_of_urls: ("urls", 6, 6),
    tars: ("webdataset", 6, 6),
    tars_in_folders: ("webdataset", 12, 12),
    compressed_tars: ("webdataset", 6, 6),
    coco: ("coco", 6, 12),
    parquet_with_pictures: ("huggingface", 6, 6),
    vectors: ("embeddings", 6, 6),
}


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_init_writes_a_study_that_lists_every_pair(make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    """The study file and the data lie in different folders. The paths in the file are relative to the file."""
    source, images, captions = KINDS[make]
    data = tmp_path / "My data"
    data.mkdir()
    (tmp_path / "studies").mkdir()
    file = tmp_path / "studies" / "own.toml"
    assert main(["init", str(make(data)), "--to", str(file), "--model", *model_of(source)]) == 0
    assert f"{images} images with {captions} captions" in capsys.readouterr().out
    study = load_study(file)
    assert study.pairs.source == source
    assert str(tmp_path) not in file.read_text()  # relative paths: the folder may be moved
    store = tmp_path / "store"
    store.mkdir()
    assert [(line.kind, line.make) for line in plan_of(study, store) if line.kind == "acquire"] == [("acquire", 1)]
    from flows.foresight import foresight

    (shard,) = foresight(study, store, None, anew=True).shards
    assert (shard.images, shard.captions) == (images, captions)


def model_of(source: str) -> list[str]:
    return ["embeddings:../My data" if source == "embeddings" else "clip"]


def plan_of(study: Study, store: Path):  # type: ignore[no-untyped-def]
    """The lines of a plan. The plan ends with the stage acquire, so no model is looked up on the hub."""
    return plan(study, store, only="acquire").lines


def test_a_store_keeps_what_init_unpacked_for_the_run_and_none_is_made(tmp_path: Path) -> None:
    data, store, file = tmp_path / "data", tmp_path / "store", tmp_path / "own.toml"
    data.mkdir()
    command = ["init", str(compressed_tars(data)), "--to", str(file), "--store", str(store)]
    assert main(command) == 0
    assert not store.exists()
    store.mkdir()
    assert main([*command, "--force"]) == 0
    unpacked = {path: path.stat().st_ino for path in store.rglob("*.tar")}
    assert len(unpacked) == 2
    plan_of(load_study(file), store)
    assert {path: path.stat().st_ino for path in store.rglob("*.tar")} == unpacked  # not unpacked again


def test_a_plan_counts_what_listing_the_source_will_keep_in_a_store_that_does_not_exist(tmp_path: Path) -> None:
    data, store, file = tmp_path / "data", tmp_path / "store", tmp_path / "own.toml"
    data.mkdir()
    assert main(["init", str(compressed_tars(data)), "--to", str(file)]) == 0
    study = load_study(file)
    found = plan(study, store, only="acquire")
    assert not store.exists()
    store.mkdir()
    assert plan(study, store, only="acquire").downloads == 0  # by then, listing the source has unpacked them
    kept = sum(path.stat().st_size for path in (store / "downloads").rglob("*") if path.is_file())
    assert kept > sum(path.stat().st_size for path in store.rglob("*.tar")) > 2 * 6 * 512
    assert found.downloads == pytest.approx(kept, rel=0.05)  # the caches hold paths, which differ


def test_width_and_k_fit_the_size() -> None:
    """At the sizes of demo, quick and paper, the rule gives the settings of these three studies of the project."""
    from flows.init import _settings

    demo, quick, paper = _settings(1852, 3690, 128), _settings(5000, 25_014, 512), _settings(118_287, 591_753, 512)
    assert (demo.width, demo.k) == (256, 8)
    assert (quick.width, quick.k, quick.heldout) == (1024, 16, 0.2)
    assert (paper.width, paper.k, paper.heldout) == (4096, 20, 0.1)
    assert _settings(6, 12, 12).width == 16


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.bin": b"x", "b.doc": b"y"}, ["a.bin, b.doc", "pairs.source"]),
        ({"list.csv": b"ref,words\nx,y\n"}, ["found no captions", "ref, words", "pairs.caption_column"]),
        ({"list.csv": b"ref,caption\nx,y\n"}, ["ref, caption", "pairs.url_column or pairs.image_column"]),
        ({"p.png": picture(1)}, ["1 pictures (p.png", "file_name and caption"]),
        ({"a.csv": b"url,caption\n", "b.csv": b"url,caption\n"}, ["several tables", "a.csv, b.csv"]),
        ({"a.tar": b"no tar"}, ["a.tar: cannot be read as a tar"]),
        ({"a.tgz": b"\x1f\x8bcut"}, ["a.tgz: cannot be read as a tar"]),
        ({"image.npy": b"no", "text.npy": b"no"}, ["cannot be read"]),
        ({"t.csv": b"file_name,caption\nmissing.png,a\n"}, ["holds 0 pairs", "1 no such file", "missing.png"]),
        ({}, ["it is empty"]),
    ],
)
def test_init_says_what_it_saw_of_data_that_it_does_not_know(
    files: dict[str, bytes], says: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, content in files.items():
        (data / name).write_bytes(content)
    assert main(["init", str(data), "--to", str(tmp_path / "own.toml")]) == 2
    errors = capsys.readouterr().err
    assert all(one in errors for one in says), errors
    assert [*tmp_path.iterdir()] == [data]  # nothing was written


def test_init_replaces_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "own.toml"
    file.write_text("mine")
    data = str(vectors(tmp_path / "data"))
    assert main(["init", data, "--to", str(file)]) == 2
    assert "exists: --force replaces it" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert main(["init", data, "--to", str(file), "--force", "--name", "mine"]) == 0
    assert load_study(file).name == "mine"
    assert main(["init", data, "--to", str(file), "--force", "--name", "Not A Name"]) == 2
    assert load_study(file).name == "mine"


def checkpoint(at: Path, name: str, config: dict[str, object]) -> Path:
    """A folder with one weight and the configuration of a checkpoint."""
    from safetensors.numpy import save_file

    at.mkdir()
    save_file({"a": np.zeros(1, np.float32)}, at / "model.safetensors")
    (at / name).write_text(json.dumps(config))
    return at


@pytest.mark.parametrize(
    ("name", "config", "kind", "dim"),
    [
        ("config.json", {"projection_dim": 16, "vision_config": {"hidden_size": 32}}, "hf", 16),
        ("config.json", {"vision_config": {"hidden_size": 32}}, "hf", 32),
        ("open_clip_config.json", {"model_cfg": {"embed_dim": 24}}, "open_clip", 24),
        ("config.json", {"model_type": "clip"}, "hf", 512),  # the table's number for a spec with "clip" in it
    ],
)
def test_a_folder_with_a_checkpoint_is_a_model(
    name: str, config: dict[str, object], kind: str, dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is relative to the current folder on the command line, and to the study file in the file."""
    data = tmp_path / "data"
    data.mkdir()
    a_folder_with_sidecars(data)
    (tmp_path / "studies").mkdir()
    folder = checkpoint(tmp_path / "tiny-clip", name, config)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "data", "--to", "studies/own.toml", "--model", "./tiny-clip"]) == 0
    text = (tmp_path / "studies" / "own.toml").read_text()
    assert f'spec = "{kind}:local-dir:../tiny-clip"' in text
    assert f"(the model has {dim})" in text
    model = load_study(tmp_path / "studies" / "own.toml").models[0]
    assert Path(str(model.parsed_spec.path)).resolve() == folder
    assert model.name == "tiny-clip"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nope", "--model nope: no such folder, and no model. A model is one of demo:NAME"),
        ("hf:local-dir:gone", "there is no folder"),
        ("./data", "the folder holds no checkpoint"),
        ("hf:./empty", "the folder holds no weights"),
        ("embeddings:data", "pictures need an encoder"),
    ],
)
def test_a_model_that_is_not_there_is_a_sentence(
    model: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("data", "empty"):
        (tmp_path / name).mkdir()
    a_folder_with_sidecars(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "data", "--model", model]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "data.toml").exists()


def test_comments_state_the_numbers_of_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1,000 pairs, of which .2 are held out: 1,600 rows in batches of 32, the power of two nearest to 40."""
    folder = tmp_path / "vectors"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("image", "text"):
        np.save(folder / f"{name}.npy", draw.standard_normal((1000, 4)).astype(np.float32))
    assert main(["init", str(folder), "--to", str(tmp_path / "own.toml")]) == 0
    printed, text = capsys.readouterr().out, (tmp_path / "own.toml").read_text()
    assert "Little data" not in printed  # 200 images are held out
    assert "width = 32\n" in text  # 800 / 5 = 160 concepts would be more than 8 for each of the 4 dimensions
    assert "For these 1,600 rows:\n# 120 epochs of batches of 32" in text
    assert "about 6,000 steps" in text  # 120 epochs of 50 batches


@pytest.mark.slow
def test_a_study_that_init_wrote_runs(tmp_path: Path, prefect_server: None) -> None:
    write_study(tmp_path, images=300)
    file, store = tmp_path / "init.toml", tmp_path / "store"
    assert main(["init", str(tmp_path / "vectors"), "--to", str(file), "--name", "init"]) == 0
    fast = ["--set", "saes.main.epochs=1", "--set", "saes.main.seeds=[0]"]
    assert main(["run", str(file), "--store", str(store), *fast]) == 0
    run = last_run(store, "init")
    assert run is not None
    assert run.of("report")


@pytest.mark.slow
def test_a_new_user_needs_four_commands_and_no_editing(
    tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`init` on pictures with captions and a tiny checkpoint, then `plan`, `run`, and what `explore` opens."""
    from explorer_support import write_pictured_study

    from explorer.live import Live

    write_pictured_study(tmp_path, images=200)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "pictures", "--model", "./clip", "--to", "own.toml", "--name", "own"]) == 0
    assert "bridgescope run own.toml" in capsys.readouterr().out
    assert main(["plan", "own.toml", "--store", "store"]) == 0
    assert main(["run", "own.toml", "--store", "store"]) == 0
    printed = capsys.readouterr()
    assert "clip main (3)" in printed.out
    assert not any(word in printed.err for word in ("Traceback", "Prefect", "prefect"))
    live = Live(tmp_path / "store", "own")
    assert live.shown.run.is_complete
    live.close()

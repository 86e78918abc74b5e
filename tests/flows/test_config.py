"""Errors in the study file name file, key and allowed values. Paths in it do not depend on the working folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import TEXT

from flows.config import load_study
from flows.jobs.analyze import twins
from flows.neighbours import neighbours
from flows.nulls import twins_of
from flows.sections import SAESetting
from storage.errors import BadInput
from storage.sources.section import HOW, RULES, rules_of, source_of
from tasks.settings import FROZEN

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.mark.parametrize("name", ["demo", "planted", "paper", "quick"])
def test_the_studies_that_come_with_it_are_valid(name: str) -> None:
    assert load_study(STUDIES / f"{name}.toml").name == name


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("k = 3", "k = true", r"saes.0.k: Input should be a valid integer \(got True\)"),
        ("k = 3", "k = 3.0", r"saes.0.k: Input should be a valid integer \(got 3.0\)"),
        ("k = 3", 'k = "3"', r"saes.0.k: Input should be a valid integer \(got '3'\)"),
        ("k = 3", "k = 10000000000000000000000", r"saes.0.k: the number is too large"),
        ("k = 3", "k = 2020-01-01", r"saes.0.k: is a date"),
        (
            "k = 3",
            'k = 3\narchitecture = "relu"\npenalty = inf',
            r"saes.0.penalty: inf is not allowed: a finite number",
        ),
        ("learning_rate = 5e-3", "learning_rate = nan", r"saes.0.learning_rate: nan is not allowed"),
        ("k = 3", "k = 3\nretrain = inf", r"saes.0.retrain: inf is not allowed"),
        ("k = 3", "k = 3\ndecoder_bias = 1", r"saes.0.decoder_bias: Input should be a valid boolean"),
        ("k = 3", "k = 3\nimage_share = true", r"saes.0.image_share: Input should be a valid number \(got True\), or"),
        ("width = 24", "width = 1000000000000", r"saes.0.width: Input should be less than or equal to 16777216"),
        ("seeds = [0, 1]", "seeds = []", r"saes.0.seeds: List should have at least 1 item"),
        ("seeds = [0, 1]", "seeds = [true]", r"saes.0.seeds.0: Input should be a valid integer"),
        ("heldout = 0.25", 'heldout = "0.25"', r"pairs.heldout: Input should be a valid number \(got '0.25'\)"),
        ("[[saes]]", "[saes]", r"saes: must be a list of sections: write \[\[saes\]\]"),
        ("[[models]]", "[models]", r"models: must be a list of sections: write \[\[models\]\]"),
        ('source = "embeddings"', "", r"pairs: Field required: source = one of coco, embeddings"),
        ("[analyze]", "[[analyze]]", r"analyze: Input should be an object"),
        ("k = 3", "k = -3", r"small.toml: saes.0.k: .*greater than or equal to 1 \(got -3\)"),
        ("k = 3", "k = 30", "k is 30, more than the width 24"),
        ("k = 3", 'k = 3\narchitecture = "gated"', "'relu', 'topk', 'batchtopk', 'jumprelu', 'matryoshka' or 'mp'"),
        ("k = 3", "k = 3\npenalty = 0.1", "penalty is for relu and jumprelu; batchtopk keeps k codes"),
        ("k = 3", 'k = 3\narchitecture = "relu"\npenalty = -0.1', r"saes.0.penalty: .*greater than or equal to 0"),
        ("k = 3", "k = 3\nprefixes = [8, 24]", "prefixes are for matryoshka"),
        ("k = 3", 'k = 3\narchitecture = "matryoshka"\nprefixes = [8, 16]', "end with the width, 24"),
        ("k = 3", 'k = 3\nencoder_dtype = "float16"', "'float32' or 'bfloat16'"),
        ("epochs = 4", "epoch = 4", r"saes.0.epoch: unknown key; allowed here: architecture, .*epochs"),
        (
            "[analyze]",
            "[analyse]",
            r"analyse: unknown key; allowed here: analyze, consensus, decode, diets, frontier, .*name",
        ),
        ("heldout = 0.25", "heldout = 1.5", r"pairs.heldout: .*less than 1"),
        ("shard_size = 1500", "shards = 1", r"pairs.shards: unknown key; allowed here: duplicates, heldout, .*path"),
        ('name = "small"', 'name = "Small Study"', r"name: bad name 'Small Study'"),
        ('name = "own"', 'name = "../own"', r"models.0.name: bad name"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "names a seed twice"),
        ('source = "embeddings"', 'source = "laion"', "'coco', 'embeddings'"),
        ("embeddings:vectors", "open_clip:ViT-B-32/x", "go with source"),
        ("embeddings:vectors", "magic:x", "must be demo:NAME, open_clip:NAME/PRETRAINED"),
        ("[analyze]", "[[[", "not TOML"),
        (
            "width = 24",
            "checkpoint = 'x'\nwidth = 24",
            "saes.0.width: unknown key; allowed here: architecture, checkpoint",
        ),
        ("[[saes]]", "[[saes]]\nname = 'b'\ncheckpoint = 'x'\nseeds = [1]\n[[saes]]", "its only seed is 0"),
        ("[analyze]", "[frontier]\nmethods = ['pca']\nk = [2, 2]\n[analyze]", "frontier: k names one thing twice"),
        ("[analyze]", "[frontier]\nmethods = ['svd']\nk = [2]\n[analyze]", r"frontier.methods.0.*'relu', 'topk'"),
        ("[analyze]", "[frontier]\nmethods = ['pca']\nk = [30]\n[analyze]", "k is 30, more than the width 24"),
        ("[analyze]", "[frontier]\nmethod = ['pca']\n[analyze]", "frontier.method: unknown key; allowed here: k, meth"),
        ("heldout = 0.25", "max_pixels = 200_000_000", "pairs.max_pixels: .*less than or equal to 178956970"),
        ("[analyze]", "[runtime]\nrunner = 'dask'\n[analyze]", r"runtime.runner: .*'threads' or 'ray' \(got 'dask'\)"),
        ("[analyze]", "[runtime]\nnum_gpus = 1.5\n[analyze]", "runtime.num_gpus: must be a part of one GPU"),
        (
            "[analyze]",
            "[runtime]\nrunner = 'ray'\ndevice = 'cuda:1'\n[analyze]",
            "Ray chooses the GPU",
        ),
    ],
)
def test_errors_of_bad_studies_name_the_problem(study_file: Path, old: str, new: str, says: str) -> None:
    text = study_file.read_text()
    assert old in text
    study_file.write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=says):
        load_study(study_file)


def with_pairs(study_file: Path, section: str) -> Path:
    """Give a study file another section [pairs], and a model that embeds images. Returns the file."""
    text = study_file.read_text().replace("embeddings:vectors", "open_clip:ViT-B-32/openai")
    head, _, rest = text.partition("[pairs]")
    study_file.write_text(f"{head}[pairs]\n{section}\n[[models]]{rest.partition('[[models]]')[2]}")
    return study_file


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ('source = "folder"\npath = "data"', "path", "{here}/data"),
        ('source = "urls"\npath = "lists/a.parquet"', "path", "{here}/lists/a.parquet"),
        ('source = "coco"\npath = "/coco"', "path", "/coco"),
        ('source = "coco"', "path", "http://images.cocodataset.org"),
        ('source = "coco"\nimages = "val.zip"', "images", "{here}/val.zip"),
        ('source = "webdataset"\nshards = "t/{0..3}.tar"', "shards", ["{here}/t/{{0..3}}.tar"]),
        (
            'source = "webdataset"\nshards = ["https://a.example/0.tar", "b.tar"]',
            "shards",
            ["https://a.example/0.tar", "{here}/b.tar"],
        ),
        ('source = "huggingface"\nrepo = "owner/name"', "repo", "owner/name"),
        ('source = "huggingface"\nrepo = "./local"', "repo", "{here}/local"),
    ],
)
def test_paths_of_sources_are_relative_to_the_study_and_urls_are_not(
    study_file: Path, tmp_path: Path, section: str, key: str, value: str | list[str]
) -> None:
    path = getattr(load_study(with_pairs(study_file, section)).pairs, key)
    expected = value.format(here=tmp_path) if isinstance(value, str) else [one.format(here=tmp_path) for one in value]
    assert path == expected


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('source = "folder"', r"pairs.path: Field required"),
        ('source = "folder"\npath = "x"\nconcurrency = 3', r"pairs.concurrency: unknown key; .*image_column"),
        ('source = "urls"\npath = "x"\nmin_success = 2', r"pairs.min_success: .*less than or equal to 1"),
        ('source = "urls"\npath = "x"\nduplicates = "merge"', r"pairs.duplicates: .*'keep' or 'drop'"),
        ('source = "coco"\nsubset = "../x"', r"pairs.subset: .*pattern"),
        ('source = "coco"\nimages_digest = "sha256:12"', r"pairs.images_digest: .*pattern"),
        ('source = "webdataset"\nshards = []', r"pairs.shards: .*at least 1"),
    ],
)
def test_errors_of_bad_source_sections_name_the_problem(study_file: Path, section: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        load_study(with_pairs(study_file, section))


def test_how_pairs_are_fetched_is_no_rule_and_no_rule_is_part_of_the_source(study_file: Path) -> None:
    pairs = load_study(with_pairs(study_file, 'source = "urls"\npath = "x.csv"')).pairs
    assert set(rules_of(pairs)) == set(RULES)
    assert not set(rules_of(pairs)) & set(HOW)
    assert "heldout" not in source_of(pairs)


def test_a_missing_study_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such study file"):
        load_study(tmp_path / "none.toml")


def test_paths_are_relative_to_the_study_file(
    study_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir("/")
    study = load_study(study_file)
    assert study.pairs.path == str(tmp_path / "vectors")
    assert study.models[0].spec == f"embeddings:{tmp_path / 'vectors'}"


def test_whole_numbers_are_taken_where_a_number_is_needed(study_file: Path) -> None:
    changed = ["saes.main.learning_rate=1", "pairs.heldout=0", "saes.main.retrain=2", "analyze.split=all"]
    study = load_study(study_file, changed)
    assert (study.saes[0].learning_rate, study.pairs.heldout, study.saes[0].retrain) == (1.0, 0.0, 2.0)


def test_held_out_pairs_are_needed_where_they_are_analyzed(study_file: Path) -> None:
    with pytest.raises(BadInput, match=r'split is "heldout", and pairs.heldout is 0: set analyze.split = "all"'):
        load_study(study_file, ["pairs.heldout=0", "analyze.split=heldout"])


def test_set_changes_an_item_of_a_list(study_file: Path) -> None:
    assert load_study(study_file, ["saes.main.seeds.0=5"]).saes[0].seeds == [5, 1]
    assert load_study(study_file, ["saes.0.seeds.1=7"]).saes[0].seeds == [0, 7]


def test_set_reaches_names_with_dots(study_file: Path) -> None:
    more = '[[saes]]\nname = "main.b"\nwidth = 24\nk = 2\n[[saes]]\nname = "main.b.c"\nwidth = 24\nk = 2\n'
    study_file.write_text(study_file.read_text().replace("[analyze]", f"{more}[analyze]"))
    study = load_study(study_file, ["saes.main.b.k=5", "saes.main.b.c.k=6", 'saes."main".k=7', "saes.main.seeds=[4]"])
    assert [setting.k for setting in study.saes] == [7, 5, 6]
    assert load_study(study_file, ['saes."main.b".k=9']).saes[1].k == 9
    assert study.saes[0].seeds == [4]


KEYS = ["name", "pairs", "models", "saes", "own", "main", "0", "1", "seeds", "k", "diets", "frontier", "methods", "x"]
VALUES = [
    "1", "-1", "true", "inf", "nan", "1e400", '"a"', "[]", "[1, true]", "{}", "{a = [{}]}", "9" * 30, "1979-05-27",
    "07:32:00", "[[1]]", "'\x00'", "pca", "", "[1", '"""', "\udcff",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(KEYS), min_size=1, max_size=5), st.sampled_from(VALUES))
def test_any_change_is_taken_or_refused_in_words(keys: list[str], value: str) -> None:
    """An exception other than BadInput fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "small.toml"
        study.write_text(TEXT)
        try:
            name = load_study(study, [f"{'.'.join(keys)}={value}"]).name
        except BadInput as error:
            name = str(error)
        assert name


def test_set_changes_a_value_by_name_or_number(study_file: Path) -> None:
    study = load_study(study_file, ["saes.main.k=5", "saes.0.width=32", "analyze.split=all", "runtime.device=cpu"])
    assert (study.saes[0].k, study.saes[0].width) == (5, 32)
    assert (study.analyze.split, study.runtime.device) == ("all", "cpu")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("saes.main", "must be key=value"),
        ("saes.other.k=1", "no entry named 'other'. Available: main."),
        ("saes=1", "saes: Input should be a valid array"),
        ("saes.main.seeds.7=5", r"no entry '7'. Available: 0 to 1"),
        ("saes.main.seeds.x=5", r"no entry 'x'. Available: 0 to 1"),
        ("saes.main.seeds.0.y=5", "'0' is a value and has no keys of its own"),
        ("saes.main.prefixes.0=5", r"has no prefixes: set the whole value"),
        ("saes.main=5", "names a whole entry of a list: set one of its keys"),
        ("saes..k=5", "'saes..k' is not a key"),
        ("saes.main.k=true", "saes.0.k: Input should be a valid integer"),
        ("name.x=1", "is a value"),
        ("saes.main.knob=1", "unknown key"),
        (r'pairs.path="a\u0000b"', "pairs.path: holds a character that no name, path or URL can hold"),
        ("analyze.independent=other", "analyze: independent is other: the study has no such model. Available: "),
        ('nulls=["frozen"]', "nulls.0: Input should be 'frozen_decoder', 'soft_frozen_decoder' or 'frozen_encoder'"),
    ],
)
def test_bad_set_is_bad_input(study_file: Path, change: str, says: str | None) -> None:
    with pytest.raises(BadInput, match=says):
        load_study(study_file, [change])


def test_runtime_names_seeds_and_retrain_are_not_part_of_a_setting(study_file: Path) -> None:
    setting = load_study(study_file).saes[0].setting(rows=1000)
    assert not {"name", "seeds", "retrain"} & setting.keys()
    assert {"batch_size", "learning_rate", "decoder_bias", "auxk", "image_share"} <= setting.keys()


def test_a_setting_states_numbers_where_the_study_says_auto(tmp_path: Path) -> None:
    study = tmp_path / "small.toml"
    text = TEXT.replace("epochs = 4\n", "").replace("batch_size = 64\n", "").replace("5e-3", '"auto"')
    study.write_text(text + "\n[diets]\nhalves = true\n")
    main, half, _ = (each.setting(10_000) for each in load_study(study).settings())
    assert (main["epochs"], main["batch_size"], main["learning_rate"]) == (77, 128, 3.4e-3)
    assert (half["epochs"], half["batch_size"]) == (154, 128)
    assert load_study(study).frontier_setting(10_000)["epochs"] == 77


def test_diets_are_settings_of_their_own(tmp_path: Path) -> None:
    study = tmp_path / "small.toml"
    study.write_text(TEXT + '\n[diets]\nimage_share = [0, 0.25, 0.5, "natural"]\nhalves = true\n')
    loaded = load_study(study)
    names = [setting.name for setting in loaded.settings()]
    # The image share of `main` itself is .5, so a diet with this share is not trained again.
    expected = ["main", "main-share0", "main-share0.25", "main-natural", "main-half-a", "main-half-b"]
    assert names == expected
    main, *diets = loaded.settings()
    assert [setting.image_share for setting in diets] == [0, 0.25, "natural", 0.5, 0.5]
    # An epoch of half the rows draws half as many rows, so SAEs of data halves are trained for twice the epochs.
    assert [setting.epochs // main.epochs for setting in diets] == [1, 1, 1, 2, 2]
    assert "data_half" not in main.setting(1000)
    assert diets[-1].setting(1000)["data_half"] == "b"
    assert loaded.families() == [[main, *diets]]


def test_sensitivity_adds_the_neighbours_of_every_setting(tmp_path: Path) -> None:
    study = tmp_path / "small.toml"
    study.write_text(
        'sensitivity = ["init", "learning_rate", "k", "width"]\n' + TEXT + "\n[diets]\nimage_share = [0]\n"
    )
    loaded = load_study(study)
    main, diet, *near = loaded.settings()  # the setting of TEXT has C = 24, k = 3 and the learning rate 5e-3
    assert diet.name == "main-share0"
    assert [(each.name, each.init, each.learning_rate, each.k, each.width) for each in near] == [
        ("main-init-random", "random", 5e-3, 3, 24),
        ("main-init-data", "data", 5e-3, 3, 24),
        ("main-init-differences", "differences", 5e-3, 3, 24),
        ("main-learning_rate-0.00167", "within", 1.67e-3, 3, 24),
        ("main-learning_rate-0.015", "within", 0.015, 3, 24),
        ("main-k-1", "within", 5e-3, 1, 24),
        ("main-k-6", "within", 5e-3, 6, 24),
        ("main-width-12", "within", 5e-3, 3, 12),
        ("main-width-48", "within", 5e-3, 3, 48),
    ]
    assert {tuple(each.seeds) for each in near} == {tuple(main.seeds)}
    # Concepts are matched with those of the data diets, but not with those of neighbours, whose width may differ.
    assert loaded.families() == [[main, diet], *([each] for each in near)]


def test_nulls_add_the_frozen_twins_of_every_setting(tmp_path: Path) -> None:
    study = tmp_path / "small.toml"
    study.write_text('nulls = ["frozen_decoder", "frozen_encoder"]\nnull_starts = ["data", "random"]\n' + TEXT)
    loaded = load_study(study)
    main, *found = loaded.settings()
    assert [(each.name, each.frozen, each.init, each.twin_of) for each in found] == [
        ("main-frozen_decoder", "frozen_decoder", "within", "main"),
        ("main-frozen_decoder-random", "frozen_decoder", "random", "main"),
        ("main-frozen_encoder", "frozen_encoder", "within", "main"),
        ("main-frozen_encoder-random", "frozen_encoder", "random", "main"),
    ]
    # The recipe of a twin is that of its setting but for the frozen part and the start; that of a setting is unchanged.
    assert found[0].setting(1000) == {**main.setting(1000), "frozen": "frozen_decoder"}
    assert "frozen" not in main.setting(1000)
    assert found[0].seeds == main.seeds
    assert loaded.families() == [[main], *([each] for each in found)]
    assert twins(loaded)[0] == {
        "model": loaded.models[0].name, "sae": "main-frozen_decoder", "twin_of": "main", "frozen": "frozen_decoder",
    }  # fmt: skip
    assert len(twins(loaded)) == 4 * len(loaded.models)
    assert "frozen" not in loaded.frontier_setting(1000)


def test_twins_that_an_architecture_cannot_have_or_that_would_be_equal_are_left_out() -> None:
    both = ["data", "random"]
    pursuit = SAESetting(name="p", width=8, k=2, architecture="mp")
    assert [each.name for each in twins_of(pursuit, list(FROZEN), ["data"])] == ["p-soft_frozen_decoder"]
    random = SAESetting(name="r", width=8, k=2, init="random")
    assert [each.name for each in twins_of(random, ["frozen_encoder"], both)] == ["r-frozen_encoder"]
    assert [each.name for each in twins_of(random, ["frozen_encoder"], ["random"])] == ["r-frozen_encoder"]
    frozen = SAESetting(name="f", width=8, k=2, frozen="frozen_encoder")
    assert twins_of(frozen, list(FROZEN), both) == []


def test_neighbours_stay_within_the_limits_of_a_setting() -> None:
    keys = ["learning_rate", "k", "width"]
    narrow = SAESetting(name="n", width=4, k=3, learning_rate=0.5)
    # Three times the learning rate is above 1, twice k above the width, and half the width below k.
    assert [each.name for each in neighbours(narrow, keys)] == ["n-learning_rate-0.167", "n-k-1", "n-width-8"]
    nested = SAESetting(name="n", width=12, k=2, architecture="matryoshka", prefixes=(1, 4, 12))
    assert [each.prefixes for each in neighbours(nested, ["width"])] == [(1, 2, 6), (2, 8, 24)]
    for each in neighbours(nested, ["width"]):
        SAESetting(**each.model_dump())  # is valid


def test_neighbours_of_a_chosen_learning_rate_differ_in_one_setting() -> None:
    """The rule chooses a lower rate for a larger width. A neighbour of another width keeps the rate of its setting."""
    own = SAESetting(name="n", width=256, k=8)
    stated = own.setting(5000)
    near = {each.name: each.setting(5000) for each in neighbours(own, ["learning_rate", "width", "k"])}
    assert near.keys() == {
        "n-learning_rate-x0.333",
        "n-learning_rate-x3",
        "n-width-128",
        "n-width-512",
        "n-k-4",
        "n-k-16",
    }
    for name, setting in near.items():
        key = name.split("-")[1]
        assert [other for other in stated if setting[other] != stated[other]] == [key]
    for name, factor in (("n-learning_rate-x0.333", 1 / 3), ("n-learning_rate-x3", 3)):
        assert near[name]["learning_rate"] == pytest.approx(factor * stated["learning_rate"], rel=0.005)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('["seed"]', "sensitivity.0: Input should be 'init', 'learning_rate', 'k' or 'width'"),
        ('["k", "k"]', "sensitivity: names a key twice"),
    ],
)
def test_sensitivity_names_keys_that_can_vary_once(tmp_path: Path, value: str, says: str) -> None:
    study = tmp_path / "small.toml"
    study.write_text(f"sensitivity = {value}\n{TEXT}")
    with pytest.raises(BadInput, match=says):
        load_study(study)


def test_a_setting_that_is_named_like_a_diet_is_refused(tmp_path: Path) -> None:
    study = tmp_path / "small.toml"
    other = '[[saes]]\nname = "main-share0"\nwidth = 24\nk = 3\n'
    study.write_text(TEXT + "\n" + other + "\n[diets]\nimage_share = [0]\n")
    with pytest.raises(BadInput, match=r"saes names one thing twice: .*'main-share0'"):
        load_study(study)


def test_the_frontier_measures_both_encoders_whatever_the_studys_saes_encode_with(study_file: Path) -> None:
    text = study_file.read_text()
    study_file.write_text(
        text.replace("k = 3", 'k = 3\nencoder = "pursuit"', 1)
        .replace("[analyze]", "[frontier]\nmethods = ['topk']\nk = [2]\n[analyze]", 1)
    )  # fmt: skip
    study = load_study(study_file)
    assert study.saes[0].setting(1000)["encoder"] == "pursuit"
    study_file.write_text(study_file.read_text().replace('encoder = "pursuit"', ""))
    plain = load_study(study_file)
    assert "encoder" not in plain.saes[0].setting(1000)
    assert study.frontier_setting(1000) == plain.frontier_setting(1000)

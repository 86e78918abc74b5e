"""The sentences of the page follow the numbers: when a number crosses a bound, the wording changes."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pytest

from report import queries, sentences, wording
from report.queries import Answer, Row, ask

Make = Callable[..., duckdb.DuckDBPyConnection]


def answers(**tables: list[Row]) -> sentences.Answers:
    """Answers to the queries of the page. Only the queries named in `tables` have rows."""
    fields = {name: Answer("", [], tables.get(name, [])) for name in sentences.Answers._fields}
    return sentences.Answers(**fields)


def energy(k: int, stability: float, floor: float = 0.3, sd: float | None = 0.01, low: float | None = None) -> Row:
    return {
        "model": "m", "sae": "s", "k": k, "energy_share": 0.4, "stability": stability,
        "low": stability if low is None else low, "floor_matched": floor, "floor_matched_sd": sd,
    }  # fmt: skip


def share(class_image: str, class_text: str, raw: float, own: float = 0.0) -> Row:
    return {
        "model": "m", "sae": "s", "class_image": class_image, "class_text": class_text,
        "raw_share": raw, "raw_self": own,
    }  # fmt: skip


def test_r2_wording_follows_the_better_modality_and_warns_below_zero() -> None:
    def text_for(image: float, text: float) -> str:
        row = {"model": "m", "sae": "s", "seed": 0, "r2_image": image, "r2_text": text, "r2": 0.9}
        finding = sentences.reconstruction(answers(reconstruction=[row]), ["m"], "s")
        assert finding is not None
        assert finding.by_model == [
            (
                "m",
                f"R² {wording.number(image)} within images and {wording.number(text)} within captions"
                " (0.900 over both)",
            )
        ]
        return finding.text

    assert text_for(0.8, 0.7) == "Images are rebuilt better than captions."
    assert text_for(0.7, 0.8) == "Captions are rebuilt better than images."
    assert text_for(0.7, -0.1).endswith("In m a modality is rebuilt worse than by its own mean vector.")


def test_stability_is_above_the_floor_only_beyond_two_sd() -> None:
    assert sentences.against_floor(0.40, 0.40, 0.30, 0.01) == (True, "10.0 sd above the floor")
    # The mean, .33, is 3 sd above the floor of .30. The lowest pair of seeds, .31, is only 1 sd above it.
    assert sentences.against_floor(0.33, 0.31, 0.30, 0.01) == (
        True,
        "3.0 sd above the floor, though not for every pair of seeds",
    )
    assert sentences.against_floor(0.31, 0.31, 0.30, 0.01) == (False, "not above the floor (1.0 sd)")
    assert sentences.against_floor(0.27, 0.27, 0.30, 0.01) == (False, "not above the floor but 3.0 sd below it")
    assert sentences.against_floor(0.40, 0.40, 0.30, None)[1] == "above the floor (its spread is not known)"


def test_stability_conclusion_flips_with_the_numbers() -> None:
    finding = sentences.stability(answers(by_energy=[energy(32, 0.5), energy(64, 0.4)]), ["m"], "s", None)
    assert finding is not None
    assert finding.text == "Concepts are, on average, found again in other seeds beyond chance."
    assert "0.400 over the 64 concepts" in finding.by_model[0][1]
    finding = sentences.stability(answers(by_energy=[energy(32, 0.5), energy(64, 0.305)]), ["m"], "s", None)
    assert finding is not None
    assert finding.text == "Concepts are, on average, not found again in other seeds beyond chance."


def test_the_most_energetic_are_not_spoken_of_when_they_are_all() -> None:
    assert sentences.stability(answers(by_energy=[energy(16, 0.5)]), ["m"], "s", 32) is None
    finding = sentences.stability(answers(by_energy=[energy(32, 0.5), energy(64, 0.3)]), ["m"], "s", 32)
    assert finding is not None
    assert "0.500 over the 32 concepts" in finding.by_model[0][1]


def test_the_sentence_states_that_models_disagree() -> None:
    rows = [energy(64, 0.5), energy(64, 0.3) | {"model": "n"}]
    finding = sentences.stability(answers(by_energy=rows), ["m", "n"], "s", None)
    assert finding is not None
    assert finding.text.endswith("beyond chance in some models only.")


def test_bridge_wording_names_the_largest_share() -> None:
    totals = [share("image", "text", 0.6, 0.0), share("bimodal", "bimodal", 0.4, 0.3)]
    finding = sentences.bridging(answers(totals=totals), ["m"], "s", "raw")
    assert finding is not None
    assert finding.text == "Most of the positive raw total runs from unimodal image to unimodal text concepts."
    assert finding.by_model[0][1].startswith("60\u202f% image × text, the largest share; 30\u202f%")
    totals = [share("bimodal", "bimodal", 0.9), share("image", "text", 0.1)]
    finding = sentences.bridging(answers(totals=totals), ["m"], "s", "raw")
    assert finding is not None
    assert "does not run" in finding.text
    assert "the largest is bimodal × bimodal with 90\u202f%" in finding.by_model[0][1]


@pytest.mark.parametrize(
    ("l0", "words"),
    [
        (8.1, "is within 10"),
        (12.0, "L0 is more than 10\u202f% above k."),
        (4.0, "L0 is more than 10\u202f% below k."),
    ],
)
def test_sparsity_compares_l0_with_k(l0: float, words: str) -> None:
    row = {"model": "m", "sae": "s", "seed": 0, "l0": l0, "l0_image": l0, "l0_text": l0, "dead_fraction": 0.0}
    tables = answers(reconstruction=[row], settings=[{"model": "m", "sae": "s", "k": 8}])
    finding = sentences.sparsity(tables, ["m"], "s")
    assert finding is not None
    assert words in finding.text


def test_retrieval_at_chance_is_not_called_above_it() -> None:
    def text_for(r1: float) -> str:
        row = {
            "model": "m", "direction": "text_to_image", "gallery": 100, "captions": 100,
            "r1": r1, "chance1": 0.01, "r10": r1, "chance10": 0.1,
        }  # fmt: skip
        finding = sentences.retrieval(answers(retrieval=[row]), ["m"])
        assert finding is not None
        return finding.text

    assert text_for(0.5) == "Retrieval is above chance in both directions."
    assert text_for(0.0) == "Retrieval is not above chance."
    assert text_for(0.1) == "Retrieval is above chance in some cases only."


def test_interventions_are_measured_against_the_embeddings_and_their_means_removed() -> None:
    def finding_for(without_unimodal: float) -> sentences.Finding:
        r1 = {
            "embeddings": 0.4, "mean_removed": 0.5, "reconstructions": 0.3,
            "without_unimodal": without_unimodal, "random_for_unimodal": 0.9,
        }  # fmt: skip
        rows = [
            {"model": "m", "sae": sae, "direction": "image_to_text", "intervention": name, "r1": x, "gallery": 100}
            for name, x in r1.items()
            for sae in [None if name in ("embeddings", "mean_removed") else "s"]
        ]
        finding = sentences.interventions(answers(interventions=rows), ["m"], "s")
        assert finding is not None
        return finding

    # The best baseline is .5, with a standard error of sqrt(.5 * .5 / 100) = .05 for 100 images. So an intervention
    # must exceed .5 by two standard errors, .1. Random concepts (.9) do not count as an intervention.
    assert finding_for(0.59).text.startswith("No intervention on concepts retrieves better")
    assert finding_for(0.61).text.startswith("Some intervention on concepts retrieves better")
    assert finding_for(0.1).by_model == [
        (
            "m",
            "embeddings 0.400, their modality means removed 0.500, reconstructions 0.300, without unimodal concepts"
            " 0.100 (random concepts of equal energy 0.900)",
        )
    ]


def frontier_row(method: str, encoder: str, k: int, r2: float | None) -> dict[str, object]:
    """A row of the frontier. Its R2 where it was measured is out of line: only R2 at an L0 of k may be compared."""
    text = None if r2 is None else r2 - 0.1
    at_k = {"r2_image_at_k": r2, "r2_text_at_k": text}
    return {"model": "m", "method": method, "encoder": encoder, "k": k, "r2_image": 9.0, "r2_text": 9.0, **at_k}


def seeds(*r2: float, sae: str = "main", frozen: str | None = None) -> list[Row]:
    """The seeds of a setting, with an R2 of `r2` for images and captions."""
    return [{"model": "m", "sae": sae, "frozen": frozen, "r2_image": one, "r2_text": one} for one in r2]


def test_the_frontier_compares_saes_and_baselines_at_equal_l0() -> None:
    def finding_for(*of_pca: float) -> sentences.Finding:
        rows = [
            frontier_row(method, "own", k, r2)
            for k, net, pca in zip((4, 8), (0.5, 0.6), of_pca, strict=True)
            for method, r2 in (("topk", net - 0.1), ("batchtopk", net), ("relu", None), ("pca", pca))
        ]
        finding = sentences.frontier(answers(frontier=rows, reconstruction=seeds(0.5, 0.55)), ["m"])
        assert finding is not None
        return finding

    by = "At equal L0 and with each method's own encoder, "
    assert finding_for(0.3, 0.4).text == f"{by}an SAE rebuilds more than every baseline."
    assert finding_for(0.6, 0.7).text == f"{by}a baseline rebuilds more than every SAE."
    assert finding_for(0.6, 0.4).text == f"{by}whether an SAE or a baseline rebuilds most depends on k or on the model."
    assert finding_for(0.3, 0.4).by_model[0][1] == (
        "own encoders, L0 = 4: batchtopk 0.50, 0.40, against pca 0.30, 0.20; "
        "own encoders, L0 = 8: batchtopk 0.60, 0.50, against pca 0.40, 0.30; range over seeds 0.050"
    )
    assert sentences.frontier(answers(), ["m"]) is None


def test_the_frontier_never_compares_an_encoder_with_pursuit() -> None:
    # The data sample has no encoder but pursuit, by which it beats every SAE's own encoder. With pursuit on both sides
    # the SAE's dictionary is ahead, so no sentence may say that a baseline rebuilds more.
    rows = [
        frontier_row("topk", "own", 4, 0.68),
        frontier_row("topk", "pursuit", 4, 0.72),
        frontier_row("sample", "pursuit", 4, 0.70),
    ]
    finding = sentences.frontier(answers(frontier=rows, reconstruction=seeds(0.5, 0.51)), ["m"])
    assert finding is not None
    assert finding.text == (
        "At equal L0 and with one encoder for all dictionaries, matching pursuit, an SAE rebuilds more than every "
        "baseline."
    )
    assert finding.by_model[0][1] == (
        "matching pursuit, L0 = 4: topk 0.72, 0.62, against sample 0.70, 0.60; range over seeds 0.010"
    )


def test_the_frontier_is_undecided_where_the_seeds_move_r2_as_far() -> None:
    # The gap of the mean of both R2 is .2 at k = 4 and .04 at k = 8.
    rows = [
        frontier_row(method, "own", k, r2)
        for k, net, pca in ((4, 0.5, 0.3), (8, 0.6, 0.56))
        for method, r2 in (("topk", net), ("pca", pca))
    ]

    def finding_for(reconstruction: list[Row]) -> sentences.Finding:
        finding = sentences.frontier(answers(frontier=rows, reconstruction=reconstruction), ["m"])
        assert finding is not None
        return finding

    by = "At equal L0 and with each method's own encoder, "
    every = f"{by}an SAE rebuilds more than every baseline"
    # The widest range of a setting counts, and neither that of frozen SAEs nor the distance between two settings.
    frozen = seeds(0.1, 0.9, sae="c", frozen="frozen_encoder")
    narrow = [*seeds(0.5, 0.52, sae="a"), *seeds(0.9, 0.93, sae="b"), *frozen]
    assert finding_for(narrow).text == f"{every}."
    assert finding_for(narrow).by_model[0][1].endswith("; range over seeds 0.030")
    some = finding_for(seeds(0.5, 0.55))
    assert some.text == f"{every} where the gap decides; elsewhere it is undecided."
    assert some.by_model[0][1] == (
        "own encoders, L0 = 4: topk 0.50, 0.40, against pca 0.30, 0.20; "
        "own encoders, L0 = 8: topk 0.60, 0.50, against pca 0.56, 0.46, undecided; range over seeds 0.050"
    )
    assert "Undecided: the gap" in some.note
    assert finding_for(seeds(0.5, 0.9)).text == f"{by}whether an SAE or a baseline rebuilds most is undecided."
    unknown = finding_for([*seeds(0.5, sae="a"), *seeds(0.9, sae="b")])
    assert unknown.text == f"{by}whether an SAE or a baseline rebuilds most is undecided."
    assert unknown.by_model[0][1].endswith("; range over seeds not known")
    assert "how far the seed moves R² is not known" in unknown.note
    assert "how far the seed moves R² is not known" not in some.note


def test_modality_wording_follows_the_shares(catalog: Make) -> None:
    con = catalog(models=("m",), seeds=1)

    def finding_for() -> sentences.Finding:
        finding = sentences.modality(answers(modality=ask(con, queries.MODALITY_SHARES).rows), ["m"], "main")
        assert finding is not None
        return finding

    con.execute("UPDATE concepts SET firings = 12, modality_score = concept_id % 2")
    assert finding_for().text == "More than half of the concepts are unimodal."
    shares = finding_for().by_model[0][1]
    assert shares.startswith("100\u202f% of 16 concepts are unimodal (50\u202f% image, 50\u202f% text)")
    con.execute("UPDATE concepts SET modality_score = 0.5, firings = 10 - concept_id // 12")
    assert finding_for().text == "At most half of the concepts are unimodal."
    assert "0\u202f% of 12 concepts are unimodal" in finding_for().by_model[0][1]
    assert "hold 0\u202f% of the energy" in finding_for().by_model[0][1]
    assert finding_for().by_model[0][1].endswith("4 left out")  # concepts 12 to 15, which fire 9 times each


def test_chance_counts_the_captions_of_each_image(catalog: Make) -> None:
    rows = ask(catalog(), queries.RETRIEVAL).of(model="one", direction="image_to_text")
    # The gallery has 10 images with 2 of the 20 captions each. The chance of a hit among K captions is
    # 1 - C(18, K)/C(20, K); for K = 5 the quotient is (15 * 14)/(20 * 19) = 210/380.
    assert rows[0]["chance1"] == pytest.approx(0.1)
    assert rows[0]["chance5"] == pytest.approx(1 - 210 / 380)
    assert rows[0]["chance10"] == pytest.approx(1 - 90 / 380)
    rows = ask(catalog(), queries.RETRIEVAL).of(model="one", direction="text_to_image")
    assert [rows[0][f"chance{k}"] for k in (1, 5, 10)] == pytest.approx([0.1, 0.5, 1.0])


def test_numbers_are_written_with_a_minus_and_without_minus_zero() -> None:
    assert wording.number(-0.1234, 2) == "−0.12"
    assert wording.number(-0.0001, 2) == "0.00"
    assert wording.number(None) == "–"
    assert wording.number(float("nan")) == "–"
    assert wording.percent(0.05) == "5.0\u202f%"
    assert wording.percent(0.5) == "50\u202f%"

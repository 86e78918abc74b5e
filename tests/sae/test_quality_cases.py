"""The measurement of `make bench-sae-quality`: equal L0, and figures of a coder that is the truth itself."""

import argparse

import numpy as np
import pytest
import torch

from bench.quality_cases import at_l0, measure, unit_rows, vlm_like
from bench.sae_quality import SECTIONS, joined, parsed, row, sweep
from sae import SAE
from sae.frontier import Pair
from sae.model import Config


class Written:
    """A coder of 2-d rows with given codes: the first |x_0| and the second |x_1|."""

    dictionary = torch.eye(2)

    def encode(self, x):
        return x.abs()

    def decode(self, codes):
        return codes


class Truth:
    """A coder that knows the codes of the held-out rows; `measure` encodes images first, then captions, in order."""

    def __init__(self, case):
        self.dictionary = torch.from_numpy(case.truth.atoms)
        self.codes = torch.from_numpy(np.concatenate([case.truth.image.toarray(), case.truth.text.toarray()]))

    def encode(self, x):
        codes, self.codes = self.codes.split([len(x), len(self.codes) - len(x)])
        return codes

    def decode(self, codes):
        return codes @ self.dictionary


@pytest.fixture(scope="module")
def case():
    return vlm_like(200, 32, 64, 6, heldout=1200)


def test_the_cut_leaves_k_codes_per_row():
    # Unit rows (.6, .8), (1, 0), (0, 1), (.8, .6): six codes, of which .6 and .6 are the least. k = 1 leaves four.
    rows = Pair(np.array([[3, 4], [1, 0]], np.float32), np.array([[0, 2], [4, 3]], np.float32))
    cut = at_l0(Written(), rows, 1)
    assert cut.cut == pytest.approx(0.6)
    kept = cut.encode(torch.tensor([[0.6, 0.8], [1.0, 0.0]]))
    assert kept.tolist() == [[0, pytest.approx(0.8)], [1, 0]]
    assert at_l0(Written(), rows, 2).cut == 0


def test_the_truth_is_recovered_whole(case):
    figures = measure(Truth(case), case)
    assert (figures["mcc"], figures["f1"]) == (pytest.approx(1, abs=1e-6), pytest.approx(1))
    assert (figures["score_error"], figures["score_within"]) == (pytest.approx(0, abs=1e-6), 1)
    assert figures["matched"] == 1
    assert figures["l0"] == pytest.approx((case.truth.image.nnz + case.truth.text.nnz) / 2400)


def test_codes_in_another_order_of_rows_are_not_recovered(case):
    wrong = Truth(case)
    wrong.codes = wrong.codes.flip(0)
    assert measure(wrong, case)["mcc"] < 0.5


def test_the_cut_leaves_k_codes_in_the_mean_of_both_modalities():
    """One image and two captions: a code of the image counts .5 in the mean, one of a caption .25."""
    rows = Pair(np.array([[3.0, 1.0]]), np.array([[2.0, 0.5], [1.5, 0.2]]))  # each row has two codes, so L0 is 2
    cut = at_l0(Written(), rows, 1).cut
    # Codes of the rows at unit norm, from the least: .2 / 1.51 and .5 / 2.06 of the captions, 1 / 3.16 of the image.
    assert cut == pytest.approx(1 / np.sqrt(10))
    assert at_l0(Written(), rows, 2).cut == 0


def test_an_sae_with_too_high_a_threshold_is_compared_at_as_many_codes():
    config = Config(
        architecture="batchtopk", dim=2, width=2, k=1, seed=0, epochs=1, batch_size=2, learning_rate=1e-3,
        decoder_bias=False, image_share=0.5, auxk=0.0, dead_after_epochs=0.5, rows_seen=1,
    )  # fmt: skip
    net = SAE(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), torch.tensor(2.0), config)
    rows = Pair(np.array([[3.0, 1.0]]), np.array([[1.0, 0.5]]))
    assert not net.encode(rows.image).any()
    coder = at_l0(net, rows, 1)
    assert [int((coder.encode(unit_rows(part)) > 0).sum()) for part in rows] == [1, 1]


def test_a_row_shows_the_mean_and_the_range_of_the_seeds():
    values = joined([{"r2": 0.5}, {"r2": 0.7}])["r2"]
    shown, held, missed = row("R2", values), row("R2", values, 0.55), row("R2", values, 0.55, least=False)
    assert shown["name"] == "R2 [0.500, 0.700]"
    assert (shown["value"], shown["bar"]) == (pytest.approx(0.6), "")
    assert (held["holds"], missed["holds"]) == (True, False)


def test_a_sweep_draws_as_many_rows_as_the_defaults(case, monkeypatch):
    seen = []
    monkeypatch.setattr("bench.sae_quality.trained", lambda case, seeds, **settings: seen.append(settings) or {})
    points = sweep(case, argparse.Namespace(factors=[0.5, 1.0], seeds=1))
    # 400 rows: sqrt(400) is nearest to 16, and the least batch is 32.
    assert {batch for batch, _ in points} == {16, 32, 64}
    assert len(points) == 6
    assert {settings["epochs"] for settings in seen} == {200}


def test_the_rule_of_the_learning_rate_is_judged_at_several_steps_and_widths(case, monkeypatch):
    """The rates of the rule by hand: 6e-3 sqrt(2000 / steps) (256 / width)^(1/4), at most 1e-2."""
    tried = []

    def trained(case, seeds, *, epochs, batch_size, learning_rate):
        tried.append((epochs, case.width, learning_rate))
        return {"r2": [0.9 if learning_rate > 0.006 else 0.8]}

    monkeypatch.setattr("bench.sae_quality.planted", lambda options: case)
    monkeypatch.setattr("bench.sae_quality.trained", trained)
    options = argparse.Namespace(rule_epochs=[1000, 4000], widths=[256, 4096], factors=[0.5, 1.0, 2.0], seeds=1)
    rows = list(SECTIONS["rule"](options))
    # 400 rows are 2 batches of 256, so 2,000 and 8,000 steps.
    assert tried[1::3] == [(1000, 256, 6e-3), (4000, 256, 3e-3), (4000, 4096, 1.5e-3)]
    assert [row["value"] for row in rows] == pytest.approx([-0.1, 0, 0])
    assert [row["holds"] for row in rows] == [False, True, True]
    assert "2000 steps, width 256: r2 with the rule's rate 0.006, less that with the best, 0.012" in rows[0]["name"]


def test_the_noise_of_the_rule_is_judged_beside_other_amounts(case, monkeypatch):
    monkeypatch.setattr("bench.sae_quality.planted", lambda options, pairs: case)
    monkeypatch.setattr("bench.sae_quality.trained", lambda case, seeds, *, noise: {"r2": [0.8 - abs(noise - 0.1)]})
    rows = list(SECTIONS["noise"](argparse.Namespace(noise_sizes=[200], noises=[0.0, 0.1], seeds=1)))
    # 400 rows get 200 epochs, and with them the most noise, .4.
    assert [row["value"] for row in rows] == pytest.approx([0.7, 0.8, 0.5, -0.3, -0.2])
    assert [row["holds"] for row in rows if row["bar"] != ""] == [False, False]
    assert "r2 with the rule's noise 0.4, less that with the best, 0.1" in rows[-2]["name"]
    assert "r2 with the rule's noise 0.4, less that without noise" in rows[-1]["name"]


def test_sections_and_sizes_are_options():
    options = parsed(["--quick", "--only", "l0", "--pairs", "100"])
    assert (options.only, options.pairs, options.dim) == (["l0"], 100, 64)
    assert parsed([]).pairs == 40_000
    with pytest.raises(SystemExit):
        parsed(["--only", "nothing"])
    assert set(SECTIONS) == {"modality", "jumprelu", "start", "defaults", "rule", "noise", "l0", "peers"}

"""The pair ledger: hand-worked numbers, and the law that its rows and terms sum to the similarity for every SAE."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_cases import DIM, WIDTH, cases, sae_of

from sae.ledger import ledger_of, pair_ledger, random_sets, split, without
from sae.model import SAE, Config

CASES = cases()


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.1, 1.0, 8.0]))
def test_rows_and_terms_sum_to_the_similarity(name: str, seed: int, size: float) -> None:
    net, random = CASES[name], np.random.default_rng(seed)
    image, text = size * random.standard_normal((2, DIM))
    ledger = pair_ledger(net, image, text)
    expected = image @ text
    if net.config.preprocessing == "l2":
        expected /= np.linalg.norm(image) * np.linalg.norm(text)
    assert ledger.similarity == pytest.approx(expected, abs=1e-9)
    assert ledger.total == pytest.approx(expected, abs=1e-5)
    # The residual is what `SAE.decode` leaves, so the terms are those of the SAE's own reconstruction.
    for modality, x in (("image", image), ("text", text)):
        item = split(net, x, modality)
        rebuilt = net.decode(net.encode(x[None], modality), modality)[0].numpy()
        np.testing.assert_allclose(item.x - item.residual, rebuilt, atol=1e-5 * (1 + np.abs(rebuilt).max()))
    n = len(split(net, image, "image").concepts) * len(split(net, text, "text").concepts)
    assert len(ledger.contribution) == n
    assert ("means" in ledger.terms) == net.config.centring


def by_hand() -> SAE:
    dictionary = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    config = Config(
        architecture="topk", dim=2, width=3, k=2, decoder_bias=True, image_share=0.5, seed=0, epochs=1, batch_size=4,
        learning_rate=1e-3, auxk=1 / 32, dead_after_epochs=0.5, rows_seen=8,
    )  # fmt: skip
    return SAE(dictionary, torch.zeros(3), dictionary, torch.tensor([0.1, 0.0]), torch.tensor(0.0), config)


def test_a_pair_worked_by_hand() -> None:
    # Image (1, 0), less b = (.1, 0), has the pre-activations .9, 0 and .54: concepts 0 and 2 fire.
    # Caption (0, 1), less b, has -.1, 1 and .74: concepts 1 and 2 fire.
    # Rows: 0-1: .9 * 1 * 0; 0-2: .9 * .74 * .6 = .3996; 2-1: .54 * 1 * .8 = .432; 2-2: .54 * .74 = .3996.
    ledger = pair_ledger(by_hand(), np.array([2.0, 0]), np.array([0, 3.0]))
    rows = {
        (int(i), int(j)): v
        for i, j, v in zip(ledger.image_concept, ledger.text_concept, ledger.contribution, strict=True)
    }
    assert rows == pytest.approx({(0, 1): 0.0, (0, 2): 0.3996, (2, 1): 0.432, (2, 2): 0.3996}, abs=1e-6)
    assert (ledger.image_concept[0], ledger.text_concept[0]) == (2, 1)  # the largest row comes first
    # s_I = .9 (1, 0) + .54 (.6, .8) = (1.224, .432), s_T = (0, 1) + .74 (.6, .8) = (.444, 1.592).
    # e_I = (1, 0) - s_I - b = (-.324, -.432), e_T = (0, 1) - s_T - b = (-.544, -.592).
    # <e_I, x_hat_T> = -.324 * .544 - .432 * 1.592; <x_hat_I, e_T> = 1.324 * -.544 + .432 * -.592.
    assert ledger.terms == pytest.approx({
        "text_on_bias": 0.0444, "image_on_bias": 0.1224, "bias": 0.01, "image_residual": -0.864,
        "text_residual": -0.976, "residuals": 0.324 * 0.544 + 0.432 * 0.592,
    }, abs=1e-6)  # fmt: skip
    assert ledger.similarity == 0


def test_leaving_out_concepts_removes_their_rows_and_keeps_residuals_and_biases() -> None:
    net, random = sae_of("relu", seed=3), np.random.default_rng(0)
    image, text = (split(net, x, m) for x, m in zip(random.standard_normal((2, DIM)), ("image", "text"), strict=True))
    gone = {int(image.concepts[0]), int(text.concepts[-1])}
    # The ledger of what is left has the rows of the other concepts, and the same residuals.
    left = [item._replace(
        x=without(net, item, gone), concepts=item.concepts[~np.isin(item.concepts, list(gone))],
        codes=item.codes[~np.isin(item.concepts, list(gone))],
    ) for item in (image, text)]  # fmt: skip
    before, after = ledger_of(net, image, text), ledger_of(net, *left)
    kept = ~(np.isin(before.image_concept, list(gone)) | np.isin(before.text_concept, list(gone)))
    np.testing.assert_allclose(after.contribution, before.contribution[kept], atol=1e-12)
    assert after.terms["residuals"] == before.terms["residuals"]
    assert after.terms["bias"] == before.terms["bias"]
    assert after.total == pytest.approx(without(net, image, gone) @ without(net, text, gone), abs=1e-9)
    np.testing.assert_array_equal(without(net, image, set()), image.x)


def test_random_sets_hold_at_most_the_energy_that_they_stand_for() -> None:
    net, random = sae_of("relu", seed=3), np.random.default_rng(0)
    image, text = (split(net, x, m) for x, m in zip(random.standard_normal((2, DIM)), ("image", "text"), strict=True))

    def energy(concepts: set[int]) -> float:
        return sum(float(item.codes[np.isin(item.concepts, list(concepts))].sum()) for item in (image, text))

    chosen = {int(image.concepts[image.codes.argmax()])}
    sets = random_sets(image, text, chosen, draws=20)
    assert all(0 < energy(drawn) <= energy(chosen) + 1e-12 for drawn in sets)
    assert len({frozenset(drawn) for drawn in sets}) > 1
    every = set(image.concepts.tolist()) | set(text.concepts.tolist())
    assert random_sets(image, text, every, draws=1) == [every]
    assert random_sets(image, text, {WIDTH + 1}, draws=1) == [set()]  # a concept that does not fire has no energy


def test_refusals() -> None:
    with pytest.raises(ValueError, match="norm 0"):
        pair_ledger(by_hand(), np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="modality is 'audio'"):
        split(by_hand(), np.ones(2), "audio")
    with pytest.raises(ValueError, match="takes"):
        pair_ledger(by_hand(), np.ones(3), np.ones(2))

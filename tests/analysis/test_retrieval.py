"""Recall at K, with ranks worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import retrieval
from analysis.coactivation import Codes
from analysis.embedding_retrieval import baselines
from analysis.retrieval import (
    ConceptSets,
    Decoder,
    Gallery,
    equal_energy,
    interventions,
    kept,
    most,
    recall,
    removed,
)


def test_worked_example():
    # The images are the axes x and y. Caption t0 = x belongs to image 0. Captions t1 and t2 belong to image 1:
    # t1 is nearer to x than to y, and t2 is y.
    image = np.array([[2.0, 0], [0, 1]])
    text = np.array([[1.0, 0], [0.8, 0.6], [0, 1]])
    result = recall(image, text, np.array([0, 1, 1]), ks=(1, 2))
    # Image 0 ranks its caption t0 first. Image 1 ranks t2 first, which is a hit although its caption t1 ranks lower.
    assert result["image_to_text"] == {1: 1.0, 2: 1.0}
    # Caption t1 is nearer to image 0 (.8) than to its own image (.6), so two of three captions hit at K = 1.
    assert result["text_to_image"] == {1: pytest.approx(2 / 3), 2: 1.0}


def test_collapsed_embeddings_score_nothing():
    result = recall(np.ones((20, 3)), np.ones((20, 3)), np.arange(20), ks=(1, 5, 20))
    assert result["image_to_text"] == {1: 0.0, 5: 0.0, 20: 1.0}
    assert result["text_to_image"] == {1: 0.0, 5: 0.0, 20: 1.0}


def test_images_without_captions_are_no_queries_but_stay_in_the_gallery():
    image, text = np.array([[1.0, 0], [0.6, 0.8]]), np.array([[0.7, 0.7]])
    result = recall(image, text, np.array([0]), ks=(1,))
    assert result["image_to_text"] == {1: 1.0}
    assert result["text_to_image"] == {1: 0.0}  # the caption is nearer to image 1 than to its own image 0


def test_owner_must_exist():
    with pytest.raises(ValueError, match="owner"):
        recall(np.eye(2), np.eye(2), np.array([0, 2]))


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_blocks_agree_with_plain_sorting(seed):
    random = np.random.default_rng(seed)
    image, text = random.standard_normal((17, 5)), random.standard_normal((40, 5))
    owner = random.integers(0, 17, 40)
    unit_i, unit_t = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (image, text))
    nearest_t, nearest_i = np.argsort(-unit_i @ unit_t.T, axis=1), np.argsort(-unit_t @ unit_i.T, axis=1)
    before = retrieval.BLOCK
    retrieval.BLOCK = 6
    try:
        result = recall(image, text, owner)
    finally:
        retrieval.BLOCK = before
    for k in (1, 5, 10):
        hits = [(owner[nearest_t[i, :k]] == i).any() for i in range(17) if (owner == i).any()]
        assert result["image_to_text"][k] == pytest.approx(np.mean(hits))
        assert result["text_to_image"][k] == pytest.approx((nearest_i[:, :k] == owner[:, None]).any(1).mean())


def csr(dense) -> Codes:
    dense = np.asarray(dense, np.float32)
    rows, concepts = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return Codes(indptr.astype(np.int64), concepts.astype(np.int32), dense[rows, concepts])


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_case(seed, images=12, texts=20, width=7, dim=5):
    """A gallery, dense codes, a dictionary and a bias. Concept 6 is dead, concept 5 fires on images only."""
    random = np.random.default_rng(seed)
    z_I, z_T = (
        np.where(random.random((n, width)) < 0.5, random.exponential(1, (n, width)), 0).astype(np.float32)
        for n in (images, texts)
    )
    z_I[:, 6] = z_T[:, 6] = z_T[:, 5] = 0
    D, b = unit(random.standard_normal((width, dim))), 0.1 * random.standard_normal(dim)
    gallery = Gallery(*(unit(random.standard_normal((n, dim))) for n in (images, texts)), random.integers(0, 12, texts))
    return gallery, z_I, z_T, D, b


def test_removing_and_keeping_worked():
    # The row is (.6, .8), its codes (.6, .4), the atoms are the axes. Removing concept 0 leaves (0, .8), removing
    # concept 1 leaves (.6, .4). Both are then normalised; |(.6, .4)| = sqrt .52.
    x, codes, D = np.array([[0.6, 0.8]]), csr([[0.6, 0.4]]), np.eye(2)
    np.testing.assert_allclose(removed(x, codes, D, np.array([0])), [[0, 1]], atol=1e-7)
    np.testing.assert_allclose(removed(x, codes, D, np.array([1])), np.array([[0.6, 0.4]]) / 0.52**0.5, atol=1e-7)
    # Keeping one concept and the bias b = (0, .8) gives (.6, .8) for concept 0 and (0, 1.2) for concept 1. Keeping no
    # concept gives b. All are then normalised.
    b = np.array([0, 0.8])
    np.testing.assert_allclose(kept(codes, D, b, np.array([0])), [[0.6, 0.8]], atol=1e-7)
    np.testing.assert_allclose(kept(codes, D, b, np.array([1])), [[0, 1]], atol=1e-7)
    np.testing.assert_allclose(kept(codes, D, b, np.array([], int)), [[0, 1]], atol=1e-7)
    # With no concept and a bias of 0 the row is 0. Recall ranks such a row last.
    assert kept(codes, D, np.zeros(2), np.array([], int)).tolist() == [[0, 0]]


@given(st.integers(0, 1000), st.sets(st.integers(0, 6)))
@settings(max_examples=30, deadline=None)
def test_removing_and_keeping_agree_with_dense_numpy(seed, chosen):
    gallery, z, _, D, b = random_case(seed)
    S = np.array(sorted(chosen), int)
    part = z[:, S].astype(float) @ D[S]
    np.testing.assert_allclose(removed(gallery.image, csr(z), D, S), unit(gallery.image - part), atol=1e-5)
    np.testing.assert_allclose(kept(csr(z), D, b, S), unit(part + b), atol=1e-5)
    # Removing no concept gives the embedding itself; keeping all concepts gives the reconstruction.
    np.testing.assert_allclose(removed(3 * gallery.image, csr(z), D, S[:0]), gallery.image, atol=1e-6)
    np.testing.assert_allclose(kept(csr(z), D, b, np.arange(7)), unit(z @ D + b), atol=1e-5)
    # Repeated and dead concepts change nothing.
    again = np.concatenate([S, S, [6]])
    np.testing.assert_allclose(removed(gallery.image, csr(z), D, S), removed(gallery.image, csr(z), D, again))


def test_every_intervention_is_the_recall_of_its_vectors():
    gallery, z_I, z_T, D, b = random_case(0)
    means = gallery.image.mean(0), gallery.text.mean(0)
    energy = (z_I.mean(0) + z_T.mean(0)) / 2
    sets = ConceptSets(np.array([5, 0]), np.array([1, 2, 3, 4]), np.array([2]), np.array([0, 3]))
    decoder = Decoder(csr(z_I), csr(z_T), D, b)
    results = [*baselines(gallery, means), *interventions(gallery, decoder, energy, sets, seed=1)]
    recalls = {(one.intervention, one.direction): one.recalls for one in results}
    assert len(recalls) == len(results)

    def without(S):
        return unit(gallery.image - z_I[:, S] @ D[S]), unit(gallery.text - z_T[:, S] @ D[S])

    expected = {
        "embeddings": (gallery.image, gallery.text),
        "mean_removed": (gallery.image - means[0], gallery.text - means[1]),
        "reconstructions": (z_I @ D + b, z_T @ D + b),
        "without_unimodal": without([0, 5]),
        "without_bimodal": without([1, 2, 3, 4]),
        "without_aligned": without([2]),
        "only_bridging": (z_I[:, [0, 3]] @ D[[0, 3]] + b, z_T[:, [0, 3]] @ D[[0, 3]] + b),
    }
    for name, vectors in expected.items():
        for direction, at in recall(*vectors, gallery.owner).items():
            assert recalls[name, direction] == pytest.approx(at), name
    order = list(dict.fromkeys(one.intervention for one in results))
    random = ["random_for_unimodal", "random_for_bimodal", "random_for_aligned"]
    assert sorted(order) == sorted([*expected, *random])
    by_name = {one.intervention: one for one in results}
    assert by_name["without_unimodal"].concepts == 2
    assert by_name["without_unimodal"].energy == pytest.approx((energy[0] + energy[5]) / energy.sum())
    assert by_name["reconstructions"].energy == pytest.approx(1)
    assert np.isnan(by_name["embeddings"].energy)
    # For random sets of concepts, the recall is the mean of the recalls of all draws.
    draws = equal_energy(energy, np.array([0, 5]), retrieval.DRAWS, seed=1)
    for direction in ("image_to_text", "text_to_image"):
        each = [recall(*without(S), gallery.owner)[direction] for S in draws]
        mean = {k: np.mean([one[k] for one in each]) for k in (1, 5, 10)}
        assert recalls["random_for_unimodal", direction] == pytest.approx(mean)
    shares = [energy[S].sum() / energy.sum() for S in draws]
    assert by_name["random_for_unimodal"].energy == pytest.approx(np.mean(shares))


def test_mean_removal_undoes_a_hub():
    # Image 0 has the cosines .96 and .936 with the captions, image 1 has 0 and .6. So caption 1 ranks image 0 first,
    # although it belongs to image 1: all captions lie on the side of image 0. The modality means are (.8, 0) and
    # (.78, .54). Less these means, the images are +-(0, .6) and the captions +-(-.18, .26). Each item is nearest to its
    # partner of equal sign.
    image, text = np.array([[0.8, 0.6], [0.8, -0.6]]), np.array([[0.6, 0.8], [0.96, 0.28]])
    results = baselines(Gallery(image, text, np.arange(2)), (image.mean(0), text.mean(0)))
    recalls = {(one.intervention, one.direction): one.recalls[1] for one in results}
    assert recalls["embeddings", "image_to_text"] == 1.0
    assert recalls["embeddings", "text_to_image"] == 0.5
    assert recalls["mean_removed", "image_to_text"] == recalls["mean_removed", "text_to_image"] == 1.0


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_swapping_the_modalities_swaps_the_directions(seed):
    gallery, z_I, _, D, b = random_case(seed, texts=12)
    z_T = z_I[::-1]
    owner = np.random.default_rng(seed).permutation(12)  # one caption per image
    sets = ConceptSets(np.arange(2), np.arange(2, 7), np.arange(3), np.arange(4))
    energy = z_I.mean(0)
    one = interventions(gallery._replace(owner=owner), Decoder(csr(z_I), csr(z_T), D, b), energy, sets, 0)
    other = interventions(
        Gallery(gallery.text, gallery.image, np.argsort(owner)),
        Decoder(csr(z_T), csr(z_I), D, b), energy, sets, 0,
    )  # fmt: skip
    recalls = {(o.intervention, o.direction): o.recalls for o in one}
    for one in other:
        back = {"image_to_text": "text_to_image", "text_to_image": "image_to_text"}[one.direction]
        assert one.recalls == pytest.approx(recalls[one.intervention, back])


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.integers(0, 1000), st.data())
@settings(max_examples=60, deadline=None)
def test_random_sets_hold_as_much_energy_as_they_can(energy, seed, data):
    energy = np.array(energy)
    S = np.array(sorted(data.draw(st.sets(st.integers(0, len(energy) - 1)))), int)
    target = energy[S].sum()
    for draw in equal_energy(energy, S, 3, seed):
        held, left_out = energy[draw].sum(), np.delete(energy, draw)
        assert len(set(draw.tolist())) == len(draw)
        assert held <= target * (1 + 1e-9)
        lacking = target - held
        assert lacking <= 0.01 * target + 1e-9 or (left_out[left_out > 0] > lacking * (1 - 1e-9)).all()


def test_random_sets_of_equal_concepts_are_as_many():
    draws = equal_energy(np.array([1.0] * 8 + [0.0] * 4), np.array([0, 1, 2]), 20, seed=0)
    assert {len(draw) for draw in draws} == {3}
    assert len({tuple(draw) for draw in draws}) > 5
    assert max(draw.max() for draw in draws) == 7  # a concept without energy is never drawn
    assert [draw.tolist() for draw in equal_energy(np.ones(5), np.array([], int), 2, 0)] == [[], []]
    assert {len(draw) for draw in equal_energy(np.ones(5), np.array([1, 1, 3]), 5, 0)} == {2}


def test_most_aligned_either_way():
    # Concepts 2 (.5) and 3 (-.5) are equally aligned; the lower id comes first.
    assert most(np.array([0.1, -0.9, 0.5, -0.5, np.float64(0)]), 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": np.ones(6)}, "for each of 7 concepts"),
        ({"energy": np.array([1, np.nan, 1, 1, 1, 1, 1])}, "one number from 0"),
        ({"sets": ConceptSets(np.array([7]), *[np.array([0])] * 3)}, "unimodal names a concept outside 0..6"),
        ({"sets": ConceptSets(*[np.array([0])] * 3, np.array([-1]))}, "bridging names a concept"),
        ({"width": 3}, "codes name a concept outside"),
        ({"rows": 3}, "image: codes of 3 rows for a gallery of 12"),
        ({"dim": 4}, r"give rows \(12, 4\), the embeddings are \(12, 5\)"),
    ],
)
def test_interventions_on_input_that_does_not_fit(change, message):
    gallery, z_I, z_T, D, b = random_case(0)
    shapes = {"width": 7, "rows": 12, "dim": 5} | change
    width, rows, dim = (shapes.pop(name) for name in ("width", "rows", "dim"))
    decoder = Decoder(csr(z_I[:rows]), csr(z_T), D[:width, :dim], b[:dim])
    sets = ConceptSets(*[np.array([0])] * 4)
    good = {"energy": np.ones(width), "sets": sets}
    with pytest.raises(ValueError, match=message):
        list(interventions(gallery, decoder, **(good | shapes), seed=0))


def test_baselines_without_training_means_are_unknown_and_means_of_another_width_are_refused():
    gallery, *_ = random_case(0)
    unknown = np.full(5, np.nan)
    results = {(one.intervention, one.direction): one.recalls for one in baselines(gallery, (unknown, unknown))}
    assert set(results) == {(a, b) for a in ("embeddings", "mean_removed") for b in ("image_to_text", "text_to_image")}
    assert np.isnan(results["mean_removed", "text_to_image"][1])
    assert np.isfinite(results["embeddings", "text_to_image"][1])
    with pytest.raises(ValueError, match="mean image of shape"):
        list(baselines(gallery, (np.zeros(4), np.zeros(5))))


def test_hits_per_group_add_up_to_the_recall():
    random = np.random.default_rng(0)
    image, text = random.standard_normal((30, 3)), random.standard_normal((50, 3))
    owner, group = np.sort(random.integers(0, 28, 50)), np.arange(30) % 4
    gallery = retrieval.Gallery(image, text, owner, group)
    keys = {"model": "m", "sae": "s", "seed": 0, "split": "heldout", "intervention": "reconstructions"}
    rows = retrieval.group_rows(keys, gallery, image, text)
    for direction, recalls in retrieval.recall(image, text, owner).items():
        of = rows.filter(direction=direction)
        assert of["hits"].sum() / of["queries"].sum() == pytest.approx(recalls[1])
    # A query of an image is in the image's group if the image has a caption; a caption is in the group of its image.
    images = rows.filter(direction="image_to_text")["queries"].to_list()
    assert images == np.bincount(group[np.unique(owner)]).tolist()
    assert rows.filter(direction="text_to_image")["queries"].to_list() == np.bincount(group[owner]).tolist()

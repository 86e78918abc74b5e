"""The demo's model: features, alignment, checkpoint, and the embeddings of the loaded checkpoint."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vlm
from vlm import demo


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_pairs(seed: int = 0, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of images and captions, and owners. An image and its captions are linear maps of one hidden vector."""
    draw = np.random.default_rng(seed)
    hidden = draw.normal(size=(n, 8))
    images = hidden @ draw.normal(size=(8, 1280))
    captions = np.repeat(hidden, 2, axis=0) @ draw.normal(size=(8, 384))
    return images.astype(np.float32), captions.astype(np.float32), np.arange(2 * n) // 2


def test_a_loaded_checkpoint_gives_the_projected_features(built) -> None:
    encoder = vlm.load(f"open_clip:local-dir:{built.folder}")
    assert encoder.dim == demo.DIM
    images = encoder.encode_images([vlm.decode(data) for data in built.images])
    np.testing.assert_allclose(images, unit(built.image_features @ built.projections.image.T), atol=1e-5)
    texts = encoder.encode_texts(built.captions)
    np.testing.assert_allclose(texts, unit(built.caption_features @ built.projections.text.T), atol=1e-5)
    assert float(encoder.model.logit_scale.exp()) == pytest.approx(built.projections.scale)
    assert float(encoder.model.logit_bias) == pytest.approx(built.projections.bias)


def test_checkpoints_of_equal_projections_have_equal_bytes_and_no_paths(built, tmp_path: Path) -> None:
    demo.write_checkpoint(tmp_path / "again", built.projections)
    names = sorted(path.name for path in built.folder.iterdir())
    assert names == sorted({demo.WEIGHTS_FILE, demo.CONFIG_FILE, *demo.TOWER_FILES})
    for name in names:
        written = (built.folder / name).read_bytes()
        assert written == (tmp_path / "again" / name).read_bytes()
        for folder in (built.folder.parent, Path(demo.__file__).parent, Path(torch.__file__).parents[1]):
            assert str(folder).encode() not in written


@pytest.mark.parametrize("variant", demo.VARIANTS)
def test_alignment_is_deterministic_and_follows_its_seed(variant: str) -> None:
    first, again = (demo.align(*random_pairs(), variant, seed=3) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.text.tobytes() == again.text.tobytes()
    assert (first.image.shape, first.text.shape) == ((demo.DIM, 1280), (demo.DIM, 384))
    assert not np.array_equal(first.image, demo.align(*random_pairs(), variant, seed=4).image)


@pytest.mark.parametrize("variant", demo.VARIANTS)
def test_alignment_brings_captions_to_their_images(variant: str) -> None:
    images, captions, owner = random_pairs()
    learned = demo.align(images, captions, owner, variant)
    nearest = (unit(captions @ learned.text.T) @ unit(images @ learned.image.T).T).argmax(axis=1)
    assert (nearest == owner).mean() > 0.9


def test_alignment_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    demo.align(*random_pairs(n=4), "emoji-clip")
    assert torch.get_num_threads() == before


def test_images_without_a_caption_are_left_out() -> None:
    images, captions, owner = random_pairs(n=6)
    more = np.concatenate([images, np.full((1, 1280), np.nan, dtype=np.float32)])
    np.testing.assert_array_equal(
        demo.align(more, captions, owner, "emoji-clip").image, demo.align(images, captions, owner, "emoji-clip").image
    )


def test_alignment_refuses_what_it_cannot_use() -> None:
    images, captions, owner = random_pairs(n=4)
    with pytest.raises(vlm.SpecError, match="demo model 'emoji': allowed are emoji-clip, emoji-siglip"):
        demo.align(images, captions, owner, "emoji")
    with pytest.raises(ValueError, match="owner must hold a row of 4 images for each of 8"):
        demo.align(images, captions, owner + 1, "emoji-clip")
    with pytest.raises(ValueError, match="a contrast needs two"):
        demo.align(images, captions[:2], owner[:2], "emoji-clip")


def test_losses_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    # The softmax loss of each row and of each column is -log(e^2 / (e^2 + 1)) = log(1 + e^-2).
    assert float(demo.contrastive_loss(logits, "softmax")) == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)
    # The sigmoid loss of a pair is log(1 + e^-2) on the diagonal and log(1 + e^0) = log 2 off the diagonal. There are
    # two pairs on the diagonal and two off it, and the sum of their losses is divided by B = 2.
    expected = math.log(1 + math.exp(-2)) + math.log(2)
    assert float(demo.contrastive_loss(logits, "sigmoid")) == pytest.approx(expected, rel=1e-6)


def test_progress_is_reported_and_empty_input_has_the_right_shape(built) -> None:
    calls: list[tuple[str, int]] = []
    images, captions = demo.tower_features(built.images[:3], [], 2, lambda what, done: calls.append((what, done)))
    assert calls == [("images", 2), ("images", 3), ("captions", 0)]
    assert captions.shape == (0, demo.TEXT_WIDTH)
    np.testing.assert_allclose(images, built.image_features[:3], atol=1e-4)
    assert demo.tower_features([], ["x"])[0].shape == (0, demo.IMAGE_WIDTH)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TEXT_PACKAGE", "not_installed_here")
    with pytest.raises(vlm.SpecError, match=r"not_installed_here: pip install -e '\.\[demo\]'"):
        demo.tower_features([], ["x"])

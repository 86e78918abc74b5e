"""SAEs in the formats of SAELens and overcomplete: imports worked by hand, export and import, and refused files."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from sae.architectures import ARCHITECTURES
from sae.hub import from_hub, model_card, push_to_hub
from sae.interchange import (
    from_overcomplete,
    from_saelens,
    kind_of,
    load_checkpoint,
    to_overcomplete,
    to_saelens,
)
from sae.model import SAE, Config, SAEFormatError


def make(architecture="batchtopk", centring=False, per_concept=False, dim=6, width=10, k=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    atoms = torch.nn.functional.normalize(draw(width, dim), dim=1)
    config = Config(
        architecture=architecture, dim=dim, width=width, k=k, decoder_bias=True, image_share=0.5, seed=seed, epochs=3,
        batch_size=64, learning_rate=1e-3, auxk=1 / 32, dead_after_epochs=0.5, rows_seen=900, centring=centring,
    )  # fmt: skip
    threshold = torch.rand(width, generator=g) * 0.3 if per_concept else torch.tensor(0.1)
    means = {"mean_image": draw(dim) * 0.1, "mean_text": draw(dim) * 0.1} if centring else {}
    return SAE(atoms + 0.1 * draw(width, dim), 0.1 * draw(width), atoms, 0.2 * draw(dim), threshold, config, **means)


def rows(count=50, dim=6, seed=9):
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def saelens_folder(folder, tensors, **entries):
    folder.mkdir()
    save_file({name: torch.tensor(value) for name, value in tensors.items()}, folder / "sae_weights.safetensors")
    config = {"architecture": "jumprelu", "d_in": 2, "d_sae": 2, "metadata": {"sae_lens_version": "6.1.0"}, **entries}
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


# The atoms have the norms 2 and 5, which an import folds into codes and thresholds. For row (1, 0), b_dec is subtracted
# first: the pre-activations are (1 - .5) * 1 + .25 = .75 and (1 - .5) * .4 = .2. Both exceed their thresholds, .5 and
# .1. The folded codes are 2 * .75 = 1.5 and 5 * .2 = 1.0, the folded thresholds 2 * .5 = 1.0 and 5 * .1 = .5.
BY_HAND = {
    "W_enc": [[1.0, 0.4], [0.0, 0.0]],
    "b_enc": [0.25, 0.0],
    "W_dec": [[2.0, 0.0], [3.0, 4.0]],
    "b_dec": [0.5, 0.0],
    "threshold": [0.5, 0.1],
}


def test_norms_go_into_codes_and_thresholds(tmp_path):
    folded = from_saelens(saelens_folder(tmp_path / "a", BY_HAND))
    codes = folded.encode(torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(codes, torch.tensor([[1.5, 1.0]]))
    torch.testing.assert_close(folded.threshold, torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(folded.dictionary, torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    # SAELens decodes to .75 * (2, 0) + .2 * (3, 4) + (.5, 0) = (2.6, .8).
    torch.testing.assert_close(folded.decode(codes), torch.tensor([[2.6, 0.8]]))
    assert folded.config.preprocessing == "none"  # SAELens does not normalise rows
    # Row (.7, 0) has the pre-activation (.7 - .5) + .25 = .45, below the threshold .5, so the concept may not fire. Its
    # folded pre-activation is 2 * .45 = .9: with a threshold that was not multiplied by the norm it would fire.
    assert folded.encode(torch.tensor([[0.7, 0.0]]))[0, 0] == 0


def test_a_decoder_bias_that_stays_out_of_the_input_is_kept_out(tmp_path):
    folded = from_saelens(saelens_folder(tmp_path / "a", BY_HAND, apply_b_dec_to_input=False))
    # b_dec is not subtracted: the pre-activations are 1 + .25 and .4, the codes 2 * 1.25 = 2.5 and 5 * .4 = 2.0.
    torch.testing.assert_close(folded.encode(torch.tensor([[1.0, 0.0]])), torch.tensor([[2.5, 2.0]]))


def test_rows_scaled_to_the_root_of_the_dimension_are_unscaled(tmp_path):
    folded = from_saelens(saelens_folder(tmp_path / "a", BY_HAND, normalize_activations="constant_norm_rescale"))
    # SAELens multiplies the unit row (1, 0) by sqrt d = 1.414. The pre-activations are (1.414 - .5) + .25 = 1.1642 and
    # (1.414 - .5) * .4 = .3657; both exceed their thresholds. SAELens divides the reconstruction by sqrt d again:
    # (1.1642 (2, 0) + .3657 (3, 4) + (.5, 0)) / 1.4142 = (2.7757, 1.0343).
    codes = folded.encode(torch.tensor([[3.0, 0.0]]))  # a row of any norm, since it is normalised first
    torch.testing.assert_close(folded.decode(codes), torch.tensor([[2.7757, 1.0343]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("out", "back"), [(to_saelens, from_saelens), (to_overcomplete, from_overcomplete)])
def test_there_and_back_gives_the_same_codes_and_reconstructions(tmp_path, architecture, out, back):
    sae = make(architecture, per_concept=architecture == "jumprelu")
    out(sae, tmp_path / "x")
    options = {"architecture": "topk", "k": 3} if architecture == "topk" and back is from_overcomplete else {}
    again = back(tmp_path / "x", **options)
    codes = sae.encode(rows())
    assert codes.count_nonzero() > 30
    torch.testing.assert_close(again.encode(rows()), codes, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.decode(codes), sae.decode(codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("out", "back"), [(to_saelens, from_saelens), (to_overcomplete, from_overcomplete)])
def test_centring_is_exported_for_one_modality_at_a_time(tmp_path, out, back):
    sae = make(centring=True)
    for modality in ("image", "text"):
        out(sae, tmp_path / modality, modality)
        again, codes = back(tmp_path / modality), sae.encode(rows(), modality)
        torch.testing.assert_close(again.encode(rows()), codes, atol=1e-5, rtol=0)
        torch.testing.assert_close(again.decode(codes), sae.decode(codes, modality), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match='export it for "image" or for "text"'):
        out(sae, tmp_path / "neither")


def state(**changes):
    """The state dict of an overcomplete SAE, d = 2, C = 2, whose stored atoms are not normalised."""
    return {
        "encoder.final_block.0.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "encoder.final_block.0.bias": torch.tensor([0.0, 0.5]),
        "dictionary._weights": torch.tensor([[2.0, 0.0], [3.0, 4.0]]),
        "dictionary.multiplier": torch.tensor(0.0),
        **changes,
    }


def test_an_overcomplete_state_dict_worked_by_hand(tmp_path):
    # overcomplete normalises the atoms to (1, 0) and (.6, .8), then multiplies them by exp(ln 2) = 2. So codes double.
    changes = {"dictionary.multiplier": torch.tensor(2.0).log(), "thresholds": torch.tensor([0.9, 0.1]).log()}
    torch.save(state(**changes), tmp_path / "sae.pt")
    folded = from_overcomplete(tmp_path / "sae.pt")
    # Row (.8, .6) has the pre-activations .8, which is below its threshold .9, and .6 + .5 = 1.1, whose code is 2.2.
    codes = folded.encode(torch.tensor([[0.8, 0.6]]))
    torch.testing.assert_close(codes, torch.tensor([[0.0, 2.2]]))
    torch.testing.assert_close(folded.decode(codes), torch.tensor([[1.32, 1.76]]))
    assert folded.config.architecture == "jumprelu"


def test_batch_norm_is_folded_as_it_is_in_evaluation(tmp_path):
    # Batch norm is (pre - mean) / sqrt(var + 1e-5) * weight + bias. For the first concept: (.8 - .3) / 2 * 4 + 1 = 2.
    norm = {"running_mean": [0.3, 0.0], "running_var": [4.0, 1.0], "weight": [4.0, 1.0], "bias": [1.0, 0.0]}
    changes = {f"encoder.final_block.1.{name}": torch.tensor(value) for name, value in norm.items()}
    changes["encoder.final_block.1.num_batches_tracked"] = torch.tensor(7)
    torch.save(state(**changes), tmp_path / "sae.pt")
    codes = from_overcomplete(tmp_path / "sae.pt", architecture="relu").encode(torch.tensor([[0.8, 0.6]]))
    torch.testing.assert_close(codes, torch.tensor([[2.0, 1.1]]), atol=1e-4, rtol=0)


def test_a_tied_encoder_is_the_dictionary(tmp_path):
    weights = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    tied = {"dictionary._weights": weights, "encoder.tied_to._weights": weights}
    torch.save(tied, tmp_path / "sae.pt")
    codes = from_overcomplete(tmp_path / "sae.pt", architecture="relu").encode(torch.tensor([[0.8, 0.6]]))
    torch.testing.assert_close(codes, torch.tensor([[0.8, 0.96]]))  # .6 * .8 + .8 * .6


def test_a_batch_topk_state_dict_has_no_threshold_and_gets_it_from_rows(tmp_path):
    to_overcomplete(make(), tmp_path)
    state = torch.load(tmp_path / "state_dict.pt", weights_only=True)
    del state["thresholds"]  # as BatchTopKSAE saves it
    torch.save(state, tmp_path / "bare.pt")
    with pytest.raises(SAEFormatError, match="has no threshold: give it, or k and rows"):
        from_overcomplete(tmp_path / "bare.pt")
    calibrated = from_overcomplete(tmp_path / "bare.pt", k=3, rows=(rows(4000, seed=1), rows(1000, seed=2)))
    # Both modalities weigh the same, whatever their numbers of rows. So the mean of their two L0s is k.
    counts = [float(calibrated.encode(rows(n, seed=s)).count_nonzero()) / n for n, s in ((4000, 1), (1000, 2))]
    assert sum(counts) / 2 == pytest.approx(3, abs=0.01)
    with_threshold = from_overcomplete(tmp_path / "bare.pt", threshold=0.1)
    torch.testing.assert_close(with_threshold.encode(rows()), make().encode(rows()), atol=1e-5, rtol=0)


class Harmful:
    def __reduce__(self):
        return (open, ("harmed", "w"))


def test_pickled_objects_are_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful()}, tmp_path / "whole.pt")
    with pytest.raises(SAEFormatError, match=r"whole.pt: holds more than tensors.*save the state_dict\(\) instead"):
        from_overcomplete(tmp_path / "whole.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(SAEFormatError, match=r"raw\.pt"):
        from_overcomplete(tmp_path / "raw.pt")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "gated"}, r"cfg.json: architecture is 'gated'; standard, jumprelu and topk can be read"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'; none and constant_norm"),
        ({"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z'; none can be read"),
        ({"architecture": "topk", "k": 1}, "ranks codes before the norms of its atoms"),
    ],
)
def test_what_saelens_has_and_we_do_not_is_refused(tmp_path, changes, says):
    with pytest.raises(SAEFormatError, match=says):
        from_saelens(saelens_folder(tmp_path / "a", BY_HAND, **changes))


def test_broken_files_are_named(tmp_path):
    folder = saelens_folder(tmp_path / "a", {"W_enc": BY_HAND["W_enc"]})
    with pytest.raises(SAEFormatError, match=r"missing tensor b_enc, W_dec, b_dec, threshold; it has W_enc"):
        from_saelens(folder)
    (folder / "sae_weights.safetensors").write_bytes(b"not tensors")
    with pytest.raises(SAEFormatError, match=r"sae_weights.safetensors: not a readable safetensors file"):
        from_saelens(folder)
    (folder / "cfg.json").write_text("{")
    with pytest.raises(SAEFormatError, match=r"cfg.json: not valid JSON"):
        from_saelens(folder)
    torch.save(state(**{"encoder.mlp_blocks.0.0.weight": torch.zeros(2, 2)}), tmp_path / "deep.pt")
    with pytest.raises(SAEFormatError, match=r"cannot read encoder.mlp_blocks.0.0.weight: only linear encoders"):
        from_overcomplete(tmp_path / "deep.pt")
    torch.save(state(**{"dictionary._weights": torch.zeros(3, 2)}), tmp_path / "odd.pt")
    with pytest.raises(SAEFormatError, match="do not go together"):
        from_overcomplete(tmp_path / "odd.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "odd.pt").read_bytes()[:300])
    with pytest.raises(SAEFormatError, match=r"torn\.pt: not a readable file"):
        from_overcomplete(tmp_path / "torn.pt")


def test_a_checkpoint_is_known_by_its_files_and_must_fit_the_model(tmp_path):
    sae = make()
    for name, write in (("own", SAE.save), ("lens", to_saelens), ("over", to_overcomplete)):
        write(sae, tmp_path / name)
        loaded = load_checkpoint(tmp_path / name, dim=6)
        torch.testing.assert_close(loaded.encode(rows()), sae.encode(rows()), atol=1e-5, rtol=0)
    assert [kind_of(tmp_path / name) for name in ("own", "lens", "over")] == ["bridgescope", "saelens", "overcomplete"]
    assert kind_of(tmp_path / "over" / "state_dict.pt") == "overcomplete"
    with pytest.raises(SAEFormatError, match=r"own: takes rows of 6 dimensions, the model's have 8"):
        load_checkpoint(tmp_path / "own", dim=8)
    with pytest.raises(SAEFormatError, match=r"no such file or folder; a checkpoint is a folder with sae\.safetensors"):
        kind_of(tmp_path / "nowhere")
    with pytest.raises(SAEFormatError, match="no SAE that can be read"):
        kind_of(tmp_path)


def test_an_atom_of_norm_zero_never_fires(tmp_path):
    folded = from_saelens(saelens_folder(tmp_path / "a", BY_HAND | {"W_dec": [[0.0, 0.0], [3.0, 4.0]]}))
    assert folded.encode(torch.tensor([[1.0, 0.0]])).tolist() == [[0.0, 1.0]]


def test_a_folder_works_as_the_hub_both_ways(tmp_path):
    sae = make()
    figures = {"model": "own", "sae": "main", "split": "heldout", "r2_image": 0.5, "r2": float("nan"), "l0_text": 3.25}
    assert push_to_hub(sae, tmp_path / "repo", figures) == str(tmp_path / "repo")
    assert sorted(path.name for path in (tmp_path / "repo").iterdir()) == [
        "README.md",
        "config.json",
        "sae.safetensors",
    ]
    again = from_hub(str(tmp_path / "repo"))
    assert torch.equal(again.encode(rows()), sae.encode(rows()))
    assert again.config == sae.config


def test_the_hub_is_given_the_files_and_the_card(monkeypatch):
    # Tests do not reach the hub: the upload is captured and checked.
    import huggingface_hub

    sent = {}

    class Api:
        def create_repo(self, name, private, exist_ok):
            sent["repo"] = (name, private, exist_ok)
            return f"hub:{name}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            sent["files"] = {path.name: path.stat().st_size for path in folder_path.iterdir()}

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push_to_hub(make(), "owner/name", {}) == "hub:owner/name"
    assert sent["repo"] == ("owner/name", True, True)  # private unless asked otherwise
    assert sent["files"].keys() == {"README.md", "config.json", "sae.safetensors"}


def test_the_card_shows_what_was_measured_and_nothing_else():
    card = model_card(make(), {"model": "own", "sae": "main", "split": "heldout", "r2_image": 0.51234, "r2_text": None})
    assert "| R2, images | 0.5123 |" in card
    assert "R2, captions" not in card
    assert "split `heldout`" in card
    assert "Stability" not in card
    floors = {"stability": 0.49, "floor_random": 0.24, "floor_matched": 0.31}
    assert "0.490; of random directions 0.240" in model_card(make(), floors)
    assert "Stability" not in model_card(make(), {"stability": 0.49})  # needs its floors, the levels by chance
    assert "Nothing was measured." in model_card(make(), {})

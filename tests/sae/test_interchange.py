"""SAEs in the formats of SAELens and of the package overcomplete: imports worked by hand, exports, refused files."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    # Row (.7, 0) has the pre-activation (.7 - .5) + .25 = .45, below the threshold .5, so concept 0 must not fire.
    # The folded pre-activation is 2 * .45 = .9. Without multiplying the threshold by the norm 2, concept 0 would fire.
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
    codes = folded.encode(torch.tensor([[3.0, 0.0]]))  # norm 3: rows are normalised first
    torch.testing.assert_close(folded.decode(codes), torch.tensor([[2.7757, 1.0343]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", [name for name, row in ARCHITECTURES.items() if not row.pursuit])
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


@pytest.mark.parametrize("out", [to_saelens, to_overcomplete])
def test_an_sae_that_encodes_by_pursuit_is_not_written_as_one_with_a_linear_encoder(tmp_path, out):
    for pursuing in (make("mp"), make("topk").encoding("pursuit")):
        with pytest.raises(SAEFormatError, match="encodes by matching pursuit"):
            out(pursuing, tmp_path / "x")
    assert not (tmp_path / "x").exists()


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
    """The state dict of an SAE of overcomplete with d = 2 and C = 2. The stored atoms are not normalised."""
    return {
        "encoder.final_block.0.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "encoder.final_block.0.bias": torch.tensor([0.0, 0.5]),
        "dictionary._weights": torch.tensor([[2.0, 0.0], [3.0, 4.0]]),
        "dictionary.multiplier": torch.tensor(0.0),
        **changes,
    }


def test_an_overcomplete_state_dict_worked_by_hand(tmp_path):
    # The package overcomplete normalises the atoms to (1, 0) and (.6, .8), then multiplies the atoms by exp(ln 2) = 2.
    # An import keeps unit atoms and doubles the codes.
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
    del state["thresholds"]  # BatchTopKSAE saves no thresholds
    torch.save(state, tmp_path / "bare.pt")
    with pytest.raises(SAEFormatError, match="has no threshold: give it, or k and rows"):
        from_overcomplete(tmp_path / "bare.pt")
    calibrated = from_overcomplete(tmp_path / "bare.pt", k=3, rows=(rows(4000, seed=1), rows(1000, seed=2)))
    # Both modalities have equal weight, whatever their numbers of rows. So the mean of the L0 of both modalities is k.
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
        (
            {"architecture": "temporal"},
            r"cfg.json: architecture is 'temporal'; standard, topk, batchtopk, jumprelu, gated and matry",
        ),
        ({"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'; none, constant_norm"),
        ({"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z'; none can be read"),
        ({"architecture": "topk", "k": 1}, "cannot read threshold: a topk SAE has no such tensor"),
    ],
)
def test_what_saelens_has_and_we_do_not_is_refused(tmp_path, changes, says):
    with pytest.raises(SAEFormatError, match=says):
        from_saelens(saelens_folder(tmp_path / "a", BY_HAND, **changes))


def test_uneven_or_silent_atoms_of_a_topk_sae_are_refused_however_small_they_are(tmp_path):
    """Row (1, .5) has the pre-activations 1 and .5. The library keeps the first; folding by the norms would keep the
    second."""
    uneven = state(**{"dictionary._weights": torch.tensor([[1e-4, 0.0], [0.0, 9e-4]])})
    torch.save(uneven, tmp_path / "uneven.pt")
    silent = state(**{"dictionary._weights": torch.tensor([[0.0, 0.0], [3.0, 4.0]])})
    torch.save(silent, tmp_path / "silent.pt")
    says = "ranks codes before the norms of its atoms cannot be folded"
    with pytest.raises(SAEFormatError, match=says):
        from_overcomplete(tmp_path / "uneven.pt", architecture="topk", k=1, normalization="identity")
    with pytest.raises(SAEFormatError, match=says):
        from_overcomplete(tmp_path / "uneven.pt", k=1, rows=(rows(dim=2), rows(dim=2)), normalization="identity")
    with pytest.raises(SAEFormatError, match=says):
        from_overcomplete(tmp_path / "silent.pt", architecture="topk", k=1)
    assert from_overcomplete(tmp_path / "uneven.pt", architecture="topk", k=1).config.k == 1  # l2 makes the norms even
    assert from_overcomplete(tmp_path / "silent.pt", architecture="relu").config.architecture == "relu"
    small = {**BY_HAND, "W_dec": [[1e-4, 0.0], [0.0, 9e-4]]}
    del small["threshold"]
    with pytest.raises(SAEFormatError, match=says):
        from_saelens(saelens_folder(tmp_path / "a", small, architecture="topk", k=1))


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
    with pytest.raises(SAEFormatError, match=r"own: the SAE takes rows of 6 dimensions, and the model's rows have 8"):
        load_checkpoint(tmp_path / "own", dim=8)
    with pytest.raises(
        SAEFormatError, match=r"no such file or folder; a checkpoint is a folder of bridgescope \(sae\.safetensors"
    ):
        kind_of(tmp_path / "nowhere")
    with pytest.raises(SAEFormatError, match=r"holds several folders of SAEs: name one of them, such as .*lens"):
        kind_of(tmp_path)
    with pytest.raises(SAEFormatError, match="no SAE that can be read"):
        kind_of(tmp_path / "own" / "config.json")


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
    assert sent["repo"] == ("owner/name", True, True)  # True: private unless the caller asks otherwise
    assert sent["files"].keys() == {"README.md", "config.json", "sae.safetensors"}


def test_the_card_shows_what_was_measured_and_nothing_else():
    card = model_card(make(), {"model": "own", "sae": "main", "split": "heldout", "r2_image": 0.51234, "r2_text": None})
    assert "| R2, images | 0.5123 |" in card
    assert "R2, captions" not in card
    assert "split `heldout`" in card
    assert "Stability" not in card
    floors = {"stability": 0.49, "floor_random": 0.24, "floor_matched": 0.31}
    assert "0.490; of random directions 0.240" in model_card(make(), floors)
    assert "Stability" not in model_card(make(), {"stability": 0.49})  # stability needs its floors (by chance)
    assert "Nothing was measured." in model_card(make(), {})


def test_the_card_says_where_codes_were_rescaled():
    said = "codes were multiplied by a factor"
    assert said in model_card(make("relu"), {})
    assert said not in model_card(make("batchtopk"), {})
    plain = make("relu")
    plain.config = plain.config.model_copy(update={"rescale": False})
    assert said not in model_card(plain, {})


def topk_tensors(dim=6, width=10, seed=0):
    """Tensors of an SAE of SAELens with unit atoms."""
    g = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(width, dim, generator=g), dim=1)
    return {
        "W_enc": torch.randn(dim, width, generator=g).tolist(), "b_enc": [0.1] * width, "W_dec": atoms.tolist(),
        "b_dec": [0.2] * dim,
    }  # fmt: skip


OLD = {
    "d_in": 6,
    "d_sae": 10,
    "metadata": {},
    "activation_fn_str": "topk",
}  # SAELens 3 to 5 write k in activation_fn_kwargs


@pytest.mark.parametrize(
    "entries",
    [
        {"architecture": "standard", "activation_fn_kwargs": {"k": 4}},  # version 3
        {"architecture": "topk", "activation_fn_kwargs": {"k": 4}},  # versions 4 and 5
        {"architecture": "topk", "activation_fn_kwargs": {"k": 4.0}},
        {"architecture": "topk", "activation_fn_kwargs": {"k": 4}, "k": 4},
        {"architecture": "topk", "activation_fn_str": None, "k": 4, "rescale_acts_by_decoder_norm": True},  # version 6
        {"architecture": "topk", "activation_fn_kwargs": {}, "given": 4},  # the k of the study is used
        {"architecture": "topk", "activation_fn_kwargs": {"k": 4}, "given": 2},  # the k of the file is used
    ],
)
def test_k_of_a_topk_sae_is_found_where_each_version_of_saelens_writes_it(tmp_path, entries):
    given = entries.get("given", 0)
    written = OLD | {key: value for key, value in entries.items() if key != "given"}
    saelens_folder(tmp_path / "lens", topk_tensors(), **written)
    loaded = load_checkpoint(tmp_path / "lens", dim=6, k=given)
    assert loaded.config.k == 4
    tensors = {name: torch.tensor(value) for name, value in topk_tensors().items()}
    pre = (rows() - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]
    kept = pre.topk(4, dim=1)
    right = torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())
    torch.testing.assert_close(loaded.encode(rows()), right, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({}, r"cfg.json: holds no k.*saes\.k"),
        ({"activation_fn_kwargs": None}, r"cfg.json: holds no k"),
        ({"activation_fn_kwargs": {"k": 100}}, r"cfg.json: activation_fn_kwargs.k is 100; .* from 1 to 10"),
        ({"activation_fn_kwargs": {"k": 2.5}}, r"activation_fn_kwargs.k is 2.5"),
        ({"activation_fn_kwargs": {"k": True}}, r"activation_fn_kwargs.k is True"),
        ({"activation_fn_kwargs": {"k": "4"}}, r"activation_fn_kwargs.k is '4'"),
        ({"activation_fn_kwargs": {"k": 0}}, r"activation_fn_kwargs.k is 0"),
        ({"activation_fn_kwargs": [4]}, r"activation_fn_kwargs is \[4\]"),
        ({"activation_fn_kwargs": {"k": 4, "postact_fn": "tanh"}}, r"the key activation_fn_kwargs.postact_fn is not"),
        ({"k": 3, "activation_fn_kwargs": {"k": 4}}, r"k is 3, but activation_fn_kwargs.k is 4"),
        ({"activation_fn_kwargs": {}, "given": 11}, r"cfg.json: the given k is 11"),
    ],
)
def test_a_topk_sae_without_a_usable_k_is_refused(tmp_path, entries, says):
    given = entries.get("given", 0)
    written = OLD | {"architecture": "topk"} | {key: value for key, value in entries.items() if key != "given"}
    saelens_folder(tmp_path / "lens", topk_tensors(), **written)
    with pytest.raises(SAEFormatError, match=says):
        load_checkpoint(tmp_path / "lens", dim=6, k=given)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"architecture": "standard", "activation_fn_str": "tanh-relu"}, r"cfg.json: activation_fn_str is 'tanh-relu'"),
        ({"architecture": "standard", "activation_fn": "tanh-relu"}, r"cfg.json: activation_fn is 'tanh-relu'"),
        ({"activation_fn_str": "topk"}, r"activation_fn_str is 'topk'; .* architecture jumprelu can be read with relu"),
        ({"activation_fn_str": ["relu"]}, r"activation_fn_str is \['relu'\]"),
        ({"architecture": "batchtopk"}, r"missing tensor topk_threshold"),
        ({"architecture": ["topk"]}, r"architecture is \['topk'\]"),
        ({"finetuning_scaling_factor": True}, r"one tensor, scaling_factor or finetuning_scaling_factor, is needed"),
        ({"normalize_activations": True}, r"normalize_activations is True"),
        ({"normalize_activations": "expected_average_only_in"}, r"is 'expected_average_only_in'"),
        ({"hook_name": "blocks.1.attn.hook_z"}, r"reshape_activations is 'hook_z'"),
        ({"apply_b_dec_to_input": "false"}, r"apply_b_dec_to_input is 'false'; true or false"),
        ({"rescale_acts_by_decoder_norm": True}, r"rescale_acts_by_decoder_norm is true"),
        ({"dtype": "float8"}, r"dtype is 'float8'"),
        ({"d_in": 3}, r"cfg.json: d_in is 3, but the tensors of sae_weights.safetensors have 2"),
        ({"d_sae": 7}, r"d_sae is 7"),
        ({"jump_relu_threshold": 0.3}, r"cfg.json: the key jump_relu_threshold is not known"),
    ],
)
def test_a_setting_of_saelens_that_may_change_the_codes_is_refused_by_name(tmp_path, entries, says):
    with pytest.raises(SAEFormatError, match=says):
        from_saelens(saelens_folder(tmp_path / "a", BY_HAND, **entries))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scaling_factor": [2.0, 2.0]}, r"sae_weights.safetensors: scaling_factor is not 1 everywhere"),
        ({"finetuning_scaling_factor": [1.0, 2.0]}, r"finetuning_scaling_factor is not 1 everywhere"),
        ({"b_gate": [0.0, 0.0]}, r"cannot read b_gate: a jumprelu SAE has no such tensor"),
        ({"b_enc": [0.0] * 5}, r"sae_weights.safetensors: W_enc of shape \(2, 2\) and b_enc of shape \(5,\)"),
        ({"threshold": [0.1]}, r"threshold of shape \(1,\)"),
        ({"b_dec": [0.0]}, r"b_dec of shape \(1,\)"),
        ({"W_enc": [1.0, 0.4]}, r"W_enc has shape \(2,\); a matrix is needed"),
        ({"W_dec": [[2.0, 0.0]]}, r"W_dec of shape \(1, 2\)"),
        ({"b_enc": [float("nan"), 0.0]}, r"b_enc holds NaN or infinity"),
        ({"threshold": [float("inf"), 0.0]}, r"threshold holds NaN or infinity"),
        ({"W_enc": [[1, 2], [3, 4]]}, r"W_enc is torch.int64; a floating-point type is needed"),
    ],
)
def test_a_tensor_of_saelens_that_is_not_as_it_should_be_is_refused_by_name(tmp_path, changes, says):
    with pytest.raises(SAEFormatError, match=says):
        from_saelens(saelens_folder(tmp_path / "a", BY_HAND | changes))


def test_keys_on_the_training_of_an_sae_do_not_matter(tmp_path):
    plain = from_saelens(saelens_folder(tmp_path / "a", BY_HAND))
    training = {
        "hook_point": "blocks.3.hook_resid_pre", "hook_point_layer": 3, "l1_coefficient": 8e-5, "lr": 4e-4,
        "dtype": "torch.float32", "normalize_activations": False, "finetuning_scaling_factor": False,
        "activation_fn": "relu", "activation_fn_str": "relu", "activation_fn_kwargs": {}, "model_name": "gpt2-small",
        "seqpos_slice": [None], "wandb_project": "p", "dead_feature_window": 5000, "sae_lens_training_version": "3.0",
    }  # fmt: skip
    full = from_saelens(saelens_folder(tmp_path / "b", BY_HAND | {"scaling_factor": [1.0, 1.0]}, **training))
    assert full.difference(plain) is None


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({}, {"architecture": "topk"}, r"sae.pt: holds no k.*saes\.k"),
        ({}, {"architecture": "topk", "k": 3}, r"sae.pt: the given k is 3; a whole number from 0 to 2"),
        ({}, {"architecture": "jumprelu"}, r"holds no thresholds, so its architecture is"),
        ({}, {"architecture": "batchtopk", "threshold": float("nan")}, r"threshold holds NaN"),
        ({"thresholds": torch.tensor([0.1])}, {}, r"thresholds of shape \(1,\)"),
        ({"thresholds": torch.tensor([float("nan"), 0.1])}, {}, r"thresholds holds NaN"),
        ({"encoder.final_block.0.bias": torch.zeros(5)}, {"architecture": "relu"}, r"bias of shape \(5,\)"),
        ({"dictionary.multiplier": torch.zeros(2)}, {"architecture": "relu"}, r"dictionary.multiplier of shape \(2,\)"),
        ({"dictionary._weights": torch.zeros(2, 2).long()}, {"architecture": "relu"}, r"_weights is torch.int64"),
        ({"running_threshold": torch.tensor(0.1)}, {"architecture": "relu"}, r"cannot read running_threshold"),
        (
            {"encoder.final_block.1.weight": torch.ones(2)},
            {"architecture": "relu"},
            r"cannot read encoder.final_block.1",
        ),
        (
            {"encoder.final_block.1.num_batches_tracked": torch.tensor(1)},
            {"architecture": "relu"},
            r"missing tensor .*var",
        ),
        (
            {"encoder.tied_to._weights": torch.ones(2, 2)},
            {"architecture": "relu"},
            r"cannot read encoder.final_block.0",
        ),
    ],
)
def test_a_part_of_an_overcomplete_state_dict_that_is_not_known_is_refused_by_name(tmp_path, changes, options, says):
    torch.save(state(**changes), tmp_path / "sae.pt")
    with pytest.raises(SAEFormatError, match=says):
        from_overcomplete(tmp_path / "sae.pt", **options)


def test_an_encoder_that_is_tied_to_another_dictionary_is_refused(tmp_path):
    tied = {"dictionary._weights": torch.eye(2), "encoder.tied_to._weights": 2 * torch.eye(2)}
    torch.save(tied, tmp_path / "sae.pt")
    with pytest.raises(SAEFormatError, match=r"encoder.tied_to._weights differs from dictionary._weights"):
        from_overcomplete(tmp_path / "sae.pt", architecture="relu")


def test_a_folder_of_overcomplete_states_its_class_its_k_and_its_bias(tmp_path):
    sae = make("topk")
    to_overcomplete(sae, tmp_path)
    again = load_checkpoint(tmp_path, dim=6)
    assert (again.config.architecture, again.config.k) == ("topk", 3)
    torch.testing.assert_close(again.decode(again.encode(rows())), sae.decode(sae.encode(rows())), atol=1e-5, rtol=0)
    with pytest.raises(SAEFormatError, match=r"model.json beside it holds a decoder bias: name the folder"):
        from_overcomplete(tmp_path / "state_dict.pt", architecture="topk", k=3)
    entries = json.loads((tmp_path / "model.json").read_text())
    for change, says in (
        ({"class": "MpSAE"}, r"model.json: class is 'MpSAE'"),
        ({"decoder_bias": [0.0]}, r"decoder_bias must be a list of 6 finite numbers"),
        ({"decoder_bias": ["x"] * 6}, r"decoder_bias must be a list of 6"),
        ({"arguments": {"top_k": 11}}, r"arguments.top_k is 11"),
        ({"arguments": {"nb_concepts": 11}}, r"arguments.nb_concepts is 11, but the tensors have 10"),
        ({"arguments": {"normalization": "l1"}}, r"the key arguments.normalization is not known"),
        ({"scale": 2}, r"the key scale is not known"),
    ):
        (tmp_path / "model.json").write_text(json.dumps(entries | change))
        with pytest.raises(SAEFormatError, match=says):
            from_overcomplete(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"k": 11}, r"config.json: k is 11; batchtopk needs 0 to the width, 10"),
        ({"k": 3.0}, r"k is 3.0; a whole number from 0 is needed"),
        ({"learning_rate": "fast"}, r"learning_rate is 'fast'; a finite number from 0"),
        ({"auxk": float("nan")}, r"auxk is nan"),
        ({"decoder_bias": 1}, r"decoder_bias is 1; false, true are allowed"),
        ({"centring": 0}, r"centring is 0; false, true"),
        ({"image_share": 1.5}, r"image_share is 1.5; a number from 0 to 1"),
        ({"architecture": ["topk"]}, r"architecture is \['topk'\]; known are"),
        ({"k_aux": 0}, r"k_aux is 0"),
        ({"prefixes": [5, 10]}, r"config.json: prefixes are for matryoshka"),
        ({"gain": 2}, r"unknown key gain; known are"),
    ],
)
def test_settings_of_an_own_file_are_checked_by_name(tmp_path, changes, says):
    make().save(tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(entries | changes))
    with pytest.raises(SAEFormatError, match=says):
        load_checkpoint(tmp_path, dim=6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gate": torch.zeros(10)}, r"sae.safetensors: unknown tensor gate; known are encoder"),
        ({"encoder_bias": torch.full((10,), torch.nan)}, r"encoder_bias holds NaN"),
        ({"encoder_bias": torch.zeros(10, dtype=torch.float64)}, r"encoder_bias is torch.float64"),
        ({"bias": torch.zeros(7)}, r"bias has shape \(7,\)"),
    ],
)
def test_tensors_of_an_own_file_are_checked_by_name(tmp_path, changes, says):
    make().save(tmp_path)
    save_file(load_file(tmp_path / "sae.safetensors") | changes, tmp_path / "sae.safetensors")
    with pytest.raises(SAEFormatError, match=says):
        load_checkpoint(tmp_path, dim=6)


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    saelens_folder(tmp_path / "lens", BY_HAND)
    (tmp_path / "lens" / "sae_weights.safetensors").unlink()
    (tmp_path / "lens" / "sae_weights.safetensors").mkdir()
    with pytest.raises(SAEFormatError, match=r"sae_weights.safetensors: "):
        from_saelens(tmp_path / "lens")
    (tmp_path / "lens" / "cfg.json").write_text("[" * 100_000)
    with pytest.raises(SAEFormatError, match=r"cfg.json: not valid JSON"):
        from_saelens(tmp_path / "lens")

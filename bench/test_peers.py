"""Peer libraries load the exported files, and this project loads theirs; codes are equal to 1e-5.

Run by `make test-interchange` in an environment with the peers' own pinned versions.
"""

import json

import overcomplete.sae
import pytest
import sae_lens
import torch
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE as LearnedBatchTopK
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from overcomplete.sae import BatchTopKSAE, JumpSAE, TopKSAE
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE as LensTopKSAE
from sae_lens.saes.topk_sae import TopKSAEConfig

from sae.architectures import ARCHITECTURES
from sae.interchange import (
    from_dictionary_learning,
    from_overcomplete,
    from_saelens,
    read_checkpoint,
    to_overcomplete,
    to_saelens,
)
from sae.model import SAE, Config

D, C, K = 32, 96, 5
CLOSE = {"atol": 1e-5, "rtol": 0}


def unit(*shape, seed):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


ROWS = unit(400, D, seed=1)


def make(architecture):
    atoms = unit(C, D, seed=2)
    config = Config(
        architecture=architecture, dim=D, width=C, k=K, decoder_bias=True, image_share=0.5, seed=0, epochs=1,
        batch_size=64, learning_rate=1e-3, auxk=0.0, dead_after_epochs=0.5, rows_seen=1,
    )  # fmt: skip
    threshold = unit(C, 1, seed=3).abs()[:, 0] * 0.2 if architecture == "jumprelu" else torch.tensor(0.2)
    threshold = torch.tensor(0.0) if architecture == "relu" else threshold
    return SAE(1.1 * atoms, 0.05 * unit(C, seed=4), atoms, 0.3 * unit(D, seed=5), threshold, config)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saelens_loads_what_we_write(tmp_path, architecture):
    ours = make(architecture)
    to_saelens(ours, tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    codes = ours.encode(ROWS)
    assert codes.count_nonzero() > len(ROWS)
    torch.testing.assert_close(theirs.encode(ROWS).detach(), codes, **CLOSE)
    torch.testing.assert_close(theirs.decode(codes).detach(), ours.decode(codes), **CLOSE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_overcomplete_loads_what_we_write(tmp_path, architecture):
    ours = make(architecture)
    to_overcomplete(ours, tmp_path)
    how = json.loads((tmp_path / "model.json").read_text())
    theirs = {"JumpSAE": JumpSAE, "TopKSAE": TopKSAE}[how["class"]](**how["arguments"])
    theirs.load_state_dict(torch.load(tmp_path / "state_dict.pt", weights_only=True))
    theirs.eval()
    codes = ours.encode(ROWS)
    torch.testing.assert_close(theirs.encode(ROWS)[1].detach(), codes, **CLOSE)
    rebuilt = theirs.decode(codes).detach() + torch.tensor(how["decoder_bias"])
    torch.testing.assert_close(rebuilt, ours.decode(codes), **CLOSE)


@pytest.mark.parametrize("scaling", ["none", "constant_norm_rescale"])
@pytest.mark.parametrize("kind", ["standard", "jumprelu", "gated", "topk"])
def test_we_read_what_saelens_saved(tmp_path, kind, scaling):
    classes = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
        "gated": (GatedSAE, GatedSAEConfig, {}),
        "topk": (LensTopKSAE, TopKSAEConfig, {"k": K, "rescale_acts_by_decoder_norm": True}),
    }
    sae_class, config_class, options = classes[kind]
    theirs = sae_class(config_class(d_in=D, d_sae=C, normalize_activations=scaling, **options))
    torch.manual_seed(6)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.rand_like(parameter) * 0.3 if name == "threshold" else torch.randn_like(parameter))
    theirs.save_model(tmp_path)
    ours = from_saelens(tmp_path)
    norm = theirs.W_dec.norm(dim=1).detach() / (D**0.5 if scaling != "none" else 1)
    if kind == "topk":  # codes of SAELens are already coefficients of unit atoms
        norm = torch.ones(C) / (D**0.5 if scaling != "none" else 1)
    torch.testing.assert_close(ours.encode(ROWS), theirs.encode(ROWS).detach() * norm, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(ours.decode(ours.encode(ROWS)), theirs(ROWS).detach(), atol=1e-4, rtol=1e-4)


def test_we_read_what_overcomplete_saved(tmp_path):
    torch.manual_seed(7)
    for theirs, options in (
        (JumpSAE(D, C, dictionary_params={"use_multiplier": True}), {}),
        (TopKSAE(D, C, top_k=K), {"architecture": "topk", "k": K}),
        (overcomplete.sae.SAE(D, C), {"architecture": "relu"}),
        (overcomplete.sae.SAE(D, C).tied(bias=True), {"architecture": "relu"}),
        (overcomplete.sae.SAE(D, C).untied(bias=True), {"architecture": "relu"}),
        (overcomplete.sae.SAE(D, C, encoder_module="mlp_bn_1"), {"architecture": "relu"}),
    ):
        with torch.no_grad():
            theirs.dictionary.multiplier.fill_(0.4)
        theirs.train()
        theirs(ROWS)  # a forward pass, in which batch norm sees rows and atoms are normalised
        theirs.eval()
        torch.save(theirs.state_dict(), tmp_path / "sae.pt")
        ours = from_overcomplete(tmp_path / "sae.pt", **options)
        codes = theirs.encode(ROWS)[1].detach()
        assert codes.count_nonzero() > 0
        atom_norm = torch.tensor(0.4).exp()
        torch.testing.assert_close(ours.encode(ROWS), codes * atom_norm, **CLOSE)
        torch.testing.assert_close(ours.decode(ours.encode(ROWS)), theirs(ROWS)[2].detach(), **CLOSE)


def test_a_batch_topk_of_overcomplete_needs_its_running_threshold(tmp_path):
    torch.manual_seed(8)
    theirs = BatchTopKSAE(D, C, top_k=K * len(ROWS))
    theirs.train()
    theirs(ROWS)
    theirs.eval()
    torch.save(theirs.state_dict(), tmp_path / "sae.pt")
    ours = from_overcomplete(tmp_path / "sae.pt", threshold=float(theirs.running_threshold) - 1e-6)
    torch.testing.assert_close(ours.encode(ROWS), theirs.encode(ROWS)[1].detach(), **CLOSE)


@pytest.mark.parametrize("by_norm", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_we_read_a_checkpoint_of_a_batchtopk_training_of_saelens_as_its_inference_model(tmp_path, nested, by_norm):
    """SAELens saves the inference model of such a training as a JumpReLU SAE. Both files must give the same SAE."""
    options = {"d_in": D, "d_sae": C, "k": K, "rescale_acts_by_decoder_norm": by_norm}
    if nested:
        config = MatryoshkaBatchTopKTrainingSAEConfig(**options, matryoshka_widths=[8, 40, C])
        training = MatryoshkaBatchTopKTrainingSAE(config)
    else:
        training = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**options))
    scramble(training, seed=9)
    training.topk_threshold.fill_(1.5)
    training.save_model(tmp_path / "training")
    ours = read_checkpoint(tmp_path / "training")
    training.save_inference_model(tmp_path / "inference")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "inference")
    same(ours, theirs.encode(ROWS), theirs.W_dec, theirs(ROWS))
    assert ours.config.prefixes == ((8, 40, C) if nested else None)
    assert read_checkpoint(tmp_path / "inference").config.architecture == "jumprelu"


@pytest.mark.parametrize(
    "theirs",
    [
        AutoEncoder(D, C), AutoEncoderNew(D, C), GatedAutoEncoder(D, C), JumpReluAutoEncoder(D, C),
        AutoEncoderTopK(D, C, K), LearnedBatchTopK(D, C, K), MatryoshkaBatchTopKSAE(D, C, K, [8, 32, C - 40]),
    ],
    ids=lambda theirs: type(theirs).__name__,
)  # fmt: skip
def test_we_read_what_dictionary_learning_saved(tmp_path, theirs):
    scramble(theirs, seed=10)
    if isinstance(theirs, AutoEncoderTopK):  # its trainer keeps atoms at norm 1
        theirs.decoder.weight.data = torch.nn.functional.normalize(theirs.decoder.weight.data, dim=0)
    if hasattr(theirs, "k"):
        theirs.threshold.fill_(1.5)
    torch.save({name: tensor.cpu() for name, tensor in theirs.state_dict().items()}, tmp_path / "ae.pt")
    entries = {"dict_class": type(theirs).__name__, "activation_dim": D, "dict_size": C, "k": K}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": entries, "buffer": {"io": "out"}}))
    decoder = theirs.W_dec if hasattr(theirs, "W_dec") else theirs.decoder.weight.T
    same(from_dictionary_learning(tmp_path), theirs.encode(ROWS), decoder, theirs(ROWS))


def scramble(module, seed):
    """Draw every parameter of a module; a threshold is not negative."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.rand_like(parameter) if name == "threshold" else torch.randn_like(parameter))


def same(ours, codes, decoder, rebuilt):
    """Check what each code adds to a reconstruction, which does not depend on how norms are shared, and their sum."""
    codes, decoder, mine = codes.detach(), decoder.detach(), ours.encode(ROWS)
    assert 0 < int(codes.count_nonzero()) < codes.numel()
    torch.testing.assert_close(mine, codes * decoder.norm(dim=1), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(ours.dictionary, torch.nn.functional.normalize(decoder, dim=1), **CLOSE)
    torch.testing.assert_close(ours.decode(mine), rebuilt.detach(), atol=1e-4, rtol=1e-4)

"""Each odd checkpoint of the corpus is read with the codes of its own library, or refused with words."""

import pytest
import torch
from checkpoint_corpus import CORPUS, READ, REFUSED, D

from sae.interchange import kind_of, load_checkpoint
from sae.model import SAE, SAEFormatError
from tasks.checkpoint import problem_of


def test_the_corpus_is_large_and_has_both_kinds():
    names = [odd.name for odd in CORPUS]
    assert len(set(names)) == len(names) >= 55
    assert len(READ) >= 40
    assert len(REFUSED) >= 60


@pytest.mark.parametrize("odd", READ, ids=lambda odd: odd.name)
def test_a_checkpoint_that_is_read_has_the_codes_of_its_library(tmp_path, odd):
    path = odd.write(tmp_path)
    loaded = load_checkpoint(path, dim=D, **odd.options)
    added, rebuilt = odd.codes(odd.rows)
    codes = loaded.encode(odd.rows)
    assert loaded.config.architecture == odd.architecture
    assert 0 < int((added.abs().sum(2) > 0).sum()) < codes.numel()  # some codes fire and some do not
    assert torch.equal(codes > 0, added.abs().sum(2) > 0)
    torch.testing.assert_close(codes[:, :, None] * loaded.dictionary, added, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(loaded.decode(codes), rebuilt, atol=2e-5, rtol=1e-5)
    loaded.save(tmp_path / "saved")
    assert SAE.load(tmp_path / "saved").difference(loaded) is None
    assert kind_of(path) == odd.name.split()[0]
    assert problem_of(str(path), "batchtopk", odd.options.get("k")) is None  # what a study asks before it runs


@pytest.mark.parametrize("odd", REFUSED, ids=lambda odd: odd.name)
def test_a_checkpoint_that_may_have_other_codes_is_refused_with_words(tmp_path, monkeypatch, odd):
    monkeypatch.chdir(tmp_path)
    path = odd.write(tmp_path / "x")
    with pytest.raises(SAEFormatError, match=odd.says) as refusal:
        load_checkpoint(path, dim=D, **odd.options)
    assert str(refusal.value).startswith(str(tmp_path / "x"))  # the file or folder is named first
    assert problem_of(str(path), "batchtopk", odd.options.get("k")) == str(refusal.value)
    assert not (tmp_path / "harmed").exists()


def test_the_nested_widths_of_matryoshka_checkpoints_are_kept(tmp_path):
    widths = {}
    for odd in READ:
        if odd.architecture == "matryoshka":
            folder = tmp_path / odd.name
            widths[odd.name] = load_checkpoint(odd.write(folder), dim=D).config.prefixes
    assert widths == {
        "saelens 6, matryoshka": (2, 5, 10),
        "saelens 6, matryoshka, last left out": (4, 10),
        "dictionary_learning MatryoshkaBatchTopKSAE": (2, 5, 10),
        "dictionary_learning MatroyshkaBatchTopKSAE": (2, 5, 10),
        "dictionary_learning one group": (10,),
    }


def test_codes_per_row_of_a_checkpoint_are_kept(tmp_path):
    stated = {"saelens 6, batchtopk by norm": 3, "saelens 6, batchtopk": 0, "dictionary_learning BatchTopKSAE": 3}
    found = {
        odd.name: load_checkpoint(odd.write(tmp_path / odd.name), dim=D).config.k for odd in READ if odd.name in stated
    }
    assert found == stated

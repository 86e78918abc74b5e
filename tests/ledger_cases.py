"""SAEs of every kind for the tests of the pair ledger."""

from __future__ import annotations

import torch

from sae.architectures import ARCHITECTURES
from sae.foreign import Linear, fold
from sae.model import SAE, Config

DIM, WIDTH = 6, 10


def sae_of(architecture: str = "batchtopk", bias: bool = True, centring: bool = False, seed: int = 0) -> SAE:
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    atoms = torch.nn.functional.normalize(draw(WIDTH, DIM), dim=1)
    config = Config(
        architecture=architecture, dim=DIM, width=WIDTH, k=3, decoder_bias=bias, image_share=0.5, seed=seed, epochs=3,
        batch_size=64, learning_rate=1e-3, auxk=1 / 32, dead_after_epochs=0.5, rows_seen=900, centring=centring,
    )  # fmt: skip
    means = {"mean_image": 0.5 * draw(DIM), "mean_text": 0.5 * draw(DIM)} if centring else {}
    b = 0.3 * draw(DIM) if bias else torch.zeros(DIM)
    return SAE(atoms + 0.1 * draw(WIDTH, DIM), 0.1 * draw(WIDTH), atoms, b, torch.tensor(0.05), config, **means)


def imported(seed: int, preprocessing: str, scale: float) -> SAE:
    """An SAE of another library, with atoms of any norm, one threshold per concept, and rows scaled before encoding."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    linear = Linear(draw(WIDTH, DIM), draw(WIDTH), 3 * draw(WIDTH, DIM), draw(DIM), draw(WIDTH).abs(), scale)
    return fold(linear, "jumprelu", 3, preprocessing, "here")


def cases() -> dict[str, SAE]:
    """Every architecture with and without bias and centring, both encoders, and imported SAEs."""
    made = {
        f"{name} bias={bias} centring={centring}": sae_of(name, bias, centring)
        for name in ARCHITECTURES
        for bias in (True, False)
        for centring in (True, False)
    }
    made |= {f"pursuit centring={c}": sae_of("topk", centring=c).encoding("pursuit") for c in (True, False)}
    made["k = 0 of relu"] = sae_of("relu").with_threshold(torch.tensor(100.0))  # nothing fires
    made |= {f"imported {p} scale {s}": imported(1, p, s) for p in ("l2", "none") for s in (1.0, DIM**0.5)}
    return made

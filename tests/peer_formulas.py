"""The forward formulas of the libraries whose SAEs are read, written out from their sources, on plain tensors.

Each returns what every concept adds to the reconstructions, [N, C, d], and the reconstructions [N, d]. These do not
depend on whether a norm is a part of the code or of the atom.
"""

import torch


def kept(pre, k):
    """The k largest of each row, after a ReLU; the rest is 0."""
    top = pre.relu().topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, top.indices, top.values)


def saelens(tensors, entries, rows, k=None, factor=1.0):
    """SAELens 3.22 to 6.54. k: of a topk SAE. factor: multiplies rows, as the activation store of a training does."""
    w_enc, w_dec, b_dec = (tensors[name].float() for name in ("W_enc", "W_dec", "b_dec"))
    norm = w_dec.norm(dim=1)
    if entries.get("normalize_activations") == "constant_norm_rescale":
        factor = rows.shape[1] ** 0.5 / rows.norm(dim=1, keepdim=True)
    x = rows * factor - b_dec * entries.get("apply_b_dec_to_input", True)
    by_norm = entries.get("rescale_acts_by_decoder_norm", False)
    architecture = entries.get("architecture", "standard")
    if architecture == "gated":
        gate = (x @ w_enc + tensors["b_gate"] > 0).float()
        codes = gate * (x @ (w_enc * tensors["r_mag"].exp()) + tensors["b_mag"]).relu()
    else:
        pre = x @ w_enc + tensors["b_enc"].float()
        pre = pre * norm if by_norm else pre
        if k is not None:
            codes = kept(pre, k)
        else:
            threshold = torch.tensor(0.0)
            if "log_threshold" in tensors:
                threshold = tensors["log_threshold"].exp()
            for name in ("threshold", "topk_threshold"):
                threshold = tensors.get(name, threshold)
            codes = pre.relu() * (pre > threshold)
        codes = codes / norm if by_norm else codes
    if entries.get("finetuning_scaling_factor"):
        codes = codes * next(
            tensors[name] for name in ("scaling_factor", "finetuning_scaling_factor") if name in tensors
        )
    return _decoded(codes, w_dec, b_dec, factor)


def sparsify(tensors, rows, k):
    """Sparsify 1.0 to 1.3."""
    t = {name: tensor.float() for name, tensor in tensors.items()}
    codes = kept((rows - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], k)
    return _decoded(codes, t["W_dec"], t["b_dec"])


def dictionary_learning(name, state, rows, k=None):
    """The class `name` of dictionary_learning 0.1.0, by its own default of `use_threshold`."""
    t = {key: tensor.float() for key, tensor in state.items()}
    if name in ("AutoEncoder", "AutoEncoderNew"):
        bias = t["bias"] if name == "AutoEncoder" else t["decoder.bias"]
        x = rows - bias if name == "AutoEncoder" else rows
        return _decoded((x @ t["encoder.weight"].T + t["encoder.bias"]).relu(), t["decoder.weight"].T, bias)
    if name == "GatedAutoEncoder":
        linear = (rows - t["decoder_bias"]) @ t["encoder.weight"].T
        codes = (linear + t["gate_bias"] > 0) * (t["r_mag"].exp() * linear + t["mag_bias"]).relu()
        return _decoded(codes, t["decoder.weight"].T, t["decoder_bias"])
    if name == "JumpReluAutoEncoder":
        pre = rows @ t["W_enc"] + t["b_enc"]
        return _decoded((pre * (pre > t["threshold"])).relu(), t["W_dec"], t["b_dec"])
    if name == "AutoEncoderTopK":
        codes = kept((rows - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], k)
        return _decoded(codes, t["decoder.weight"].T, t["b_dec"])
    if name == "BatchTopKSAE":
        codes = ((rows - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu()
        return _decoded(codes * (codes > t["threshold"]), t["decoder.weight"].T, t["b_dec"])
    codes = ((rows - t["b_dec"]) @ t["W_enc"] + t["b_enc"]).relu()
    return _decoded(codes * (codes > t["threshold"]), t["W_dec"], t["b_dec"])


def _decoded(codes, decoder, bias, factor=1.0):
    if isinstance(factor, torch.Tensor):
        return codes[:, :, None] * decoder / factor[:, None], (codes @ decoder + bias) / factor
    return codes[:, :, None] * decoder / factor, (codes @ decoder + bias) / factor

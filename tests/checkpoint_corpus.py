"""A corpus of odd checkpoints of other libraries, and what reading each of them must give."""

import json
from dataclasses import dataclass, field
from typing import Any

import peer_formulas
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

D, C = 6, 10
ROWS = torch.randn(80, D, generator=torch.Generator().manual_seed(9))


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


UNEVEN = draw(C, D, seed=2)
EVEN = normalize(UNEVEN, dim=1)


@dataclass
class Odd:
    """A checkpoint to write, and what reading it must give: the codes of `codes`, or an error with the text `says`."""

    name: str
    files: dict[str, Any]  # name of the file -> object for JSON, tensors, or bytes
    codes: Any = None  # function of the rows: what each concept adds, and the reconstructions
    says: str = ""  # regular expression
    architecture: str = ""
    rows: torch.Tensor = field(default_factory=lambda: ROWS)
    options: dict[str, Any] = field(default_factory=dict)
    at: str = "."  # path within the folder that is read

    def write(self, folder):
        for name, contents in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(contents, bytes):
                file.write_bytes(contents)
            elif name.endswith(".json"):
                file.write_text(json.dumps(contents))
            elif name.endswith(".safetensors"):
                save_file({key: tensor.contiguous() for key, tensor in contents.items()}, file)
            else:
                torch.save(contents, file)
        return folder / self.at


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if name not in names}


# ---- SAELens
W = {
    "W_enc": draw(D, C, seed=1), "b_enc": draw(C, seed=3, scale=0.1), "W_dec": UNEVEN,
    "b_dec": draw(D, seed=4, scale=0.3),
}  # fmt: skip
TOPK = W | {"W_dec": EVEN}
JUMP = W | {"threshold": draw(C, seed=5).abs()}
GATED = without(W, "b_enc") | {
    "b_gate": draw(C, seed=6), "b_mag": draw(C, seed=7), "r_mag": draw(C, seed=8, scale=0.3),
}  # fmt: skip
BATCH = W | {"topk_threshold": torch.tensor(0.7, dtype=torch.float64)}
SCALE = draw(C, seed=10)
V3 = {"d_in": D, "d_sae": C, "dtype": "torch.float32", "hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8,
      "activation_fn": "relu", "normalize_activations": False, "l1_coefficient": 8e-5}  # fmt: skip
V4 = {
    "architecture": "standard", "d_in": D, "d_sae": C, "dtype": "float32", "device": "cpu", "model_name": "gpt2-small",
    "hook_name": "blocks.8.hook_resid_pre", "hook_layer": 8, "hook_head_index": None, "activation_fn_str": "relu",
    "activation_fn_kwargs": {}, "apply_b_dec_to_input": True, "finetuning_scaling_factor": False,
    "sae_lens_training_version": "4.4.5", "prepend_bos": True, "dataset_path": "a/b", "dataset_trust_remote_code": True,
    "context_size": 128, "normalize_activations": "none", "neuronpedia_id": None, "model_from_pretrained_kwargs": {},
    "seqpos_slice": [None],
}  # fmt: skip
V5 = V4 | {"sae_lens_training_version": "5.11.0", "noise_scale": 0.0, "decoder_heuristic_init_norm": 0.1}
V6 = {
    "d_in": D, "d_sae": C, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
    "normalize_activations": "none", "reshape_activations": "none", "architecture": "standard",
    "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.8.attn.hook_z", "prepend_bos": True},
}  # fmt: skip
T6 = V6 | {"decoder_init_norm": 0.1, "k": 3, "aux_loss_coefficient": 1.0, "topk_threshold_lr": 0.01,
           "use_sparse_activations": False, "rescale_acts_by_decoder_norm": True,
           "architecture": "batchtopk"}  # fmt: skip
MATRYOSHKA = T6 | {
    "architecture": "matryoshka_batchtopk",
    "matryoshka_widths": [2, 5, C],
    "use_matryoshka_aux_loss": False,
}


def lens(name, entries, tensors, *, says="", more=None, k=None, factor=1.0, architecture="jumprelu", **options):
    files = {"cfg.json": entries, "sae_weights.safetensors": tensors} | (more or {})

    def codes(rows):
        return peer_formulas.saelens(tensors, entries, rows, k, factor)

    return Odd(f"saelens {name}", files, None if says else codes, says, architecture, **options)


SCALER = {"activation_scaler.json": {"scaling_factor": 1.7, "has_whitening": False}}
AVERAGE = {"normalize_activations": "expected_average_only_in"}
RELU, AS_TOPK = {"architecture": "relu"}, {"architecture": "topk"}
TOPK4 = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
FINE = {"finetuning_scaling_factor": True}
UNIT = {"rows": normalize(ROWS, dim=1)}
SAELENS = [
    lens("3, standard", V3, W | {"scaling_factor": torch.ones(C)}, **RELU),
    lens("3, topk", V3 | TOPK4 | {"activation_fn": "topk"}, TOPK, k=4, **AS_TOPK),
    lens("4, standard", V4, W, **RELU),
    lens("4, topk", V4 | AS_TOPK | TOPK4, TOPK, k=4, **AS_TOPK),
    lens("4, topk, no k", V4 | AS_TOPK | {"activation_fn_str": "topk"}, TOPK, k=2, options={"k": 2}, **AS_TOPK),
    lens("4, jumprelu", V4 | {"architecture": "jumprelu"}, JUMP),
    lens("4, log_threshold", V4 | {"architecture": "jumprelu"}, W | {"log_threshold": JUMP["threshold"].log()}),
    lens("4, gated", V4 | {"architecture": "gated"}, GATED),
    lens("4, fine-tuned", V4 | FINE, W | {"finetuning_scaling_factor": SCALE}, **RELU),
    lens("4, float16", V4 | {"dtype": "float16"}, {name: each.half() for name, each in W.items()}, **RELU),
    lens("5, jumprelu, fine-tuned", V5 | FINE | {"architecture": "jumprelu"}, JUMP | {"scaling_factor": SCALE.abs()}),
    lens("5, gated, b_dec out", V5 | {"architecture": "gated", "apply_b_dec_to_input": False}, GATED),
    lens("5, sparsity file", V5, W, more={"sparsity.safetensors": {"sparsity": torch.full((C,), -9.0)}}, **RELU),
    lens("5, norm sqrt d", V5 | {"normalize_activations": "constant_norm_rescale"}, W, **RELU, **UNIT),
    lens("5, silent atom", V5, W | {"W_dec": UNEVEN * (torch.arange(C) != 3)[:, None]}, **RELU),
    lens("6, standard", V6, W, **RELU),
    lens("6, gated", V6 | {"architecture": "gated"}, GATED),
    lens("6, gated, gates shut", V6 | {"architecture": "gated"}, GATED | {"b_gate": torch.full((C,), -2.0)}),
    lens("6, jumprelu, below 0", V6 | {"architecture": "jumprelu"}, JUMP | {"threshold": draw(C, seed=5)}),
    lens("6, jumprelu, b_dec out", V6 | {"architecture": "jumprelu", "apply_b_dec_to_input": False}, JUMP),
    lens("6, bfloat16", V6 | {"dtype": "bfloat16"}, {name: each.bfloat16() for name, each in W.items()}, **RELU),
    lens("6, topk", V6 | AS_TOPK | {"k": 3, "rescale_acts_by_decoder_norm": False}, TOPK, k=3, **AS_TOPK),
    lens("6, topk by norm", V6 | AS_TOPK | {"k": 3, "rescale_acts_by_decoder_norm": True}, W, k=3, **AS_TOPK),
    lens("6, batchtopk by norm", T6, BATCH, architecture="batchtopk"),
    lens("6, batchtopk", T6 | {"k": 2.5, "rescale_acts_by_decoder_norm": False}, BATCH, architecture="batchtopk"),
    lens("6, matryoshka", MATRYOSHKA, BATCH, architecture="matryoshka"),
    lens("6, matryoshka, last left out", MATRYOSHKA | {"matryoshka_widths": [4]}, BATCH, architecture="matryoshka"),
    lens("6, average norm", V6 | AVERAGE, W, more=SCALER, factor=1.7, **RELU),
    lens("6, batchtopk, average norm", T6 | AVERAGE, BATCH, more=SCALER, factor=1.7, architecture="batchtopk"),
    # refused
    lens("layer_norm", V4 | {"normalize_activations": "layer_norm"}, W, says="normalize_activations is 'layer_norm'"),
    lens("whitening", V6 | {"normalize_activations": "covariance_whitening"}, W, says="is 'covariance_whitening'"),
    lens("average norm, no factor", V6 | AVERAGE, W, says=r"with the file activation_scaler\.json"),
    lens("whitened rows", V6 | AVERAGE, W, says=r"activation_scaler\.json: has_whitening is True",
         more={"activation_scaler.json": {"scaling_factor": 1.0, "has_whitening": True}}),
    lens("no number for rows", V6 | AVERAGE, W, says="scaling_factor is None; a finite number above 0",
         more={"activation_scaler.json": {"scaling_factor": None}}),
    lens("True in version 3", V3 | {"normalize_activations": True}, W, says="normalize_activations is True"),
    lens("hook_z", V4 | {"hook_name": "blocks.1.attn.hook_z"}, W, says="reshape_activations is 'hook_z'"),
    lens("another hook _z", V5 | {"hook_name": "blocks.1.my_z"}, W, says="reshape_activations is 'hook_z'"),
    lens("abstopk", V6 | {"architecture": "abstopk", "k": 3}, TOPK, says="architecture is 'abstopk'; standard"),
    lens("matching_pursuit", V6 | {"architecture": "matching_pursuit"}, W, says="architecture is 'matching_pursuit'"),
    lens("transcoder", V6 | {"architecture": "transcoder", "d_out": D}, W, says="the key d_out is not known"),
    lens("skip", V6, W | {"W_skip": draw(D, D)}, says=r"sae_weights\.safetensors: cannot read W_skip"),
    lens("tanh-relu", V4 | {"activation_fn_str": "tanh-relu"}, W, says="activation_fn_str is 'tanh-relu'"),
    lens("k of relu", V4 | {"activation_fn_kwargs": {"postact_fn": "tanh"}}, W, says="activation_fn_kwargs.postact_fn"),
    lens("error term", V6 | {"use_error_term": True}, W, says="the key use_error_term is not known"),
    lens("version 7", V6 | {"metadata": {"sae_lens_version": "7.0.0"}}, W, says=r"sae_lens_version is '7\.0\.0'"),
    lens("metadata", V6 | {"metadata": ["6.0"]}, W, says=r"metadata is \['6\.0'\]; an object"),
    lens("both thresholds", V4 | {"architecture": "jumprelu"}, JUMP | {"log_threshold": SCALE},
         says="cannot read threshold"),
    lens("gated with b_enc", V6 | {"architecture": "gated"}, GATED | {"b_enc": W["b_enc"]}, says="cannot read b_enc"),
    lens("gated, overflow", V6 | {"architecture": "gated"}, GATED | {"r_mag": torch.full((C,), 200.0)},
         says="holds NaN or infinity"),
    lens("batchtopk, not said", without(T6, "rescale_acts_by_decoder_norm"), BATCH,
         says="cfg.json: holds no rescale_acts_by_decoder_norm"),
    lens("batchtopk, not trained", T6, BATCH | {"topk_threshold": torch.tensor(0.0)}, says="it was never set"),
    lens("widths fall", MATRYOSHKA | {"matryoshka_widths": [5, 2, C]}, BATCH,
         says=r"matryoshka_widths is \[5, 2, 10\]"),
    lens("widths too wide", MATRYOSHKA | {"matryoshka_widths": [5, 99]}, BATCH, says="matryoshka_widths is 99"),
    lens("no widths", without(MATRYOSHKA, "matryoshka_widths"), BATCH, says="matryoshka_widths is None"),
    lens("NaN", V5, W | {"b_enc": torch.full((C,), float("nan"))}, says="b_enc holds NaN or infinity"),
    lens("float16 overflow", V5, W | {"b_dec": torch.full((D,), 1e5).half()}, says="b_dec holds NaN or infinity"),
    lens("bare W_enc", V5, {"W_enc": W["W_enc"]}, says="missing tensor b_enc, W_dec, b_dec; it has W_enc"),
    lens("d_in", V5 | {"d_in": 768}, W, says="d_in is 768, but the tensors of sae_weights.safetensors have 6"),
    lens("W_dec turned", V5, W | {"W_dec": UNEVEN.T}, says=r"W_dec of shape \(6, 10\) do not go together"),
    lens("fine-tuned, no tensor", V5 | FINE, W, says="one tensor, scaling_factor or finetuning_scaling_factor"),
    lens("fine-tuned twice", V5 | FINE, W | {"scaling_factor": SCALE, "finetuning_scaling_factor": SCALE + 1},
         says="it has scaling_factor and finetuning_scaling_factor"),
    lens("factor not in use", V5, W | {"scaling_factor": SCALE}, says="scaling_factor is not 1 everywhere"),
    lens("uneven topk", V6 | AS_TOPK | {"k": 3}, W, says="ranks codes before the norms of its atoms"),
    lens("k above the width", V6 | AS_TOPK | {"k": 11}, TOPK, says="k is 11; a whole number from 1 to 10"),
    lens("jumprelu by norm", V6 | {"architecture": "jumprelu", "rescale_acts_by_decoder_norm": True}, JUMP,
         says="an SAE that keeps no fixed number of codes has no such"),
    lens("float8", V6 | {"dtype": "float8_e4m3fn"}, W, says="dtype is 'float8_e4m3fn'"),
    Odd("saelens torn file", {"cfg.json": V6, "sae_weights.safetensors": b"\x00\x01"},
         says="not a readable safetensors"),
    Odd("saelens without weights", {"cfg.json": V6}, says=r"sae_weights\.safetensors: no such file"),
    Odd("saelens list", {"cfg.json": [V6], "sae_weights.safetensors": W}, says="holds a list; an object is needed"),
]  # fmt: skip

# ---- sparsify
S = {
    "encoder.weight": draw(C, D, seed=11), "encoder.bias": draw(C, seed=12, scale=0.2), "W_dec": EVEN,
    "b_dec": draw(D, seed=13, scale=0.3),
}  # fmt: skip
SPARSIFY_CFG = {
    "activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": C, "k": 3,
    "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D,
}  # fmt: skip


def sparse(name, entries, tensors=S, *, says="", k=3, **options):
    def codes(rows):
        return peer_formulas.sparsify(tensors, rows, k)

    files = {"cfg.json": entries, "sae.safetensors": tensors}
    return Odd(f"sparsify {name}", files, None if says else codes, says, "topk", **options)


def changed(**changes):
    return SPARSIFY_CFG | changes


TWELVE = {
    "encoder.weight": draw(12, D, seed=14), "encoder.bias": draw(12, seed=15), "b_dec": S["b_dec"],
    "W_dec": normalize(draw(12, D, seed=16), dim=1),
}  # fmt: skip
AXES = torch.eye(D).repeat(2, 1)[:C]  # atoms whose norms are exactly 1 in bfloat16
SPARSIFY = [
    sparse("1.3", SPARSIFY_CFG),
    sparse("by expansion", changed(num_latents=0, expansion_factor=2), TWELVE),
    sparse("first version", {"expansion_factor": 2, "normalize_decoder": True, "k": 4, "d_in": D}, TWELVE, k=4),
    sparse("multi_topk", changed(multi_topk=True, k=2), k=2),
    sparse("signed is false", changed(signed=False)),
    sparse("bfloat16", SPARSIFY_CFG, {name: each.bfloat16() for name, each in (S | {"W_dec": AXES}).items()}),
    sparse("no k", without(SPARSIFY_CFG, "k"), k=5, options={"k": 5}),
    sparse("every code", changed(k=C), k=C),
    # refused
    sparse("no k at all", without(SPARSIFY_CFG, "k"), says=r"cfg\.json: holds no k"),
    sparse("transcoder", changed(transcode=True), says="transcode is True: it reconstructs the output of a module"),
    sparse("skip", changed(skip_connection=True), S | {"W_skip": draw(D, D)}, says="skip_connection is True"),
    sparse("skip tensor", SPARSIFY_CFG, S | {"W_skip": draw(D, D)}, says=r"sae\.safetensors: cannot read W_skip"),
    sparse("groupmax", changed(activation="groupmax"), says="activation is 'groupmax'; topk can be read"),
    sparse("signed", changed(signed=True), says="signed is True: its codes may be negative"),
    sparse("gram_lookup", changed(gram_lookup=True, lookup_max_order=4), says="gram_lookup is True: a table of means"),
    sparse("embed_skip", changed(embed_skip=True), says="embed_skip is True"),
    sparse("uneven atoms", changed(normalize_decoder=False), S | {"W_dec": UNEVEN},
         says="ranks codes before the norms"),
    sparse("other width", changed(num_latents=0, expansion_factor=2), says="expansion_factor is 2, but the tensors"),
    sparse("other latents", changed(num_latents=11), says="num_latents is 11, but the tensors"),
    sparse("other d_in", changed(d_in=7), says="d_in is 7, but the tensors"),
    sparse("k above the width", changed(k=11), says="k is 11; a whole number from 1 to 10"),
    sparse("no decoder", SPARSIFY_CFG, without(S, "W_dec"), says="missing tensor W_dec"),
    sparse("unknown key", changed(jumprelu=True), says="the key jumprelu is not known"),
    sparse("infinite", SPARSIFY_CFG, S | {"encoder.bias": torch.full((C,), float("inf"))},
         says="holds NaN or infinity"),
]  # fmt: skip

# ---- dictionary_learning
LINEAR = {"encoder.weight": S["encoder.weight"], "encoder.bias": S["encoder.bias"], "decoder.weight": UNEVEN.T}
PLAIN = {"W_enc": W["W_enc"], "b_enc": W["b_enc"], "W_dec": UNEVEN, "b_dec": W["b_dec"]}
K, SET = {"k": torch.tensor(3, dtype=torch.int32)}, {"threshold": torch.tensor(0.6)}
GROUPS = {"group_sizes": torch.tensor([2, 3, 5])}
STATES = {
    "AutoEncoder": LINEAR | {"bias": S["b_dec"]},
    "AutoEncoderNew": LINEAR | {"decoder.bias": S["b_dec"]},
    "GatedAutoEncoder": without(LINEAR, "encoder.bias") | {
        "decoder_bias": S["b_dec"], "r_mag": GATED["r_mag"], "gate_bias": GATED["b_gate"], "mag_bias": GATED["b_mag"],
    },
    "JumpReluAutoEncoder": PLAIN | {"threshold": JUMP["threshold"]},
    "AutoEncoderTopK": LINEAR | {"decoder.weight": EVEN.T, "b_dec": S["b_dec"]} | K | SET,
    "BatchTopKSAE": LINEAR | {"b_dec": S["b_dec"]} | K | SET,
    "MatryoshkaBatchTopKSAE": PLAIN | K | SET | GROUPS,
    "MatroyshkaBatchTopKSAE": PLAIN | K | SET | GROUPS,
}  # fmt: skip
RULES = dict(
    zip(STATES, ("relu", "relu", "jumprelu", "jumprelu", "topk", "batchtopk", "matryoshka", "matryoshka"), strict=True)
)


def learned(label, name, state=None, *, says="", trainer=None, buffer=None, k=3, **options):
    state = STATES[name] if state is None else state
    config = {"trainer": {"trainer_class": "T", "dict_class": name, "activation_dim": D, "dict_size": C, "lr": 1e-4}}
    config["trainer"] |= {"k": 3, "layer": 0, "lm_name": "m"} if "k" in state else {"layer": 0}
    config["trainer"] |= trainer or {}
    config |= {"buffer": buffer} if buffer else {}

    def codes(rows):
        return peer_formulas.dictionary_learning(name, state, rows, k)

    files = {"ae.pt": state, "config.json": config}
    return Odd(f"dictionary_learning {label}", files, None if says else codes, says, RULES.get(name, ""), **options)


BATCHTOPK = STATES["BatchTopKSAE"]
MATRYO = STATES["MatryoshkaBatchTopKSAE"]


class Harmful:
    def __reduce__(self):
        return (open, ("harmed", "w"))


LEARNED = [
    *(learned(name, name) for name in STATES),
    learned("with a buffer", "AutoEncoder", buffer={"d_submodule": D, "io": "out", "n_ctxs": 3000.0, "device": "cpu"}),
    learned("float16", "AutoEncoder", {name: each.half() for name, each in STATES["AutoEncoder"].items()}),
    learned("AutoEncoderTopK without buffers", "AutoEncoderTopK", without(STATES["AutoEncoderTopK"], "k", "threshold"),
            trainer={"k": 4}, k=4),
    learned("AutoEncoderTopK, threshold not set", "AutoEncoderTopK",
            STATES["AutoEncoderTopK"] | {"threshold": torch.tensor(-1.0)}),
    learned("threshold 0", "BatchTopKSAE", BATCHTOPK | {"threshold": torch.tensor(0.0)}),
    learned("k of 64 bits", "BatchTopKSAE", BATCHTOPK | {"k": torch.tensor(3)}),
    learned("one group", "MatryoshkaBatchTopKSAE", MATRYO | {"group_sizes": torch.tensor([C])}),
    # refused
    learned("threshold not set", "BatchTopKSAE", BATCHTOPK | {"threshold": torch.tensor(-1.0)},
            says=r"ae\.pt: threshold is -1; a number from 0 is needed"),
    learned("no threshold", "BatchTopKSAE", without(BATCHTOPK, "threshold"), says="threshold is missing"),
    learned("threshold NaN", "MatryoshkaBatchTopKSAE", MATRYO | {"threshold": torch.tensor(float("nan"))},
            says="threshold is nan"),
    learned("thresholds", "BatchTopKSAE", BATCHTOPK | {"threshold": torch.ones(C)},
         says=r"threshold has shape \(10,\)"),
    learned("two k", "AutoEncoderTopK", trainer={"k": 5}, says=r"trainer\.k is 5, but k of ae\.pt is 3"),
    learned("k 0", "BatchTopKSAE", BATCHTOPK | {"k": torch.tensor(0)}, trainer={"k": None}, says=r"k of ae\.pt is 0"),
    learned("uneven TopK", "AutoEncoderTopK", STATES["AutoEncoderTopK"] | {"decoder.weight": UNEVEN.T},
            says="ranks codes before the norms"),
    learned("crosscoder", "CrossCoder", STATES["AutoEncoder"],
         says=r"trainer\.dict_class is 'CrossCoder'; AutoEncoder"),
    learned("list of classes", "AutoEncoder", trainer={"dict_class": ["AutoEncoder"]},
         says=r"dict_class is \['AutoEnc"),
    learned("transcoder", "AutoEncoder", buffer={"io": "in_and_out"}, says=r"buffer\.io is 'in_and_out': a transcoder"),
    learned("groups do not fill", "MatryoshkaBatchTopKSAE", MATRYO | {"group_sizes": torch.tensor([2, 3])},
            says=r"group_sizes is \[2, 3\]; their sum is 5, and must be 10"),
    learned("empty group", "MatryoshkaBatchTopKSAE", MATRYO | {"group_sizes": torch.tensor([0, 10])},
            says="group_sizes is 0; a whole number from 1"),
    learned("broken groups", "MatryoshkaBatchTopKSAE", MATRYO | {"group_sizes": torch.tensor([2.0, 8.0])},
            says="group_sizes is torch.float32"),
    learned("other groups", "MatryoshkaBatchTopKSAE", trainer={"group_sizes": [5, 5]}, says=r"trainer\.group_sizes is"),
    learned("no groups", "MatryoshkaBatchTopKSAE", without(MATRYO, "group_sizes"), says="group_sizes is missing"),
    learned("gate of another class", "AutoEncoder", STATES["AutoEncoder"] | {"r_mag": SCALE}, says="cannot read r_mag"),
    learned("old name of a bias", "AutoEncoderTopK", without(STATES["AutoEncoderTopK"], "b_dec") | {"bias": S["b_dec"]},
            says=r"cannot read bias: AutoEncoderTopK has no such tensor"),
    learned("other d", "AutoEncoder", trainer={"activation_dim": 512}, says=r"trainer\.activation_dim is 512"),
    learned("unknown setting", "AutoEncoder", trainer={"normalize": True}, says=r"the key trainer\.normalize is not"),
    learned("turned decoder", "AutoEncoder", STATES["AutoEncoder"] | {"decoder.weight": UNEVEN},
         says="do not go together"),
    learned("NaN", "AutoEncoder", STATES["AutoEncoder"] | {"bias": torch.full((D,), float("nan"))},
         says="bias holds NaN"),
    learned("pickled model", "AutoEncoder", {"model": Harmful()}, says="could run any code"),
    learned("the file itself", "AutoEncoder", at="ae.pt",
         says=r"config\.json beside it names its class: name the folder"),
    learned("checkpoint of a training", "AutoEncoder", at="checkpoints/ae_100.pt",
         says="overcomplete can be taken over"),
]  # fmt: skip
LEARNED[-1].files["checkpoints/ae_100.pt"] = STATES["AutoEncoder"]
FOLDERS = [
    Odd("a run of sparsify", {"layers.0/cfg.json": SPARSIFY_CFG, "layers.0/sae.safetensors": S, "config.json": {}},
        says=r"holds several folders of SAEs: name one of them, such as .*layers\.0"),
    Odd("a run of dictionary_learning", {"trainer_0/ae.pt": BATCHTOPK, "trainer_0/config.json": {}},
        says="name one of them, such as .*trainer_0"),
    Odd("two libraries in one folder", {"cfg.json": V6, "sae_weights.safetensors": W, "sae.safetensors": S},
        says="holds the files of saelens and of sparsify"),
    Odd("ae.pt without config.json", {"ae.pt": BATCHTOPK}, says=r"config\.json: no such file"),
    Odd("config.json alone", {"config.json": {"trainer": {}}},
         says="no SAE that can be read; a checkpoint is a folder of"),
]  # fmt: skip
CORPUS = [*SAELENS, *SPARSIFY, *LEARNED, *FOLDERS]
READ = [odd for odd in CORPUS if not odd.says]
REFUSED = [odd for odd in CORPUS if odd.says]

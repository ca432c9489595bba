"""One block of a language model with random 4-bit weights, as two runtimes read it.

    layer.py OUT [SHAPE]...

For every shape OUT/SHAPE gets
  ours.safetensors   the weights for chatrex (engine/bench/layer.rs)
  acc0.onnx, acc4.onnx   the same codes and scales for onnxruntime, f32 and int8 activations
  x.f32              what is read at every position, [TOKENS, D]
  meta.json          the configuration, and for every case the logits computed here in float64

A model is: the block, the last norm, and a head of VOCABULARY rows on the last token. Weights have
4 bits in groups of 32 with one scale that half precision holds; onnxruntime gets the scale as f32.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GROUP = 32
VOCABULARY = 1024
TOKENS = 258
PREFILL = [16, 64, 256]
DECODE = [16, 256]
THETA = 1e6
EPS = 1e-6
SEED = 20261121

# Width, query heads, key heads, width of a head, width of the MLP.
SHAPES = {
    "d896": (896, 14, 2, 64, 4864),
    "d2048": (2048, 16, 2, 128, 11008),
    "d4096": (4096, 32, 32, 128, 11008),
}


class Packed:
    """A matrix [rows, columns] in 4 bits."""

    def __init__(self, random, rows, columns):
        self.shape = [rows, columns]
        codes = random.integers(0, 16, (rows, columns), dtype=np.uint8)
        deviation = 4.6 * np.sqrt(columns)
        scales = random.uniform(0.5, 1.5, (rows, columns // GROUP)) / deviation
        self.scales = scales.astype(np.float16)
        self.bytes = codes[:, 0::2] | codes[:, 1::2] << 4
        wide = np.repeat(self.scales.astype(np.float64), GROUP, axis=1)
        self.values = (codes.astype(np.float64) - 8) * wide


def make(name):
    width, heads, groups, head, inner = SHAPES[name]
    random = np.random.default_rng([SEED, width])
    vector = lambda count, middle: random.normal(middle, 0.1, count).astype(np.float32)
    return {
        "x": random.normal(0, 1, (TOKENS, width)).astype(np.float32),
        "input_layernorm": vector(width, 1),
        "post_attention_layernorm": vector(width, 1),
        "norm": vector(width, 1),
        "q_proj": (Packed(random, heads * head, width), vector(heads * head, 0)),
        "k_proj": (Packed(random, groups * head, width), vector(groups * head, 0)),
        "v_proj": (Packed(random, groups * head, width), vector(groups * head, 0)),
        "o_proj": (Packed(random, width, heads * head), None),
        "gate_proj": (Packed(random, inner, width), None),
        "up_proj": (Packed(random, inner, width), None),
        "down_proj": (Packed(random, width, inner), None),
        "lm_head": (Packed(random, VOCABULARY, width), None),
    }


def angles(head, dtype):
    """Cosine and sine of every position, [TOKENS, head / 2]; the angle rounded to f32 as in the original."""
    half = head // 2
    frequencies = (THETA ** (-np.arange(half) / half)).astype(np.float32)
    turned = (np.arange(TOKENS, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    return np.cos(turned).astype(dtype), np.sin(turned).astype(dtype)


def reference(name, layer):
    """The logits after every token, in float64."""
    width, heads, groups, head, _ = SHAPES[name]

    def norm(x, weight):
        scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPS)
        return x * scale * weight.astype(np.float64)

    def linear(x, of):
        matrix, bias = layer[of]
        y = x @ matrix.values.T
        return y if bias is None else y + bias.astype(np.float64)

    cosine, sine = angles(head, np.float64)

    def turn(x):
        first, second = np.split(x, 2, axis=-1)
        c, s = cosine[:, None], sine[:, None]
        return np.concatenate([first * c - second * s, second * c + first * s], axis=-1)

    x = layer["x"].astype(np.float64)
    y = norm(x, layer["input_layernorm"])
    q = turn(linear(y, "q_proj").reshape(TOKENS, heads, head))
    k = turn(linear(y, "k_proj").reshape(TOKENS, groups, head))
    v = linear(y, "v_proj").reshape(TOKENS, groups, head)
    k, v = (np.repeat(t, heads // groups, axis=1) for t in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(head)
    scores += np.triu(np.full((TOKENS, TOKENS), -np.inf), 1)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed = np.einsum("hqk,khd->qhd", scores, v).reshape(TOKENS, heads * head)
    x = x + linear(mixed, "o_proj")
    y = norm(x, layer["post_attention_layernorm"])
    gate = linear(y, "gate_proj")
    x = x + linear(gate / (1 + np.exp(-gate)) * linear(y, "up_proj"), "down_proj")
    return linear(norm(x, layer["norm"]), "lm_head")


def safetensors(path, name, layer):
    width, heads, groups, head, inner = SHAPES[name]
    config = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 1,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "head_dim": head,
    }
    embedding = np.zeros((VOCABULARY, width), np.float32)
    embedding[:TOKENS] = layer["x"]
    tensors = {"model.embed_tokens.weight": ("F32", embedding), "model.norm.weight": ("F32", layer["norm"])}
    block = "model.layers.0."
    for norm in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"{block}{norm}.weight"] = ("F32", layer[norm])
    for of, entry in layer.items():
        if not isinstance(entry, tuple):
            continue
        matrix, bias = entry
        part = "self_attn." if of in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp."
        stem = of if of == "lm_head" else block + part + of
        tensors[f"{stem}.qweight"] = ("U32", matrix.bytes.view("<u4"))
        tensors[f"{stem}.scales"] = ("F16", matrix.scales)
        if bias is not None:
            tensors[f"{stem}.bias"] = ("F32", bias)
    header, at = {"__metadata__": {"config": json.dumps(config)}}, 0
    for tensor, (dtype, values) in tensors.items():
        end = at + values.nbytes
        header[tensor] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, values in tensors.values():
            file.write(np.ascontiguousarray(values).tobytes())
    return config


def graph(path, name, layer, accuracy):
    width, heads, groups, head, _ = SHAPES[name]
    nodes, constants = [], []

    def constant(label, values):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(values), label))
        return label

    def node(kind, inputs, outputs, domain="", **attributes):
        nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def linear(of, x):
        matrix, bias = layer[of]
        rows, columns = matrix.shape
        inputs = [
            x,
            constant(f"{of}.codes", matrix.bytes.reshape(rows, columns // GROUP, GROUP // 2)),
            constant(f"{of}.scales", matrix.scales.astype(np.float32).reshape(rows, columns // GROUP)),
        ]
        if bias is not None:
            inputs += ["", "", constant(f"{of}.bias", bias)]
        return node("MatMulNBits", inputs, [of], "com.microsoft", K=columns, N=rows, bits=4,
                    block_size=GROUP, accuracy_level=accuracy)

    norms = {of: constant(f"{of}.weight", layer[of]) for of in ("input_layernorm", "post_attention_layernorm", "norm")}
    cosine, sine = angles(head, np.float32)
    y = node("SimplifiedLayerNormalization", ["x", norms["input_layernorm"]], ["y1"], axis=-1, epsilon=EPS, stash_type=1)
    q, k, v = (linear(of, y) for of in ("q_proj", "k_proj", "v_proj"))
    node("GroupQueryAttention",
         [q, k, v, "past_k", "past_v", "seqlens_k", "total", constant("cosine", cosine), constant("sine", sine)],
         ["mixed", "new_k", "new_v"], "com.microsoft",
         num_heads=heads, kv_num_heads=groups, do_rotary=1, rotary_interleaved=0)
    node("SkipSimplifiedLayerNormalization", ["x", linear("o_proj", "mixed"), norms["post_attention_layernorm"]],
         ["y2", "", "", "residual"], "com.microsoft", epsilon=EPS)
    gate, up = linear("gate_proj", "y2"), linear("up_proj", "y2")
    node("Sigmoid", [gate], ["opened"])
    node("Mul", [gate, "opened"], ["gated"])
    node("Mul", ["gated", up], ["inner"])
    node("Add", ["residual", linear("down_proj", "inner")], ["out"])
    node("Gather", ["out", constant("last", np.array([-1], np.int64))], ["row"], axis=1)
    node("SimplifiedLayerNormalization", ["row", norms["norm"]], ["y3"], axis=-1, epsilon=EPS, stash_type=1)
    linear("lm_head", "y3")

    value = helper.make_tensor_value_info
    past = [1, groups, "past", head]
    new = [1, groups, "all", head]
    inputs = [
        value("x", TensorProto.FLOAT, [1, "tokens", width]),
        value("past_k", TensorProto.FLOAT, past),
        value("past_v", TensorProto.FLOAT, past),
        value("seqlens_k", TensorProto.INT32, [1]),
        value("total", TensorProto.INT32, []),
    ]
    outputs = [
        value("lm_head", TensorProto.FLOAT, [1, 1, VOCABULARY]),
        value("new_k", TensorProto.FLOAT, new),
        value("new_v", TensorProto.FLOAT, new),
    ]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_graph(nodes, name, inputs, outputs, constants)
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=9), path)


def write(out, name):
    out.mkdir(parents=True, exist_ok=True)
    layer = make(name)
    config = safetensors(out / "ours.safetensors", name, layer)
    for accuracy in (0, 4):
        graph(out / f"acc{accuracy}.onnx", name, layer, accuracy)
    (out / "x.f32").write_bytes(layer["x"].tobytes())
    logits = reference(name, layer)
    cases = [{"decode": False, "tokens": n, "expected": logits[n - 1].tolist()} for n in PREFILL]
    cases += [{"decode": True, "tokens": n, "expected": logits[n].tolist()} for n in DECODE]
    script = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    meta = {"name": name, "config": config, "script": script, "cases": cases}
    (out / "meta.json").write_text(json.dumps(meta))


def main():
    if len(sys.argv) < 2 or any(name not in SHAPES for name in sys.argv[2:]):
        sys.exit(f"{__doc__}\nShapes: {', '.join(SHAPES)}")
    for name in sys.argv[2:] or ["d896", "d2048"]:
        write(Path(sys.argv[1]) / name, name)


main()

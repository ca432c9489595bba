"""One layer of a network with random weights, in the formats of several runtimes.

    layer.py OUT [SHAPE]...
    layer.py --weights OUT [SHAPE]...

Writes to OUT/SHAPE for every shape
  ours.safetensors   the weights for chatrex (src/diagnostics/bench/layer.rs)
  NAME.onnx          graphs for onnxruntime, which reference the weights in ours.safetensors
  x.f32              the input
  meta.json          the configuration, for every case the outputs computed here in float64, and the
                     tolerance of chatrex and of every graph

With --weights only ours.safetensors and x.f32 are generated again from the seed, beside existing graphs
and meta.json; without SHAPE for all existing shapes. This needs only NumPy.

d896, d2048 and d4096 are one decoder layer, the final norm, and an LM head of VOCAB_SIZE rows on the last
token. Weights are quantized to 4 bits in groups of 32 with an f16 scale; onnxruntime gets the scale as
f32. acc0.onnx computes with f32 activations, acc4.onnx with int8.

clip-l is a layer of CLIP's ViT-L/14 at 336 pixels, convnext-192 to convnext-1536 are blocks of the stages
of ConvNeXt-L for an image of 768 pixels. Weights are f32. Outputs are the activations at SAMPLED positions.
"""

import hashlib
import json
import math
import sys
from functools import cached_property
from pathlib import Path

import numpy as np

GROUP = 32
VOCAB_SIZE = 1024
TOKENS = 258
PREFILL = [16, 64, 256]
DECODE = [16, 256]
THETA = 1e6
EPS = 1e-6
SAMPLED = 64
SEED = 20261121
# Tolerance of outputs computed in f32, relative to the largest output.
F32_TOLERANCE = 1e-3
WEIGHTS = "ours.safetensors"


class Quantized:
    """A matrix [rows, columns] quantized to 4 bits."""

    def __init__(self, random, rows, columns):
        self.shape = [rows, columns]
        codes = random.integers(0, 16, (rows, columns), dtype=np.uint8)
        deviation = 4.6 * np.sqrt(columns)
        scales = random.uniform(0.5, 1.5, (rows, columns // GROUP)) / deviation
        self.scales = scales.astype(np.float16)
        self.bytes = codes[:, 0::2] | codes[:, 1::2] << 4

    @cached_property
    def values(self):
        codes = np.stack([self.bytes & 15, self.bytes >> 4], axis=-1).reshape(self.shape)
        wide = np.repeat(self.scales.astype(np.float64), GROUP, axis=1)
        return (codes.astype(np.float64) - 8) * wide


def normal(random, shape, mean, deviation):
    return random.normal(mean, deviation, shape).astype(np.float32)


def layer_norm(x, weight, bias, eps):
    x = x - x.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * scale * weight.astype(np.float64) + bias.astype(np.float64)


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


class Graph:
    """An ONNX graph with external weights in ours.safetensors."""

    def __init__(self, locations):
        import onnx

        self.onnx = onnx
        self.locations = locations
        self.nodes, self.constants = [], {}

    def weight(self, tensor, shape=None):
        """A tensor of the file as an initializer; `shape` in bytes for quantized codes."""
        dtype, own, start, length = self.locations[tensor]
        if tensor not in self.constants:
            kind = self.onnx.TensorProto
            made = kind(name=tensor, dims=shape or own, data_location=kind.EXTERNAL)
            made.data_type = {"F32": kind.FLOAT, "F16": kind.FLOAT16, "U32": kind.UINT8}[dtype]
            for key, value in (("location", WEIGHTS), ("offset", start), ("length", length)):
                made.external_data.add(key=key, value=str(value))
            self.constants[tensor] = made
        return tensor

    def constant(self, label, values):
        self.constants[label] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), label)
        return label

    def node(self, kind, inputs, outputs, domain="", **attributes):
        if isinstance(outputs, str):
            outputs = [outputs]
        make = self.onnx.helper.make_node
        self.nodes.append(make(kind, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def fused(self, kind, inputs, outputs, **attributes):
        return self.node(kind, inputs, outputs, "com.microsoft", **attributes)

    def product(self, stem, x, out):
        """x W^T without the bias; the session folds the transposed weight into a constant."""
        transposed = self.node("Transpose", [self.weight(f"{stem}.weight")], f"{stem}.transposed", perm=[1, 0])
        return self.node("MatMul", [x, transposed], out)

    def linear(self, stem, x, out):
        bias = self.weight(f"{stem}.bias")
        return self.node("Add", [self.product(stem, x, f"{out}.product"), bias], out)

    def norm(self, stem, x, out, eps):
        weights = [self.weight(f"{stem}.{part}") for part in ("weight", "bias")]
        return self.node("LayerNormalization", [x, *weights], out, axis=-1, epsilon=eps)

    def save(self, path, inputs, outputs):
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        kinds = {np.float32: kinds.FLOAT, np.int32: kinds.INT32}
        value = lambda name, kind, shape: helper.make_tensor_value_info(name, kinds[kind], shape)
        made = helper.make_graph(self.nodes, path.stem, [value(*of) for of in inputs],
                                 [value(*of) for of in outputs], list(self.constants.values()))
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        self.onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=9), path)


class DecoderLayer:
    """One decoder layer with final norm and LM head."""

    family = "decoder"
    rivals = {"acc0": F32_TOLERANCE, "acc4": 0.05}

    def __init__(self, width, heads, groups, head, inner):
        self.sizes = width, heads, groups, head, inner
        self.config = {
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": 1,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "rms_norm_eps": EPS,
            "rope_theta": THETA,
            "vocab_size": VOCAB_SIZE,
            "tie_word_embeddings": False,
            "head_dim": head,
        }
        random = np.random.default_rng([SEED, width])
        vector = lambda count, mean: normal(random, count, mean, 0.1)
        self.x = normal(random, (TOKENS, width), 0, 1)
        self.norms = {
            "input_layernorm": vector(width, 1),
            "post_attention_layernorm": vector(width, 1),
            "norm": vector(width, 1),
        }
        self.linears = {
            "q_proj": (Quantized(random, heads * head, width), vector(heads * head, 0)),
            "k_proj": (Quantized(random, groups * head, width), vector(groups * head, 0)),
            "v_proj": (Quantized(random, groups * head, width), vector(groups * head, 0)),
            "o_proj": (Quantized(random, width, heads * head), None),
            "gate_proj": (Quantized(random, inner, width), None),
            "up_proj": (Quantized(random, inner, width), None),
            "down_proj": (Quantized(random, width, inner), None),
            "lm_head": (Quantized(random, VOCAB_SIZE, width), None),
        }

    def angles(self, dtype):
        """RoPE table: cosine and sine, [TOKENS, head / 2]; angles are rounded to f32 as in the original."""
        half = self.sizes[3] // 2
        frequencies = (THETA ** (-np.arange(half) / half)).astype(np.float32)
        angles = (np.arange(TOKENS, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
        return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)

    def reference(self):
        """The logits after every token, in float64."""
        _, heads, groups, head, _ = self.sizes

        def norm(x, of):
            scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPS)
            return x * scale * self.norms[of].astype(np.float64)

        def linear(x, of):
            matrix, bias = self.linears[of]
            y = x @ matrix.values.T
            return y if bias is None else y + bias.astype(np.float64)

        cosine, sine = self.angles(np.float64)

        def apply_rope(x):
            first, second = np.split(x, 2, axis=-1)
            c, s = cosine[:, None], sine[:, None]
            return np.concatenate([first * c - second * s, second * c + first * s], axis=-1)

        x = self.x.astype(np.float64)
        y = norm(x, "input_layernorm")
        q = apply_rope(linear(y, "q_proj").reshape(TOKENS, heads, head))
        k = apply_rope(linear(y, "k_proj").reshape(TOKENS, groups, head))
        v = linear(y, "v_proj").reshape(TOKENS, groups, head)
        k, v = (np.repeat(t, heads // groups, axis=1) for t in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(head)
        scores = softmax(scores + np.triu(np.full((TOKENS, TOKENS), -np.inf), 1))
        attended = np.einsum("hqk,khd->qhd", scores, v).reshape(TOKENS, heads * head)
        x = x + linear(attended, "o_proj")
        y = norm(x, "post_attention_layernorm")
        gate = linear(y, "gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(y, "up_proj"), "down_proj")
        return linear(norm(x, "norm"), "lm_head")

    def cases(self):
        logits = self.reference()
        cases = [({"prefill": n}, logits[n - 1]) for n in PREFILL]
        return cases + [({"decode": n}, logits[n]) for n in DECODE]

    def stem(self, of):
        part = "self_attn." if of in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp."
        return of if of == "lm_head" else f"model.layers.0.{part}{of}"

    def norm_name(self, of):
        return "model.norm.weight" if of == "norm" else f"model.layers.0.{of}.weight"

    def tensors(self):
        embedding = np.zeros((VOCAB_SIZE, self.sizes[0]), np.float32)
        embedding[:TOKENS] = self.x
        found = {"model.embed_tokens.weight": ("F32", embedding)}
        for of, weight in self.norms.items():
            found[self.norm_name(of)] = ("F32", weight)
        for of, (matrix, bias) in self.linears.items():
            found[f"{self.stem(of)}.qweight"] = ("U32", matrix.bytes.view("<u4"))
            found[f"{self.stem(of)}.scales"] = ("F16", matrix.scales)
            if bias is not None:
                found[f"{self.stem(of)}.bias"] = ("F32", bias)
        return found

    def graph(self, path, locations):
        width, heads, groups, head, _ = self.sizes
        graph = Graph(locations)

        def linear(of, x):
            matrix, bias = self.linears[of]
            rows, columns = matrix.shape
            stem = self.stem(of)
            codes = graph.weight(f"{stem}.qweight", [rows, columns // GROUP, GROUP // 2])
            scales = graph.node("Cast", [graph.weight(f"{stem}.scales")], f"{of}.wide", to=1)
            inputs = [x, codes, scales]
            if bias is not None:
                inputs += ["", "", graph.weight(f"{stem}.bias")]
            return graph.fused("MatMulNBits", inputs, of, K=columns, N=rows, bits=4, block_size=GROUP,
                               accuracy_level=int(path.stem[-1]))

        def norm(x, of, out):
            weight = graph.weight(self.norm_name(of))
            return graph.node("SimplifiedLayerNormalization", [x, weight], out, axis=-1, epsilon=EPS, stash_type=1)

        y = norm("x", "input_layernorm", "y1")
        q, k, v = (linear(of, y) for of in ("q_proj", "k_proj", "v_proj"))
        rope_table = [graph.constant(*of) for of in zip(("cosine", "sine"), self.angles(np.float32))]
        graph.fused("GroupQueryAttention", [q, k, v, "past_k", "past_v", "seqlens_k", "total", *rope_table],
                    ["mixed", "new_k", "new_v"], num_heads=heads, kv_num_heads=groups, do_rotary=1,
                    rotary_interleaved=0)
        between = graph.weight(self.norm_name("post_attention_layernorm"))
        graph.fused("SkipSimplifiedLayerNormalization", ["x", linear("o_proj", "mixed"), between],
                    ["y2", "", "", "residual"], epsilon=EPS)
        gate, up = linear("gate_proj", "y2"), linear("up_proj", "y2")
        graph.node("Sigmoid", [gate], "opened")
        graph.node("Mul", [gate, "opened"], "gated")
        graph.node("Mul", ["gated", up], "inner")
        graph.node("Add", ["residual", linear("down_proj", "inner")], "out")
        graph.node("Gather", ["out", graph.constant("last", np.array([-1], np.int64))], "row", axis=1)
        linear("lm_head", norm("row", "norm", "y3"))
        past, new = ([1, groups, length, head] for length in ("past", "all"))
        graph.save(path,
                   [("x", np.float32, [1, "tokens", width]), ("past_k", np.float32, past),
                    ("past_v", np.float32, past), ("seqlens_k", np.int32, [1]), ("total", np.int32, [])],
                   [("lm_head", np.float32, [1, 1, VOCAB_SIZE]), ("new_k", np.float32, new),
                    ("new_v", np.float32, new)])


class TowerLayer:
    """A layer of a vision tower on activations of `shape`; SAMPLED positions are compared."""

    rivals = {"f32": F32_TOLERANCE}

    def __init__(self, name, shape):
        self.shape, self.width, self.positions = shape, shape[-1], math.prod(shape[:-1])
        self.random = np.random.default_rng([SEED, *name.encode()])
        self.x = normal(self.random, shape, 0, 1)
        ends = {0, self.positions - 1}
        others = self.random.choice(np.arange(1, self.positions - 1), SAMPLED - len(ends), replace=False)
        self.sampled = sorted(ends | set(others.tolist()))
        self.weights = {}

    def add(self, name, shape, mean, deviation):
        self.weights[name] = normal(self.random, shape, mean, deviation)

    def add_linear(self, stem, outputs, inputs):
        self.add(f"{stem}.weight", (outputs, inputs), 0, inputs**-0.5)
        self.add(f"{stem}.bias", outputs, 0, 0.1)

    def add_norm(self, stem):
        self.add(f"{stem}.weight", self.width, 1, 0.1)
        self.add(f"{stem}.bias", self.width, 0, 0.1)

    def both(self, stem):
        return (self.weights[f"{stem}.{part}"].astype(np.float64) for part in ("weight", "bias"))

    def linear(self, stem, x):
        weight, bias = self.both(stem)
        return x @ weight.T + bias

    def cases(self):
        return [("forward", self.reference().ravel())]

    def tensors(self):
        return {"x": ("F32", self.x)} | {name: ("F32", values) for name, values in self.weights.items()}

    def save(self, path, graph, out):
        rows = graph.node("Reshape", [out, graph.constant("flat", np.array([-1, self.width], np.int64))], "flat_out")
        graph.node("Gather", [rows, graph.constant("read", np.array(self.sampled, np.int64))], "rows", axis=0)
        graph.save(path, [("x", np.float32, self.shape)], [("rows", np.float32, [SAMPLED, self.width])])


class ClipLayer(TowerLayer):
    """LayerNorm, attention, LayerNorm, MLP with quick GELU."""

    family = "clip"
    eps = 1e-5

    def __init__(self, name, width, heads, inner, image, patch):
        super().__init__(name, [1, (image // patch) ** 2 + 1, width])
        self.heads = heads
        self.config = {
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": 1,
            "num_attention_heads": heads,
            "image_size": image,
            "patch_size": patch,
            "layer_norm_eps": self.eps,
        }
        self.add_norm("layer_norm1")
        for of in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_linear(f"self_attn.{of}", width, width)
        self.add_norm("layer_norm2")
        self.add_linear("mlp.fc1", inner, width)
        self.add_linear("mlp.fc2", width, inner)

    def reference(self):
        x = self.x[0].astype(np.float64)
        y = layer_norm(x, *self.both("layer_norm1"), self.eps)
        head = self.width // self.heads
        split = lambda of, rows: self.linear(f"self_attn.{of}", rows).reshape(-1, self.heads, head)
        q, k, v = split("q_proj", y[self.sampled]), split("k_proj", y), split("v_proj", y)
        scores = softmax(np.einsum("qhd,khd->hqk", q, k) / np.sqrt(head))
        attended = np.einsum("hqk,khd->qhd", scores, v).reshape(SAMPLED, self.width)
        x = x[self.sampled] + self.linear("self_attn.out_proj", attended)
        y = self.linear("mlp.fc1", layer_norm(x, *self.both("layer_norm2"), self.eps))
        return x + self.linear("mlp.fc2", y / (1 + np.exp(-1.702 * y)))

    def graph(self, path, locations):
        graph = Graph(locations)
        y = graph.norm("layer_norm1", "x", "y1", self.eps)
        q, k, v = (graph.linear(f"self_attn.{of}_proj", y, of) for of in "qkv")
        graph.fused("MultiHeadAttention", [q, k, v], "mixed", num_heads=self.heads)
        weights = [graph.weight(f"layer_norm2.{part}") for part in ("weight", "bias")]
        projected = graph.product("self_attn.out_proj", "mixed", "projected")
        graph.fused("SkipLayerNormalization", ["x", projected, *weights, graph.weight("self_attn.out_proj.bias")],
                    ["y2", "", "", "residual"], epsilon=self.eps)
        inner = graph.linear("mlp.fc1", "y2", "inner")
        opened = graph.fused("QuickGelu", [inner], "opened", alpha=1.702)
        out = graph.node("Add", ["residual", graph.linear("mlp.fc2", opened, "added")], "out")
        self.save(path, graph, out)


class ConvNextBlock(TowerLayer):
    """Depthwise 7 x 7, LayerNorm, MLP with GELU, layer scale; channels last."""

    family = "convnext"
    kernel = 7
    eps = 1e-6

    def __init__(self, name, width, side):
        super().__init__(name, [1, side, side, width])
        self.side = side
        self.config = {"depths": [1], "dims": [width], "kernel": self.kernel, "ln_eps": self.eps}
        self.add("conv_dw.weight", (width, 1, self.kernel, self.kernel), 0, 1 / self.kernel)
        self.add("conv_dw.bias", width, 0, 0.1)
        self.add_norm("norm")
        self.add_linear("mlp.fc1", 4 * width, width)
        self.add_linear("mlp.fc2", width, 4 * width)
        self.add("ramma", width, 0, 0.3)

    def reference(self):
        x = self.x[0].astype(np.float64)
        edge = self.kernel // 2
        padded = np.pad(x, [(edge, edge), (edge, edge), (0, 0)])
        weight, bias = self.both("conv_dw")
        locations = [divmod(at, self.side) for at in self.sampled]
        windows = np.stack([padded[row : row + self.kernel, column : column + self.kernel] for row, column in locations])
        y = np.einsum("nijc,cij->nc", windows, weight[:, 0]) + bias
        y = self.linear("mlp.fc1", layer_norm(y, *self.both("norm"), self.eps))
        y = y / 2 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        own = np.stack([x[place] for place in locations])
        return own + self.linear("mlp.fc2", y) * self.weights["ramma"].astype(np.float64)

    def graph(self, path, locations):
        graph = Graph(locations)
        first = graph.node("Transpose", ["x"], "channels_first", perm=[0, 3, 1, 2])
        weights = [graph.weight(f"conv_dw.{part}") for part in ("weight", "bias")]
        edge = self.kernel // 2
        filtered = graph.node("Conv", [first, *weights], "filtered", group=self.width, pads=[edge] * 4,
                              kernel_shape=[self.kernel] * 2)
        last = graph.node("Transpose", [filtered], "channels_last", perm=[0, 2, 3, 1])
        y = graph.norm("norm", last, "y", self.eps)
        inner = graph.product("mlp.fc1", y, "inner")
        opened = graph.fused("BiasGelu", [inner, graph.weight("mlp.fc1.bias")], "opened")
        scaled = graph.node("Mul", [graph.linear("mlp.fc2", opened, "added"), graph.weight("ramma")], "scaled")
        self.save(path, graph, graph.node("Add", ["x", scaled], "out"))


# Hidden size, query heads, KV heads, head dim, MLP size.
SHAPES = {
    "d896": lambda _: DecoderLayer(896, 14, 2, 64, 4864),
    "d2048": lambda _: DecoderLayer(2048, 16, 2, 128, 11008),
    "d4096": lambda _: DecoderLayer(4096, 32, 32, 128, 11008),
    "clip-l": lambda name: ClipLayer(name, width=1024, heads=16, inner=4096, image=336, patch=14),
    "convnext-192": lambda name: ConvNextBlock(name, 192, 192),
    "convnext-384": lambda name: ConvNextBlock(name, 384, 96),
    "convnext-768": lambda name: ConvNextBlock(name, 768, 48),
    "convnext-1536": lambda name: ConvNextBlock(name, 1536, 24),
}


def safetensors(path, layer):
    """Writes the weights; returns dtype, shape, offset and length of every tensor."""
    metadata = {"family": layer.family, "config": json.dumps(layer.config)}
    if isinstance(layer, TowerLayer):
        metadata["read"] = json.dumps(layer.sampled)
    header, at = {"__metadata__": metadata}, 0
    tensors = layer.tensors()
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
    begin = 8 + len(text)
    del header["__metadata__"]
    return {
        tensor: (entry["dtype"], entry["shape"], begin + entry["data_offsets"][0],
                 entry["data_offsets"][1] - entry["data_offsets"][0])
        for tensor, entry in header.items()
    }


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(out, name, weights_only):
    layer = SHAPES[name](name)
    meta = out / "meta.json"
    if weights_only and not meta.is_file():
        sys.exit(f"{meta} is missing; --weights needs the output of a run without it")
    out.mkdir(parents=True, exist_ok=True)
    locations = safetensors(out / WEIGHTS, layer)
    (out / "x.f32").write_bytes(layer.x.tobytes())
    digest = sha256(out / WEIGHTS)
    if weights_only:
        if digest != json.loads(meta.read_text())["weights"]:
            sys.exit(f"{out / WEIGHTS}: NumPy {np.__version__} generates other random numbers than those of the graphs")
        return
    for rival in layer.rivals:
        layer.graph(out / f"{rival}.onnx", locations)
    cases = [{"work": work, "expected": [float(f"{value:.9g}") for value in expected]}
             for work, expected in layer.cases()]
    script = sha256(Path(__file__))
    meta.write_text(json.dumps({
        "name": name, "family": layer.family, "config": layer.config, "shape": list(layer.x.shape),
        "limits": {"ours": F32_TOLERANCE} | layer.rivals, "weights": digest, "script": script, "cases": cases,
    }))


def main():
    arguments = sys.argv[1:]
    weights_only = arguments[:1] == ["--weights"]
    arguments = arguments[weights_only:]
    if not arguments:
        sys.exit(f"{__doc__}\nShapes: {', '.join(SHAPES)}")
    unknown = [name for name in arguments[1:] if name not in SHAPES]
    if unknown:
        sys.exit(f"layer.py: unknown layer {', '.join(unknown)}; known are {', '.join(SHAPES)}")
    out = Path(arguments[0])
    existing = sorted(path.parent.name for path in out.glob("*/meta.json"))
    for name in arguments[1:] or (existing if weights_only else ["d896", "d2048"]):
        write(out / name, name, weights_only)


main()

"""Compares other runtimes with `chatrex bench` on the CPU; needs no network.

    cpu_rivals.py --layers DIR --program CHATREX [--shape NAME]... [--threads N]... [--rounds N]
                  [--repeats N] [--llama DIR] [--json FILE]

DIR is the output of layer.py. All contenders run in turns, ROUNDS times each; a time is the median of the
medians of its rounds, on N threads. A contender that is not installed is reported and skipped:

  ours       chatrex with f32 activations, exact
  ours int8  chatrex with --cpu-activations int8; vision layers with --quantize-layer, weights in 8 bits
  llama      llama.cpp from npm's package @node-llama-cpp/linux-x64: weights as Q4_0, KV cache in f16, int8
             activations; half the difference between files of three equal layers and of one
  ort f32    onnxruntime's CPU provider with the graphs of layer.py: f32 activations
  ort int8   the same with int8 activations
  torch      PyTorch, vision layers only

A ratio is theirs / ours, above 1 if chatrex is faster; it is printed only if both outputs agree with
float64 within the tolerance of their activations.
"""

import argparse
import json
import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from native_rivals import COSINE, LLAMA_TOLERANCE, Llama, Missing, llama_layers, name_of, read_layer

OURS = {"ours": "f32", "ours int8": "int8"}
INT8_TOLERANCE = 0.05


class Contender:
    """A runtime that has opened a layer: the output of each case, and the times of each round."""

    def __init__(self, limit):
        self.limit = limit
        self.outputs, self.times = {}, {}

    def agrees(self, name, expected):
        """Whether the output of a case is the expected one within the tolerance."""
        import numpy as np

        output = np.asarray(self.outputs[name], np.float64).ravel()
        cosine = output @ expected / np.linalg.norm(output) / np.linalg.norm(expected)
        return bool(cosine > COSINE and np.abs(output - expected).max() <= self.limit * np.abs(expected).max())

    def time(self, name):
        """Milliseconds of a case."""
        return median(self.times[name])


class Ours(Contender):
    """chatrex, in a process of its own each round."""

    def __init__(self, options, folder, meta, threads, activations):
        super().__init__(meta["limits"]["ours"] if activations == "f32" else INT8_TOLERANCE)
        is_quantized = activations == "int8" and meta["family"] != "decoder"
        self.command = [
            *(options.program, "bench", "--layer", str(folder), "--device", "cpu", "--json", "-"),
            *("--cpu-activations", activations, "--repeats", str(options.repeats)),
            *(["--quantize-layer"] if is_quantized else []),
        ]
        self.environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
        self.checks = {}

    def round(self, cases):
        done = subprocess.run(self.command, stdout=subprocess.PIPE, text=True, env=self.environment)
        if done.returncode:
            raise Missing(f"{' '.join(self.command)} exited with {done.returncode}")
        for case in json.loads(done.stdout)["cases"]:
            name = name_of(case["work"])
            self.times.setdefault(name, []).append(case["milliseconds"])
            self.checks[name] = case["cosine"], case["worst"]

    def agrees(self, name, expected):
        import numpy as np

        cosine, worst = self.checks[name]
        return bool(cosine > COSINE and worst <= self.limit * np.abs(expected).max())


class InProcess(Contender):
    """A runtime in this process. `run_of` makes a function of a case's work; `three_of` one that runs three
    layers."""

    def __init__(self, options, limit, run_of, three_of=None):
        super().__init__(limit)
        self.repeats, self.run_of, self.three_of = options.repeats, run_of, three_of

    def timed(self, run):
        run()
        found = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            run()
            found.append((time.perf_counter() - start) * 1e3)
        return median(found)

    def round(self, cases):
        for case in cases:
            name, work = name_of(case["work"]), case["work"]
            run = self.run_of(work)
            self.outputs[name] = run()
            taken = self.timed(run)
            if self.three_of:
                taken = (self.timed(self.three_of(work)) - taken) / 2
            self.times.setdefault(name, []).append(taken)


def onnxruntime_layer(folder, meta, graph, threads):
    """A function from work to a function that runs it."""
    try:
        import numpy as np
        import onnxruntime
    except ImportError as error:
        raise Missing(f"a package: {error.name}") from error
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / f"{graph}.onnx"), settings, providers=["CPUExecutionProvider"])
    x = np.fromfile(folder / "x.f32", np.float32).reshape(meta["shape"])
    config = meta["config"]

    def tokens(first, count, past):
        total = first + count
        if past is None:
            empty = np.zeros([1, config["num_key_value_heads"], 0, config["head_dim"]], np.float32)
            past = empty, empty
        inputs = {
            "x": np.ascontiguousarray(x[None, first:total]),
            "past_k": past[0],
            "past_v": past[1],
            "seqlens_k": np.array([total - 1], np.int32),
            "total": np.array(total, np.int32),
        }
        return session.run(["lm_head", "new_k", "new_v"], inputs)

    def run_of(work):
        if work == "forward":
            return lambda: session.run(["rows"], {"x": x})[0]
        if "prefill" in work:
            return lambda: tokens(0, work["prefill"], None)[0]
        past = tokens(0, work["decode"], None)[1:]
        return lambda: tokens(work["decode"], 1, past)[0]

    return run_of


def torch_layer(folder, meta, threads):
    """A function from work to a function that runs a vision layer with PyTorch."""
    try:
        import torch
        from torch.nn import functional
    except ImportError as error:
        raise Missing(f"a package: {error.name}") from error
    torch.set_num_threads(threads)
    _, tensors = read_layer(folder)
    weights = {name: torch.from_numpy(values.copy()) for name, values in tensors.items()}
    config, x = meta["config"], weights["x"]
    linear = lambda stem, y: functional.linear(y, weights[f"{stem}.weight"], weights[f"{stem}.bias"])

    def norm(stem, y, eps):
        return functional.layer_norm(y, y.shape[-1:], weights[f"{stem}.weight"], weights[f"{stem}.bias"], eps)

    def clip():
        heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
        batch, count, width = x.shape
        y = norm("layer_norm1", x, eps)
        split = lambda of: linear(f"self_attn.{of}_proj", y).view(batch, count, heads, -1).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(split("q"), split("k"), split("v"))
        y = x + linear("self_attn.out_proj", mixed.transpose(1, 2).reshape(batch, count, width))
        inner = linear("mlp.fc1", norm("layer_norm2", y, eps))
        return y + linear("mlp.fc2", inner * torch.sigmoid(1.702 * inner))

    def convnext():
        kernel, width = config["kernel"], x.shape[-1]
        filtered = functional.conv2d(
            x.permute(0, 3, 1, 2), weights["conv_dw.weight"], weights["conv_dw.bias"], padding=kernel // 2, groups=width
        )
        y = norm("norm", filtered.permute(0, 2, 3, 1), config["ln_eps"])
        return x + linear("mlp.fc2", functional.gelu(linear("mlp.fc1", y))) * weights["ramma"]

    forward = {"clip": clip, "convnext": convnext}[meta["family"]]
    sampled = json.loads(read_metadata(folder)["read"])

    def run():
        with torch.inference_mode():
            y = forward()
            return y.reshape(-1, y.shape[-1])[sampled].numpy()

    return lambda _: run


def contenders(options, folder, meta, threads, stack):
    """The contenders of a layer by name, and what is missing."""
    made = {name: lambda activations=activations: Ours(options, folder, meta, threads, activations)
            for name, activations in OURS.items()}
    if meta["family"] == "decoder":

        def llama():
            if not options.llama:
                raise Missing("llama.cpp; name its folder with --llama")
            library = options.library = options.library or Llama(options.llama.resolve(), gpu=False)
            one_of, three_of = stack.enter_context(llama_layers(library, folder, meta, threads))
            return InProcess(options, LLAMA_TOLERANCE, one_of, three_of)

        made["llama"] = llama
        graphs = {"ort f32": "acc0", "ort int8": "acc4"}
    else:
        made["torch"] = lambda: InProcess(options, meta["limits"]["f32"], torch_layer(folder, meta, threads))
        graphs = {"ort f32": "f32"}
    for name, graph in graphs.items():
        made[name] = lambda graph=graph: InProcess(
            options, meta["limits"][graph], onnxruntime_layer(folder, meta, graph, threads)
        )
    found, missing = {}, {}
    for name, make in made.items():
        try:
            found[name] = make()
        except Missing as error:
            missing[name] = str(error)
    return found, missing


def measure(options, folder, threads, report):
    """Measures a layer and prints its rows."""
    import numpy as np

    meta = json.loads((folder / "meta.json").read_text())
    with ExitStack() as stack:
        found, missing = contenders(options, folder, meta, threads, stack)
        for _ in range(options.rounds):
            for contender in found.values():
                contender.round(meta["cases"])
        report["missing"] |= missing
        for case in meta["cases"]:
            name, expected = name_of(case["work"]), np.array(case["expected"])
            row = {"layer": meta["name"], "case": name, "threads": threads, "ms": {}, "ratios": {}}
            for contender, runs in found.items():
                # The difference of two times may be lost in noise.
                is_valid = runs.agrees(name, expected) and runs.time(name) > 0
                row["ms"][contender] = runs.time(name) if is_valid else None
            for own in OURS:
                for rival in found:
                    times = row["ms"].get(own), row["ms"].get(rival)
                    if rival not in OURS and None not in times:
                        row["ratios"][f"{rival} / {own}"] = times[1] / times[0]
            report["rows"].append(row)
            times = ", ".join(f"{who} {'differs or noise' if ms is None else f'{ms:.2f}'}" for who, ms in row["ms"].items())
            ratios = ", ".join(f"{who} {ratio:.2f}" for who, ratio in row["ratios"].items())
            print(f"{meta['name']} {name}, {threads} thread(s): {times} ms\n    {ratios}", flush=True)


def read_metadata(folder):
    """The metadata of ours.safetensors."""
    with open(folder / "ours.safetensors", "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length))["__metadata__"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=Path, required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--shape", action="append")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.library = None
    names = options.shape or sorted(path.parent.name for path in options.layers.glob("*/ours.safetensors"))
    report = {"rows": [], "missing": {}}
    for name in names:
        for threads in options.threads or [1, 2]:
            measure(options, options.layers / name, threads, report)
    for name, why in report["missing"].items():
        print(f"{name}: missing: {why}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


main()

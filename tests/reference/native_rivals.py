"""Other runtimes beside `chatrex bench` on a machine with a graphics card; needs no network.

    native_rivals.py --layers DIR --program CHATREX [--shape d2048] [--repeats N]
                     [--only ort|llama|torch]... [--llama-bench FILE] [--any-device]

DIR is what layer.py wrote. What is missing is named and left out:

  ort    onnxruntime-ep-webgpu: the layer that layer.py wrote, the kernels of onnxruntime-web outside
         a browser; outputs are compared with float64 before a ratio is printed
  llama  llama.cpp's llama-bench built with Vulkan, and `gguf`: the layer's weights as Q4_0.
         llama-bench gives no outputs, so nothing is compared
  torch  PyTorch with CUDA: CLIP-L's and ConvNeXt-L's blocks with random weights

A ratio is theirs / ours, above 1 where ours is faster. Software adapters are refused without
--any-device, and named as such with it: their numbers say nothing of a graphics card.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

COSINE = 0.999


class Missing(Exception):
    """A package, program or device that a part needs."""


def ours(options, *words):
    command = [options.program, "bench", *words, "--device", "wgpu", "--json", "-"]
    if options.repeats:
        command += ["--repeats", str(options.repeats)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Missing(f"{options.program} ended with {done.returncode}")
    report = json.loads(done.stdout)
    if report["software"] and not options.any_device:
        raise Missing(f"a graphics card: {report['adapter']} is software")
    label = " (software: not a GPU number)" if report["software"] else ""
    print(f"ours on {report['adapter']}{label}")
    return report


def name_of(case):
    return f"decode after {case['tokens']}" if case["decode"] else f"prefill {case['tokens']}"


def line(what, theirs, own, more=""):
    print(f"  {what:<28} theirs {theirs:10.3f} ms   ours {own:10.3f} ms   theirs / ours {theirs / own:6.2f}  {more}")


def timed(run, repeats):
    run()
    run()
    found = []
    for _ in range(repeats or 21):
        start = time.perf_counter()
        run()
        found.append((time.perf_counter() - start) * 1e3)
    return median(found)


def ort(options):
    try:
        import numpy as np
        import onnxruntime
        import onnxruntime_ep_webgpu as plugin
    except ImportError as error:
        raise Missing(f"a package: {error.name}") from error
    folder = options.layers / options.shape
    meta = json.loads((folder / "meta.json").read_text())
    config = meta["config"]
    x = np.fromfile(folder / "x.f32", np.float32).reshape(-1, config["hidden_size"])
    onnxruntime.register_execution_provider_library("webgpu", plugin.get_library_path())
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == plugin.get_ep_name()]
    if not devices:
        raise Missing("an adapter for onnxruntime's WebGPU")
    own = {name_of(case): case for case in ours(options, "--layer", str(folder))["cases"]}
    past_shape = [1, config["num_key_value_heads"], 0, config["head_dim"]]

    for accuracy in (0, 4):
        settings = onnxruntime.SessionOptions()
        settings.add_provider_for_devices(devices[:1], {})
        session = onnxruntime.InferenceSession(str(folder / f"acc{accuracy}.onnx"), settings)
        print(f"onnxruntime {onnxruntime.__version__} on WebGPU, accuracy_level {accuracy}")

        def bound(first, count, past):
            """Keys and values stay where they are; logits are read."""
            binding = session.io_binding()
            total = first + count
            empty = np.zeros(past_shape, np.float32)
            binding.bind_cpu_input("x", np.ascontiguousarray(x[None, first:total]))
            for key in ("k", "v"):
                if past:
                    binding.bind_ortvalue_input(f"past_{key}", past[f"new_{key}"])
                else:
                    binding.bind_cpu_input(f"past_{key}", empty)
            binding.bind_cpu_input("seqlens_k", np.array([total - 1], np.int32))
            binding.bind_cpu_input("total", np.array(total, np.int32))
            binding.bind_output("lm_head", "cpu")
            for key in ("new_k", "new_v"):
                try:
                    binding.bind_output(key, "gpu")
                except RuntimeError:
                    binding.bind_output(key, "cpu")
            session.run_with_iobinding(binding)
            return dict(zip(("lm_head", "new_k", "new_v"), binding.get_outputs()))

        for case in meta["cases"]:
            tokens = case["tokens"]
            past = bound(0, tokens, None) if case["decode"] else None
            run = lambda: bound(tokens, 1, past) if case["decode"] else bound(0, tokens, None)
            logits = run()["lm_head"].numpy().ravel().astype(np.float64)
            expected = np.array(case["expected"])
            cosine = logits @ expected / np.linalg.norm(logits) / np.linalg.norm(expected)
            if not (np.isfinite(logits).all() and cosine > COSINE):
                print(f"  {name_of(case)}: their output differs (cosine {cosine}); no ratio")
                continue
            worst = np.abs(logits - expected).max()
            mine = own[name_of(case)]
            line(name_of(case), timed(run, options.repeats), mine["milliseconds"],
                 f"errors {worst:.1e} and {mine['worst']:.1e}")


def read_layer(folder):
    """The tensors of ours.safetensors by name, as raw arrays."""
    import numpy as np

    file = (folder / "ours.safetensors").read_bytes()
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    config = json.loads(header.pop("__metadata__")["config"])
    types = {"F32": np.float32, "F16": np.float16, "U32": np.uint32}
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + at for at in entry["data_offsets"])
        tensors[name] = np.frombuffer(file[start:end], types[entry["dtype"]]).reshape(entry["shape"])
    return config, tensors


def gguf_of(folder, path):
    try:
        import gguf
        import numpy as np
    except ImportError as error:
        raise Missing(f"a package: {error.name}") from error
    config, tensors = read_layer(folder)
    words = config["vocab_size"]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(1)
    writer.add_context_length(4096)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    letters = [chr(256 + index) for index in range(words)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(letters)
    writer.add_token_types([1] * words)
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_eos_token_id(0)

    def packed(name, stem):
        codes = tensors[f"{stem}.qweight"]
        scales = tensors[f"{stem}.scales"]
        rows, groups = scales.shape
        pairs = codes.view(np.uint8).reshape(rows, groups, 16)
        single = np.empty((rows, groups, 32), np.uint8)
        single[..., 0::2], single[..., 1::2] = pairs & 15, pairs >> 4
        # Q4_0: a half, then 16 bytes with code j low and code j + 16 high.
        halves = single[..., :16] | single[..., 16:] << 4
        blocks = np.concatenate([scales[..., None].view(np.uint8), halves], axis=-1)
        blocks = np.ascontiguousarray(blocks.reshape(rows, groups * 18))
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    at = "model.layers.0."
    writer.add_tensor("token_embd.weight", tensors["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", tensors["model.norm.weight"])
    packed("output.weight", "lm_head")
    writer.add_tensor("blk.0.attn_norm.weight", tensors[f"{at}input_layernorm.weight"])
    writer.add_tensor("blk.0.ffn_norm.weight", tensors[f"{at}post_attention_layernorm.weight"])
    for theirs, mine in [("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("output", "o_proj")]:
        packed(f"blk.0.attn_{theirs}.weight", f"{at}self_attn.{mine}")
        if theirs != "output":
            writer.add_tensor(f"blk.0.attn_{theirs}.bias", tensors[f"{at}self_attn.{mine}.bias"])
    for part in ("gate", "up", "down"):
        packed(f"blk.0.ffn_{part}.weight", f"{at}mlp.{part}_proj")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama(options):
    program = options.llama_bench or shutil.which("llama-bench")
    if not program:
        raise Missing("llama.cpp's llama-bench; name it with --llama-bench")
    folder = options.layers / options.shape
    with tempfile.TemporaryDirectory() as place:
        path = str(Path(place) / "layer.gguf")
        gguf_of(folder, path)
        cases = ours(options, "--layer", str(folder))["cases"]
        print("llama.cpp, Q4_0 weights of the same values, outputs not compared")
        for case in cases:
            tokens = str(case["tokens"])
            kind = ["-p", "0", "-n", "1", "-d", tokens] if case["decode"] else ["-p", tokens, "-n", "0"]
            repeats = ["-r", str(options.repeats or 21)]
            done = subprocess.run([program, "-m", path, "-ngl", "99", "-o", "json", *kind, *repeats],
                                  stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise Missing(f"{program} ended with {done.returncode}")
            found = json.loads(done.stdout)[0]
            if "vulkan" not in found.get("backends", "").lower():
                raise Missing(f"llama-bench with Vulkan; this one has {found.get('backends')}")
            line(name_of(case), found["avg_ns"] / 1e6, case["milliseconds"])


def torch_towers(options):
    try:
        import torch
        from torch import nn
    except ImportError as error:
        raise Missing(f"a package: {error.name}") from error
    if not torch.cuda.is_available():
        raise Missing("a graphics card for PyTorch")

    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(1024)
            self.norm2 = nn.LayerNorm(1024)
            self.qkv, self.out = nn.Linear(1024, 3072), nn.Linear(1024, 1024)
            self.fc1, self.fc2 = nn.Linear(1024, 4096), nn.Linear(4096, 1024)

        def forward(self, x):
            split = lambda t: t.unflatten(-1, (16, 64)).transpose(1, 2)
            q, k, v = (split(t) for t in self.qkv(self.norm(x)).chunk(3, -1))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(mixed.transpose(1, 2).flatten(2))
            y = self.fc1(self.norm2(x))
            return x + self.fc2(y * torch.sigmoid(1.702 * y))

    class ConvNext(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
            self.rest = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.GELU(),
                                      nn.Linear(4 * width, width))
            self.scale = nn.Parameter(torch.full((width,), 0.1))

        def forward(self, x):
            y = self.rest(self.depthwise(x).permute(0, 2, 3, 1)) * self.scale
            return x + y.permute(0, 3, 1, 2)

    widths, depths = [192, 384, 768, 1536], [3, 3, 27, 3]
    stages = [nn.Conv2d(3, widths[0], 4, 4)]
    for index, (width, depth) in enumerate(zip(widths, depths)):
        if index:
            stages.append(nn.Conv2d(widths[index - 1], width, 2, 2))
        stages += [ConvNext(width) for _ in range(depth)]
    rows = ours(options, "--like", "rexseek-3b", "--only", "towers")["rows"]
    own = {row["name"]: row["milliseconds"] for row in rows}
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}; outputs not compared")
    towers = [
        ("CLIP", nn.Sequential(*(Clip() for _ in range(23))), torch.randn(1, 577, 1024)),
        ("ConvNeXt", nn.Sequential(*stages), torch.randn(1, 3, 768, 768)),
    ]
    for name, tower, x in towers:
        for dtype in (torch.float32, torch.float16):
            tower, x = tower.to("cuda", dtype).eval(), x.to("cuda", dtype)

            def run():
                with torch.no_grad():
                    return tower(x).flatten()[0].item()

            line(f"{name}, {str(dtype).removeprefix('torch.')}", timed(run, options.repeats), own[name])


PARTS = {"ort": ort, "llama": llama, "torch": torch_towers}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=Path, required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--shape", default="d2048")
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--llama-bench")
    parser.add_argument("--any-device", action="store_true")
    options = parser.parse_args()
    if not (options.layers / options.shape / "meta.json").is_file():
        parser.error(f"{options.layers / options.shape} holds no layer; write it with layer.py")
    for name in options.only or PARTS:
        try:
            PARTS[name](options)
        except Missing as missing:
            print(f"{name}: missing is {missing}")


main()

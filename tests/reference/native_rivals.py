"""Compares other runtimes with `chatrex bench` on a machine with a GPU; needs no network.

    native_rivals.py --layers DIR --program CHATREX [--shape NAME]... [--repeats N]
                     [--only ort|llama|torch]... [--llama DIR] [--json FILE] [--any-device]

DIR is the output of layer.py; without --shape all layers in it are measured. A runtime that is not
installed is reported and skipped:

  ort    onnxruntime-ep-webgpu: the graphs of layer.py with the kernels of onnxruntime-web, outside a
         browser
  llama  llama.cpp with Vulkan, from the folder of shared libraries in npm's package
         @node-llama-cpp/linux-x64-vulkan: decoder weights as Q4_0, KV cache in f16, its default. Its
         time is half the difference between files of three equal layers and of one: in the last layer
         of a file it computes the MLP only for rows whose logits are asked for
  torch  PyTorch with CUDA: all of CLIP-L, ConvNeXt-L and UPN with random weights (torch_models.py);
         outputs not compared

chatrex runs before and after every other runtime; its time is the median of both medians. A ratio is
theirs / ours, above 1 if chatrex is faster, and is printed only if both outputs agree with float64.
Software adapters are rejected without --any-device and marked with it: their times are not GPU times.
VK_DRIVER_FILES selects the Vulkan driver of both sides.

onnxruntime's flash attention is wrong for subgroups of four invocations, as on SwiftShader. Outside a
browser subgroups cannot be hidden from it, so there is no ratio for prefill there.
"""

import argparse
import ctypes
import json
import os
import struct
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

COSINE = 0.999
# Tolerance of llama.cpp's outputs, relative to the largest: it computes with 8-bit activations.
LLAMA_TOLERANCE = 0.05
LLAMA_TYPES = {"F32": 0, "Q4_0": 2}
# Device types of llama.cpp that are GPUs: discrete and integrated.
GPU_TYPES = (1, 2)


class Missing(Exception):
    """A package, program or device that a runtime needs is missing."""


class Results:
    """Collects the results and prints each as it is measured."""

    def __init__(self, options):
        self.options = options
        self.adapter = self.software = None
        self.rows, self.missing = [], {}

    def ours(self, *arguments):
        """Runs chatrex and returns its report; prints its adapter once."""
        command = [self.options.program, "bench", *arguments, "--device", "wgpu", "--json", "-"]
        if self.options.repeats:
            command += ["--repeats", str(self.options.repeats)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Missing(f"{' '.join(command)} exited with {done.returncode}")
        report = json.loads(done.stdout)
        if report["software"] and not self.options.any_device:
            raise Missing(f"a GPU: {report['adapter']} is a software adapter")
        if self.adapter is None:
            label = " (software: not a GPU number)" if report["software"] else ""
            print(f"ours on {report['adapter']}{label}")
        self.adapter, self.software = report["adapter"], report["software"]
        return report

    def layer(self, folder):
        """The cases of a layer measured by chatrex, by name."""
        return {name_of(case["work"]): case for case in self.ours("--layer", str(folder))["cases"]}

    def timed(self, run):
        """The median time of `run` in milliseconds, after warm-up runs."""
        repeats = self.options.repeats or (3 if self.software else 21)
        for _ in range(1 if self.software else 2):
            run()
        found = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            found.append((time.perf_counter() - start) * 1e3)
        return median(found)

    def row(self, rival, what, theirs, ours, **more):
        ratio = theirs / ours if theirs and more.get("agrees", True) else None
        self.rows.append({"rival": rival, "case": what, "theirs": theirs, "ours": ours, "ratio": ratio, **more})
        errors = [more.get(f"error_{whose}") for whose in ("ours", "theirs")]
        print(
            f"  {what:<32} theirs {theirs:10.3f} ms   ours {ours:10.3f} ms   "
            + (f"theirs / ours {ratio:6.2f}" if ratio else "differs: no ratio   ")
            + (f"   errors {errors[0]:.1e}, {errors[1]:.1e}" if None not in errors else ""),
            flush=True,
        )

    def compared(self, rival, folder, meta, run_of, limit, three_of=None):
        """Measures all cases of a layer with `run_of`, between two runs of chatrex. With `three_of`, which
        runs three layers, a layer takes half of what both runs differ by."""
        import numpy as np

        before, found = self.layer(folder), []
        for case in meta["cases"]:
            run = run_of(case["work"])
            output = np.asarray(run(), np.float64).ravel()
            expected = np.array(case["expected"])
            cosine = output @ expected / np.linalg.norm(output) / np.linalg.norm(expected)
            worst = float(np.abs(output - expected).max())
            agrees = bool(cosine > COSINE and worst <= limit * np.abs(expected).max())
            taken = self.timed(run)
            if three_of:
                taken = (self.timed(three_of(case["work"])) - taken) / 2
            found.append((name_of(case["work"]), taken, agrees, worst))
        after = self.layer(folder)
        for name, theirs, agrees, worst in found:
            own = median([before[name]["milliseconds"], after[name]["milliseconds"]])
            self.row(rival, f"{meta['name']} {name}", theirs, own, agrees=agrees, error_theirs=worst,
                     error_ours=before[name]["worst"])


def name_of(work):
    if work == "forward":
        return work
    return f"decode after {work['decode']}" if "decode" in work else f"prefill {work['prefill']}"


@contextmanager
def gpu_in_sysfs():
    """onnxruntime offers WebGPU only if sysfs lists a GPU, although Dawn selects the adapter. Without one,
    this mounts a sysfs entry while onnxruntime enumerates devices."""
    cards = list(Path("/sys/class/drm").glob("card*"))
    kinds = [path.read_text() for path in Path("/sys/bus/pci/devices").glob("*/class")]
    if cards or any(kind.startswith("0x03") for kind in kinds):
        yield
        return
    new_namespace, private = 0x20000, 0x4000 | 0x40000
    libc = ctypes.CDLL(None, use_errno=True)
    place = b"/sys/class"
    if (
        libc.unshare(new_namespace)
        or libc.mount(b"none", b"/", None, private, None)
        or libc.mount(b"none", place, b"tmpfs", 0, None)
    ):
        error = os.strerror(ctypes.get_errno())
        raise Missing(f"a GPU in sysfs for onnxruntime, and mounting an entry failed: {error}")
    try:
        device = Path("/sys/class/drm/card0/device")
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x1ae0\n")
        (device / "device").write_text("0x0001\n")
        yield
    finally:
        libc.umount(place)


def ort(options, results):
    with gpu_in_sysfs():
        try:
            import numpy as np
            import onnxruntime
            import onnxruntime_ep_webgpu as plugin
        except ImportError as error:
            raise Missing(f"a package: {error.name}") from error
        onnxruntime.register_execution_provider_library("webgpu", plugin.get_library_path())
        devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == plugin.get_ep_name()]
    if not devices:
        raise Missing("a GPU that onnxruntime's WebGPU lists")
    held = lambda values: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), "webgpu", 0)

    for folder in options.folders:
        meta = json.loads((folder / "meta.json").read_text())
        config = meta["config"]
        x = np.fromfile(folder / "x.f32", np.float32).reshape(meta["shape"])
        for graph in meta["limits"]:
            if graph == "ours":
                continue
            settings = onnxruntime.SessionOptions()
            settings.log_severity_level = 3
            # Nodes on the CPU would distort the measurement.
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            settings.add_provider_for_devices(devices[:1], {"validationMode": "disabled"})
            try:
                session = onnxruntime.InferenceSession(str(folder / f"{graph}.onnx"), settings, enable_fallback=0)
            except Exception as error:
                # onnxruntime raises types of its own.
                reason = " ".join(str(error).split())
                raise Missing(f"an adapter that onnxruntime's WebGPU can use: {reason[-300:]}") from error
            print(f"onnxruntime {onnxruntime.__version__}, WebGPU {devices[0].ep_metadata.get('version')}, {graph}")

            def tokens(first, count, past):
                """Runs tokens; the KV cache stays on the GPU, logits are read back."""
                binding = session.io_binding()
                total = first + count
                empty = np.zeros([1, config["num_key_value_heads"], 0, config["head_dim"]], np.float32)
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
                    binding.bind_output(key, "webgpu")
                session.run_with_iobinding(binding)
                return dict(zip(("lm_head", "new_k", "new_v"), binding.get_outputs()))

            def run_of(work):
                if work == "forward":
                    binding = session.io_binding()
                    binding.bind_ortvalue_input("x", held(x))
                    binding.bind_output("rows", "cpu")

                    def forward():
                        session.run_with_iobinding(binding)
                        return binding.get_outputs()[0].numpy()

                    return forward
                if "prefill" in work:
                    return lambda: tokens(0, work["prefill"], None)["lm_head"].numpy()
                past = tokens(0, work["decode"], None)
                return lambda: tokens(work["decode"], 1, past)["lm_head"].numpy()

            results.compared(f"onnxruntime {graph}", folder, meta, run_of, meta["limits"][graph])


def read_layer(folder):
    """The configuration of a layer and the tensors of ours.safetensors by name."""
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


class Gguf:
    """Writer of a GGUF file, version 3: key-value pairs, then tensors."""

    align = 32

    def __init__(self):
        self.values, self.tensors = [], []

    @staticmethod
    def text(value):
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def add(self, key, value):
        unsigned, signed, single, text, many = 4, 5, 6, 8, 9
        plain = {int: (unsigned, "<I"), float: (single, "<f")}
        if isinstance(value, str):
            packed = struct.pack("<I", text) + self.text(value)
        elif isinstance(value, list) and isinstance(value[0], str):
            packed = struct.pack("<IIQ", many, text, len(value)) + b"".join(map(self.text, value))
        elif isinstance(value, list):
            packed = struct.pack(f"<IIQ{len(value)}i", many, signed, len(value), *value)
        else:
            kind, form = plain[type(value)]
            packed = struct.pack("<I", kind) + struct.pack(form, value)
        self.values.append(self.text(key) + packed)

    def tensor(self, name, shape, kind, data):
        self.tensors.append((name, shape, LLAMA_TYPES[kind], data))

    def write(self, path):
        places, at = [], 0
        for name, shape, kind, data in self.tensors:
            sides = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
            places.append(self.text(name) + sides + struct.pack("<IQ", kind, at))
            at += len(data) + -len(data) % self.align
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.values))
        head += b"".join(self.values + places)
        with open(path, "wb") as file:
            file.write(head + bytes(-len(head) % self.align))
            for *_, data in self.tensors:
                file.write(data + bytes(-len(data) % self.align))


def write_gguf(folder, path, layers):
    """Writes the layer `layers` times for llama.cpp, with the same codes and scales as Q4_0."""
    import numpy as np

    config, tensors = read_layer(folder)
    vocab_size, head = config["vocab_size"], config["head_dim"]
    file = Gguf()
    file.add("general.architecture", "qwen2")
    for key, value in {
        "block_count": layers,
        "context_length": 4096,
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
    }.items():
        file.add(f"qwen2.{key}", value)
    letters = [chr(256 + index) for index in range(vocab_size)]
    for key, value in {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": letters,
        "token_type": [1] * vocab_size,
        "merges": [f"{letters[0]} {letters[1]}"],
        "eos_token_id": 0,
    }.items():
        file.add(f"tokenizer.ggml.{key}", value)

    def plain(name, tensor):
        file.tensor(name, tensor.shape, "F32", tensor.tobytes())

    def quantized(name, stem):
        codes = tensors[f"{stem}.qweight"]
        scales = tensors[f"{stem}.scales"]
        rows, groups = scales.shape
        pairs = codes.view(np.uint8).reshape(rows, groups, 16)
        single = np.empty((rows, groups, 32), np.uint8)
        single[..., 0::2], single[..., 1::2] = pairs & 15, pairs >> 4
        # Q4_0: an f16 scale, then 16 bytes with code j in the low and code j + 16 in the high half.
        halves = single[..., :16] | single[..., 16:] << 4
        blocks = np.concatenate([scales[..., None].view(np.uint8), halves], axis=-1)
        file.tensor(name, (rows, groups * 32), "Q4_0", blocks.tobytes())

    at = "model.layers.0."
    plain("token_embd.weight", tensors["model.embed_tokens.weight"])
    plain("output_norm.weight", tensors["model.norm.weight"])
    quantized("output.weight", "lm_head")
    for layer in range(layers):
        block = f"blk.{layer}."
        plain(f"{block}attn_norm.weight", tensors[f"{at}input_layernorm.weight"])
        plain(f"{block}ffn_norm.weight", tensors[f"{at}post_attention_layernorm.weight"])
        for theirs, mine in [("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("output", "o_proj")]:
            quantized(f"{block}attn_{theirs}.weight", f"{at}self_attn.{mine}")
            if theirs != "output":
                plain(f"{block}attn_{theirs}.bias", tensors[f"{at}self_attn.{mine}.bias"])
        for part in ("gate", "up", "down"):
            quantized(f"{block}ffn_{part}.weight", f"{at}mlp.{part}_proj")
    file.write(path)


class Blob(ctypes.Structure):
    """An opaque structure of llama.cpp that is passed by value; larger than any of them."""

    _fields_ = [("bytes", ctypes.c_uint8 * 512)]


class Llama:
    """The part of llama.cpp's C interface that decodes tokens, with default parameters, which offload all
    layers to the GPU if the libraries have one."""

    def __init__(self, folder, any_device=False, gpu=True):
        pick = lambda stem: next(iter(sorted(folder.glob(f"{stem}*.so"))), None)
        libraries = [pick(stem) for stem in ("libggml-base", "libggml.", "libllama.")]
        if None in libraries:
            raise Missing(f"llama.cpp: {folder} lacks libggml-base, libggml or libllama")
        if any_device:
            # By default llama.cpp skips software adapters.
            os.environ.setdefault("GGML_VK_VISIBLE_DEVICES", "0")
        try:
            self.base, self.ggml, self.llama = (ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL) for path in libraries)
        except OSError as error:
            raise Missing(f"llama.cpp: {error}") from error
        pointer, number = ctypes.c_void_p, ctypes.c_int32
        for library, name, result, arguments in [
            (self.ggml, "ggml_backend_load_all_from_path", None, [ctypes.c_char_p]),
            (self.ggml, "ggml_backend_dev_count", ctypes.c_size_t, []),
            (self.ggml, "ggml_backend_dev_get", pointer, [ctypes.c_size_t]),
            (self.base, "ggml_backend_dev_description", ctypes.c_char_p, [pointer]),
            (self.base, "ggml_backend_dev_type", ctypes.c_int, [pointer]),
            (self.llama, "llama_log_set", None, [pointer, pointer]),
            (self.llama, "llama_model_default_params", Blob, []),
            (self.llama, "llama_context_default_params", Blob, []),
            (self.llama, "llama_model_load_from_file", pointer, [ctypes.c_char_p, Blob]),
            (self.llama, "llama_init_from_model", pointer, [pointer, Blob]),
            (self.llama, "llama_get_memory", pointer, [pointer]),
            (self.llama, "llama_memory_seq_rm", ctypes.c_bool, [pointer, number, number, number]),
            (self.llama, "llama_set_n_threads", None, [pointer, number, number]),
            (self.llama, "llama_batch_get_one", Blob, [pointer, number]),
            (self.llama, "llama_decode", number, [pointer, Blob]),
            (self.llama, "llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [pointer, number]),
            (self.llama, "llama_free", None, [pointer]),
            (self.llama, "llama_model_free", None, [pointer]),
        ]:
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self.silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, pointer)(lambda *_: None)
        self.llama.llama_log_set(ctypes.cast(self.silent, pointer), None)
        self.ggml.ggml_backend_load_all_from_path(str(folder).encode())
        devices = [self.ggml.ggml_backend_dev_get(i) for i in range(self.ggml.ggml_backend_dev_count())]
        is_gpu = lambda device: self.base.ggml_backend_dev_type(device) in GPU_TYPES
        chosen = [device for device in devices if is_gpu(device) == gpu]
        if not chosen:
            raise Missing(f"a {'GPU' if gpu else 'CPU'} that llama.cpp can use")
        self.device = self.base.ggml_backend_dev_description(chosen[0]).decode()

    @contextmanager
    def opened(self, path, vocab_size, threads=None):
        """Yields a function that decodes `count` tokens from position `first` on and returns the logits of
        the last."""
        import numpy as np

        llama = self.llama
        model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        context = model and llama.llama_init_from_model(model, llama.llama_context_default_params())
        if not context:
            raise Missing(f"llama.cpp: it cannot load {path}")
        memory = llama.llama_get_memory(context)
        if threads:
            llama.llama_set_n_threads(context, threads, threads)

        def read(first, count):
            llama.llama_memory_seq_rm(memory, 0, first, -1)
            ids = np.arange(first, first + count, dtype=np.int32)
            if llama.llama_decode(context, llama.llama_batch_get_one(ids.ctypes.data, count)):
                raise Missing(f"llama.cpp: it cannot decode {count} tokens")
            return np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), [vocab_size]).copy()

        try:
            yield read
        finally:
            llama.llama_free(context)
            llama.llama_model_free(model)


@contextmanager
def llama_layers(library, folder, meta, threads=None):
    """Yields two functions from work to a function that runs it: with one layer and with three."""

    def run_of(read):
        def runs(work):
            if "prefill" in work:
                return lambda: read(0, work["prefill"])
            read(0, work["decode"])
            return lambda: read(work["decode"], 1)

        return runs

    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        runs = []
        for layers in (1, 3):
            path = Path(place) / f"{layers}.gguf"
            write_gguf(folder, path, layers)
            read = stack.enter_context(library.opened(path, meta["config"]["vocab_size"], threads))
            runs.append(run_of(read))
        yield runs


def llama(options, results):
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise Missing(f"a package: {error.name}") from error
    if not options.llama:
        raise Missing("llama.cpp; name its folder with --llama")
    library = Llama(options.llama.resolve(), options.any_device)
    for folder in options.folders:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["family"] != "decoder":
            continue
        with llama_layers(library, folder, meta) as (one_of, three_of):
            print(f"llama.cpp, Q4_0 weights of the same values, on {library.device}")
            results.compared("llama.cpp", folder, meta, one_of, LLAMA_TOLERANCE, three_of)


def torch_models(options, results):
    try:
        import torch
        from torch_models import NETWORKS
    except ImportError as error:
        raise Missing(f"a package: {error.name}") from error
    if not torch.cuda.is_available():
        raise Missing("a GPU for PyTorch")
    own = {}
    for quant in ("f32", "q4"):
        arguments = ("--like", "rexseek-3b", "--quant", quant, "--only", "towers", "--only", "upn")
        own[quant] = {row["name"]: row["milliseconds"] for row in results.ours(*arguments)["rows"]}
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}; outputs not compared")
    for name, rows, make, shape in NETWORKS:
        network, x = make().to("cuda").eval(), torch.randn(shape, device="cuda")

        def run():
            with torch.no_grad():
                return network(x).flatten()[0].item()

        # Default of PyTorch: matrix products in f32, convolutions in TF32.
        for dtype, convolutions in (("f32", False), ("f32, TF32 in convolutions", True)):
            torch.backends.cudnn.allow_tf32 = convolutions
            theirs = results.timed(run)
            for quant, rates in own.items():
                results.row("PyTorch", f"{name}, {dtype}; ours {quant}", theirs, sum(rates[row] for row in rows))
        del network


PARTS = {"ort": ort, "llama": llama, "torch": torch_models}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=Path, required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--shape", action="append")
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--any-device", action="store_true")
    options = parser.parse_args()
    names = options.shape or sorted(path.parent.name for path in options.layers.glob("*/ours.safetensors"))
    options.folders = [options.layers / name for name in names]
    for folder in options.folders:
        if not (folder / "meta.json").is_file() or not (folder / "ours.safetensors").is_file():
            parser.error(f"{folder} has no layer; write it with layer.py")
    results = Results(options)
    for name in options.only or PARTS:
        try:
            PARTS[name](options, results)
        except Missing as missing:
            results.missing[name] = str(missing)
            print(f"{name}: missing: {missing}")
    if options.json:
        report = {key: getattr(results, key) for key in ("adapter", "software", "rows", "missing")}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

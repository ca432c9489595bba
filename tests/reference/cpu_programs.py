"""Compares whole steps of `chatrex` on the CPU with other programs; needs no network.

    cpu_programs.py --program CHATREX --work DIR [--only pictures|convert|upn]... [--threads N]...
                    [--rounds N] [--json FILE]

  pictures  a picture of 4000 x 3000 pixels resized to the inputs of ChatRex-7B, against Pillow, whose bytes
            must be the same; wall clock, medians of medians
  convert   `chatrex convert` of a random checkpoint of RexSeek-3B's shape with few layers, against copying
            the checkpoint and computing its SHA-256; CPU seconds of all threads. Then `chatrex bench
            --loading` of the q4 folder: CPU seconds and memory per byte, against reading and hashing it
  upn       UPN with one block per stage, one encoder and one decoder layer, at 800 x 1066, with random weights,
            against PyTorch; wall clock, medians of medians. Outputs are not compared

All contenders run in turns. DIR keeps the picture and the checkpoint. A ratio is theirs / ours, above 1 if
chatrex is faster.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

BACKGROUND = (122, 116, 104)
CHECKPOINT = ["--like", "rexseek-3b", "--layers", "4", "--depth", "1"]
UPN_ROWS = ["backbone and encoder", "decoder, boxes read"]
COPY = "import shutil, sys; shutil.copyfile(*sys.argv[1:])"
HASH = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256')"


def cpu_seconds(*command):
    """CPU seconds of a command with its threads, which must succeed."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return usage.ru_utime + usage.ru_stime


def picture(work):
    """A file with a picture of smooth waves and noise."""
    import numpy as np
    from PIL import Image

    file = work / "picture.png"
    if not file.exists():
        y, x = np.mgrid[0:3000, 0:4000].astype(np.float32)
        waves = [np.sin(x / (40 + 30 * c)) + np.cos(y / (70 - 20 * c)) for c in range(3)]
        noise = np.random.default_rng(1).normal(0, 12, (3000, 4000, 3))
        pixels = np.clip(128 + 50 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
        partial = work / "picture.partial.png"
        Image.fromarray(pixels).save(partial, compress_level=1)
        partial.rename(file)
    return file


def pillow_steps(file):
    """By name, functions that resize the picture."""
    from PIL import Image

    pixels = Image.open(file).convert("RGB")

    def towers():
        side = max(pixels.size)
        square = Image.new("RGB", (side, side), BACKGROUND)
        square.paste(pixels, ((side - pixels.width) // 2, (side - pixels.height) // 2))
        return square.resize((768, 768), Image.BICUBIC)

    return {"upn": lambda: pixels.resize((1066, 800), Image.BILINEAR), "towers": towers}


def pictures(options, report):
    file = picture(options.work)
    steps = pillow_steps(file)
    for threads in options.threads or [1, 2]:
        environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
        ours, theirs = {name: [] for name in steps}, {name: [] for name in steps}
        for _ in range(options.rounds):
            command = [options.program, "bench", "--picture", str(file), "--json", "-"]
            rows = json.loads(subprocess.check_output(command, env=environment))["rows"]
            for row in rows:
                ours[row["name"]].append(row["milliseconds"])
                resized = steps[row["name"]]()
                if hashlib.sha256(resized.tobytes()).hexdigest() != row["sha256"]:
                    sys.exit(f"{row['name']}: the bytes differ from Pillow's")
            for name, step in steps.items():
                times = []
                for _ in range(9):
                    start = time.perf_counter()
                    step()
                    times.append((time.perf_counter() - start) * 1e3)
                theirs[name].append(median(times))
        ours, theirs = ({name: median(times) for name, times in side.items()} for side in (ours, theirs))
        for side in (ours, theirs):
            side["all"] = sum(side.values())
        for name in ours:
            ratio = theirs[name] / ours[name]
            report.append({"row": f"pictures {name}", "threads": threads, "ours": ours[name], "theirs": theirs[name]})
            print(f"{name}, {threads} thread(s): ours {ours[name]:.1f} ms, Pillow {theirs[name]:.1f} ms, ratio {ratio:.2f}")


def convert(options, report):
    checkpoint, out = options.work / "checkpoint", options.work / "converted"
    if not checkpoint.exists():
        partial = options.work / "checkpoint.partial"
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run([options.program, "fake-checkpoint", *CHECKPOINT, "--out", str(partial)], check=True)
        partial.rename(checkpoint)
    files = sorted(checkpoint.glob("*.safetensors"))
    found = {}

    def add(name, seconds):
        found.setdefault(name, []).append(seconds)

    for _ in range(options.rounds):
        for name, arguments in {"q4": ["q4"], "q4 nearest": ["q4", "--nearest"], "f16": ["f16"]}.items():
            shutil.rmtree(out, ignore_errors=True)
            command = ["convert", "--model", checkpoint, "--out", out, "--quant", *arguments]
            add(name, cpu_seconds(options.program, *command))
            if name == "q4":
                command = [options.program, "bench", "--loading", "--model", str(out), "--device", "cpu", "--json", "-"]
                loaded = json.loads(subprocess.check_output(command))
                shards = sorted(out.glob("*.safetensors"))
                add("load", loaded["cpu_seconds"])
                add("hash", sum(cpu_seconds(sys.executable, "-c", HASH, shard) for shard in shards))
        for file in files:
            copy = options.work / "copy"
            copied = cpu_seconds(sys.executable, "-c", COPY, file, copy)
            add(file.name, copied + cpu_seconds(sys.executable, "-c", HASH, copy))
    shutil.rmtree(out, ignore_errors=True)
    (options.work / "copy").unlink()
    size = sum(file.stat().st_size for file in files)
    theirs = sum(median(found[file.name]) for file in files)
    print(f"copy and SHA-256 of {size / 1e9:.2f} GB: {theirs:.2f} s of CPU")
    for name in ["q4", "q4 nearest", "f16"]:
        ours = median(found[name])
        report.append({"row": f"convert {name}", "ours": ours, "theirs": theirs})
        print(f"convert {name}: {ours:.2f} s of CPU, ratio {theirs / ours:.2f}")
    ours, theirs, gigabytes = median(found["load"]), median(found["hash"]), loaded["folder"] / 1e9
    memory = loaded["resident"] / loaded["folder"]
    report.append({"row": "load", "ours": ours, "theirs": theirs, "memory": memory, "gigabytes": gigabytes})
    print(
        f"load of {gigabytes:.2f} GB: {ours / gigabytes:.2f} s of CPU per GB, reading and SHA-256 "
        f"{theirs / gigabytes:.2f}; in memory {memory:.2f} of the folder"
    )


def upn(options, report):
    try:
        import torch
        from torch_models import Upn
    except ImportError as error:
        print(f"upn: missing: a package: {error.name}")
        return
    torch.manual_seed(1)
    network, image = Upn(depths=(1, 1, 1, 1), layers=1).eval(), torch.randn(1, 3, 800, 1066)
    command = ["bench", "--like", "chatrex-7b", "--depth", "1", "--only", "upn", "--device", "cpu"]
    command = [options.program, *command, "--repeats", "3", "--seconds", "60", "--json", "-"]
    for threads in options.threads or [1, 2]:
        torch.set_num_threads(threads)
        ours, theirs = [], []
        for _ in range(options.rounds):
            done = subprocess.check_output(command, env=os.environ | {"RAYON_NUM_THREADS": str(threads)})
            rows = {row["name"]: row["milliseconds"] for row in json.loads(done)["rows"]}
            ours.append(sum(rows[name] for name in UPN_ROWS))
            times = []
            with torch.inference_mode():
                for _ in range(4):
                    start = time.perf_counter()
                    network(image)
                    times.append((time.perf_counter() - start) * 1e3)
            theirs.append(median(times[1:]))
        ours, theirs = median(ours), median(theirs)
        report.append({"row": "upn", "threads": threads, "ours": ours, "theirs": theirs})
        print(f"upn, {threads} thread(s): ours {ours:.0f} ms, PyTorch {theirs:.0f} ms, ratio {theirs / ours:.2f}")


def main():
    steps = {"pictures": pictures, "convert": convert, "upn": upn}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", action="append", choices=list(steps))
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    report = []
    for name in options.only or steps:
        steps[name](options, report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


main()

"""Kills `chatrex batch` at random moments and compares its results with those of an uninterrupted run; then measures
its rate beside a run without reading ahead and beside one process of `chatrex chat` per picture.

    python batch_kill.py PROGRAM FOLDER [--count 1000] [--kills 10] [--chats 20] [--seed 1] [--model nano]
        [--images PICTURES]

FOLDER must be new or empty. Without --images the pictures are drawn scenes. Only the standard library is used. Exit
code 1 if a file differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

TASK = "detect:cat,dog,car,tree,house,ball"
FORMATS = "jsonl,parquet,coco,label-studio"
FILES = ["batch.json", "results.parquet", "coco.json", "coco_results.json", "label_studio.json"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--chats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.images is None:
        options.images = options.folder / "scenes"
        scenes = ["scenes", "--count", str(options.count), "--seed", "900000", "--out", str(options.images)]
        subprocess.run([options.program, *scenes], check=True, stderr=subprocess.DEVNULL)
    pictures = sorted(path for path in options.images.rglob("*") if path.suffix in (".png", ".jpg"))
    print(f"{len(pictures)} pictures, load {os.getloadavg()[0]:.1f}", flush=True)

    whole = options.folder / "whole"
    seconds, summary = timed(command(options, whole))
    print(f"uninterrupted: {show(seconds, summary)}", flush=True)

    killed = options.folder / "killed"
    kill(options, killed, seconds)
    same = compare(whole, killed)

    rates(options, pictures, summary)
    return 0 if same else 1


def command(options, out, *more):
    return [
        options.program, "batch", "--model", options.model, "--device", options.device, "--images", options.images,
        "--task", TASK, "--out", out, "--formats", FORMATS, "--json", *more,
    ]


def timed(arguments):
    """Runs a batch; the seconds of the process, and its summary."""
    start = time.monotonic()
    run = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return time.monotonic() - start, json.loads(run.stdout)


def show(seconds, summary):
    rate = summary["pictures_per_second"]
    return f"{seconds:.1f} s with loading, {rate:.2f} pictures per second without"


def kill(options, out, whole):
    """Kills the run at random moments, spread over its length, and lets the last one end."""
    moments = random.Random(options.seed)
    share = whole / (options.kills + 1)
    lines = out / "results.jsonl"
    torn = 0
    for number in range(options.kills):
        process = subprocess.Popen(command(options, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0, 2 * share))
            print(f"kill {number + 1}: the run had ended", flush=True)
            continue
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        written = lines.read_bytes() if lines.exists() else b""
        torn += bool(written) and not written.endswith(b"\n")
        count = written.count(b"\n")
        print(f"kill {number + 1}: {count} lines", flush=True)
    seconds, summary = timed(command(options, out))
    print(f"the rest: {seconds:.1f} s, {summary['skipped']} from before, {summary['done']} computed; {torn} torn lines")


def compare(whole, killed):
    """Compares sorted lines byte for byte, and the other files."""
    lines = [sorted((folder / "results.jsonl").read_bytes().split(b"\n")) for folder in (whole, killed)]
    same = lines[0] == lines[1]
    print(f"results.jsonl: {len(lines[0]) - 1} lines, sorted they are {'equal' if same else 'DIFFERENT'}")
    for name in FILES:
        equal = (whole / name).read_bytes() == (killed / name).read_bytes()
        print(f"{name}: {'equal' if equal else 'DIFFERENT'}")
        same &= equal
    return same


def rates(options, pictures, summary):
    """Pictures per second of other ways, and how many times faster the batch is."""
    seconds, plain = timed(command(options, options.folder / "plain", "--ahead", "0"))
    print(f"--ahead 0: {show(seconds, plain)}")
    ratio = summary["pictures_per_second"] / plain["pictures_per_second"]
    print(f"reading ahead: {ratio:.3f} times the pictures per second")
    question = json.loads((options.folder / "whole" / "results.jsonl").open().readline())["question"]
    some = pictures[: options.chats]
    start = time.monotonic()
    for picture in some:
        arguments = [
            options.program, "chat", "--model", options.model, "--device", options.device, "--image", picture,
            "--ask", question, "--json",
        ]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rate = len(some) / (time.monotonic() - start)
    print(f"chatrex chat: {rate:.2f} pictures per second ({len(some)} processes)")
    print(f"one batch: {summary['pictures_per_second'] / rate:.2f} times that; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(main())

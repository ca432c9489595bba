"""A low-rank run that is killed and resumed, against one that is not.

    python lora_run.py --program target/debug/chatrex

Needs the repository as the working directory and no package. The language model is the random one of
tests/data/gguf, the data are drawn scenes (`chatrex scenes`). Every killed run gets SIGKILL after a random time once
its first checkpoint is there; the weights must be equal to the last bit. Prints one line per trial; the exit code is 1 if
one differs.
"""

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASE = "tests/data/gguf/qwen2.gguf"
# A run writes a checkpoint every 100 steps.
STEPS = 260


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    program = str(options.program.resolve())
    draw = random.Random(options.seed)

    def run(*arguments):
        subprocess.run([program, *map(str, arguments)], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run("convert", "--gguf", BASE, "--quant", "f32", "--out", folder / "base")
        run("scenes", "--count", 12, "--seed", 3, "--out", folder / "data")

        def train(name, *more):
            return ["train", "--stage", "adapter", "--base", folder / "base", "--data", folder / "data", "--steps",
                    STEPS, "--seed", 5, "--lora-rank", 4, "--lora-alpha", 8, "--lora-targets", "q,v,down",
                    "--out", folder / name, *more]

        def weights(name):
            return hashlib.sha256((folder / name / "weights.safetensors").read_bytes()).hexdigest()

        began = time.monotonic()
        run(*train("whole"))
        seconds = time.monotonic() - began
        expected, equal = weights("whole"), True
        for trial in range(options.trials):
            name = f"killed{trial}"
            process = subprocess.Popen([program, *map(str, train(name))], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            while not (folder / name / "state.safetensors").exists() and process.poll() is None:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, seconds / 3))
            process.send_signal(signal.SIGKILL)
            code = process.wait()
            run(*train(name, "--resume"))
            same = weights(name) == expected
            equal &= same
            print(f"trial {trial}: ended with {code}, resumed weights {'equal' if same else 'DIFFER'}")
    sys.exit(0 if equal else 1)


main()

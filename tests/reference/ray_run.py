"""Runs examples/ray_batch.py on a local Ray cluster and kills what it depends on.

    python tests/reference/ray_run.py [--pictures 120] [--task propose]

Needs ray[data], Pillow and the wheel of `cargo xtask wheel`. Checked, each with the results of one process as the
expectation: two actors; two actors of which one is killed while it computes; a run whose driver is killed, and the same
command again. Every picture must have exactly one result, and that of one process. Prints pictures per second, beside
those of one process on as many cores. Exit code 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))
# Workers of Ray import the example too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")])
EXAMPLE = ROOT / "examples/ray_batch.py"

import ray
import ray_batch
from PIL import Image

ACTORS = 2


def draw(folder: Path, count: int) -> None:
    """Parts of a sample scene, all different, and one file that is no picture."""
    scene = Image.open(ROOT / "web/static/samples/scene.png").convert("RGB")
    width, height = scene.size
    for number in range(count - 1):
        left, top = number % 40, number // 40
        picture = scene.crop((left, top, width - 40 + left, height - 40 + top))
        picture.save(folder / f"{number:05}.png", compress_level=1)
    (folder / "broken.png").write_bytes(b"no picture")


def one_process(folder: Path, task: str, threads: int) -> tuple[float, dict[str, dict]]:
    """Seconds and results of a new process with one session; the time begins with the model loaded."""
    program = (
        "import chatrex, json, sys, time\n"
        "folder, task = sys.argv[1:3]\n"
        "import os; names = sorted(os.listdir(folder))\n"
        "session = chatrex.Session('nano', device='cpu')\n"
        "start = time.perf_counter()\n"
        "results = [r.to_dict() for r in session.batch([os.path.join(folder, n) for n in names], task=task)]\n"
        "json.dump([time.perf_counter() - start, dict(zip(names, results))], sys.stdout)\n"
    )
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", program, str(folder), task]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    seconds, results = json.loads(done.stdout)
    return seconds, {name: result | {"image": name} for name, result in results.items()}


def compare(out: Path, expected: dict[str, dict]) -> str | None:
    """What is wrong with the results in a folder."""
    lines = [json.loads(line) for part in ray_batch.parts(out) for line in part.read_text().splitlines()]
    counts = Counter(line["image"] for line in lines)
    twice = [name for name, count in counts.items() if count > 1]
    missing = expected.keys() - counts.keys()
    if twice or missing:
        return f"{len(twice)} pictures have several results, {len(missing)} have none"
    different = [line["image"] for line in lines if line != expected[line["image"]]]
    return f"{len(different)} results differ: {different[:3]}" if different else None


def options(folder: Path, out: Path, task: str) -> argparse.Namespace:
    """Those of the example."""
    return argparse.Namespace(
        images=folder, out=out, task=task, question=None, model="nano", device="cpu",
        actors=ACTORS, cpus=1, gpus=0, batch=4, part=8,
    )


def kill_an_actor(out: Path, killed: list[int]) -> None:
    """Kills the process of an actor once there are results."""
    while not ray_batch.parts(out):
        time.sleep(0.05)
    process = actors_of_this_machine()[0]
    os.kill(process, signal.SIGKILL)
    killed.append(process)


def actors_of_this_machine() -> list[int]:
    """The processes of the actors, which Ray names after the class (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if title.startswith("ray::") and "Asker" in title:
            found.append(int(process.name))
    return sorted(found)


def steady(out: Path) -> float:
    """Pictures per second after the first part was written."""
    parts = ray_batch.parts(out)
    seconds = parts[-1].stat().st_mtime - parts[0].stat().st_mtime
    return sum(len(part.read_text().splitlines()) for part in parts[1:]) / seconds


def kill_the_driver(folder: Path, out: Path, task: str) -> int:
    """Starts the example, kills it once there are results, and starts it again; how many results it had left."""
    command = [sys.executable, str(EXAMPLE), "--images", str(folder), "--out", str(out), "--task", task]
    command += ["--model", "nano", "--device", "cpu", "--actors", str(ACTORS), "--batch", "4", "--part", "8"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(ray_batch.parts(out)) < 2 and first.poll() is None:
        time.sleep(0.02)
    first.kill()
    first.wait()
    done = len(ray_batch.finished(out))
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks examples/ray_batch.py")
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--task", default="propose")
    given = parser.parse_args()
    failed = 0

    def check(name: str, out: Path, detail: str) -> None:
        nonlocal failed
        wrong = compare(out, expected)
        failed += wrong is not None
        print(f"{name}: {wrong or 'every picture exactly once, as in one process'}; {detail}", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "pictures"
        folder.mkdir()
        draw(folder, given.pictures)
        alone, expected = one_process(folder, given.task, ACTORS)
        slow, again = one_process(folder, given.task, 1)
        failed += again != expected
        rate = given.pictures / alone
        print(f"one process, {ACTORS} threads: {rate:.2f} pictures/s; 1 thread: {given.pictures / slow:.2f}", flush=True)
        ray.init(num_cpus=ACTORS, include_dashboard=False, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name, kills in [("two actors", False), ("two actors, one killed", True)]:
            out, killed = Path(scratch) / name.replace(" ", "-"), []
            killer = threading.Thread(target=kill_an_actor, args=(out, killed))
            if kills:
                killer.start()
            start = time.perf_counter()
            ray_batch.run(options(folder, out, given.task))
            seconds = time.perf_counter() - start
            if kills:
                killer.join()
            whole, later = given.pictures / seconds / rate, steady(out) / rate
            detail = f"{whole:.2f} x one process with the start of the actors, {later:.2f} x after the first part"
            check(name, out, f"{f'process {killed[0]} killed, ' if killed else ''}{seconds:.1f} s, {detail}")
        ray.shutdown()
        out = Path(scratch) / "driver"
        done = kill_the_driver(folder, out, given.task)
        check("driver killed and started again", out, f"{done} of {given.pictures} results were there")
        failed += not 0 < done < given.pictures
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

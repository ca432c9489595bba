"""One task for a folder of pictures, with Ray Data: one engine per actor, on one machine or a cluster.

    pip install "ray[data]" and the wheel of `cargo xtask wheel --release`, on every machine
    python examples/ray_batch.py --images PICTURES --out RESULTS --task detect:dog,cat --actors 4

Results are lines of JSON in RESULTS/part-*.jsonl, one per picture, with the keys of `chatrex.Result.to_dict`. A picture
that cannot be used has an `error`. If an actor or a machine is lost, Ray computes its pictures again. A part is renamed
to its final name when it is complete; the same command after an interruption goes on with the pictures that are in no
part. So every picture has exactly one line. All machines must see PICTURES under the same path.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import ray
import ray.data

ENDINGS = {".jpeg", ".jpg", ".png", ".webp"}


class Asker:
    """An actor: one model, on its share of the machine."""

    def __init__(self, root: str, model: str, device: str, cpus: int, asked: dict[str, Any]) -> None:
        # The engine computes on as many threads as Ray has reserved for the actor.
        os.environ["RAYON_NUM_THREADS"] = str(cpus)
        import chatrex

        self.root = root
        self.asked = asked
        self.session = chatrex.Session(model, device=device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        names = [str(name) for name in batch["image"]]
        paths = [os.path.join(self.root, name) for name in names]
        results = self.session.batch(paths, **self.asked)
        lines = [json.dumps(result.to_dict() | {"image": name}) for name, result in zip(names, results)]
        return {"image": names, "line": lines}


def pictures(root: Path) -> list[str]:
    """The pictures below a folder, as sorted paths relative to it."""
    files = (path for path in root.rglob("*") if path.suffix.lower() in ENDINGS)
    return sorted(path.relative_to(root).as_posix() for path in files if path.is_file())


def parts(out: Path) -> list[Path]:
    """The complete parts of a run."""
    return sorted(out.glob("part-*.jsonl"))


def finished(out: Path) -> set[str]:
    """The pictures that have a result."""
    lines = (line for part in parts(out) for line in part.read_text().splitlines())
    return {json.loads(line)["image"] for line in lines}


def write_part(out: Path, number: int, lines: list[str]) -> None:
    """Writes a part; it has its name only when it is complete."""
    unfinished = out / f".part-{number:06}.unfinished"
    with unfinished.open("w") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(out / f"part-{number:06}.jsonl")


def run(options: argparse.Namespace) -> int:
    """Computes what is missing; the number of new results."""
    options.out.mkdir(parents=True, exist_ok=True)
    done = finished(options.out)
    missing = [name for name in pictures(options.images) if name not in done]
    number = 1 + max((int(part.stem.split("-")[1]) for part in parts(options.out)), default=-1)
    if not missing:
        return 0
    asked = {"task": options.task} if options.task else {"question": options.question}
    results = ray.data.from_items([{"image": name} for name in missing]).map_batches(
        Asker,
        fn_constructor_args=(str(options.images.resolve()), options.model, options.device, options.cpus, asked),
        batch_size=options.batch,
        compute=ray.data.ActorPoolStrategy(size=options.actors),
        num_cpus=options.cpus,
        num_gpus=options.gpus,
    )
    for batch in results.iter_batches(batch_size=options.part, batch_format="numpy"):
        write_part(options.out, number, list(batch["line"]))
        number += 1
    return len(missing)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="One task for a folder of pictures, with Ray Data")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--task", help="a task as chatrex batch --task takes it")
    what.add_argument("--question", help="a question about every picture")
    parser.add_argument("--model", default="mini", help="name of a built-in model, or a folder")
    parser.add_argument("--device", default="auto", help="auto, wgpu or cpu")
    parser.add_argument("--actors", type=int, default=1, help="engines")
    parser.add_argument("--cpus", type=int, default=1, help="CPU cores of each engine")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each engine")
    parser.add_argument("--batch", type=int, default=8, help="pictures that an actor gets at once")
    parser.add_argument("--part", type=int, default=64, help="most results of a part")
    return parser.parse_args()


if __name__ == "__main__":
    ray.init()
    print(f"{run(arguments())} new results")

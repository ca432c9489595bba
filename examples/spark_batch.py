"""One task for a folder of pictures, with Spark: `mapInPandas`, one engine per partition.

    pip install pyspark pandas pyarrow and the wheel of `cargo xtask wheel --release`, on every machine
    spark-submit examples/spark_batch.py --images PICTURES --out RESULTS --task detect:dog,cat

Results are lines of JSON with the columns `image` and `result`; `result` is the JSON of `chatrex.Result.to_dict`. A
picture that cannot be used has an `error` there. Spark computes lost partitions again and publishes each once. The same
command after an interruption goes on with the pictures that have no result. All machines must see PICTURES under the
same path.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import SparkSession

ENDINGS = {".jpeg", ".jpg", ".png", ".webp"}


def ask(
    batches: Iterator[pd.DataFrame], root: str, model: str, device: str, threads: str, asked: dict[str, Any]
) -> Iterator[pd.DataFrame]:
    """The results of the pictures of a partition."""
    # Spark starts workers by `fork`: an engine is opened in the worker, never before.
    os.environ["RAYON_NUM_THREADS"] = threads
    import chatrex

    with chatrex.Session(model, device=device) as session:
        for batch in batches:
            names = list(batch["image"])
            results = session.batch([os.path.join(root, name) for name in names], **asked)
            lines = [json.dumps(result.to_dict() | {"image": name}) for name, result in zip(names, results)]
            yield pd.DataFrame({"image": names, "result": lines})


def pictures(root: Path) -> list[str]:
    """The pictures below a folder, as sorted paths relative to it."""
    files = (path for path in root.rglob("*") if path.suffix.lower() in ENDINGS)
    return sorted(path.relative_to(root).as_posix() for path in files if path.is_file())


def run(spark: SparkSession, options: argparse.Namespace) -> int:
    """Computes what is missing; the number of new results."""
    out = str(options.out.resolve())
    done: set[str] = set()
    if options.out.exists():
        rows = spark.read.schema("image string, result string").json(out).select("image").collect()
        done = {row["image"] for row in rows}
    missing = [name for name in pictures(options.images) if name not in done]
    if not missing:
        return 0
    asked = {"task": options.task} if options.task else {"question": options.question}
    work = partial(
        ask,
        root=str(options.images.resolve()),
        model=options.model,
        device=options.device,
        threads=str(options.threads),
        asked=asked,
    )
    partitions = -(-len(missing) // options.partition)
    rows = spark.createDataFrame([(name,) for name in missing], "image string").repartition(partitions)
    rows.mapInPandas(work, "image string, result string").write.mode("append").json(out)
    return len(missing)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="One task for a folder of pictures, with Spark")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--task", help="a task as chatrex batch --task takes it")
    what.add_argument("--question", help="a question about every picture")
    parser.add_argument("--model", default="mini", help="name of a built-in model, or a folder")
    parser.add_argument("--device", default="auto", help="auto, wgpu or cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of each engine")
    parser.add_argument("--partition", type=int, default=256, help="pictures of a partition")
    return parser.parse_args()


if __name__ == "__main__":
    builder = SparkSession.builder.appName("chatrex")
    print(f"{run(builder.getOrCreate(), arguments())} new results")

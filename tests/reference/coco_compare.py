"""Compares `chatrex eval --coco ANN --results RESULTS` with pycocotools on random boxes, and records cases for
src/eval/photographs/results.rs.

    python -m venv ENV && ENV/bin/pip install pycocotools==2.0.11 numpy==2.4.6
    ENV/bin/python coco_compare.py --program target/debug/chatrex --cases 60
    ENV/bin/python coco_compare.py --record ../data/coco

The boxes are random; there are no pictures. Cases have crowds, boxes below one pixel, masks smaller than
their boxes, pictures without objects, without detections and without both, kinds without objects, equal
scores, and more than 100 detections in a picture. Prints the largest difference of each value; the exit code
is 1 if one is above 1e-6.
"""

import argparse
import contextlib
import io
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ["ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large",
         "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"]
LIMIT = 1e-6
FEATURES = ["mixed", "tiny", "crowds", "ties", "many", "large", "sparse", "no objects"]


def draw_box(draw, width, height, low, high):
    w, h = (low * (high / low) ** draw.random() for _ in range(2))
    w, h = min(w, width), min(h, height)
    return [round(draw.uniform(0, width - w), 2), round(draw.uniform(0, height - h), 2),
            max(round(w, 2), 0.01), max(round(h, 2), 0.01)]


def make(seed, pictures=9):
    """A data set and results; `seed` also chooses what they have most of."""
    draw = random.Random(seed)
    feature = FEATURES[seed % len(FEATURES)]
    low, high = {"tiny": (0.05, 20), "large": (90, 300)}.get(feature, (4, 250))
    crowd_share = 0.5 if feature == "crowds" else 0.12
    digits = 1 if feature == "ties" else 3
    images, annotations, results = [], [], []
    for index in range(pictures):
        picture = 500 - 7 * index
        width, height = draw.choice([(640, 480), (320, 400)])
        images.append({"id": picture, "file_name": f"{picture}.png", "width": width, "height": height})
        objects = 0 if index in (2, 4) or feature == "no objects" else draw.randint(1, 3 if feature == "sparse" else 12)
        found = index not in (3, 4)
        add = lambda category, box, score: results.append({
            "image_id": picture, "category_id": category, "bbox": [round(value, 2) for value in box],
            "score": round(score, digits)})
        for _ in range(objects):
            box = draw_box(draw, width, height, low, high)
            category = draw.choice([3, 5, 8])
            annotations.append({
                "id": len(annotations) + 1, "image_id": picture, "category_id": category, "bbox": box,
                "area": box[2] * box[3] * draw.choice([1, 0.8, 0.3]), "iscrowd": int(draw.random() < crowd_share)})
            if not found:
                continue
            for _ in range(draw.choice([0, 1, 1, 2, 3])):
                spread = draw.choice([0.01, 0.05, 0.15, 0.3])
                moved = [value + draw.gauss(0, spread) * box[2 + axis % 2] for axis, value in enumerate(box)]
                moved[2:] = [max(value, 0.01) for value in moved[2:]]
                add(category if draw.random() < 0.8 else draw.choice([3, 5, 8, 11]), moved, draw.uniform(0.1, 1))
        for _ in range(0 if not found else 130 if feature == "many" and index == 5 else draw.randint(0, 8)):
            add(draw.choice([3, 5, 8, 11]), draw_box(draw, width, height, low, high), draw.uniform(0.05, 0.8))
    draw.shuffle(results)
    categories = [{"id": i, "name": name} for i, name in ((3, "cat"), (5, "dog"), (8, "tree"), (11, "ghost"))]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def reference(annotations, results):
    """The twelve values of pycocotools with and without kinds."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        found = truth.loadRes(str(results))
        values = {}
        for key, use in (("with_kinds", 1), ("without_kinds", 0)):
            evaluation = COCOeval(truth, found, "bbox")
            evaluation.params.useCats = use
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            values[key] = [float(value) for value in evaluation.stats]
    return values


def write(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def record(out):
    cases = []
    for name, seed in (("ties", 3), ("tiny", 1), ("large", 5)):
        data, results = make(seed, pictures=7)
        files = {"annotations": f"{name}_instances.json", "results": f"{name}_results.json"}
        write(out / files["annotations"], data)
        write(out / files["results"], results)
        cases.append({**files, **reference(out / files["annotations"], out / files["results"])})
    (out / "summaries.json").write_text(json.dumps(cases, indent=1) + "\n")


def compare(program, count, first):
    worst = {}
    with tempfile.TemporaryDirectory() as folder:
        annotations, results = Path(folder) / "annotations.json", Path(folder) / "results.json"
        for seed in range(first, first + count):
            data, found = make(seed)
            if not found:
                continue
            write(annotations, data)
            write(results, found)
            expected = reference(annotations, results)
            run = subprocess.run(
                [program, "eval", "--coco", annotations, "--results", results, "--json"],
                check=True, capture_output=True, text=True)
            report = json.loads(run.stdout)
            for key, values in expected.items():
                for name, value in zip(NAMES, values, strict=True):
                    own = report[key][name]
                    difference = abs((-1 if own is None else own) - value)
                    worst[key, name] = max(worst.get((key, name), 0), difference)
    print(f"{count} cases, largest differences from pycocotools")
    print(f"{'':12}{'with kinds':>16}{'without kinds':>16}")
    for name in NAMES:
        print(f"{name:12}{worst['with_kinds', name]:16.1e}{worst['without_kinds', name]:16.1e}")
    return max(worst.values()) <= LIMIT


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    if options.record:
        record(options.record)
    if options.program:
        sys.exit(0 if compare(options.program.resolve(), options.cases, options.seed) else 1)


main()

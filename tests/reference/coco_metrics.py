"""Average precision of pycocotools on random boxes, for src/eval/photographs/average_precision.rs.

    pip install pycocotools==2.0.11 numpy==2.4.6
    python coco_metrics.py ../data/coco

Writes OUT/instances.json, OUT/detections.json and OUT/expected.json. The boxes are random; there are no
pictures. The fixture has crowds, a picture without objects, one without detections, one with more than
100 detections, a category without objects, doubles and equal scores.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SEED = 20261128
PICTURES = 14
CATEGORIES = ["cat", "dog", "tree", "house", "ghost"]
WIDTH, HEIGHT = 320, 240


def main(out):
    draw = random.Random(SEED)
    images, annotations, detections = [], [], []
    for index in range(PICTURES):
        picture = 100 - 3 * index
        images.append({"id": picture, "file_name": f"{picture:06}.png", "width": WIDTH, "height": HEIGHT})
        objects = 0 if index == 2 else draw.randint(1, 9)
        for _ in range(objects):
            w, h = draw.uniform(8, 120), draw.uniform(8, 120)
            box = [draw.uniform(0, WIDTH - w), draw.uniform(0, HEIGHT - h), w, h]
            box = [round(value, 2) for value in box]
            crowd = int(draw.random() < 0.15)
            category = draw.randint(1, 4)
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": picture,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3] * 0.7,
                "iscrowd": crowd,
            })
            for _ in range(draw.choice([0, 1, 1, 1, 2, 3]) if index != 5 else 0):
                moved = [value + draw.gauss(0, draw.choice([1, 4, 9])) for value in box]
                detections.append({
                    "image_id": picture,
                    "category_id": category if draw.random() < 0.8 else draw.randint(1, 5),
                    "bbox": [moved[0], moved[1], max(moved[2], 2.0), max(moved[3], 2.0)],
                    "score": round(draw.uniform(0.2, 1), 3),
                })
        for _ in range(110 if index == 7 else draw.randint(0, 6) if index != 5 else 0):
            w, h = draw.uniform(8, 120), draw.uniform(8, 120)
            detections.append({
                "image_id": picture,
                "category_id": draw.randint(1, 5),
                "bbox": [draw.uniform(0, WIDTH - w), draw.uniform(0, HEIGHT - h), w, h],
                "score": round(draw.uniform(0.05, 0.6), 2),
            })
    for detection in detections:
        detection["bbox"] = [round(value, 2) for value in detection["bbox"]]
    # Without categories pycocotools sorts by category before it sorts by score.
    detections.sort(key=lambda row: row["category_id"])
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CATEGORIES)]
    write = lambda name, value: (out / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")
    out.mkdir(parents=True, exist_ok=True)
    write("instances.json", {"images": images, "annotations": annotations, "categories": categories})
    write("detections.json", detections)

    truth = COCO(str(out / "instances.json"))
    found = truth.loadRes(str(out / "detections.json"))

    def precision(with_kinds):
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.useCats = with_kinds
        evaluation.evaluate()
        evaluation.accumulate()
        # [threshold, recall, category], all areas, 100 detections.
        return evaluation.eval["precision"][:, :, :, 0, 2]

    every = precision(0)[:, :, 0].mean(axis=1)
    kinds = precision(1)
    kinds = kinds[:, :, kinds[0, 0] > -1].mean(axis=1)
    write("expected.json", {
        "ap": every.tolist(),
        "map": float(every.mean()),
        "ap_50_kinds": float(kinds[0].mean()),
        "map_kinds": float(np.mean(kinds)),
    })


main(Path(sys.argv[1]))

"""Reads the files of a batch with programs of the Python library, and with pycocotools where it is installed.

    python batch.py FOLDER

FOLDER is written by tests/browser/batch.test.mjs and holds batch.jsonl, batch.zip and expected.json: the
state of every picture, and whether the archive has the pictures.
"""

import json
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path


def main(folder):
    expected = json.loads((folder / "expected.json").read_text())
    lines = [json.loads(line) for line in (folder / "batch.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines] == expected["states"], lines
    failed = [line for line in lines if line["state"] == "failed"]
    assert all(line["code"] and line["error"] for line in failed), failed
    done = [line for line in lines if line["state"] == "done"]
    boxes = {line["picture"]: [(b["label"] or "object", b["box"]) for b in line["boxes"]] for line in done}
    sizes = {line["picture"]: (line["width"], line["height"]) for line in done}
    with zipfile.ZipFile(folder / "batch.zip") as archive:
        assert archive.testzip() is None
        assert archive.read("results.jsonl") == (folder / "batch.jsonl").read_bytes()
        names = archive.namelist()
        pictures = {Path(name).name for name in names if name.startswith("images/")}
        assert pictures == (set(boxes) if expected["pictures"] else set()), pictures
        labels = archive.read("labels.txt").decode().splitlines()
        for name, check in [("COCO", coco), ("YOLO", yolo), ("Pascal VOC", voc)]:
            print(f"{name}: {check(archive, boxes, sizes, labels)}")


def same(name, found, boxes, tolerance):
    """Asserts that lists of (label, box) agree, in any order and whatever the case of labels."""
    assert len(found) == len(boxes), (name, found, boxes)
    left = list(boxes)
    for label, box in found:
        near = [
            one for one in left
            if one[0].lower() == label.lower() and all(abs(a - b) <= tolerance for a, b in zip(one[1], box))
        ]
        assert near, (name, label, box, left)
        left.remove(near[0])


def coco(archive, boxes, sizes, labels):
    text = archive.read("annotations.coco.json").decode()
    data = json.loads(text)
    assert [c["name"] for c in data["categories"]] == labels
    assert {i["file_name"]: (i["width"], i["height"]) for i in data["images"]} == sizes
    ids = [a["id"] for a in data["annotations"]]
    assert len(set(ids)) == len(ids)
    for image in data["images"]:
        found = []
        for one in (a for a in data["annotations"] if a["image_id"] == image["id"]):
            x, y, w, h = one["bbox"]
            found.append((labels[one["category_id"] - 1], [x, y, x + w, y + h]))
        same(image["file_name"], found, boxes[image["file_name"]], 0.01)
    try:
        from pycocotools.coco import COCO
    except ImportError:
        return f"{len(ids)} boxes agree"
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "annotations.json"
        path.write_text(text)
        assert len(COCO(str(path)).getAnnIds()) == len(ids)
    return f"{len(ids)} boxes agree, and pycocotools reads them"


def yolo(archive, boxes, sizes, labels):
    rows = archive.read("data.yaml").decode().split("names:")[1].splitlines()[1:]
    names = {int(key): json.loads(value) for key, value in (row.split(":", 1) for row in rows)}
    assert list(names.values()) == labels
    count = 0
    for name, expected in boxes.items():
        width, height = sizes[name]
        found = []
        for line in archive.read(f"labels/train/{Path(name).stem}.txt").decode().splitlines():
            number, *shares = line.split()
            cx, cy, w, h = map(float, shares)
            box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
            found.append((names[int(number)], box))
        same(name, found, expected, 0.01)
        count += len(found)
    return f"{count} boxes agree within 0.01 px"


def voc(archive, boxes, sizes, labels):
    count = 0
    for name, expected in boxes.items():
        root = ElementTree.fromstring(archive.read(f"Annotations/{Path(name).stem}.xml").decode())
        assert root.findtext("filename") == name
        assert (int(root.findtext("size/width")), int(root.findtext("size/height"))) == sizes[name]
        found = []
        for item in root.iter("object"):
            corners = [int(item.findtext(f"bndbox/{edge}")) for edge in ["xmin", "ymin", "xmax", "ymax"]]
            assert item.findtext("name").lower() in [label.lower() for label in labels]
            found.append((item.findtext("name"), corners))
        same(name, found, expected, 1.0)
        count += len(found)
    return f"{count} boxes agree within a pixel"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Reads the files that the page exports with independent programs, and compares them with the boxes of the page.

    pip install pillow==13.0.0 pycocotools==2.0.11 label-studio-sdk==2.1.2
    python exports.py FOLDER

FOLDER is written by tests/browser/exports.test.mjs: the files of the page, the picture scene.png, and
expected.json with the boxes as the page draws them, [x1, y1, x2, y2] in pixels.
"""

import csv
import json
import logging
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

from PIL import Image, ImageChops
from pycocotools.coco import COCO

CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
  {labels}
</RectangleLabels></View>"""


def main(folder):
    expected = json.loads((folder / "expected.json").read_text())
    width, height = expected["size"]
    boxes = expected["boxes"]
    for name, check in [
        ("COCO", coco),
        ("YOLO", yolo),
        ("Pascal VOC", voc),
        ("CSV", table),
        ("labelled JSON", box_2d),
        ("Label Studio", label_studio),
        ("pictures", pictures),
    ]:
        print(f"{name}: {check(folder, boxes, width, height)}")


def same(found, boxes, tolerance):
    """Asserts that lists of (label, box) agree, in any order."""
    assert len(found) == len(boxes), (len(found), len(boxes))
    left = [(b["label"], b["box"]) for b in boxes]
    for label, box in found:
        near = [
            one for one in left
            if one[0] == label and all(abs(a - b) <= tolerance for a, b in zip(one[1], box))
        ]
        assert near, (label, box, left)
        left.remove(near[0])
    return f"{len(found)} boxes agree within {tolerance} px"


def coco(folder, boxes, width, height):
    data = COCO(str(folder / "scene.coco.json"))
    (picture,) = data.loadImgs(data.getImgIds())
    assert (picture["file_name"], picture["width"], picture["height"]) == ("scene.png", width, height)
    names = {c["id"]: c["name"] for c in data.loadCats(data.getCatIds())}
    assert min(names) == 1 and min(data.getAnnIds()) == 1
    found = []
    for one in data.loadAnns(data.getAnnIds()):
        x, y, w, h = one["bbox"]
        found.append((names[one["category_id"]], [x, y, x + w, y + h]))
        assert abs(one["area"] - w * h) < 0.1
        mask = data.annToMask(one)
        assert mask.shape == (height, width)
        assert abs(int(mask.sum()) - w * h) <= 2 * (w + h) + 4, (mask.sum(), w * h)
    own = [b for b in boxes if b["own"]]
    scores = [one for one in data.anns.values() if "score" in one]
    assert len(scores) == len(boxes) - len(own) and all(0 < one["score"] <= 1 for one in scores)
    return same(found, boxes, 0.01)


def yolo(folder, boxes, width, height):
    with zipfile.ZipFile(folder / "scene.yolo.zip") as archive:
        assert archive.testzip() is None
        assert archive.read("images/train/scene.png") == (folder / "scene.png").read_bytes()
        yaml = archive.read("data.yaml").decode()
        lines = archive.read("labels/train/scene.txt").decode().splitlines()
    rows = yaml[yaml.index("names:\n") + len("names:\n"):].splitlines()
    names = {int(key): json.loads(value) for key, value in (row.split(":", 1) for row in rows)}
    assert sorted(names) == list(range(len(names)))
    found = []
    for line in lines:
        number, *shares = line.split()
        assert all(len(share.split(".")[1]) == 6 for share in shares)
        cx, cy, w, h = map(float, shares)
        box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        found.append((names[int(number)], box))
    return same(found, boxes, 0.01)


def voc(folder, boxes, width, height):
    root = ElementTree.parse(folder / "scene.xml").getroot()
    assert root.findtext("filename") == "scene.png"
    assert (int(root.findtext("size/width")), int(root.findtext("size/height"))) == (width, height)
    found = []
    for item in root.iter("object"):
        corners = [int(item.findtext(f"bndbox/{name}")) for name in ["xmin", "ymin", "xmax", "ymax"]]
        found.append((item.findtext("name"), corners))
    return same(found, boxes, 0.51)


def table(folder, boxes, width, height):
    with open(folder / "scene.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # Boxes without a label have an empty one here.
    found = [(r["label"] or "object", [float(r[k]) for k in ["x1", "y1", "x2", "y2"]]) for r in rows]
    assert [r["source"] == "user" for r in rows] == [b["own"] for b in boxes]
    return same(found, boxes, 0.01)


def box_2d(folder, boxes, width, height):
    found = []
    for one in json.loads((folder / "scene.box_2d.json").read_text()):
        assert all(isinstance(value, int) and 0 <= value <= 1000 for value in one["box_2d"])
        y1, x1, y2, x2 = (value / 1000 for value in one["box_2d"])
        found.append((one["label"], [x1 * width, y1 * height, x2 * width, y2 * height]))
    return same(found, boxes, max(width, height) / 1999)


def label_studio(folder, boxes, width, height):
    logging.disable(logging.WARNING)
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.label_interface import LabelInterface

    labels = sorted({b["label"] for b in boxes})
    config = CONFIG.format(labels="\n".join(f'<Label value="{label}"/>' for label in labels))
    source = folder / "scene.label-studio.json"
    (task,) = json.loads(source.read_text())
    interface = LabelInterface(config)
    for prediction in task["predictions"]:
        assert interface.validate_prediction(prediction), prediction
    found = []
    for kind in ["annotations", "predictions"]:
        # The converter reads annotations only, so predictions are read as such once.
        part = {**task, "annotations": [{"id": 1, "result": task[kind][0]["result"]}]}
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "tasks.json"
            path.write_text(json.dumps([part]))
            converter = Converter(config, place, download_resources=False)
            converter.convert_to_coco(str(path), place, output_image_dir=place, is_dir=False)
            data = json.loads((Path(place) / "result.json").read_text())
        names = {c["id"]: c["name"] for c in data["categories"]}
        for one in data["annotations"]:
            x, y, w, h = one["bbox"]
            found.append((names[one["category_id"]], [x, y, x + w, y + h]))
    return same(found, boxes, 0.01)


def pictures(folder, boxes, width, height):
    source = Image.open(folder / "scene.png").convert("RGB")
    own = [b["box"] for b in boxes if b["own"]]
    outside = Image.new("1", source.size, 1)
    for x1, y1, x2, y2 in own:
        outside.paste(0, (int(x1), int(y1), int(-(-x2 // 1)), int(-(-y2 // 1))))
    words = []
    for name in ["scene.redacted.png", "blurred.png"]:
        image = Image.open(folder / name)
        assert not image.info and not image.getexif(), image.info
        image = image.convert("RGB")
        assert image.size == (width, height)
        assert changed(source, image, outside) == 0, name
        for x1, y1, x2, y2 in own:
            part = (int(x1), int(y1), int(-(-x2 // 1)), int(-(-y2 // 1)))
            values = image.crop(part).getextrema()
            if name == "scene.redacted.png":
                assert values == ((0, 0), (0, 0), (0, 0)), values
            else:
                assert image.crop(part).tobytes() != source.crop(part).tobytes()
        words.append(f"{name} differs from the picture only inside the box")

    image = Image.open(folder / "scene.boxes.png").convert("RGB")
    assert image.size == (width, height)
    # Lines and labels are near the edges of boxes. Far from all of them nothing changes.
    far = Image.new("1", source.size, 1)
    for x1, y1, x2, y2 in (b["box"] for b in boxes):
        far.paste(0, (int(x1) - 130, int(y1) - 24, int(x2) + 130, int(y2) + 24))
        inner = (int(x1) + 26, int(y1) + 26, int(x2) - 26, int(y2) - 26)
        if inner[0] < inner[2] and inner[1] < inner[3]:
            clear = all(
                b["box"] == [x1, y1, x2, y2]
                or b["box"][0] > inner[2] or b["box"][2] < inner[0]
                or b["box"][1] > inner[3] or b["box"][3] < inner[1]
                for b in boxes
            )
            if clear and inner[2] - inner[0] > 20:
                middle = ((inner[0] + inner[2]) // 2, (inner[1] + inner[3]) // 2)
                assert image.getpixel(middle) == source.getpixel(middle), middle
    assert changed(source, image, far) == 0
    orange = (0xE6, 0x9F, 0x00)
    edges = 0
    for b in (b for b in boxes if b["label"] == "cats"):
        x1, y1, x2, y2 = b["box"]
        # A line of 2 px covers at least one whole pixel near the edge.
        near = range(-2, 3)
        edges += any(pixel(image, x1 + d, (y1 + y2) / 2) == orange for d in near)
        edges += any(pixel(image, (x1 + x2) / 2, y2 + d) == orange for d in near)
    cats = sum(b["label"] == "cats" for b in boxes)
    assert cats > 0 and edges >= cats, (edges, cats)
    words.append(f"{edges} of {2 * cats} edges of named boxes have the hue of their phrase")

    image = Image.open(folder / "footer.png").convert("RGB")
    footer = image.crop((0, height, width, image.height))
    assert footer.getpixel((1, 1)) == (255, 255, 255)
    dark = sum(1 for value in footer.convert("L").tobytes() if value < 96)
    assert dark > 100, "the footer has no letters"
    words.append(f"the footer has {dark} dark pixels")
    return "; ".join(words)


def pixel(image, x, y):
    return image.getpixel((min(round(x), image.width - 1), min(round(y), image.height - 1)))


def changed(a, b, where):
    """How many pixels of the mask differ."""
    difference = ImageChops.difference(a, b).convert("L").point(lambda value: 255 if value else 0)
    masked = Image.composite(difference, Image.new("L", a.size, 0), where)
    return sum(1 for value in masked.tobytes() if value)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

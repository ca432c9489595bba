// A photograph as a camera writes it: a rotated JPEG with an EXIF orientation.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { cameraJpeg } from "./exif.mjs";
import {
  answered,
  ask,
  happened,
  modelReady,
  nothingForbidden,
  open,
  openPicture,
  overlap,
  URL_OF_PAGE,
} from "./page.mjs";

const PHOTO = new URL("../data/photo/chelsea.png", import.meta.url);
const [WIDTH, HEIGHT] = [451, 300];

test("the boxes of a rotated photograph are those of the upright one", async () => {
  const photo = await readFile(PHOTO);
  const browser = await open({ webgpu: false });
  const { page, seen } = browser;
  try {
    await page.goto(URL_OF_PAGE);
    await modelReady(page);
    const found = [];
    for (const isRotated of [false, true]) {
      const buffer = await cameraJpeg(page, photo, { isRotated });
      await openPicture(page, { name: "photo.jpg", mimeType: "image/jpeg", buffer });
      found.push((await happened(page, "Proposed")).at(-1).boxes);
      const turn = await ask(page, "What is in the picture?");
      assert.equal((await answered(page, turn)).state, "done");
    }
    const [upright, rotated] = found;
    for (const { box } of rotated.slice(0, 5)) {
      const [x, y] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
      assert.ok(x >= 0 && x <= WIDTH && y >= 0 && y <= HEIGHT, `the box ${box} lies in the picture`);
      const best = Math.max(...upright.map((other) => overlap(box, other.box)));
      assert.ok(best > 0.8, `the box ${box} has no upright counterpart (${best})`);
    }
    nothingForbidden(seen);
  } finally {
    await browser.close();
  }
});

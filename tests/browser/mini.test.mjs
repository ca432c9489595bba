// mini on photographs: boxes carry names, answers point at the right ones, with and without a network. On
// the CPU, where the answers are the same everywhere.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import {
  answered,
  ask,
  asked,
  counted,
  drawnBoxes,
  drop,
  happened,
  inTab,
  lit,
  looked,
  modelReady,
  nothingForbidden,
  open,
  openSample,
  overlap,
  HAS_MINI,
  LONG,
  URL_OF_PAGE,
} from "./page.mjs";

const root = new URL("../../", import.meta.url);
const skip = HAS_MINI ? false : "mini has no model.json";
const SAMPLES = JSON.parse(await readFile(new URL("web/static/samples/samples.json", root), "utf8"));
const PHOTOGRAPHS = SAMPLES.filter(({ model }) => model === "mini");
// The photograph that is dropped.
const DROPPED = PHOTOGRAPHS.find(({ file }) => file === "camera.jpg");
const URL_OF_MINI = `${URL_OF_PAGE}?model=mini`;

describe("mini", { skip }, () => {
  let browser, page, context, first;
  before(async () => {
    browser = await open({ webgpu: false });
    ({ page, context } = browser);
    await page.goto(URL_OF_MINI);
  });
  after(() => browser?.close());

  test("the first visit asks the question of the first sample", async () => {
    assert.equal((await answered(page, 0)).state, "done");
    assert.match(await page.getByTestId("asked").innerText(), new RegExp(escaped(PHOTOGRAPHS[0].question)));
    const [ready] = await happened(page, "Ready");
    assert.deepEqual([ready.name, ready.device], ["mini", "cpu"]);
  });

  test("the page tells what mini knows, and the licences of its parts", async () => {
    const [ready] = await happened(page, "Ready");
    assert.ok(ready.knows.length > 0);
    assert.equal(await page.getByTestId("knows").innerText(), `${ready.name} ${ready.knows}`);
    await page.getByTestId("about").click();
    assert.equal(await page.getByTestId("about-knows").innerText(), ready.knows);
    assert.ok(ready.licence_parts.length > 0);
    await counted(page.getByTestId("part-licence"), ready.licence_parts.length);
    await counted(page.getByTestId("origins").locator("li"), SAMPLES.length);
    await page.keyboard.press("Escape");
  });

  test("the boxes of a dropped photograph carry names, and the answer points at the right ones", async () => {
    first = await dropped(page);
  });

  test("a reloaded page without a network answers the same", async () => {
    await page.getByTestId("offline-badge").waitFor({ timeout: LONG });
    await context.setOffline(true);
    await page.reload();
    await modelReady(page);
    await answered(page, 0);
    assert.equal(await dropped(page), first);
    await context.setOffline(false);
  });

  for (const sample of PHOTOGRAPHS) {
    test(`the card of ${sample.file} opens it and asks its question`, async () => {
      await looked(page, () => openSample(page, sample.file));
      const { state, words } = await answered(page, 0);
      console.log(`${sample.question} ${words}`);
      assert.equal(state, "done");
      assert.equal((await asked(page, "Ask")).at(-1).question, sample.question);
      await pointsRight(page, sample.truth.boxes);
    });
  }

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));
});

// Drops the photograph, looks at names, asks its question; the answer's text.
async function dropped(page) {
  const photograph = await readFile(new URL(`web/static/samples/${DROPPED.file}`, root));
  await looked(page, () => drop(page, photograph, "photograph.jpg", "image/jpeg"));
  const [kind] = Object.keys(DROPPED.truth.boxes);
  const named = page.getByTestId("object-name").getByText(kind, { exact: true }).first();
  await inTab(page, "objects", () => named.waitFor({ timeout: LONG }));
  const labels = await page.getByTestId("box-label").allTextContents();
  const pattern = new RegExp(`^\\d+ ${kind} [01]\\.\\d\\d$`);
  assert.ok(
    labels.some((label) => pattern.test(label.trim())),
    labels.join(", "),
  );
  const turn = await ask(page, DROPPED.question);
  assert.equal((await answered(page, turn)).state, "done");
  await pointsRight(page, DROPPED.truth.boxes);
  return (await happened(page, "Done")).at(-1).answer.text;
}

// Every phrase with boxes lights boxes of a kind that is there, and every true box is lit by one.
async function pointsRight(page, truth) {
  const boxes = await drawnBoxes(page);
  const phrases = page.getByTestId("answer").last().locator('[data-testid="phrase"]:not([data-objects=""])');
  const left = Object.values(truth).flat();
  for (const phrase of await phrases.all()) {
    await phrase.hover();
    const numbers = await lit(page);
    assert.ok(numbers.length > 0, "a phrase lights its boxes");
    for (const number of numbers) {
      const place = left.findIndex((box) => overlap(box, boxes[number]) >= 0.5);
      assert.notEqual(place, -1, `box ${number} (${boxes[number]}) is not a true one`);
      left.splice(place, 1);
    }
    await page.mouse.move(0, 0);
  }
  assert.deepEqual(left, [], "true boxes without a phrase");
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

// Nano in the browser's worker answers the questions of the evaluation as on the CPU.

import assert from "node:assert/strict";
import { test } from "node:test";
import { withBrowser } from "./devices.mjs";
import { evaluate } from "./stdio_server.mjs";
import { QUIET, URL_OF_PAGE } from "./page.mjs";

const SCENES = 2;

test(`the questions about ${SCENES} scenes have the same answers as on the CPU`, () =>
  withBrowser(async ({ page }) => {
    await page.goto(QUIET);
    const start = Date.now();
    const { report, ready } = await evaluate(page, { model: `${URL_OF_PAGE}models/nano`, count: SCENES });
    assert.equal(ready.device, "wgpu");
    console.log(`${report.questions} questions in ${((Date.now() - start) / 1000).toFixed(0)} s`);
    console.log(`boxes differ by at most ${report.box_difference} pixels`);
    assert.ok(report.questions >= 6 * SCENES, `${report.questions} questions`);
    assert.equal(report.same_answers, 1);
    assert.ok(report.box_difference !== null && report.box_difference < 0.1);
    for (const { name, model, against } of report.metrics) {
      console.log(`${name}: ${model.toFixed(3)} ${against.toFixed(3)}`);
      assert.ok(Math.abs(model - against) < 1e-9, name);
    }
  }));

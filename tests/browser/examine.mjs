// What a browser's device computes at every stage of a model, beside what `chatrex examine` says of
// the processor. Not part of the tests: `cargo xtask manual examine FOLDER` runs it.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { startHost } from "./faults.mjs";
import { visit } from "./manager.mjs";
import { PROGRAM } from "./page.mjs";

const FOLDER = process.env.CHATREX_FOLDER;
const DAY = 86_400_000;
const SIZE = [1066, 800];
const TOLERANCES = {
  "upn.candidates": 5e-4,
  "upn.encoder_logits": 2e-3,
  "upn.boxes": 1e-4,
  "upn.logits": 2e-3,
  visual_tokens: 2e-4,
  object_tokens: 2e-4,
  prefill_logits: 2e-3,
  step_logits: 2e-3,
};

test("the browser agrees with the processor at every stage", { timeout: DAY }, async () => {
  const words = ["examine", "--model", FOLDER, "--device", "cpu"];
  const expected = JSON.parse(execFileSync(PROGRAM, words, { maxBuffer: 1 << 28 }));
  const host = await startHost();
  const files = new Map();
  for (const name of await readdir(FOLDER)) files.set(name, await readFile(join(FOLDER, name)));
  const folder = host.add("examined", files);
  const browser = await visit(host, { webgpu: true });
  try {
    const { page } = browser;
    page.setDefaultTimeout(DAY);
    await page.goto(`${host.url}start.js`);
    const began = Date.now();
    page.on("console", (message) => console.log(((Date.now() - began) / 1000).toFixed(0), "s", message.text()));
    const answer = await page.evaluate(
      ([model, [width, height], selection, base]) =>
        new Promise((done, fail) => {
          const worker = new Worker(`${base}worker_start.js?examine`, { type: "module" });
          worker.onerror = (event) => fail(new Error(event.message));
          worker.onmessage = ({ data: [text] }) => {
            if (text.includes('"Look"')) console.log(text);
            else if (text.includes('"stages"')) done(text);
            else if (text.includes('"Failed"')) fail(new Error(text));
            else if (text.includes("Hello")) worker.postMessage([JSON.stringify([model, width, height, selection])]);
          };
        }),
      [folder.address, SIZE, JSON.stringify(expected.selection), host.url],
    );
    const found = JSON.parse(answer);
    for (const [index, stage] of found.stages.entries()) {
      const theirs = expected.stages[index];
      assert.equal(stage.name, theirs.name);
      const worst = Math.max(...stage.values.map((value, at) => Math.abs(value - theirs.values[at])));
      const seconds = (stage.milliseconds / 1000).toFixed(1);
      console.log(`${stage.name}: ${worst.toExponential(2)} <= ${TOLERANCES[stage.name]}, ${seconds} s`);
      assert.ok(worst <= TOLERANCES[stage.name], stage.name);
    }
    assert.equal(found.token, expected.token);
  } finally {
    await browser.close();
    await host.close();
  }
});

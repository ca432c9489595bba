// The recordings of the original implementation, computed by the worker on WebGPU: the checks and
// tolerances of the native program.

import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { withBrowser, withLeast } from "./devices.mjs";
import { parity } from "./native.mjs";
import { QUIET } from "./page.mjs";

const GOLDEN = "tests/data/golden";

// Weights of the shipped model, by the path under which a fixture names them.
const SHIPPED = {
  "nanodet/../../../../assets/models/mini/detector.safetensors": "assets/models/mini/detector.safetensors",
};

// Fixtures of the converter, which needs a file system and is not part of the worker.
const NATIVE_ONLY = ["checkpoint", "tokenizer_llama"];

let native, files;
before(async () => {
  native = await parity(GOLDEN);
  const all = await readdir(GOLDEN, { recursive: true });
  files = all.filter((file) => file.includes(".") && !NATIVE_ONLY.includes(file.split("/")[0]));
  files.push(...Object.keys(SHIPPED));
});

// The tolerances are for f32; with an f16 KV cache, logits of about 10 are off by less than this and
// the greedy tokens are the same.
const F16_TOLERANCE = 0.03;

const devices = { "": withBrowser, "with the minimum limits of WebGPU ": withLeast };
for (const [limits, withDevice] of Object.entries(devices)) {
  test(`${limits}every recording agrees`, () =>
    withDevice(async ({ page }) => {
      const expected = native.fixtures.filter(({ name }) => !NATIVE_ONLY.includes(name));
      assert.equal(expected.length, native.fixtures.length - NATIVE_ONLY.length);
      const start = Date.now();
      const found = await compared(page, expected.map(({ name }) => name), false);
      const checks = found.flatMap(({ report }) => report.fixtures[0].checks);
      console.log(`${checks.length} checks in ${((Date.now() - start) / 1000).toFixed(0)} s`);
      for (const [index, { report, table }] of found.entries()) {
        assert.ok(report.fixtures[0].checks.every(({ pass }) => pass), table);
        const [{ name, checks }] = report.fixtures;
        const keys = (checks) => checks.map(({ key, tolerance }) => [key, tolerance]);
        assert.equal(name, expected[index].name);
        assert.deepEqual(keys(checks), keys(expected[index].checks), name);
      }
    }));
}

test("recordings of decoders agree with an f16 KV cache", () =>
  withBrowser(async ({ page }) => {
    const found = await compared(page, ["llama_untied", "qwen2_tied", "qwen2_untied", "rexseek"], true);
    for (const { report, table } of found) {
      const off = report.fixtures[0].checks.filter(({ pass }) => !pass);
      assert.ok(off.every(({ key, error }) => key.includes("logits") && error < F16_TOLERANCE), table);
    }
  }));

// The worker's reports on the fixtures called `names`; `f16` is whether the KV cache is f16.
async function compared(page, names, f16) {
  await page.context().route("**/golden/**", (route) => {
    const [, file] = new URL(route.request().url()).pathname.split("/golden/");
    const name = decodeURIComponent(file);
    return route.fulfill({ path: SHIPPED[name] ?? join(GOLDEN, name) });
  });
  await page.goto(QUIET);
  const answers = await page.evaluate(
    async ([names, files, f16]) => {
      const bytes = async (file) => {
        const response = await fetch(`./golden/${encodeURIComponent(file)}`);
        return [file, new Uint8Array(await response.arrayBuffer())];
      };
      const contents = Object.fromEntries(await Promise.all(files.map(bytes)));
      return new Promise((done, fail) => {
        const answers = [];
        const worker = new Worker("./worker_dev_start.js?parity", { type: "module" });
        worker.onerror = (error) => fail(new Error(`${names[answers.length]}: ${error.message}`));
        worker.onmessage = ({ data: [json] }) => {
          const answer = JSON.parse(json);
          if (answer === "Hello") return worker.postMessage([JSON.stringify(names), contents, f16]);
          if (answer.fault) return fail(new Error(`${names[answers.length]}: ${answer.fault}`));
          answers.push(answer);
          if (answers.length === names.length) done(answers);
        };
      });
    },
    [names, files, f16],
  );
  return answers;
}

// The worker on the browser's WebGPU: every kernel agrees with its reference, with and without
// subgroups, under minimum limits and without `timestamp-query`.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { before, test } from "node:test";
import { inFrontOf, withBrowser, withLeast } from "./devices.mjs";
import { chat, parity } from "./native.mjs";
import { answered, asked, check, happened, QUIET, URL_OF_NANO } from "./page.mjs";

// The kernels of the native program's registry.
let kernels;
before(async () => {
  ({ kernels } = await parity("tests/data/golden", "roi_align"));
  console.log(`native registry: ${kernels.join(", ")}`);
});

// The worker sweeps the native program's kernels, each over at least one shape.
function everyKernelAgrees(report) {
  for (const { name, ...result } of report.kernels) console.log(`${name}: ${JSON.stringify(result)}`);
  const swept = report.kernels.map(({ name }) => name);
  console.log(`swept in the browser: ${swept.join(", ")}`);
  assert.ok(kernels.length > 10, "the native registry is complete");
  assert.deepEqual(swept, kernels);
  for (const { name, shapes } of report.kernels) {
    assert.ok(shapes > 0, `${name} agrees with its reference`);
  }
}

// Prepended to `timestamp_query.js`: an adapter that lacks the feature and rejects requests for it.
const HIDE = `
{
  const prototype = GPUAdapter.prototype;
  const features = Object.getOwnPropertyDescriptor(prototype, "features").get;
  const requestDevice = prototype.requestDevice;
  Object.defineProperty(prototype, "features", {
    configurable: true,
    get() {
      return new Set([...features.call(this)].filter((feature) => feature !== "timestamp-query"));
    },
  });
  prototype.requestDevice = function (descriptor = {}) {
    if ([...(descriptor.requiredFeatures ?? [])].includes("timestamp-query")) {
      return Promise.reject(new TypeError("timestamp-query is not supported"));
    }
    return requestDevice.call(this, descriptor);
  };
}
`;

test("the browser offers a WebGPU adapter", () =>
  withBrowser(async ({ page }) => {
    await page.goto(QUIET);
    const adapter = await page.evaluate(async () => {
      const adapter = await navigator.gpu?.requestAdapter();
      return adapter ? `${adapter.info.vendor} ${adapter.info.architecture}`.trim() : "none";
    });
    console.log(`adapter: ${adapter}`);
    assert.notEqual(adapter, "none");
  }));

// With subgroups the kernels are other variants than under minimum limits.
test("burn and our kernels compute on it", () =>
  withBrowser(async ({ page, seen }) => {
    await page.goto(QUIET);
    const offered = await page.evaluate(async () => {
      const adapter = await navigator.gpu.requestAdapter();
      return adapter.features.has("subgroups") && adapter.info.subgroupMinSize >= 8;
    });
    const report = await check(page, { kernels: offered });
    assert.equal(report.matmul, 64 ** 3);
    assert.equal(report.subgroups, offered, "subgroups are used where they are large enough");
    if (offered) everyKernelAgrees(report);
    assert.deepEqual(seen.violations, []);
  }));

test("with the minimum limits of WebGPU all kernels compute", () =>
  withLeast(async ({ page }) => {
    await page.goto(QUIET);
    const report = await check(page, { kernels: true });
    assert.equal(report.subgroups, false);
    everyKernelAgrees(report);
  }));

test("with the minimum limits of WebGPU nano answers as on the CPU", () =>
  withLeast(async ({ page }) => {
    await page.goto(URL_OF_NANO);
    assert.equal((await answered(page, 0)).state, "done");
    const [ready] = await happened(page, "Ready");
    assert.equal(ready.device, "wgpu");
    const [{ question }] = await asked(page, "Ask");
    const native = await chat(await readFile("web/static/samples/scene.png"), question);
    const [done] = await happened(page, "Done");
    assert.equal(done.answer.text, native.turns[0].text);
  }));

for (const { shim, works } of [
  { shim: true, works: true },
  { shim: false, works: false },
]) {
  const outcome = works ? "computes" : "does not compute, so the shim is needed";
  test(`without timestamp-query and ${shim ? "with" : "without"} the shim it ${outcome}`, () =>
    withBrowser(async ({ page }) => {
      let hidden = 0;
      await inFrontOf(page, (body) => {
        hidden += 1;
        return HIDE + (shim ? body : "");
      });
      await page.goto(QUIET);
      const sum = await check(page, { kernels: false }).then(
        (report) => report.matmul,
        () => null,
      );
      assert.equal(hidden, 1, "the worker's script was replaced");
      assert.equal(sum, works ? 64 ** 3 : null);
    }));
}

// The engine's worker on the browser's WebGPU: it computes, also where `timestamp-query` is missing.

import assert from "node:assert/strict";
import { test } from "node:test";
import { check, open, URL_OF_PAGE } from "./page.mjs";

// A document of the site that starts no engine of its own.
const QUIET = `${URL_OF_PAGE}start.js`;

// What the worker compares with the processor.
const KERNELS = [
  "activation",
  "attention",
  "causal_attention",
  "copy",
  "deform_attention",
  "depthwise",
  "fused",
  "group_norm",
  "layer_norm",
  "noise",
  "roi_pool",
  "weight_rows",
  "window_attention",
];

// Put in front of `timestamp_query.js`: an adapter that lacks the feature and refuses to give it.
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

async function withBrowser(use) {
  const browser = await open({ serviceWorkers: "block" });
  try {
    await use(browser);
  } finally {
    await browser.close();
  }
}

test("the browser offers a WebGPU adapter", () =>
  withBrowser(async ({ page }) => {
    await page.goto(QUIET);
    const adapter = await page.evaluate(async () => {
      const found = await navigator.gpu?.requestAdapter();
      return found ? `${found.info.vendor} ${found.info.architecture}`.trim() : "none";
    });
    console.log(`adapter: ${adapter}`);
    assert.notEqual(adapter, "none");
  }));

test("burn and our kernels compute on it", () =>
  withBrowser(async ({ page, seen }) => {
    await page.goto(QUIET);
    const report = await check(page);
    assert.equal(report.matmul, 64 ** 3);
    for (const [kernel, swept] of Object.entries(report.kernels)) {
      console.log(`${kernel}: ${JSON.stringify(swept)}`);
    }
    for (const kernel of KERNELS) {
      assert.ok(report.kernels[kernel]?.shapes > 0, `${kernel} agrees with its reference`);
    }
    assert.deepEqual(seen.violations, []);
  }));

for (const { shim, works } of [
  { shim: true, works: true },
  { shim: false, works: false },
]) {
  const outcome = works ? "computes" : "does not compute, so the shim is needed";
  test(`without timestamp-query and ${shim ? "with" : "without"} the shim it ${outcome}`, () =>
    withBrowser(async ({ page }) => {
      let hidden = 0;
      await page.context().route("**/timestamp_query.js", async (route) => {
        const response = await route.fetch();
        const body = HIDE + (shim ? await response.text() : "");
        hidden += 1;
        await route.fulfill({ response, body });
      });
      await page.goto(QUIET);
      const sum = await check(page).then(
        (report) => report.matmul,
        () => null,
      );
      assert.equal(hidden, 1, "the worker's script was replaced");
      assert.equal(sum, works ? 64 ** 3 : null);
    }));
}

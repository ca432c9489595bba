// The engine's worker on the browser's WebGPU: it computes, also where `timestamp-query` is missing.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { chat } from "./native.mjs";
import { answered, asked, check, happened, LONG, open, URL_OF_PAGE } from "./page.mjs";

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

// Put in front of `timestamp_query.js`: an adapter that offers no more than WebGPU promises of every
// device, so that the device is made with these limits and enforces them.
const LEAST = `
{
  const prototype = GPUAdapter.prototype;
  const limits = Object.getOwnPropertyDescriptor(prototype, "limits").get;
  const least = {
    maxBindGroups: 4,
    maxBufferSize: 268435456,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupSizeX: 256,
    maxComputeWorkgroupSizeY: 256,
    maxComputeWorkgroupSizeZ: 64,
    maxComputeWorkgroupStorageSize: 16384,
    maxStorageBufferBindingSize: 134217728,
    maxStorageBuffersPerShaderStage: 8,
    maxUniformBufferBindingSize: 65536,
  };
  Object.defineProperty(prototype, "limits", {
    configurable: true,
    get() {
      return new Proxy(limits.call(this), { get: (real, name) => least[name] ?? real[name] });
    },
  });
  const requestDevice = prototype.requestDevice;
  prototype.requestDevice = async function (descriptor) {
    const device = await requestDevice.call(this, descriptor);
    const kept = Object.keys(least).every((name) => device.limits[name] === least[name]);
    console.log("least limits " + (kept ? "kept" : "not kept"));
    return device;
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

// A browser whose adapter offers the least limits; what its worker says of them goes to `said`.
function withLeast(use) {
  return withBrowser(async ({ page }) => {
    const said = [];
    page.setDefaultTimeout(LONG);
    page.setDefaultNavigationTimeout(LONG);
    page.on("console", (message) => said.push(message.text()));
    await page.context().route("**/timestamp_query.js", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: LEAST + (await response.text()) });
    });
    await use(page);
    assert.ok(said.includes("least limits kept"), said.join("\n"));
  });
}

test("with the least limits that WebGPU promises all kernels compute", () =>
  withLeast(async (page) => {
    await page.goto(QUIET);
    const report = await check(page);
    for (const kernel of KERNELS) {
      assert.ok(report.kernels[kernel]?.shapes > 0, `${kernel} agrees with its reference`);
    }
  }));

test("with the least limits nano answers as on the processor", () =>
  withLeast(async (page) => {
    await page.goto(URL_OF_PAGE);
    assert.equal((await answered(page, 0)).state, "done");
    const [ready] = await happened(page, "Ready");
    assert.equal(ready.device, "wgpu");
    const [{ question }] = await asked(page, "Ask");
    const native = await chat(await readFile("web/samples/scene.png"), question);
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

// Browsers whose WebGPU is changed by a script.

import assert from "node:assert/strict";
import { LONG, open } from "./page.mjs";

// Prepended to `timestamp_query.js`: the adapter has the minimum limits of WebGPU and no subgroups, so
// the device is created with these limits and enforces them.
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
  const features = Object.getOwnPropertyDescriptor(prototype, "features").get;
  Object.defineProperty(prototype, "features", {
    configurable: true,
    get() {
      return new Set([...features.call(this)].filter((feature) => feature !== "subgroups"));
    },
  });
  const requestDevice = prototype.requestDevice;
  prototype.requestDevice = async function (descriptor) {
    const device = await requestDevice.call(this, descriptor);
    const kept =
      Object.keys(least).every((name) => device.limits[name] === least[name]) &&
      !device.features.has("subgroups");
    console.log("least limits " + (kept ? "kept" : "not kept"));
    return device;
  };
}
`;

export async function withBrowser(use) {
  const browser = await open({ serviceWorkers: "block" });
  try {
    await use(browser);
  } finally {
    await browser.close();
  }
}

// Changes the first script of every worker: `change` maps its text to the text that runs instead.
export function inFrontOf(page, change) {
  return page.context().route("**/timestamp_query.js", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: change(await response.text()) });
  });
}

// A browser whose adapter has the minimum limits.
export function withLeast(use) {
  return withBrowser(async (browser) => {
    const { page } = browser;
    const messages = [];
    page.setDefaultTimeout(LONG);
    page.setDefaultNavigationTimeout(LONG);
    page.on("console", (message) => messages.push(message.text()));
    await inFrontOf(page, (body) => LEAST + body);
    await use(browser);
    assert.ok(messages.includes("least limits kept"), messages.join("\n"));
  });
}

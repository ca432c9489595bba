// Browsers whose WebGPU is not quite what the machine offers.

import assert from "node:assert/strict";
import { LONG, open } from "./page.mjs";

// Put in front of `timestamp_query.js`: an adapter that offers no more than WebGPU promises of every
// device, so that the device is made with these limits and enforces them, and without subgroups.
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

// Changes the first script of every worker: `change` gets its text and gives what is run instead.
export function inFrontOf(page, change) {
  return page.context().route("**/timestamp_query.js", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: change(await response.text()) });
  });
}

// A browser whose adapter offers the least limits.
export function withLeast(use) {
  return withBrowser(async (browser) => {
    const { page } = browser;
    const said = [];
    page.setDefaultTimeout(LONG);
    page.setDefaultNavigationTimeout(LONG);
    page.on("console", (message) => said.push(message.text()));
    await inFrontOf(page, (body) => LEAST + body);
    await use(browser);
    assert.ok(said.includes("least limits kept"), said.join("\n"));
  });
}

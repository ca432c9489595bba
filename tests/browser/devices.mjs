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

// Prepended to `timestamp_query.js`: logs every pipeline with the hash of its shader.
const LOG = `
{
  const { createShaderModule, createComputePipeline } = GPUDevice.prototype;
  const texts = new WeakMap();
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    const module = createShaderModule.call(this, descriptor);
    texts.set(module, descriptor.code);
    return module;
  };
  GPUDevice.prototype.createComputePipeline = function (descriptor) {
    const text = texts.get(descriptor.compute.module);
    const [, name] = /^\\/\\/ (\\w+):/m.exec(text) ?? [];
    let hash = 0;
    for (let i = 0; i < text.length; i++) hash = (hash * 31 + text.charCodeAt(i)) | 0;
    const stock = "stock " + /fn \\w+[^]*/.exec(text)?.[0].replace(/\\s+/g, " ").slice(0, 600);
    console.log("pipeline " + (name ?? stock) + " " + hash);
    return createComputePipeline.call(this, descriptor);
  };
}
`;

// Logs the pipelines of every worker of the page, `ready` where the model is loaded, and `warm` where the
// last pipeline is compiled.
export async function logPipelines(page) {
  const log = [];
  page.on("console", (message) => log.push(message.text()));
  await page.exposeFunction("logLine", (line) => log.push(line));
  await page.addInitScript(() => {
    const Plain = self.Worker;
    self.Worker = class extends Plain {
      constructor(...args) {
        super(...args);
        this.addEventListener("message", ({ data }) => {
          const { Ready, Progress } = JSON.parse(data[0]);
          if (Ready) self.logLine("ready");
          if (Progress?.stage === "Compile" && Progress.done === Progress.total) self.logLine("warm");
        });
      }
    };
  });
  await inFrontOf(page, (body) => LOG + body);
  return log;
}

// The pipelines of a log, in order.
const pipelines = (log) => log.filter((line) => line.startsWith("pipeline "));

// Waits until every pipeline is compiled. Asserts that at most 30 were before the model was ready, at least
// `least` in all, and none twice. Returns how many there are.
export async function warmedUp(log, least) {
  const deadline = Date.now() + LONG;
  while (!log.includes("warm") && Date.now() < deadline) await new Promise((later) => setTimeout(later, 100));
  const [ready, warm] = ["ready", "warm"].map((line) => log.indexOf(line));
  assert.ok(ready > 0 && warm > ready, "the model is ready first");
  const [before, all] = [pipelines(log.slice(0, ready)), pipelines(log)];
  console.log(`${before.length} pipelines before the model was ready, ${all.length} in all`);
  assert.ok(before.length <= 30 && all.length >= least);
  const own = all.filter((line) => !line.includes("stock"));
  assert.deepEqual(own, [...new Set(own)], "no shader is compiled twice");
  return all.length;
}

// Asserts that no pipeline was compiled after the first `count`. Without `stock` burn's own are only printed: it has
// variants of filling and copying for the sizes of some pictures.
export function noneLater(log, count, { stock = true } = {}) {
  const later = pipelines(log).slice(count);
  for (const line of later) console.log(`after: ${line.slice(0, 80)}`);
  const counted = later.filter((line) => stock || !line.includes("stock"));
  assert.deepEqual(counted, [], "pipelines that were compiled later");
}

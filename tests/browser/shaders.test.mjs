// Shaders in the browser: each is compiled once, while the model loads; a compile error names its
// kernel.

import assert from "node:assert/strict";
import { test } from "node:test";
import { inFrontOf, withBrowser } from "./devices.mjs";
import { answered, HAS_MINI, LONG, looked, openSample, URL_OF_NANO, URL_OF_PAGE } from "./page.mjs";

const BROKEN = "roi_pool";

// Prepended to `timestamp_query.js`: breaks the source of one kernel.
const BREAK = `
{
  const plain = GPUDevice.prototype.createShaderModule;
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    const broken = descriptor.code.includes("// ${BROKEN}:");
    const code = broken ? descriptor.code + "\\nconst broken: f32 = 1u;" : descriptor.code;
    return plain.call(this, { ...descriptor, code });
  };
}
`;

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

test("a shader that does not compile is named on the page", () =>
  withBrowser(async ({ page }) => {
    await inFrontOf(page, (body) => BREAK + body);
    await page.goto(URL_OF_NANO);
    const message = page.getByTestId("error");
    await message.waitFor({ timeout: LONG });
    const words = await message.innerText();
    console.log(words);
    assert.equal(await message.count(), 1);
    assert.match(words, new RegExp(`kernel ${BROKEN}: does not compile on .+: line \\d+: [^]*f32`));
    assert.match(words, /Update the browser/);
  }));

// Each model and the least number of its pipelines.
const MODELS = HAS_MINI ? { nano: 20, mini: 10 } : { nano: 20 };
for (const [model, least] of Object.entries(MODELS)) {
  test(`shaders of ${model} are compiled once, before it is ready`, () =>
    withBrowser(async ({ page }) => {
      const log = [];
      page.on("console", (message) => log.push(message.text()));
      await page.exposeFunction("modelIsReady", () => log.push("ready"));
      await page.addInitScript(() => {
        const Plain = self.Worker;
        self.Worker = class extends Plain {
          constructor(...args) {
            super(...args);
            this.addEventListener("message", ({ data }) => {
              if (data[0].startsWith('{"Ready"')) self.modelIsReady();
            });
          }
        };
      });
      await inFrontOf(page, (body) => LOG + body);
      await page.goto(`${URL_OF_PAGE}?model=${model}`);
      assert.equal((await answered(page, 0)).state, "done");
      if (model === "mini") {
        // A picture of another aspect ratio has other sizes of feature maps.
        await looked(page, () => openSample(page, "coffee.jpg"));
        assert.equal((await answered(page, 0)).state, "done");
      }
      const ready = log.indexOf("ready");
      const pipelines = (lines) => lines.filter((line) => line.startsWith("pipeline "));
      const [before, after] = [pipelines(log.slice(0, ready)), pipelines(log.slice(ready))];
      console.log(`${before.length} pipelines before, ${after.length} after`);
      for (const line of after) console.log(`after: ${line}`);
      assert.ok(ready > 0 && before.length > least);
      const all = [...before, ...after].filter((line) => !line.includes("stock"));
      assert.deepEqual(all, [...new Set(all)], "no shader is compiled twice");
      assert.deepEqual(after, [], "no pipeline is compiled later");
    }));
}

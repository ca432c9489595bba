// Shaders in the browser: those of mini are compiled once, most of them after it is ready (those of nano:
// answer.test.mjs); a compile error names its kernel.

import assert from "node:assert/strict";
import { test } from "node:test";
import { inFrontOf, logPipelines, noneLater, warmedUp, withBrowser } from "./devices.mjs";
import { answered, counted, looked, openSample, HAS_MINI, LONG, URL_OF_NANO, URL_OF_PAGE } from "./page.mjs";

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

test("a shader that does not compile is named on the page", () =>
  withBrowser(async ({ page }) => {
    await inFrontOf(page, (body) => BREAK + body);
    await page.goto(URL_OF_NANO);
    const message = page.getByTestId("error");
    await message.waitFor({ timeout: LONG });
    const words = await message.innerText();
    console.log(words);
    await counted(message, 1);
    assert.match(words, new RegExp(`kernel ${BROKEN}: does not compile on .+: line \\d+: [^]*f32`));
    assert.match(words, /Update the browser/);
  }));

test("shaders of mini are compiled once, most of them after it is ready", { skip: HAS_MINI ? false : "mini has no model.json" }, () =>
  withBrowser(async ({ page }) => {
    const log = await logPipelines(page);
    await page.goto(`${URL_OF_PAGE}?model=mini`);
    assert.equal((await answered(page, 0)).state, "done");
    const count = await warmedUp(log, 10);
    // A picture of another aspect ratio has other sizes of feature maps.
    await looked(page, () => openSample(page, "coffee.jpg"));
    assert.equal((await answered(page, 0)).state, "done");
    noneLater(log, count);
  }));

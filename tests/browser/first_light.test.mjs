// The engine's worker computes on WebGPU under the production headers.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { check, open, URL_OF_PAGE } from "./page.mjs";

let browser;
before(async () => (browser = await open()));
after(() => browser?.close());

test("the browser offers a WebGPU adapter", async () => {
  await browser.page.goto(URL_OF_PAGE);
  const adapter = await browser.page.evaluate(async () => {
    const found = await navigator.gpu?.requestAdapter();
    return found && `${found.info.vendor} ${found.info.architecture}`;
  });
  assert.match(adapter ?? "no adapter", /google|nvidia|amd|intel|apple/);
});

test("burn multiplies matrices on that adapter", async () => {
  assert.equal((await check(browser.page)).matmul, 64 ** 3);
});

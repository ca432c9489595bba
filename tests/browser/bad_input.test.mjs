// Questions and weights that are wrong: a failure shows one message, and the page goes on. On the CPU, which
// is faster than WebGPU in software. Pictures are in faults.test.mjs.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { copyOfNano } from "./faults.mjs";
import { answered, ask, counted, modelReady, open, slide, LONG, URL_OF_NANO, URL_OF_PAGE } from "./page.mjs";

async function openAnswered() {
  const browser = await open({ webgpu: false });
  await browser.page.goto(URL_OF_PAGE);
  await answered(browser.page, 0);
  return { browser, page: browser.page };
}

describe("questions", () => {
  let browser, page;
  before(async () => ({ browser, page } = await openAnswered()));
  after(() => browser?.close());

  test("an empty question cannot be sent", async () => {
    await page.getByTestId("question").fill("   ");
    assert.ok(await page.getByTestId("send").isDisabled());
  });

  for (const question of ["What is <objfeat>?", "Look at <image> again", "What is <obj99>?"]) {
    test(`${question} gets one message or a plain answer, and the next question works`, async () => {
      const { state } = await answered(page, await ask(page, question));
      if (state === "failed") {
        const message = page.getByTestId("error");
        await counted(message, 1);
        console.log(`${question}: ${(await message.innerText()).split("\n")[0]}`);
      }
      assert.equal((await answered(page, await ask(page, "How many objects are there?"))).state, "done");
    });
  }

  test("without any box there is an answer", async () => {
    await slide(page, "score-slider", "1");
    assert.equal((await page.getByTestId("box-count").innerText()).trim(), "0");
    assert.equal((await answered(page, await ask(page, "How many objects are there?"))).state, "done");
  });
});

describe("weights", () => {
  const damage = {
    missing: (route) => route.fulfill({ status: 404, body: "not here" }),
    damaged: async (route) => {
      const response = await route.fetch();
      const body = await response.body();
      body[body.length >> 1] ^= 0xff;
      await route.fulfill({ response, body });
    },
    "cut short": async (route) => {
      const body = (await (await route.fetch()).body()).subarray(0, 1000);
      await route.fulfill({ contentType: "application/octet-stream", body });
    },
  };
  for (const [how, change] of Object.entries(damage)) {
    test(`${how} weights are named`, () => failsToLoad("**/models/nano/*.safetensors", change, /safetensors/));
  }

  test("a missing manifest is named", () =>
    failsToLoad("**/models/nano/model.json", damage.missing, /model\.json/));

  test("NaN weights are reported before any answer, on WebGPU", async () => {
    const files = await copyOfNano({
      name: "nano",
      spoil(files, { tensors }) {
        const { shard, offset, dtype } = tensors["model.layers.0.mlp.up_proj.weight"];
        assert.equal(dtype, "F16");
        files.get(shard).writeUInt16LE(0x7e00, offset);
      },
    });
    const change = (route) => {
      const name = new URL(route.request().url()).pathname.split("/").at(-1);
      return route.fulfill({ contentType: "application/octet-stream", body: files.get(name) });
    };
    await failsToLoad("**/models/nano/*", change, /up_proj\.weight: holds NaN at element 0/, { webgpu: true });
  });

  test("a manifest of an unknown version is named", () =>
    failsToLoad(
      "**/models/nano/model.json",
      async (route) => {
        const response = await route.fetch();
        const manifest = await response.json();
        const key = Object.keys(manifest).find((key) => /version|format/.test(key));
        await route.fulfill({ response, json: { ...manifest, [key]: 999 } });
      },
      /version|format/,
    ));
});

// Opens the page with a broken file of the model: one message names it, and a retry with the real file
// works. On WebGPU there is no retry: it would compile all shaders.
async function failsToLoad(files, change, says, { webgpu = false } = {}) {
  const browser = await open({ webgpu, serviceWorkers: "block" });
  const { context, page } = browser;
  try {
    await context.route(files, change);
    await page.goto(URL_OF_NANO);
    const message = page.getByTestId("error");
    await message.waitFor({ timeout: LONG });
    const words = await message.innerText();
    console.log(words.split("\n")[0]);
    assert.match(words, says);
    await counted(message, 1);
    await context.unroute(files);
    if (webgpu) return;
    await page.getByTestId("restart").click();
    await modelReady(page);
  } finally {
    await browser.close();
  }
}

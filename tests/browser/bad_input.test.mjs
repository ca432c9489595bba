// A failure shows one message, keeps picture and conversation, and leaves the page usable. On the CPU,
// which is faster than WebGPU in software.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { copyOfNano } from "./faults.mjs";
import { answered, ask, LONG, modelReady, open, slide, URL_OF_NANO, URL_OF_PAGE } from "./page.mjs";

async function openAnswered() {
  const browser = await open({ webgpu: false });
  await browser.page.goto(URL_OF_PAGE);
  await answered(browser.page, 0);
  return { browser, page: browser.page };
}

describe("pictures", () => {
  let browser, page;
  before(async () => ({ browser, page } = await openAnswered()));
  after(() => browser?.close());

  const refused = {
    "not a picture": async () => Buffer.from("this is no picture"),
    "a truncated picture": async () => (await drawn(page, 400, 300, "image/png")).subarray(0, 200),
    "an empty file": async () => Buffer.alloc(0),
  };
  for (const [what, bytes] of Object.entries(refused)) {
    test(`${what} is refused with one message, and everything is kept`, async () => {
      const turns = await page.getByTestId("answer").count();
      await choose(page, await bytes());
      const message = page.getByTestId("error");
      await message.waitFor({ timeout: LONG });
      console.log(`${what}: ${(await message.innerText()).split("\n")[0]}`);
      assert.equal(await message.count(), 1);
      assert.equal(await page.getByTestId("answer").count(), turns);
      await page.getByTestId("dismiss").click();
      assert.equal((await answered(page, await ask(page, "How many objects are there?"))).state, "done");
    });
  }

  const odd = {
    "1 x 1": [1, 1],
    "20000 x 10": [20_000, 10],
    "50 megapixels": [8_000, 6_250],
  };
  for (const [what, [width, height]] of Object.entries(odd)) {
    test(`a picture of ${what} is looked at or refused with one message`, async () => {
      const seen = await page.evaluate(() => self.events.length);
      await choose(page, await drawn(page, width, height, "image/jpeg"));
      await page.waitForFunction(
        (seen) =>
          document.querySelector('[data-testid="dismiss"]') ||
          self.events.slice(seen).some((event) => event.Proposed || event.Failed),
        seen,
        { timeout: LONG },
      );
      const message = page.getByTestId("error");
      if (await message.count()) {
        console.log(`${what}: ${(await message.innerText()).split("\n")[0]}`);
        assert.equal(await message.count(), 1);
      } else {
        const turn = await ask(page, "How many objects are there?");
        assert.equal((await answered(page, turn)).state, "done");
      }
      if (await page.getByTestId("dismiss").count()) await page.getByTestId("dismiss").click();
    });
  }
});

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
        assert.equal(await message.count(), 1);
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
// works.
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
    assert.equal(await message.count(), 1);
    await context.unroute(files);
    await page.getByTestId("restart").click();
    await modelReady(page);
  } finally {
    await browser.close();
  }
}

function choose(page, buffer) {
  const file = { name: "picture", mimeType: "image/png", buffer };
  return page.getByTestId("file-input").setInputFiles(file);
}

// A picture drawn by the browser.
async function drawn(page, width, height, type) {
  const base64 = await page.evaluate(
    async ([width, height, type]) => {
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext("2d");
      context.fillStyle = "teal";
      context.fillRect(0, 0, width, height);
      context.fillStyle = "gold";
      context.fillRect(width / 4, height / 4, width / 3, height / 3);
      const blob = await canvas.convertToBlob({ type });
      const bytes = new Uint8Array(await blob.arrayBuffer());
      return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    },
    [width, height, type],
  );
  return Buffer.from(base64, "base64");
}

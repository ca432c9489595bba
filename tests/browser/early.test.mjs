// Input before the code of the page has arrived.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { asked, counted, drop, nothingForbidden, open, DEEP_SITE, LONG, URL_OF_NANO } from "./page.mjs";

const SCENE = await readFile(join(DEEP_SITE, "samples/scene.png"));

// A visit whose code waits until `arrive` is called.
async function slowly(use) {
  const browser = await open({ webgpu: false, serviceWorkers: "block" });
  const { page } = browser;
  let arrive;
  const arrived = new Promise((done) => (arrive = done));
  await page.route("**/page_bg.wasm", async (route) => {
    await arrived;
    await route.continue();
  });
  try {
    await page.goto(URL_OF_NANO, { waitUntil: "commit" });
    await page.waitForFunction(() => document.getElementById("early")?.entries);
    await use({ page, arrive });
    nothingForbidden(browser.seen);
  } finally {
    arrive();
    await browser.close();
  }
}

describe("first paint: before its code arrives", () => {
  test("the text box takes words, and the page has them and the focus", () =>
    slowly(async ({ page, arrive }) => {
      await page.locator("#question").click();
      await page.keyboard.type("How many cats");
      await page.keyboard.press("Enter");
      arrive();
      const question = page.getByTestId("question");
      await question.waitFor();
      await counted(page.locator("#early"), 0);
      assert.equal(await question.inputValue(), "How many cats");
      await page.waitForFunction(() => document.activeElement?.dataset.testid === "question");
      await page.keyboard.type(" are there?");
      assert.equal(await question.inputValue(), "How many cats are there?");
    }));

  test("a dropped picture is opened, not the sample, and the browser stays on the page", () =>
    slowly(async ({ page, arrive }) => {
      await drop(page, SCENE, "mine.png", "image/png");
      arrive();
      await page.waitForFunction(() => self.events.some((event) => event.Proposed), null, { timeout: LONG });
      assert.equal((await asked(page, "Look")).length, 1);
      assert.deepEqual(await asked(page, "Ask"), [], "the sample would be asked about");
      assert.equal(page.url(), URL_OF_NANO);
    }));

  test("an input method that is composing keeps its text box until it is done", () =>
    slowly(async ({ page, arrive }) => {
      await page.locator("#question").click();
      const tell = (kind) =>
        page.evaluate((kind) => {
          const box = document.querySelector("#early textarea");
          box.dispatchEvent(new CompositionEvent(kind, { bubbles: true }));
        }, kind);
      await tell("compositionstart");
      const loaded = page.waitForResponse("**/page_bg.wasm");
      arrive();
      await (await loaded).finished();
      await page.waitForTimeout(1000);
      await counted(page.getByTestId("question"), 0);
      await page.locator("#early textarea").fill("几只猫");
      await tell("compositionend");
      await page.getByTestId("question").waitFor();
      assert.equal(await page.getByTestId("question").inputValue(), "几只猫");
    }));
});

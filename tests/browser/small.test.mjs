// small, which the site offers when `cargo xtask models small` has made it: get it, ask, and go back to mini.
// On the CPU, where the answers are the same everywhere.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { accept, manager, stands } from "./manager.mjs";
import { answered, ask, counted, happened, lit, modelReady, nothingForbidden, open, LONG, URL_OF_PAGE } from "./page.mjs";

const list = await fetch(`${URL_OF_PAGE}offered.json`);
assert.ok(list.ok, "a site lists what it offers");
const offered = await list.json();
const small = offered.find(({ name }) => name === "small");
const skip = small ? false : "the site does not offer small: `cargo xtask models small`";

describe("small", { skip }, () => {
  let browser, page;
  before(async () => {
    browser = await open({ webgpu: false });
    ({ page } = browser);
    await page.goto(URL_OF_PAGE);
    await answered(page, 0);
  });
  after(() => browser?.close());

  const loaded = async () => (await happened(page, "Ready")).at(-1).name;

  test("the manager offers it with its size, its licence and a verdict", async () => {
    await manager(page);
    const row = page.getByTestId("offer-small");
    const text = await row.innerText();
    assert.ok(text.includes(`${(small.bytes / 1e6).toFixed(1)} MB`), text);
    await row.getByTestId("get-offer").click();
    const preview = page.getByTestId("offer");
    await preview.waitFor({ timeout: LONG });
    const shown = await preview.innerText();
    assert.match(shown, /small/);
    assert.match(shown, /apache-2\.0/i);
    assert.match(shown, /Fits|Tight/);
  });

  test("it is stored and loaded", async () => {
    await accept(page);
    await stands(page, "ready", LONG);
    await counted(page.getByTestId("offer-small"), 0, "what is stored is not offered again");
    await page.getByTestId("model").getByTestId("load").click();
    await stands(page, "loaded", LONG);
    await page.getByTestId("manager-close").click();
    await modelReady(page);
    assert.equal(await loaded(), "small");
  });

  test("its answer points at boxes", async () => {
    const turn = await ask(page, "What is in the picture?");
    const { state, words } = await answered(page, turn);
    console.log(words);
    assert.equal(state, "done");
    const phrases = page.getByTestId("answer").last().locator('[data-testid="phrase"]:not([data-objects=""])');
    assert.ok((await phrases.count()) > 0, words);
    await phrases.first().hover();
    assert.ok((await lit(page)).length > 0, "a phrase lights its boxes");
  });

  test("back to mini, which answers", async () => {
    await manager(page);
    await page.getByTestId("demo-model").getByTestId("load-demo").click();
    await page.getByTestId("manager-close").click();
    await modelReady(page);
    assert.equal(await loaded(), "mini");
    const turn = await ask(page, "What is in the picture?");
    assert.equal((await answered(page, turn)).state, "done");
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));
});

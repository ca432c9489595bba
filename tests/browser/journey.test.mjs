// The whole way through the page by keyboard alone: no pointer, and the focus is moved by keys only. nano on
// the CPU.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { answered, counted, frames, lit, nothingForbidden, openNano, LONG } from "./page.mjs";

// The most presses of Tab between two parts of the page.
const FAR = 150;

describe("the whole journey by keyboard alone", () => {
  let browser, page;
  before(async () => {
    browser = await openNano();
    ({ page } = browser);
  });
  after(() => browser?.close());

  const press = (...keys) => keys.reduce((before, key) => before.then(() => page.keyboard.press(key)), Promise.resolve());
  const focused = () => page.evaluate(() => document.activeElement?.dataset.testid);
  const shows = (testId) => page.getByTestId(testId).first().waitFor();
  const turns = () => page.getByTestId("answer").count();

  // Presses Tab, or Shift and Tab, until an element with this test id has the focus, and returns how often.
  // It must be on the screen then.
  async function reach(testId, key = "Tab") {
    for (let pressed = 0; pressed < FAR; pressed++) {
      if ((await focused()) === testId) {
        const isSeen = await page.evaluate(() => {
          const { x, y, width, height } = document.activeElement.getBoundingClientRect();
          return width > 0 && x < innerWidth && x + width > 0 && y < innerHeight && y + height > 0;
        });
        assert.ok(isSeen, `${testId} is on the screen while it has the focus`);
        return pressed;
      }
      await press(key);
    }
    assert.fail(`${testId} is not reached by ${FAR} presses of ${key}`);
  }

  async function done(turn) {
    await page.waitForFunction((turn) => document.querySelectorAll('[data-testid="answer"]').length > turn, turn);
    assert.equal((await answered(page, turn)).state, "done");
  }

  test("a sample is opened from the empty page, and its question runs", async () => {
    await press("Control+Shift+O");
    await shows("start");
    await reach("sample");
    await press("Enter");
    await done(0);
  });

  test("a kind of question is chosen and asked", async () => {
    await press("Shift+Escape");
    assert.equal(await focused(), "question");
    await page.keyboard.type("/");
    await shows("kinds");
    await press("ArrowDown", "Enter");
    await page.keyboard.type("cat");
    await press("Enter");
    await done(1);
  });

  test("a phrase lights its boxes and keeps them lit", async () => {
    await reach("phrase", "Shift+Tab");
    assert.ok((await lit(page)).length > 0);
    await press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.ariaPressed), "true");
    await press("Escape");
    assert.equal(await page.evaluate(() => document.activeElement.ariaPressed), "false");
  });

  test("a box is chosen in the picture and asked about", async () => {
    await reach("picture", "Shift+Tab");
    await press(".");
    await frames(page);
    await counted(page.locator('svg.boxes [data-testid="box"].selected'), 1);
    await press("Enter");
    await page.waitForFunction(() => document.activeElement?.dataset.testid === "question");
    assert.match(await page.getByTestId("question").inputValue(), /^\[\d+\] $/);
    await page.keyboard.type("What is it?");
    await press("Enter");
    await done(2);
  });

  test("a box is drawn, moved, taken back, and the picture is zoomed", async () => {
    await reach("picture", "Shift+Tab");
    const own = page.locator('svg.boxes [data-testid="box"][data-own="true"] .line');
    const left = async () => (await frames(page), Number(await own.getAttribute("x")));
    await press("r", "Enter");
    await own.waitFor();
    const before = await left();
    await press("Shift+ArrowRight");
    assert.equal(Math.round((await left()) - before), 10);
    await press("Control+z");
    assert.equal(await left(), before);
    await press("Control+z");
    await frames(page);
    await counted(own, 0);
    const zoom = async () => (await frames(page), page.getByTestId("zoom-full").innerText());
    const fit = await zoom();
    await press("+");
    assert.notEqual(await zoom(), fit);
    await press("0");
    assert.equal(await zoom(), fit);
    await press("Escape");
  });

  test("the list of objects and the threshold are used", async () => {
    await reach("tab-chat");
    await press("ArrowRight");
    assert.equal(await focused(), "tab-objects");
    const rows = async () => (await frames(page), page.getByTestId("object-row").count());
    await reach("score-slider");
    const before = await rows();
    await press("Home");
    assert.ok((await rows()) > before);
    await reach("object-list");
    const all = await rows();
    await press("Home", "Delete");
    assert.equal(await rows(), all - 1);
    await press("Control+z");
    assert.equal(await rows(), all);
    await press("h");
    await counted(page.locator('[data-testid="object-shown"][data-shown="false"]'), 1);
    await press("h");
  });

  test("the boxes are saved to a file", async () => {
    await reach("export", "Shift+Tab");
    await press("Enter");
    await shows("exchange");
    await reach("export-format");
    await page.keyboard.type("Everything");
    assert.equal(await page.getByTestId("export-format").inputValue(), "document");
    await reach("export-save");
    const coming = page.waitForEvent("download", { timeout: LONG });
    await press("Enter");
    const saved = JSON.parse(await readFile(await (await coming).path(), "utf8"));
    assert.equal(saved.turns.length, await turns());
    await press("Escape");
    await page.waitForFunction(() => document.activeElement?.dataset.testid === "export");
  });

  test("a conversation is renamed in the history", async () => {
    await reach("history", "Shift+Tab");
    await press("Enter");
    await reach("history-rename");
    await press("Enter");
    await page.waitForFunction(() => document.activeElement?.dataset.testid === "history-title");
    await press("Control+a");
    await page.keyboard.type("By keyboard");
    await press("Enter");
    await page.getByTestId("drawer").getByText("By keyboard").waitFor();
    await press("Escape");
    await page.waitForFunction(() => document.activeElement?.dataset.testid === "history");
  });

  test("settings, models and the list of keys open, and give the focus back", async () => {
    await press("Control+,");
    await page.waitForFunction(() => document.activeElement?.id === "settings");
    await press("Tab");
    assert.match(await focused(), /^theme-/);
    await press("ArrowRight");
    const theme = await page.evaluate(() => JSON.parse(localStorage.getItem("chatrex.settings")).theme);
    assert.ok(theme && theme !== "system", theme);
    await press("Escape");
    await page.waitForFunction(() => !document.activeElement?.closest("#settings"));
    await reach("model-state");
    await press("Enter");
    await shows("manager");
    await press("Escape");
    await page.waitForFunction(() => document.activeElement?.dataset.testid === "model-state");
    await press("?");
    await page.waitForFunction(() => document.activeElement?.closest("dialog[open]"));
    await press("Escape");
    await page.waitForFunction(() => !document.querySelector("dialog[open]"));
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));
});

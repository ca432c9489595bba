// Nothing is lost: conversations, settings and drafts outlive the page, and come back without being asked
// again. On the CPU, where the answers come fast.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { answered, ask, asked, counted, drawnBoxes, looked, modelReady, nothingForbidden, open, slide, URL_OF_PAGE } from "./page.mjs";

const COFFEE = await readFile(new URL("../../web/static/samples/coffee.jpg", import.meta.url));
const CAT = await readFile(new URL("../../web/static/samples/cat.jpg", import.meta.url));
const jpeg = (name, buffer) => ({ name, mimeType: "image/jpeg", buffer });

describe("history", () => {
  let browser, page, context;
  before(async () => {
    browser = await open({ webgpu: false });
    ({ page, context } = browser);
    await page.goto(URL_OF_PAGE);
  });
  after(() => browser?.close());

  test("the sample is asked at the very first visit", async () => {
    assert.equal((await answered(page, 0)).state, "done");
    assert.equal((await asked(page, "Ask")).length, 1);
  });

  test("a reload shows the same boxes before the model is ready, and after", async () => {
    const shown = async () => [await page.getByTestId("score-slider").inputValue(), await drawnBoxes(page)];
    const before = await shown();
    await page.reload();
    await answered(page, 0);
    assert.deepEqual(await shown(), before);
    await modelReady(page);
    assert.deepEqual(await shown(), before);
  });

  test("a reload brings back picture, boxes, answers, draft and threshold, and asks nothing", async () => {
    await looked(page, () => page.getByTestId("file-input").setInputFiles(jpeg("coffee.jpg", COFFEE)));
    const turn = await ask(page, "Where is the cup?");
    const { words } = await answered(page, turn);
    await slide(page, "score-slider", "0.2");
    await drawBox(page);
    const boxes = await drawnBoxes(page);
    await page.getByTestId("question").fill("And the spoon?");
    await page.getByTestId("chip-count").click();
    await page.reload();
    assert.deepEqual(await answered(page, 0), { state: "done", words });
    assert.deepEqual(await drawnBoxes(page), boxes);
    assert.equal(await page.getByTestId("question").inputValue(), "And the spoon?");
    assert.equal(await page.getByTestId("chip-count").getAttribute("aria-pressed"), "true");
    assert.equal(Number(await page.getByTestId("score-slider").inputValue()), 0.2);
    await modelReady(page);
    await settled(page);
    assert.deepEqual([await asked(page, "Look"), await asked(page, "Ask")], [[], []]);
  });

  test("back and forward bring it back too", async () => {
    await page.goto("about:blank");
    await page.goBack();
    assert.equal((await answered(page, 0)).state, "done");
    assert.equal(await page.getByTestId("question").inputValue(), "And the spoon?");
  });

  test("the next question to a restored picture is answered", async () => {
    await modelReady(page);
    await page.getByTestId("chip-count").click();
    assert.equal((await answered(page, await ask(page, "Where is the cup?"))).state, "done");
  });

  test("a change of the last moment survives", async () => {
    await page.getByTestId("question").fill("typed just now");
    await page.reload();
    await answered(page, 0);
    assert.equal(await page.getByTestId("question").inputValue(), "typed just now");
  });

  test("a new picture is announced, keeps the draft, and can be undone", async () => {
    await page.getByTestId("file-input").setInputFiles(jpeg("cat.jpg", CAT));
    await page.getByTestId("toast").getByText("Opened cat.jpg.").waitFor();
    await counted(page.getByTestId("answer"), 0);
    assert.equal(await page.getByTestId("question").inputValue(), "typed just now");
    await page.getByTestId("undo").click();
    await answered(page, 0);
    assert.match(await page.getByTestId("asked").first().innerText(), /Where is the cup\?/);
  });

  test("New leads to the empty page, also after a reload", async () => {
    await page.keyboard.press("Control+Shift+O");
    await page.getByTestId("start").waitFor();
    assert.ok(await page.getByTestId("choose-file").isVisible());
    assert.ok((await page.getByTestId("sample-card").count()) >= 4);
    assert.ok(!(await page.getByTestId("picture").isVisible()));
    await page.reload();
    await page.getByTestId("start").waitFor();
    assert.deepEqual(await asked(page, "Ask"), []);
  });

  test("the list shows every conversation, and search finds one by its words", async () => {
    await page.getByTestId("history").click();
    const titles = page.getByTestId("history-open").locator(".kept-title");
    await titles.first().waitFor();
    assert.deepEqual(new Set(await titles.allInnerTexts()), new Set(["How many people are there?", "Where is the cup?", "cat.jpg"]));
    await page.waitForFunction(() => [...document.querySelectorAll(".kept-open img")].filter((i) => i.naturalWidth > 0).length === 3);
    await page.getByTestId("history-search").fill("PEOPLE how");
    assert.deepEqual(await titles.allInnerTexts(), ["How many people are there?"]);
    await page.getByTestId("history-search").fill("nothing like that");
    assert.equal(await page.getByTestId("history-empty").innerText(), "Nothing found.");
    await page.getByTestId("history-search").fill("");
  });

  test("a conversation is renamed, deleted, and put back", async () => {
    const entry = (title) => page.getByTestId("history-entry").filter({ hasText: title });
    await entry("cat.jpg").getByTestId("history-rename").click();
    await page.getByTestId("history-title").fill("My cat");
    await page.keyboard.press("Enter");
    await entry("My cat").waitFor();
    await entry("My cat").getByTestId("history-delete").click();
    await entry("My cat").waitFor({ state: "detached" });
    await page.keyboard.press("Escape");
    await page.getByTestId("undo").click();
    await page.getByTestId("history").click();
    await entry("My cat").waitFor();
    await settled(page);
    await page.reload();
    await page.getByTestId("history").click();
    await entry("My cat").waitFor();
    await entry("Where is the cup?").getByTestId("history-open").click();
    assert.equal((await answered(page, 0)).state, "done");
    assert.ok(!(await page.getByTestId("drawer").isVisible()));
  });

  test("a damaged record and one of a newer version are skipped, named and kept", async () => {
    await putHeads(page, { damaged: "{", newer: '{"version":99,"id":"newer"}' });
    await page.reload();
    await answered(page, 0);
    await page.getByTestId("history").click();
    await page.getByTestId("history-skipped").waitFor();
    assert.match(await page.getByTestId("history-skipped").innerText(), /^2 chats cannot be read/);
    await counted(page.getByTestId("history-entry"), 3);
    assert.deepEqual((await keys(page)).filter((key) => ["damaged", "newer"].includes(key)), ["damaged", "newer"]);
    await page.keyboard.press("Escape");
  });

  test("two tabs that change the same conversation both keep theirs", async () => {
    await modelReady(page);
    const before = (await keys(page)).length;
    const second = await context.newPage();
    await second.goto(URL_OF_PAGE);
    await answered(second, 0);
    await second.getByTestId("question").fill("written in the second tab");
    await settled(second);
    await page.getByTestId("question").fill("written in the first tab");
    await settled(page);
    assert.equal((await keys(page)).length, before + 1);
    await second.reload();
    await answered(second, 0);
    assert.equal(await second.getByTestId("question").inputValue(), "written in the second tab");
    await second.close();
    await page.reload();
    await answered(page, 0);
    assert.equal(await page.getByTestId("question").inputValue(), "written in the first tab");
  });

  test("theme and threshold are kept, and can be reset", async () => {
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const changed = (from) =>
      page.waitForFunction((from) => getComputedStyle(document.body).backgroundColor !== from, from);
    const light = await ground();
    await page.keyboard.press("Control+Comma");
    await page.getByTestId("theme-dark").check();
    await changed(light);
    const dark = await ground();
    await page.reload();
    await answered(page, 0);
    assert.equal(await ground(), dark);
    await page.emulateMedia({ colorScheme: "dark" });
    await page.getByTestId("settings").click();
    await page.getByTestId("theme-light").check();
    await changed(dark);
    assert.equal(await ground(), light);
    await page.emulateMedia({ colorScheme: "light" });
    await modelReady(page);
    assert.equal(Number(await page.getByTestId("score-slider").inputValue()), 0.2);
    await page.getByTestId("reset-settings").click();
    await page.waitForFunction(() => {
      const of = (name) => document.querySelector(`[data-testid="${name}"]`);
      return of("theme-system").checked && Number(of("score-slider").value) !== 0.2;
    });
    await page.keyboard.press("Escape");
  });

  test("the last model loads again", async () => {
    const chosen = () => page.evaluate(() => JSON.parse(localStorage.getItem("chatrex.settings")).model);
    await page.evaluate(() => {
      const settings = JSON.parse(localStorage.getItem("chatrex.settings"));
      localStorage.setItem("chatrex.settings", JSON.stringify({ ...settings, model: "nano" }));
    });
    await page.reload();
    await modelReady(page);
    assert.equal((await asked(page, "Load")).at(-1).model, new URL("models/nano/", URL_OF_PAGE).href);
    assert.equal(await chosen(), "nano");
    await page.evaluate(() => {
      const settings = JSON.parse(localStorage.getItem("chatrex.settings"));
      localStorage.setItem("chatrex.settings", JSON.stringify({ ...settings, model: "no such model" }));
    });
    await page.reload();
    await modelReady(page);
    assert.equal((await asked(page, "Load")).at(-1).model, new URL("models/mini/", URL_OF_PAGE).href);
  });

  test("a temporary chat is not kept, and deleting everything asks first", async () => {
    await answered(page, 0);
    const before = (await keys(page)).length;
    await page.getByTestId("history").click();
    await page.getByTestId("temporary").check();
    await settled(page);
    assert.equal((await keys(page)).length, before - 1);
    await page.getByTestId("delete-all").click();
    assert.equal((await keys(page)).length, before - 1);
    await page.getByTestId("delete-all-yes").click();
    await page.getByTestId("history-empty").waitFor();
    await settled(page);
    assert.deepEqual(await keys(page), []);
    await page.getByTestId("no-history").check();
    await page.keyboard.press("Escape");
    await looked(page, () => page.getByTestId("file-input").setInputFiles(jpeg("cat.jpg", CAT)));
    await settled(page);
    assert.deepEqual(await keys(page), []);
    await page.reload();
    await page.getByTestId("start").waitFor();
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));
});

test("without a database, or without room, the page works on and says it once", async () => {
  const browser = await open({ webgpu: false });
  const { page } = browser;
  try {
    await page.addInitScript(() => {
      if (sessionStorage.getItem("full")) {
        IDBObjectStore.prototype.put = () => {
          throw new DOMException("no room", "QuotaExceededError");
        };
      } else {
        IDBFactory.prototype.open = () => {
          throw new DOMException("refused", "SecurityError");
        };
      }
    });
    await page.goto(URL_OF_PAGE);
    assert.equal((await answered(page, 0)).state, "done");
    assert.match(await page.getByTestId("not-kept").innerText(), /offers no storage/);
    await page.getByTestId("history").click();
    assert.match(await page.getByTestId("history-trouble").innerText(), /offers no storage/);
    await counted(page.getByTestId("error"), 0);
    await page.evaluate(() => sessionStorage.setItem("full", "1"));
    await page.reload();
    await page.getByTestId("start").waitFor();
    await looked(page, () => page.getByTestId("sample-card").first().click());
    assert.equal((await answered(page, 0)).state, "done");
    await page.getByTestId("history").click();
    await page.getByTestId("history-trouble").waitFor();
    assert.match(await page.getByTestId("history-trouble").innerText(), /no room/);
    assert.deepEqual(browser.seen.errors, []);
  } finally {
    await browser.close();
  }
});

// Waits until changes are written.
const settled = (page) => page.waitForTimeout(1200);

// Draws a box by two clicks.
async function drawBox(page) {
  await page.getByTestId("picture").focus();
  await page.keyboard.press("r");
  const { x, y, width, height } = await page.getByTestId("picture").boundingBox();
  await page.mouse.click(x + width * 0.45, y + height * 0.45);
  await page.mouse.click(x + width * 0.55, y + height * 0.55);
}

// Puts texts among the stored heads, by key.
function putHeads(page, texts) {
  return page.evaluate(
    (texts) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("chatrex");
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const transaction = opening.result.transaction("heads", "readwrite");
          for (const [key, text] of Object.entries(texts)) transaction.objectStore("heads").put([text, null], key);
          transaction.oncomplete = () => resolve(opening.result.close());
        };
      }),
    texts,
  );
}

// The keys of the stored conversations.
function keys(page) {
  return page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("chatrex");
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const all = opening.result.transaction("heads").objectStore("heads").getAllKeys();
          all.onsuccess = () => {
            opening.result.close();
            resolve(all.result);
          };
        };
      }),
  );
}

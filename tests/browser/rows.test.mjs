// Rows of the page's list of features that no other file tests. With nano on the CPU.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import {
  answered,
  ask,
  asked,
  counted,
  exported,
  happened,
  hold,
  imported,
  inTab,
  lit,
  nothingForbidden,
  open,
  openPicture,
  slide,
  streaming,
  tab,
  LONG,
  URL_OF_NANO,
} from "./page.mjs";

const SCENE = await readFile(new URL("../../web/static/samples/scene.png", import.meta.url));
const scene = (name) => ({ name, mimeType: "image/png", buffer: SCENE });
const COUNT = "How many objects are there?";

describe("rows", () => {
  let browser, page;
  before(async () => {
    browser = await open({ webgpu: false });
    ({ page } = browser);
    await page.goto(URL_OF_NANO);
  });
  after(() => browser?.close());

  const question = () => page.getByTestId("question");
  const turns = () => page.getByTestId("answer").count();
  const frames = () => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const direction = (mark) => page.getByTestId(mark).last().evaluate((one) => getComputedStyle(one).direction);

  test("phases before text: the first question says what it waits for", async () => {
    await page.getByTestId("phase").getByText("Runs as soon as the model is loaded.").waitFor({ timeout: LONG });
    assert.equal((await answered(page, 0)).state, "done");
    await counted(page.getByTestId("phase"), 0);
  });

  test("hover both ways: a box lights its row and its phrases, a row lights its box", async () => {
    const phrase = page.locator('[data-testid="phrase"]:not([data-objects=""])').first();
    const [number] = (await phrase.getAttribute("data-objects")).split(",").map(Number);
    const row = page.getByTestId("object-row").nth(number);
    await page.getByTestId("show-all").check();
    await tab(page, "objects");
    await row.hover();
    assert.deepEqual(await lit(page), [number]);
    assert.match(await phrase.getAttribute("class"), /\blit\b/, "a row lights its phrases");
    await page.mouse.move(0, 0);
    await page.waitForFunction(() => !document.querySelector('[data-lit="true"]'));
    await tab(page, "chat");
    const box = await page.locator(`[data-testid="box"][data-index="${number}"] .line`).boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.waitForFunction(() => document.querySelector('[data-lit="true"]'));
    const [over] = await lit(page);
    assert.match(await page.getByTestId("object-row").nth(over).getAttribute("class"), /\blit\b/, "a box lights its row");
    const others = await page.locator('[data-testid="phrase"].lit').evaluateAll((all) => all.map((one) => one.dataset.objects.split(",").map(Number)));
    assert.ok(others.length > 0 && others.every((objects) => objects.includes(over)), "and the phrases that name it");
    await page.mouse.move(0, 0);
  });

  test("honest links: an unsure phrase is wavy and says how sure, Alt lights the next box", async () => {
    const done = (await happened(page, "Done")).at(-1);
    const count = (await asked(page, "Ask")).at(-1).boxes.length;
    const objects = done.answer.spans.flatMap((span) => (span.objects ?? []).filter((object) => object < count));
    const [first] = objects;
    const other = [...Array(count).keys()].find((number) => number !== first);
    const links = objects.map((object) => ({ object, probability: 0.95, runner_up: null }));
    const tell = (links) => page.workers()[0].evaluate((message) => self.postMessage([JSON.stringify(message)]), { Links: { turn: done.turn, links } });
    await tell(links);
    const phrase = page.locator('[data-testid="phrase"]:not([data-objects=""])').first();
    await page.waitForFunction(() => document.querySelector('[data-testid="phrase"]:not([data-objects=""])').title.includes("95%"));
    assert.doesNotMatch(await phrase.getAttribute("class"), /\bdoubt\b/);
    links[0] = { object: first, probability: 0.4, runner_up: { object: other, probability: 0.35 } };
    await tell(links);
    await page.locator('[data-testid="phrase"].doubt').first().waitFor();
    assert.equal(await phrase.evaluate((one) => getComputedStyle(one).textDecorationStyle), "wavy");
    assert.equal(await phrase.getAttribute("title"), `Box ${first}: 40%, next box ${other}: 35%. Hold Alt to see it`);
    await phrase.hover();
    assert.ok((await lit(page)).includes(first));
    await page.mouse.move(0, 0);
    await page.keyboard.down("Alt");
    await phrase.hover();
    assert.deepEqual(await lit(page), [other]);
    await page.keyboard.up("Alt");
    await page.mouse.move(0, 0);
  });

  test("more like this selects the boxes that are alike, with a slider", async () => {
    const count = Number(await page.getByTestId("box-count").innerText());
    const selected = () => page.locator('[data-testid="object-row"][aria-selected="true"]').count();
    await inTab(page, "objects", () => page.getByTestId("object-row").first().click());
    assert.equal(await selected(), 1);
    await page.getByTestId("more-like-this").click();
    await page.getByTestId("likeness").waitFor({ timeout: LONG });
    const [compared] = (await happened(page, "Compared")).slice(-1);
    assert.equal(compared.likeness.length, count);
    const alike = (least) => compared.likeness[0].filter((value, number) => number === 0 || value >= least).length;
    for (const least of [0, 0.5, 0.9, 1]) {
      await slide(page, "likeness", String(least));
      await frames();
      if (least < 1) assert.equal(await selected(), alike(least), `${least}`);
    }
    assert.ok(alike(0) > 1, "some boxes are alike");
    await page.keyboard.press("Escape");
    await frames();
    await counted(page.getByTestId("likeness"), 0);
  });

  test("per answer: tokens, speed and first word, and all figures behind them", async () => {
    const figures = page.getByTestId("figures").first();
    assert.match(await figures.locator("summary").innerText(), /^\d+ tokens · [\d.]+ a second · first word after [\d.]+ m?s$/);
    await figures.locator("summary").click();
    const rows = Object.fromEntries(await figures.locator("dt").evaluateAll((all) => all.map((one) => [one.innerText, one.nextElementSibling.innerText])));
    const done = (await happened(page, "Done"))[0];
    assert.match(rows["Finding boxes"], /m?s, of which .* to prepare$/);
    assert.match(rows.Reading, new RegExp(`^${done.answer.prefill_tokens} tokens in .* a second$`));
    assert.equal(rows.End, "the model ended it");
    assert.equal(Number(rows["Boxes given"]), (await asked(page, "Ask"))[0].boxes.length);
    const words = (text) => text.trim().split(/\s+/);
    assert.deepEqual(words(rows["Exact words"]), words(done.answer.prompt));
    await figures.locator("summary").click();
  });

  test("disclaimer: a line under the text box, always", async () => {
    const line = page.locator(".ask .small-print");
    assert.match(await line.innerText(), /Answers and boxes may be wrong\./);
    const [box, below] = [await question().boundingBox(), await line.boundingBox()];
    assert.ok(below.y >= box.y + box.height && below.y + below.height <= 800, "in sight, below the box");
  });

  test("words have their own direction and language", async () => {
    const arabic = "\u0645\u0631\u062d\u0628\u0627\u060c \u0643\u0645 \u0637\u0627\u0626\u0631\u064b\u0627 \u0641\u064a \u0627\u0644\u0635\u0648\u0631\u0629\u061f (2 birds)";
    await question().fill(arabic);
    assert.equal(await direction("question"), "rtl");
    assert.equal(await question().getAttribute("lang"), "ar");
    await question().fill("How many birds?");
    assert.equal(await direction("question"), "ltr");
    assert.equal(await question().getAttribute("lang"), null);
    await answered(page, await ask(page, arabic));
    assert.equal(await direction("asked"), "rtl");
    assert.equal(await page.getByTestId("asked").last().getAttribute("lang"), "ar");
    assert.equal(await direction("answer"), "ltr");
    assert.equal(await page.getByTestId("answer").last().getAttribute("dir"), "auto");
  });

  test("send: Enter sends, Shift+Enter breaks the line, keys of an input method do neither", async () => {
    const before = await turns();
    await question().fill("How many");
    await question().press("End");
    await question().press("Shift+Enter");
    await page.keyboard.type("cats are there?");
    assert.equal(await question().inputValue(), "How many\ncats are there?");
    const press = (key, more) =>
      question().evaluate((box, [key, more]) => {
        const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more });
        if (more.keyCode) Object.defineProperty(event, "keyCode", { get: () => more.keyCode });
        box.dispatchEvent(event);
        return event.defaultPrevented;
      }, [key, more]);
    for (const key of ["Enter", "Escape"]) {
      assert.equal(await press(key, { isComposing: true }), false);
      assert.equal(await press(key, { keyCode: 229 }), false);
    }
    await frames();
    assert.equal(await turns(), before);
    const low = (await question().boundingBox()).height;
    await question().fill("line\n".repeat(6));
    assert.ok((await question().boundingBox()).height > low, "the box grows");
    await question().fill("How many cats are there?");
    await question().press("Enter");
    assert.equal((await answered(page, before)).state, "done");
  });

  test("stop and retry by keys: Escape in the text box stops, Alt+R asks again", async () => {
    const release = await hold(page, 1);
    const turn = await ask(page, "Please describe this image in detail.");
    const words = await streaming(page, turn);
    await question().press("Escape");
    await page.waitForFunction(() => self.requests.at(-1).Stop);
    await release();
    const stopped = await answered(page, turn);
    assert.ok(["stopped", "done"].includes(stopped.state), stopped.state);
    assert.ok(stopped.words.includes(words));
    const asks = (await asked(page, "Ask")).length;
    const ends = (await happened(page, "Done")).length;
    await page.getByTestId("picture").focus();
    await page.keyboard.press("Alt+r");
    // The state of the stopped answer stands until the new one begins.
    await page.waitForFunction((ends) => self.events.filter((event) => event.Done).length > ends, ends, { timeout: LONG });
    assert.equal((await asked(page, "Ask")).length, asks + 1);
    assert.equal((await answered(page, turn)).state, "done");
    assert.equal(await turns(), turn + 1, "in its place");
  });

  test("rendering: a phrase is dotted until its boxes are there", async () => {
    const release = await hold(page, 0);
    const turn = await ask(page, COUNT);
    await page.waitForFunction(() => self.requests.at(-1).Ask);
    const request = (await asked(page, "Ask")).at(-1).turn;
    const say = (spans) => page.workers()[0].evaluate((message) => self.say(message), { Said: { turn: request, spans } });
    const answer = page.getByTestId("answer").nth(turn);
    await say([{ text: "Here are " }, { text: "two cups", open: true }]);
    const open = answer.locator(".phrase-open");
    await open.waitFor();
    assert.equal(await open.innerText(), "two cups");
    assert.equal(await open.evaluate((one) => getComputedStyle(one).borderBottomStyle), "dotted");
    await counted(answer.getByTestId("phrase"), 0);
    await say([{ text: "Here are " }, { text: "two cups", objects: [0, 1] }]);
    await answer.getByTestId("phrase").waitFor();
    await counted(open, 0);
    await release();
    assert.equal((await answered(page, turn)).state, "done");
  });

  test("Markdown, repeats and bad indices of an answer", async () => {
    await openPicture(page, scene("words.png"));
    await answered(page, await ask(page, COUNT));
    const saved = await exported(page);
    const [turn] = saved.turns;
    const many = turn.boxes.length;
    turn.shown = "words";
    turn.spans = [
      { text: "# Title\n\nSome **bold** `code` <b>tag</b><img src=x onerror=alert(1)> and [a link](https://elsewhere.example/).\n\n- a " },
      { text: "cat", objects: [0] },
      { text: "\n- another " },
      { text: "cat", objects: [1] },
      { text: "\n- a " },
      { text: "ghost", objects: [many + 3] },
      { text: " and a " },
      { text: "dog", objects: [0, many] },
      { text: "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n" },
    ];
    delete turn.answer;
    saved.turns = [turn];
    await imported(page, saved);
    const answer = page.getByTestId("answer").last();
    await answer.locator("strong").getByText("bold").waitFor();
    assert.equal(await answer.locator("code").innerText(), "code");
    await counted(answer.locator("ul > li"), 3);
    assert.deepEqual(await answer.locator("td").allInnerTexts(), ["1", "2"]);
    await counted(answer.locator("b, img, a"), 0, "no tag and no link of an answer");
    assert.match(await answer.innerText(), /tag and a link\./);
    const cats = answer.getByTestId("phrase").filter({ hasText: "cat" });
    assert.deepEqual(await cats.evaluateAll((all) => all.map((one) => one.dataset.objects)), ["0", "1"], "every occurrence links");
    const [a, b] = await cats.evaluateAll((all) => all.map((one) => one.className.match(/hue-\d/)[0]));
    assert.equal(a, b, "with the same colour");
    assert.deepEqual(await answer.getByTestId("missing").allInnerTexts(), ["no box", "1 box does not exist"]);
    const ghost = answer.getByTestId("phrase").filter({ hasText: "ghost" });
    assert.equal(await ghost.getAttribute("data-objects"), "");
    assert.match(await ghost.getAttribute("aria-label"), /no box/);
  });

  test("zero boxes, and boxes that changed after an answer", async () => {
    const turn = (await turns()) - 1;
    const usual = await page.getByTestId("score-slider").inputValue();
    await slide(page, "score-slider", "1");
    assert.match(await page.getByTestId("status").innerText(), /^No objects above 1\.00\. Lower the confidence/);
    await slide(page, "score-slider", usual);
    const given = (await page.getByTestId("object-row").count()) - 1;
    await inTab(page, "objects", () => page.getByTestId("object-row").last().click());
    await page.getByTestId("delete-box").click();
    const changed = page.locator(".changed");
    await changed.waitFor();
    assert.match(await changed.innerText(), /^The boxes changed after this answer\. Ask again with the new ones\.$/);
    assert.equal((await answered(page, turn)).state, "done", "the answer keeps its own");
    const before = await turns();
    await changed.getByRole("button").click();
    assert.equal((await answered(page, before)).state, "done");
    assert.equal((await asked(page, "Ask")).at(-1).boxes.length, given);
    await counted(changed, 0);
  });

  test("granularity: the network runs once for each picture and prompt", async () => {
    await openPicture(page, scene("parts.png"));
    const choose = (granularity) =>
      inTab(page, "objects", () => page.getByTestId(`granularity-${granularity}`).check());
    const looks = () => asked(page, "Look").then((all) => all.length);
    const before = await looks();
    await choose("fine");
    await page.waitForFunction(() => self.events.findLast((event) => event.Proposed)?.Proposed.granularity === "fine", null, { timeout: LONG });
    assert.equal(await looks(), before + 1);
    for (const granularity of ["coarse", "fine", "coarse"]) {
      await choose(granularity);
      await frames();
    }
    assert.equal(await looks(), before + 1);
  });

  test("drop: a veil says so while a file is over the window", async () => {
    const drag = (kind) =>
      page.evaluate((kind) => {
        const data = new DataTransfer();
        data.items.add(new File(["x"], "x.png", { type: "image/png" }));
        document.body.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }));
      }, kind);
    const veil = page.locator(".veil");
    assert.ok(!(await veil.isVisible()));
    await drag("dragenter");
    await drag("dragover");
    await veil.waitFor();
    assert.equal(await veil.innerText(), "Drop to open");
    await drag("dragleave");
    await veil.waitFor({ state: "hidden" });
  });

  test("live region: a screen reader gets whole answers only", async () => {
    await page.evaluate(() => {
      self.spoken = [];
      const log = document.querySelector('[role="log"]');
      new MutationObserver(() => self.spoken.push(log.innerText.trim())).observe(log, { childList: true, characterData: true, subtree: true });
    });
    const turn = await ask(page, COUNT);
    const answer = page.getByTestId("answer").nth(turn);
    assert.equal(await answer.getAttribute("aria-live"), null);
    await answered(page, turn);
    await frames();
    assert.equal(await answer.getAttribute("aria-busy"), "false");
    const spoken = (await page.evaluate(() => self.spoken)).filter(Boolean);
    const done = (await happened(page, "Done")).at(-1);
    assert.ok(done.answer.tokens > spoken.length);
    assert.ok(spoken.length <= 1, spoken.join(" | "));
    for (const span of done.answer.spans) assert.ok(spoken[0].includes(span.text.trim()), spoken[0]);
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));
});

// Languages (i18n): the page in Simplified Chinese and back, numbers by Intl, a layout from right to left.
// On the CPU, where the answers come fast.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { answered, ask, asked, drawnBoxes, looked, nothingForbidden, open, PICTURES, tab, URL_OF_PAGE } from "./page.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const COFFEE = await readFile(new URL("../../web/static/samples/coffee.jpg", import.meta.url));
const SIZES = { 1280: { width: 1280, height: 800 }, 390: { width: 390, height: 844 } };
const coffee = { name: "coffee.jpg", mimeType: "image/jpeg", buffer: COFFEE };

// Names, units and keys that are the same in Chinese.
const NAMES =
  /\b(ChatRex(-7B)?|WebGPU|GPU|CPU|SmolLM2|SHA|COCO|YOLO|Ultralytics|Pascal|VOC|Label|Studio|Markdown|RectangleLabels|Image|object|box_2d|[kMG]B|px|ms|mini|nano|small|HTML|JSON|PNG|ZIP|XML|CSV|Enter|Esc|Delete|Escape|Control|Ctrl|Shift|Alt|English|Language|find|count|describe-long|describe|name|ask|InvalidInput|NotFound|Network|MIT OR Apache-2\.0|\w+\.(jpg|png|html|json|txt|yaml))\b/g;

// What stands in the page in English: texts and names of the document, except what a model or a file says.
const english = (page) =>
  page.evaluate((names) => {
    const allowed = '[lang="en"], .origins, .licence, .licence-text, [data-testid="object-name"], [data-testid="exact"], svg, script, style, noscript, .kept-words, [data-testid="cited"], [data-testid="toast"], [translate="no"], code, pre';
    const found = new Set();
    // What the browser, the engine or the model wrote: its name, the whole prompt, the answer with its tags, the title of a chat.
    const isRaw = /^(Mozilla\/|<\|im_start\|>|\w+ \[\d|(重命名|删除)：)/;
    const check = (text) => {
      if (isRaw.test(text.trim())) return;
      const left = text.replaceAll(new RegExp(names, "g"), " ");
      const words = left.match(/[A-Za-z]{2,}/g) ?? [];
      const isChinese = /[\u4e00-\u9fff]/.test(text);
      const isSentence = /([A-Za-z']{2,}[ ,]+){4}/.test(left);
      if ((words.length > 0 && !isChinese) || isSentence) found.add(text.trim());
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node instanceof Element ? node : node.parentElement;
      if (element.closest(allowed)) continue;
      if (node instanceof Text) check(node.data);
      else for (const name of ["aria-label", "title", "placeholder", "alt", "label"]) check(node.getAttribute(name) ?? "");
    }
    return [...found];
  }, NAMES.source);

async function violations(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => self.axe.run());
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
}

async function choose(page, language) {
  await page.getByTestId("settings").click();
  await page.getByTestId(`language-${language}`).check();
}

describe("a browser in Chinese", () => {
  let browser, page, seen;
  before(async () => {
    browser = await open({ webgpu: false, locale: "zh-CN" });
    ({ page, seen } = browser);
    await page.goto(URL_OF_PAGE);
    await answered(page, 0);
  });
  after(() => browser?.close());

  test("has the page in Chinese, and the model is asked in English", async () => {
    const root = await page.evaluate(() => [document.documentElement.lang, document.documentElement.dir]);
    assert.deepEqual(root, ["zh-CN", "ltr"]);
    assert.match(await page.getByTestId("asked").first().innerText(), /[\u4e00-\u9fff]/);
    assert.match((await asked(page, "Ask"))[0].question, /^[\x20-\x7e]+$/);
    assert.equal(await page.getByTestId("answer").first().getAttribute("lang"), "en");
    assert.match(await page.locator(".small-print", { hasText: "每个问题" }).first().innerText(), /只懂英文/);
  });

  test("things are named in Chinese and asked for in English", async () => {
    await page.getByTestId("chip-find").click();
    await answered(page, await ask(page, "人、猫"));
    const { question } = (await asked(page, "Ask")).at(-1);
    assert.match(question, /person/);
    assert.match(question, /cat/);
    assert.match(await page.getByTestId("asked").last().innerText(), /查找 人, 猫/);
    await page.getByTestId("chip-find").click();
  });

  const states = {
    conversation: async () => {},
    settings: () => page.getByTestId("settings").click(),
    about: () => page.getByTestId("about").click(),
    sampling: () => page.getByTestId("sampling-open").click(),
    exact: () => page.getByTestId("exact-open").click(),
    models: async () => {
      await page.getByTestId("model-state").click();
      await page.getByTestId("model-address").fill("not an address");
      await page.getByTestId("survey").click();
      await page.getByTestId("model-error").first().waitFor();
    },
    history: async () => {
      await page.getByTestId("history").click();
      await page.getByTestId("history-entry").first().waitFor();
      await page.getByTestId("delete-all").click();
    },
    exports: async () => {
      await page.getByTestId("export").first().click();
      await page.getByTestId("import-here").setInputFiles({ name: "a.json", mimeType: "application/json", buffer: Buffer.from("{}") });
      await page.locator(".exchange-outcome.wrong").waitFor();
    },
    kinds: async () => {
      await page.getByTestId("question").fill("/");
      await page.getByTestId("kinds").waitFor();
    },
    selection: async () => {
      await page.getByTestId("question").fill("");
      await tab(page, "objects");
      await page.getByTestId("object-row").first().click();
      await page.locator(".selection.shown").waitFor();
    },
    refused: async () => {
      await page.getByTestId("file-input").setInputFiles({ name: "a.jpg", mimeType: "image/jpeg", buffer: Buffer.from("no picture") });
      await page.getByTestId("error").waitFor();
    },
    start: () => page.getByTestId("new").click(),
  };
  for (const [state, go] of Object.entries(states)) {
    test(`nothing is in English: ${state}`, async () => {
      await go();
      await page.waitForTimeout(200);
      assert.deepEqual(await english(page), []);
      for (const [name, size] of Object.entries(SIZES)) {
        await page.setViewportSize(size);
        await page.waitForTimeout(100);
        await page.screenshot({ path: join(PICTURES, `chinese-${state}-${name}.png`) });
        assert.deepEqual(await violations(page), [], `${state} at ${name} px`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `${state} is ${wide} px too wide at ${name} px`);
      }
      await page.setViewportSize(SIZES[1280]);
      await page.keyboard.press("Escape");
    });
  }

  test("numbers and dates are those of Intl", async () => {
    await page.getByTestId("undo").click();
    const [year, zoom] = await page.evaluate(() => [
      new Intl.DateTimeFormat("zh-CN", { dateStyle: "medium" }).format(),
      new Intl.NumberFormat("zh-CN", { style: "percent" }).format(1),
    ]);
    await page.getByTestId("zoom-full").click();
    assert.equal(await page.getByTestId("zoom-full").innerText(), zoom);
    await page.getByTestId("history").click();
    const when = await page.locator(".kept-words small").first().innerText();
    assert.ok(when.startsWith(year), `${when} begins with ${year}`);
    await page.keyboard.press("Escape");
  });

  test("nothing is forbidden", () => nothingForbidden(seen));
});

describe("the language in the settings", () => {
  let browser, page, seen;
  before(async () => {
    browser = await open({ webgpu: false });
    ({ page, seen } = browser);
    await page.goto(URL_OF_PAGE);
    await answered(page, 0);
  });
  after(() => browser?.close());

  test("changes every text at once, and keeps picture, chat and draft", async () => {
    await looked(page, () => page.getByTestId("file-input").setInputFiles(coffee));
    const { words } = await answered(page, await ask(page, "Where is the cup?"));
    await page.getByTestId("question").fill("And the spoon?");
    await page.getByTestId("chip-count").click();
    await page.getByTestId("question").fill("spoons");
    const boxes = await drawnBoxes(page);
    const shown = () =>
      page.evaluate(() => ({
        mark: self.mark,
        draft: document.querySelector("#question").value,
        kind: document.querySelector('[data-testid="chip-count"]').ariaPressed,
        asked: [...document.querySelectorAll('[data-testid="asked"]')].map((q) => q.innerText),
        answers: [...document.querySelectorAll('[data-testid="answer"] .words, [data-testid="answer"] [data-testid="phrase"]')].map((a) => a.firstChild?.data),
        picture: document.querySelector(".pane img")?.src,
      }));
    await page.evaluate(() => (self.mark = "the same page"));
    const before = await shown();
    await choose(page, "zh");
    assert.equal(await page.getByTestId("send").innerText(), "发送");
    assert.deepEqual(await shown(), before);
    assert.deepEqual(await drawnBoxes(page), boxes);
    assert.equal(await page.evaluate(() => document.activeElement.dataset.testid), "language-zh");
    assert.ok(await page.getByTestId("reset-settings").isVisible(), "the settings stay open");
    assert.deepEqual(await english(page), []);
    await page.getByTestId("language-en").check();
    assert.deepEqual(await shown(), before);
    assert.equal(await page.getByTestId("send").innerText(), "Send");
    const chinese = await page.evaluate(() => document.body.innerText.match(/[\u4e00-\u9fff]+/g));
    assert.deepEqual(chinese, ["简体中文"]);
    assert.ok(words.length > 0);
  });

  test("is kept for the next visit, and leaves with the settings", async () => {
    await page.getByTestId("language-zh").check();
    await page.reload();
    await answered(page, 0);
    assert.equal(await page.evaluate(() => document.documentElement.lang), "zh-CN");
    assert.equal(await page.getByTestId("question").inputValue(), "spoons");
    await page.getByTestId("settings").click();
    await page.getByTestId("reset-settings").click();
    assert.equal(await page.evaluate(() => document.documentElement.lang), "en");
    assert.equal(await page.getByTestId("toast").innerText(), "The settings are reset.");
  });

  test("nothing is forbidden", () => nothingForbidden(seen));
});

// Where the outlines of the boxes are on the screen, from the left edge of the pane.
const places = (page) =>
  page.evaluate(() => {
    const pane = document.querySelector(".pane").getBoundingClientRect();
    const lines = [...document.querySelectorAll('[data-testid="box"] .line')];
    return lines.map((line) => {
      const { left, top, width } = line.getBoundingClientRect();
      return [left - pane.left, top - pane.top, width].map(Math.round);
    });
  });

// Pairs of controls and headings that cover each other.
const overlaps = (page) =>
  page.evaluate(() => {
    const all = 'button, summary, select, textarea, input[type="number"], label.button, h1, h2, .tagline, .status, .question';
    const shown = [...document.querySelectorAll(all)].filter(
      (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest(".pane, dialog, [popover], .gallery, .transcript"),
    );
    const rects = shown.map((e) => e.getBoundingClientRect());
    const name = (e) => e.dataset.testid ?? (e.textContent.trim() || e.tagName);
    const found = [];
    shown.forEach((a, i) =>
      shown.slice(i + 1).forEach((b, j) => {
        const [r, s] = [rects[i], rects[i + 1 + j]];
        const across = Math.min(r.right, s.right) - Math.max(r.left, s.left);
        const down = Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top);
        if (across > 2 && down > 2 && !a.contains(b) && !b.contains(a)) found.push(`${name(a)} and ${name(b)}`);
      }),
    );
    return found;
  });

describe("a layout from right to left", () => {
  let browser, page, seen;
  before(async () => {
    browser = await open({ webgpu: false });
    ({ page, seen } = browser);
    await page.goto(URL_OF_PAGE);
    await answered(page, 0);
  });
  after(() => browser?.close());

  for (const [name, size] of Object.entries(SIZES)) {
    test(`is mirrored without overlaps at ${name} px, and the picture is not`, async () => {
      await page.setViewportSize(size);
      await page.goto(URL_OF_PAGE);
      await answered(page, 0);
      await page.getByTestId("show-all").check();
      const [left, boxes] = [await page.evaluate(edges), await places(page)];
      assert.deepEqual(await overlaps(page), [], "from left to right");
      await page.goto(`${URL_OF_PAGE}?dir=rtl`);
      await answered(page, 0);
      await page.getByTestId("show-all").check();
      await page.screenshot({ path: join(PICTURES, `right-to-left-${name}.png`) });
      assert.equal(await page.evaluate(() => document.documentElement.dir), "rtl");
      assert.deepEqual(await overlaps(page), []);
      assert.ok(boxes.length > 0);
      assert.deepEqual(await places(page), boxes);
      const right = await page.evaluate(edges);
      for (const part of Object.keys(left)) {
        const mirrored = size.width - left[part][1];
        assert.ok(Math.abs(right[part][0] - mirrored) < 40, `${part}: ${right[part]}, mirrored ${left[part]}`);
      }
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${wide} px too wide`);
      assert.deepEqual(await violations(page), []);
      for (const [state, ...ids] of [["history", "history"], ["models", "model-state"], ["exports", "export"], ["exact", "exact-open"]]) {
        await page.getByTestId(ids[0]).first().click();
        await page.waitForTimeout(300);
        await page.screenshot({ path: join(PICTURES, `right-to-left-${state}-${name}.png`) });
        const off = await page.evaluate(outside);
        assert.deepEqual(off, [], state);
        await page.keyboard.press("Escape");
      }
    });
  }

  test("nothing is forbidden", () => nothingForbidden(seen));
});

// Left and right edges of parts of the page.
function edges() {
  const parts = { history: '[data-testid="history"]', pane: ".pane", conversation: ".right", send: '[data-testid="send"]', question: ".question", about: '[data-testid="about"]' };
  const found = Object.entries(parts).map(([name, selector]) => {
    const element = document.querySelector(selector);
    const { left, right } = element.getBoundingClientRect();
    return [name, [left, right], left !== right];
  });
  return Object.fromEntries(found.filter(([, , isShown]) => isShown));
}

// Open dialogs and popovers that lie partly outside the window.
function outside() {
  const all = [...document.querySelectorAll("dialog[open], [popover]:popover-open")];
  const off = all.filter((e) => {
    const { left, right } = e.getBoundingClientRect();
    return left < -1 || right > innerWidth + 1 || left === right;
  });
  return off.map((e) => e.className);
}

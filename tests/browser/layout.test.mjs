// The frame of the page: tabs by keyboard, a picture that keeps its size, a document that is never taller
// than the window, the phone, targets for fingers, four sizes of letters, the list of keys, axe in every
// scheme, and pictures of eight states. mini on the CPU.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { answered, counted, frames, nothingForbidden, open, slide, tab, HAS_MINI, PICTURES, URL_OF_PAGE } from "./page.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const skip = HAS_MINI ? false : "mini has no model.json";
const DESK = { width: 1280, height: 800 };
const PHONES = [
  { width: 390, height: 844 },
  { width: 320, height: 568 },
];

describe("the layout", { skip }, () => {
  let browser, page;
  before(async () => {
    browser = await open({ webgpu: false });
    ({ page } = browser);
    await page.goto(`${URL_OF_PAGE}?model=mini`);
    assert.equal((await answered(page, 0)).state, "done");
  });
  after(() => browser?.close());

  const box = (what) => page.locator(what).boundingBox();
  const pane = () => box("#picture");
  const chosen = () => page.locator('[role="tab"][aria-selected="true"]').getAttribute("data-testid");

  async function as(size, media = {}) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme: "light", forcedColors: "none", reducedMotion: "reduce", ...media });
    await frames(page);
  }

  // How much the document is taller and wider than the window.
  const excess = () =>
    page.evaluate(() => {
      const root = document.documentElement;
      return [root.scrollHeight - innerHeight, root.scrollWidth - innerWidth].map((by) => Math.max(0, by));
    });

  test("the tabs work by keyboard, and each keeps what it shows", async () => {
    await as(DESK);
    await page.getByTestId("question").fill("half a question");
    const chat = page.getByTestId("tab-chat");
    await chat.focus();
    for (const [key, expected] of [
      ["ArrowRight", "tab-objects"],
      ["ArrowRight", "tab-chat"],
      ["ArrowLeft", "tab-objects"],
      ["Home", "tab-chat"],
      ["End", "tab-objects"],
    ]) {
      await page.keyboard.press(key);
      assert.equal(await chosen(), expected, key);
      assert.equal(await page.evaluate(() => document.activeElement.dataset.testid), expected, key);
    }
    await counted(page.locator('[role="tab"][tabindex="0"]'), 1);
    const [chatPanel, objectsPanel] = ["chat", "objects"].map((name) => page.locator(`#panel-${name}`));
    assert.deepEqual([await chatPanel.isVisible(), await objectsPanel.isVisible()], [false, true]);
    const count = await page.getByTestId("object-row").count();
    assert.ok(count > 0);
    assert.equal(await page.getByTestId("box-count").innerText(), String(count));
    assert.match(await page.getByTestId("tab-objects").innerText(), new RegExp(`Objects\\s*${count}`));
    await tab(page, "chat");
    assert.equal(await page.getByTestId("question").inputValue(), "half a question");
    await counted(page.getByTestId("answer"), 1);
    await page.getByTestId("question").fill("");
  });

  test("a row that is cited leads to the text box, and a question to its answer", async () => {
    await tab(page, "objects");
    await page.getByTestId("object-list").focus();
    await page.keyboard.press("Home");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.activeElement?.id === "question");
    assert.equal(await chosen(), "tab-chat");
    assert.equal(await page.getByTestId("question").inputValue(), "[0] ");
    await page.getByTestId("question").fill("");
    await tab(page, "objects");
    await page.getByTestId("object-row").first().click();
    await page.keyboard.press("Escape");
    await page.getByTestId("object-row").first().click();
    const turn = await page.getByTestId("answer").count();
    // Back to the list as soon as the question has opened the chat. The engine gets it late, so that the answer
    // comes after that.
    const opened = await page.evaluate(async () => {
      const prototype = self.Worker.prototype;
      const post = prototype.postMessage;
      prototype.postMessage = function (message, ...rest) {
        const late = message[0].startsWith('{"Ask"') ? 700 : 0;
        late ? setTimeout(() => post.call(this, message, ...rest), late) : post.call(this, message, ...rest);
      };
      const tab = (name) => document.querySelector(`[data-testid="tab-${name}"]`);
      document.querySelector('[data-testid="describe-it"]').click();
      for (let frame = 0; frame < 60 && tab("chat").ariaSelected !== "true"; frame++) await new Promise(requestAnimationFrame);
      const opened = tab("chat").ariaSelected;
      tab("objects").click();
      prototype.postMessage = post;
      return opened;
    });
    assert.equal(opened, "true", "a question opens the chat");
    await answered(page, turn);
    await page.getByTestId("news").waitFor();
    await tab(page, "chat");
    await counted(page.getByTestId("news"), 0);
    const list = page.locator(".transcript");
    const below = () => list.evaluate((list) => list.scrollHeight - list.scrollTop - list.clientHeight);
    await page.waitForFunction(() => {
      const list = document.querySelector(".transcript");
      return list.scrollHeight - list.scrollTop - list.clientHeight < 2;
    });
    assert.ok((await below()) < 2, "the answer that came meanwhile is in sight");
    await page.getByTestId("picture").focus();
    await page.keyboard.press("Escape");
  });

  for (const [width, height] of [[1024, 768], [1280, 800], [2560, 1300]]) {
    test(`at ${width} by ${height} the document fits, and nothing in the column changes the picture`, async () => {
      await as({ width, height });
      const still = await pane();
      const column = await box(".right");
      assert.ok(column.width >= 415 && column.width <= 580, `the column is ${column.width} px wide`);
      assert.ok(still.width >= width - column.width - 1, `the picture is ${still.width} px wide`);
      assert.equal((await box(".bar")).height, 44, "the bar is one row");
      const answer = page.getByTestId("answer").first();
      assert.equal(await answer.evaluate((one) => getComputedStyle(one).fontSize), "18px");
      for (const name of ["chat", "objects"]) {
        await tab(page, name);
        assert.deepEqual(await excess(), [0, 0], name);
        assert.deepEqual(await pane(), still, name);
      }
      for (const score of ["0.01", "0.6", "1", "0.3"]) {
        await slide(page, "score-slider", score);
        assert.deepEqual(await pane(), still, `at a score of ${score}`);
      }
      await page.getByTestId("sort-area").click();
      await page.getByTestId("sort-number").click();
      await page.getByTestId("object-row").first().click();
      assert.deepEqual(await pane(), still, "with a selected row");
      await page.keyboard.press("Escape");
      assert.ok((await box('[data-testid="histogram"]')).y < (await box('[data-testid="object-list"]')).y);
      await tab(page, "chat");
    });
  }

  test("the stage is dark in both schemes", async () => {
    for (const colorScheme of ["light", "dark"]) {
      await as(DESK, { colorScheme });
      const colour = await page.locator("#picture").evaluate((pane) => getComputedStyle(pane).backgroundColor);
      const parts = colour.match(/\d+/g).slice(0, 3).map(Number);
      assert.ok(Math.max(...parts) < 48 && Math.max(...parts) - Math.min(...parts) < 6, colour);
    }
  });

  test("there are four sizes of letters and two weights", async () => {
    await as(DESK);
    const found = new Set();
    for (const name of ["chat", "objects"]) {
      await tab(page, name);
      const here = await page.evaluate(() => {
        const all = new Set();
        for (const one of document.querySelectorAll("body *")) {
          const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
          if (!hasText || !one.checkVisibility()) continue;
          const { fontSize, fontWeight } = getComputedStyle(one);
          all.add(`size ${fontSize}`).add(`weight ${fontWeight}`);
        }
        return [...all];
      });
      here.forEach((one) => found.add(one));
    }
    await tab(page, "chat");
    const allowed = ["size 12.5px", "size 15px", "size 18px", "size 22px", "weight 400", "weight 600"];
    assert.deepEqual([...found].filter((one) => !allowed.includes(one)), []);
  });

  test("no accent is among the hues of phrases, and boxes that no phrase names are thin and dashed", async () => {
    const hues = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
    for (const colorScheme of ["light", "dark"]) {
      await as(DESK, { colorScheme });
      const accent = await page.evaluate(() => getComputedStyle(document.documentElement).getPropertyValue("--accent").trim());
      for (const hue of hues) {
        const away = Math.abs(angle(hue) - angle(accent));
        assert.ok(Math.min(away, 360 - away) > 40, `${accent} is near ${hue}`);
      }
    }
    await as(DESK);
    await page.getByTestId("show-all").check();
    await slide(page, "score-slider", "0.1");
    const lines = await page.evaluate(() =>
      [...document.querySelectorAll('svg.boxes [data-testid="box"]')].map((box) => {
        const { strokeWidth, strokeDasharray } = getComputedStyle(box.querySelector(".line"));
        return [box.classList.contains("hue-none"), parseFloat(strokeWidth), strokeDasharray];
      }),
    );
    await slide(page, "score-slider", "0.3");
    const plain = lines.filter(([none]) => none);
    assert.ok(plain.length > 0 && plain.length < lines.length, `${plain.length} of ${lines.length} boxes are not named`);
    for (const [none, width, dash] of lines) {
      assert.equal(width, none ? 1 : 2);
      if (none) assert.notEqual(dash, "none");
    }
  });

  test("a question mark and a button open the list of keys, but not while typing", async () => {
    await as(DESK);
    const list = page.getByTestId("key-list");
    await page.getByTestId("picture").focus();
    await page.keyboard.press("?");
    assert.ok(await list.isVisible());
    const groups = await list.locator("h3").allInnerTexts();
    assert.ok(groups.length >= 4, groups.join(", "));
    for (const key of ["Alt", "Delete", "B", "0", "Enter", "#3", "N"]) {
      assert.ok((await list.locator("kbd").getByText(key, { exact: true }).count()) > 0, key);
    }
    await page.keyboard.press("Escape");
    assert.ok(!(await list.isVisible()));
    assert.equal(await page.evaluate(() => document.activeElement.id), "picture", "the focus returns");
    await page.getByTestId("question").fill("");
    await page.getByTestId("question").focus();
    await page.keyboard.type("Why?");
    assert.ok(!(await list.isVisible()));
    assert.equal(await page.getByTestId("question").inputValue(), "Why?");
    await page.keyboard.press("Control+/");
    assert.ok(await list.isVisible());
    await page.getByTestId("keys-close").click();
    await page.getByTestId("question").fill("");
    await page.getByTestId("keys").click();
    assert.ok(await list.isVisible());
    await page.keyboard.press("Escape");
    await page.getByTestId("picture").focus();
    await page.keyboard.press("Shift+Escape");
    assert.equal(await page.evaluate(() => document.activeElement.id), "question");
  });

  test("every button has a name, and actions of older turns appear with the pointer and the focus", async () => {
    await as(DESK);
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("button, summary, label:has(svg)")]
        .filter((one) => one.checkVisibility() && !(one.getAttribute("aria-label") || one.textContent.trim()))
        .map((one) => one.outerHTML.slice(0, 90)),
    );
    assert.deepEqual(nameless, []);
    const shown = (turn) =>
      page.locator(".turn").nth(turn).locator(".turn-actions").evaluate((one) => getComputedStyle(one).opacity);
    assert.ok((await page.locator(".turn").count()) > 1);
    await page.mouse.move(0, 0);
    await page.getByTestId("picture").focus();
    assert.equal(await shown(0), "0");
    await page.getByTestId("retry").first().focus();
    assert.equal(await shown(0), "1");
    await page.getByTestId("picture").focus();
    await page.locator(".turn").first().hover();
    assert.equal(await shown(0), "1");
  });

  test("the picture eases to a far box, and does not where no motion is wanted", async () => {
    const steps = async () => {
      await page.getByTestId("picture").focus();
      await page.keyboard.press("0");
      for (let step = 0; step < 9; step++) await page.getByTestId("zoom-in").click();
      for (let step = 0; step < 30; step++) await page.keyboard.press("ArrowRight");
      const phrase = page.locator('[data-testid="phrase"]:not([data-objects=""])').first();
      const views = await phrase.evaluate(async (phrase) => {
        const group = document.querySelector("svg.boxes g");
        const views = [group.getAttribute("transform")];
        phrase.click();
        const start = performance.now();
        while (performance.now() - start < 1500) {
          await new Promise(requestAnimationFrame);
          const now = group.getAttribute("transform");
          if (now !== views.at(-1)) views.push(now);
        }
        phrase.click();
        return views;
      });
      await page.keyboard.press("0");
      return views.length;
    };
    await as(DESK, { reducedMotion: "no-preference" });
    assert.ok((await steps()) > 2, "it goes there in steps");
    await as(DESK);
    assert.equal(await steps(), 2, "it is there at once");
  });

  for (const size of PHONES) {
    test(`a phone of ${size.width} px: a chat whose picture makes room`, async () => {
      await as(size);
      await page.evaluate(() => document.activeElement.blur());
      await page.getByTestId("tab-objects").click();
      await page.getByTestId("tab-chat").click();
      assert.deepEqual(await excess(), [0, 0]);
      assert.equal((await box(".bar")).height, 44, "the bar is one row");
      const large = await pane();
      assert.equal(large.width, size.width);
      const field = await box(".field");
      assert.ok(field.height <= 56, `the text box is one line: ${field.height} px`);
      assert.ok(field.y + field.height <= size.height, "the text box is on the screen");
      const list = page.locator(".transcript");
      await list.hover();
      await page.mouse.wheel(0, -150);
      await page.waitForFunction(() => document.querySelector(".left.small"));
      await page.waitForTimeout(250);
      const small = await pane();
      assert.ok(small.height < large.height * 0.7 && small.height >= 72, `${large.height} to ${small.height} px`);
      assert.ok(small.y >= 0 && small.y + small.height <= size.height, "the picture stays in sight");
      assert.deepEqual(await excess(), [0, 0]);
      await page.getByTestId("enlarge").click();
      await page.waitForTimeout(250);
      assert.deepEqual(await pane(), large);
      await page.getByTestId("tab-objects").click();
      await page.getByTestId("score-slider").scrollIntoViewIfNeeded();
      await page.getByTestId("box-x").scrollIntoViewIfNeeded();
      await page.getByTestId("object-row").first().scrollIntoViewIfNeeded();
      assert.deepEqual(await pane(), large, "the list does not change the picture");
      assert.deepEqual(await excess(), [0, 0]);
      await page.getByTestId("tab-chat").click();
    });

    test(`a phone of ${size.width} px: everything that is pressed is 44 px high, and in the window`, async () => {
      await as(size);
      for (const name of ["chat", "objects"]) {
        await tab(page, name);
        const wrong = await page.evaluate(() =>
          [...document.querySelectorAll("button, summary, select, .segments label, .tab, label.icon-button")]
            .filter((one) => one.checkVisibility() && !one.matches(".phrase, .link, .crop, .skip"))
            .filter((one) => {
              const { width, height } = one.getBoundingClientRect();
              return height < 44 || width < 24;
            })
            .map((one) => `${one.dataset.testid ?? one.className}: ${JSON.stringify(one.getBoundingClientRect())}`),
        );
        assert.deepEqual(wrong, [], name);
      }
      await tab(page, "chat");
    });
  }

  test("a tap is a way to every state of the phone's bar", async () => {
    await as(PHONES[1]);
    for (const id of ["history", "new", "model-state", "settings", "about", "export"]) {
      const { x, width, y } = await page.getByTestId(id).boundingBox();
      assert.ok(x >= 0 && x + width <= PHONES[1].width && y >= 0, id);
    }
    await page.getByTestId("settings").click();
    await page.getByTestId("settings-keys").click();
    assert.ok(await page.getByTestId("key-list").isVisible());
    assert.deepEqual(await excess(), [0, 0]);
    await page.keyboard.press("Escape");
    await page.keyboard.press("Escape");
  });

  const LOOKS = {
    light: [DESK],
    dark: [DESK, { colorScheme: "dark" }],
    "forced colours": [DESK, { forcedColors: "active" }],
    "320 px": [PHONES[1]],
    "320 px, dark": [PHONES[1], { colorScheme: "dark" }],
  };
  for (const [name, [size, media]] of Object.entries(LOOKS)) {
    test(`axe finds nothing: ${name}`, async () => {
      await as(size, media);
      for (const open of ["chat", "objects"]) {
        await tab(page, open);
        assert.deepEqual(await faults(), [], open);
      }
      await tab(page, "chat");
      await page.getByTestId("settings").click();
      await page.getByTestId("settings-keys").click();
      assert.deepEqual(await faults(), [], "the list of keys");
      await page.keyboard.press("Escape");
      await page.keyboard.press("Escape");
    });
  }

  for (const size of [DESK, ...PHONES]) {
    test(`letters of twice the size at ${size.width} px: nothing is cut off at the side, axe finds nothing`, async () => {
      const session = await page.context().newCDPSession(page);
      await session.send("Page.setFontSizes", { fontSizes: { standard: 32, fixed: 26 } });
      try {
        await as(size);
        for (const open of ["chat", "objects"]) {
          await tab(page, open);
          await frames(page);
          assert.equal((await excess())[1], 0, open);
          const outside = await page.evaluate(() =>
            [...document.querySelectorAll("button, input, textarea, summary, p, h2")]
              .filter((one) => one.checkVisibility() && !one.closest(".chips, .segments, .hidden, .marks, .toasts") && !one.matches(".hidden, .hidden-input, .skip"))
              .filter((one) => {
                const { left, right } = one.getBoundingClientRect();
                return left < -1 || right > innerWidth + 1;
              })
              .map((one) => one.dataset.testid ?? one.className ?? one.tagName),
          );
          assert.deepEqual(outside, [], open);
          assert.deepEqual(await faults(), [], open);
        }
        await page.screenshot({ path: join(PICTURES, `layout-large-letters-${size.width}.png`) });
      } finally {
        await session.send("Page.setFontSizes", { fontSizes: { standard: 16, fixed: 13 } });
        await session.detach();
        await tab(page, "chat");
      }
    });
  }

  test("pictures of eight states, wide and narrow, light and dark", async () => {
    const escape = () => page.keyboard.press("Escape");
    const states = {
      answered: [() => {}, () => {}],
      phrase: [() => page.getByTestId("phrase").first().hover(), () => page.mouse.move(0, 0)],
      objects: [() => tab(page, "objects"), () => tab(page, "chat")],
      drawing: [drawHalf, dropHalf],
      settings: [() => page.getByTestId("settings").click(), escape],
      history: [() => page.getByTestId("history").click(), escape],
      export: [() => page.getByTestId("export").click(), escape],
      empty: [() => page.getByTestId("new").click(), () => page.getByTestId("undo").click()],
    };
    for (const size of [DESK, PHONES[0]]) {
      for (const colorScheme of ["light", "dark"]) {
        await as(size, { colorScheme });
        await page.evaluate(() => document.activeElement?.blur());
        await tab(page, "objects");
        await tab(page, "chat");
        for (const [name, [enter, leave]] of Object.entries(states)) {
          await enter();
          await page.waitForTimeout(300);
          await page.screenshot({ path: join(PICTURES, `layout-${name}-${size.width}-${colorScheme}.png`) });
          assert.equal((await excess())[1], 0, `${name} at ${size.width} px`);
          await leave();
          await frames(page);
        }
        await answered(page, 0);
      }
    }
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));

  // A box of the user beside one that is being drawn.
  async function drawHalf() {
    await page.getByTestId("draw").click();
    const { x, y, width, height } = await pane();
    const at = (a, b) => [x + width * a, y + height * b];
    await page.mouse.move(...at(0.3, 0.3));
    await page.mouse.down();
    await page.mouse.move(...at(0.45, 0.55));
    await page.mouse.up();
    await page.mouse.move(...at(0.5, 0.5));
    await page.mouse.down();
    await page.mouse.move(...at(0.68, 0.75));
  }

  async function dropHalf() {
    await page.keyboard.press("Escape");
    await page.mouse.up();
    await page.keyboard.press("Escape");
    while (await page.getByTestId("undo-box").evaluate((button) => !button.disabled)) {
      await page.getByTestId("undo-box").evaluate((button) => button.click());
      await frames(page);
    }
    await page.keyboard.press("Escape");
    await page.mouse.move(0, 0);
  }

  // What axe finds, of every weight.
  async function faults() {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => self.axe.run());
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
  }
});

// The hue of a colour in degrees.
function angle(hex) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  const most = Math.max(r, g, b);
  const range = most - Math.min(r, g, b);
  const part = most === r ? ((g - b) / range + 6) % 6 : most === g ? (b - r) / range + 2 : (r - g) / range + 4;
  return part * 60;
}

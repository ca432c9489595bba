// Boxes on the picture: zoom, drawing, editing, undo, selecting, labels and the list, by mouse, keys and
// fingers. On the CPU, where the boxes are the same everywhere.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  answered,
  asked,
  counted,
  frames,
  happened,
  inTab,
  modelReady,
  nothingForbidden,
  open,
  overlap,
  slide,
  tab,
  HAS_MINI,
  URL_OF_PAGE,
} from "./page.mjs";

const skip = HAS_MINI ? false : "mini has no model.json";
const URL_OF_MINI = `${URL_OF_PAGE}?model=mini`;

describe("boxes by mouse and keys", { skip }, () => {
  let browser, page;
  before(async () => {
    browser = await open({ webgpu: false });
    ({ page } = browser);
    await page.goto(URL_OF_MINI);
    await modelReady(page);
    await answered(page, 0);
    await page.getByTestId("show-all").check();
  });
  after(() => browser?.close());

  test("Ctrl and wheel zoom at the pointer, the wheel alone does not", async () => {
    await begin(page);
    const at = await onScreen(page, [0.5, 0.4]);
    await page.mouse.move(at.x, at.y);
    const fit = await percent(page);
    await page.mouse.wheel(0, -300);
    await frames(page);
    assert.equal(await percent(page), fit, "the wheel alone");
    const point = await inPicture(page, at);
    const label = await labelHeight(page);
    await page.keyboard.down("Control");
    for (let step = 0; step < 6; step++) await page.mouse.wheel(0, -100);
    await page.keyboard.up("Control");
    await frames(page);
    assert.ok((await percent(page)) > 2 * fit, `${await percent(page)} % after ${fit} %`);
    near(await inPicture(page, at), point, 1, "the point under the pointer stays");
    assert.ok(Math.abs((await labelHeight(page)) - label) < 0.1, "labels keep their size");
    await page.mouse.dblclick(at.x, at.y);
    near(await inPicture(page, at), point, 1, "a double click does not zoom");
    const image = await page.evaluate(() => {
      const image = document.querySelector("#picture img");
      return [image.getBoundingClientRect().width / image.offsetWidth, image.getAttribute("style")];
    });
    const group = await page.evaluate(() => document.querySelector("svg.boxes g").getCTM().a);
    const base = await page.evaluate(() => document.querySelector("svg.boxes").getScreenCTM().a);
    assert.ok(Math.abs(image[0] - group / base) < 0.01, `picture ${image[0]}, boxes ${group / base}`);
  });

  test("keys and buttons zoom, and the picture is moved by Space, middle button, hand and arrows", async () => {
    await begin(page);
    const fit = await percent(page);
    await page.keyboard.press("+");
    await page.keyboard.press("+");
    assert.ok(Math.abs((await percent(page)) - fit * 1.5625) < 2);
    await page.keyboard.press("-");
    assert.ok(Math.abs((await percent(page)) - fit * 1.25) < 2);
    await page.keyboard.press("1");
    assert.equal(await percent(page), 100);
    await page.keyboard.press("0");
    assert.equal(await percent(page), fit);
    await page.getByTestId("zoom-in").click();
    assert.ok((await percent(page)) > fit);
    await page.getByTestId("zoom-full").click();
    assert.equal(await percent(page), 100);
    await page.getByTestId("zoom-fit").click();
    assert.equal(await percent(page), fit);
    for (let step = 0; step < 9; step++) await page.getByTestId("zoom-in").click();
    const drags = {
      Space: { down: () => page.keyboard.down(" "), up: () => page.keyboard.up(" ") },
      "the middle button": { button: "middle" },
      "the hand": { down: () => page.keyboard.press("h"), up: () => page.keyboard.press("v") },
    };
    const from = await onScreen(page, [0.5, 0.5]);
    for (const [name, { down, up, button }] of Object.entries(drags)) {
      await page.getByTestId("picture").focus();
      const before = await corner(page);
      await down?.();
      await drag(page, from, { x: from.x + 30, y: from.y - 20 }, { button });
      await up?.();
      near(await corner(page), { x: before.x + 30, y: before.y - 20 }, 1, name);
      assert.equal(await selected(page), 0, `${name} selects nothing`);
    }
    const before = await corner(page);
    await page.keyboard.press("ArrowLeft");
    assert.ok((await corner(page)).x > before.x + 20, "an arrow key pans");
    await drag(page, from, { x: from.x + 9000, y: from.y + 9000 }, { button: "middle" });
    const pane = await page.getByTestId("picture").boundingBox();
    near(await corner(page), pane, 1, "the picture's edge stays out of the pane");
  });

  test("the tool stays after a box; boxes stay in the picture; Shift makes a square", async () => {
    await begin(page);
    await page.keyboard.press("r");
    const [a, b] = [await onScreen(page, [0.1, 0.1]), await onScreen(page, [0.2, 0.35])];
    await drag(page, a, b);
    assert.equal(await page.getByTestId("draw").getAttribute("aria-pressed"), "true");
    await drag(page, a, b, { shift: true });
    await drag(page, await onScreen(page, [0.9, 0.9]), { x: 2000, y: 2000 });
    await page.mouse.click(a.x, a.y);
    await page.mouse.move(b.x, a.y + 40);
    await counted(page.locator("svg.boxes .preview"), 1);
    await page.mouse.click(b.x, b.y);
    const { width, height } = await size(page);
    const own = await ownBoxes(page);
    assert.equal(own.length, 4);
    const wanted = [width * 0.1, height * 0.1, width * 0.2, height * 0.35];
    closeTo(own[0].box, wanted, 2);
    closeTo(own[3].box, wanted, 2);
    const square = own[1].box;
    assert.ok(Math.abs(square[2] - square[0] - (square[3] - square[1])) < 0.01, `${square}`);
    closeTo(own[2].box.slice(2), [width, height], 0.01);
    await drag(page, a, { x: a.x + 2, y: a.y + 60 });
    assert.equal((await ownBoxes(page)).length, 4, "a sliver is an accident");
    await page.keyboard.press("Escape");
    assert.equal(await page.getByTestId("draw").getAttribute("aria-pressed"), "false");
    for (let left = 3; left >= 0; left--) {
      await page.keyboard.press("Control+z");
      assert.equal((await ownBoxes(page)).length, left);
    }
    for (let back = 1; back <= 4; back++) {
      await page.keyboard.press(back % 2 ? "Control+y" : "Control+Shift+z");
      assert.equal((await ownBoxes(page)).length, back);
    }
  });

  test("all eight handles resize, a drag moves, keys nudge, fields set, each can be taken back", async () => {
    await begin(page);
    const { width, height } = await size(page);
    const start = [width * 0.4, height * 0.4, width * 0.6, height * 0.6];
    await draw(page, [0.4, 0.4], [0.6, 0.6]);
    const box = async () => (await ownBoxes(page))[0].box;
    closeTo(await box(), start, 2);
    const first = await box();
    const by = { x: width * 0.05, y: height * 0.05 };
    const scale = (await percent(page)) / 100;
    for (const name of ["nw", "n", "ne", "e", "se", "s", "sw", "w"]) {
      const handle = page.locator(`[data-testid="handle"][data-handle="${name}"]`);
      const place = middle(await handle.boundingBox());
      const to = { x: place.x + by.x * scale, y: place.y + by.y * scale };
      await drag(page, place, to);
      const wanted = [...first];
      if (name.includes("w")) wanted[0] += by.x;
      if (name.includes("e")) wanted[2] += by.x;
      if (name.includes("n")) wanted[1] += by.y;
      if (name.includes("s")) wanted[3] += by.y;
      closeTo(await box(), wanted, 2, name);
      await page.getByTestId("undo-box").click();
      closeTo(await box(), first, 0.01, `${name} taken back`);
    }
    const inside = middle(await ownBox(page).boundingBox());
    await drag(page, inside, { x: inside.x + 20 * scale, y: inside.y - 10 * scale });
    const moved = await box();
    closeTo(moved, [first[0] + 20, first[1] - 10, first[2] + 20, first[3] - 10], 2, "moved");
    await drag(page, { x: inside.x + 20 * scale, y: inside.y - 10 * scale }, { x: 5000, y: inside.y });
    closeTo([(await box())[2]], [width], 0.01, "a box stays in the picture");
    await page.keyboard.press("Control+z");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Shift+ArrowDown");
    closeTo(await box(), [moved[0] + 1, moved[1] + 10, moved[2] + 1, moved[3] + 10], 0.01, "nudged");
    for (const [field, value] of [["x", 11], ["y", 12], ["w", 50], ["h", 40]]) {
      await page.getByTestId(`box-${field}`).fill(String(value));
      await page.getByTestId(`box-${field}`).press("Enter");
    }
    closeTo(await box(), [11, 12, 61, 52], 0.01, "typed");
    await page.getByTestId("box-w").fill("99999");
    await page.getByTestId("box-w").press("Enter");
    assert.equal((await box())[2], width);
    assert.equal(await page.getByTestId("box-w").inputValue(), String(width - 11));
    await page.getByTestId("picture").focus();
    await page.keyboard.press("Delete");
    assert.equal((await ownBoxes(page)).length, 0);
    let steps = 0;
    while (await page.getByTestId("undo-box").isEnabled()) {
      await page.getByTestId("undo-box").click();
      steps++;
    }
    assert.equal(steps, 10, "draw, move, two nudges, five fields, delete");
    assert.equal((await ownBoxes(page)).length, 0);
    for (let step = 0; step < steps - 1; step++) await page.getByTestId("redo-box").click();
    assert.equal((await box())[2], width);
  });

  test("a proposal that is edited becomes a box of the user, one that is deleted can be brought back", async () => {
    await begin(page);
    const looks = (await asked(page, "Look")).length;
    const all = await boxes(page);
    const target = all.find((b) => b.screen.width > 60 && b.screen.height > 60);
    await pick(page, target);
    const proposals = (await happened(page, "Proposed")).at(-1).boxes;
    const { label } = proposals.find(({ box }) => overlap(box, target.box) > 0.95);
    await inTab(page, "chat", () => page.getByTestId("question").fill(`What is [${target.index}]?`));
    const handle = page.locator('[data-testid="handle"][data-handle="se"]');
    const place = middle(await handle.boundingBox());
    await drag(page, place, { x: place.x - 15, y: place.y - 15 });
    let now = await boxes(page);
    assert.equal(now.length, all.length, "the proposal is replaced");
    const own = now.filter((b) => b.own);
    assert.equal(own.length, 1);
    closeTo(own[0].box.slice(0, 2), target.box.slice(0, 2), 0.01);
    const row = page.locator(`[data-testid="object-row"][data-index="${own[0].index}"]`);
    assert.equal(await row.locator(".row-label").innerText(), label, "it keeps its kind");
    assert.equal(await row.locator(".row-score").innerText(), "yours");
    assert.equal(await page.getByTestId("question").inputValue(), `What is [${own[0].index}]?`);
    await inTab(page, "chat", () => page.getByTestId("question").fill(""));
    await page.getByTestId("picture").focus();
    await page.keyboard.press("Control+z");
    assert.deepEqual(await boxes(page), all);
    await pick(page, target);
    await page.keyboard.press("Backspace");
    now = await boxes(page);
    assert.equal(now.length, all.length - 1);
    await page.getByTestId("restore-boxes").click();
    assert.deepEqual(await boxes(page), all);
    assert.equal((await asked(page, "Look")).length, looks, "the engine is not asked");
  });

  test("clicks on the same point go outwards, the bar stands at the box, Escape lets go", async () => {
    await begin(page);
    await draw(page, [0.35, 0.35], [0.65, 0.65]);
    await draw(page, [0.45, 0.45], [0.55, 0.55]);
    await page.keyboard.press("Escape");
    const own = await ownBoxes(page);
    const at = await onScreen(page, [0.5, 0.5]);
    const seen = [];
    for (let click = 0; click < 12; click++) {
      await page.mouse.click(at.x, at.y);
      const [one] = await page.evaluate(() =>
        [...document.querySelectorAll('svg.boxes [data-testid="box"].selected')].map((b) => Number(b.dataset.index)),
      );
      seen.push(one);
      if (click > 0 && one === seen[0]) break;
    }
    const areas = Object.fromEntries((await boxes(page)).map((b) => [b.index, area(b.box)]));
    const round = seen.slice(0, -1);
    assert.equal(seen.at(-1), seen[0], "after the outermost comes the smallest");
    assert.ok(round.includes(own[0].index) && round.includes(own[1].index), `${round}`);
    for (let i = 1; i < round.length; i++) assert.ok(areas[round[i]] >= areas[round[i - 1]], `${round}`);
    await page.keyboard.press("Escape");
    assert.equal(await selected(page), 0);
    await page.mouse.click(at.x, at.y);
    const chosen = page.locator('svg.boxes [data-testid="box"].selected .line');
    const bar = await page.getByTestId("selection-bar").boundingBox();
    const box = await chosen.boundingBox();
    const gap = Math.max(bar.y - box.y - box.height, box.y - bar.y - bar.height);
    assert.ok(gap >= 0 && gap < 24, `the bar is ${gap} px away from its box`);
    await draw(page, [0.4, 0.8], [0.5, 0.97]);
    await page.keyboard.press("v");
    const low = await page.locator('svg.boxes [data-testid="box"].selected .line').boundingBox();
    const above = await page.getByTestId("selection-bar").boundingBox();
    assert.ok(above.y + above.height <= low.y, `near the lower edge the bar stands above: ${JSON.stringify([above, low])}`);
    await page.keyboard.press("Escape");
    assert.ok(!(await page.getByTestId("selection-bar").isVisible()));
  });

  test("own boxes are always shown except under None; B, Alt+H and Shift+H hide", async () => {
    await begin(page);
    await draw(page, [0.05, 0.05], [0.15, 0.2]);
    await page.keyboard.press("v");
    await page.keyboard.press("Escape");
    for (const [show, expected] of [["mentioned", 1], ["selected", 0], ["nothing", 0], ["all", 1]]) {
      await page.getByTestId(`show-${show === "nothing" ? "none" : show}`).check();
      assert.equal((await ownBoxes(page)).length, expected, show);
    }
    await page.getByTestId("picture").focus();
    const visible = () =>
      page.evaluate(() => getComputedStyle(document.querySelector('svg.boxes [data-testid="box"]')).visibility);
    assert.equal(await visible(), "visible");
    await page.keyboard.down("b");
    assert.equal(await visible(), "hidden");
    await page.keyboard.up("b");
    assert.equal(await visible(), "visible");
    const all = (await boxes(page)).length;
    const [own] = await ownBoxes(page);
    await pick(page, own);
    await page.keyboard.press("Alt+h");
    assert.equal((await boxes(page)).length, all - 1);
    await page.keyboard.press("Shift+H");
    assert.equal((await boxes(page)).length, 0);
    await counted(page.locator('[data-testid="object-shown"][data-shown="true"]'), 0);
    assert.equal(await rows(page), all, "hidden boxes stay in the list");
    await page.keyboard.press("Shift+H");
    assert.equal((await boxes(page)).length, all);
    await page.keyboard.press("Control+z");
    await page.keyboard.press("Control+z");
    assert.equal((await boxes(page)).length, all - 1, "hiding can be taken back");
  });

  test("number and words of a label have their own plates, labels do not overlap, others are thinner", async () => {
    await begin(page);
    const labels = await page.evaluate(() => {
      const plate = ({ left, top, right, bottom }) => ({ left, top, right, bottom });
      return [...document.querySelectorAll('[data-testid="box-label"]')].map((label) => ({
        number: label.querySelector("text.number").textContent,
        plates: [...label.querySelectorAll("rect")].map((rect) => plate(rect.getBoundingClientRect())),
        text: [...label.querySelectorAll("text")].map((text) => plate(text.getBoundingClientRect())),
      }));
    });
    assert.equal(labels.length, (await boxes(page)).length);
    const pane = await page.locator("#picture").boundingBox();
    for (const { number, plates, text } of labels) {
      assert.match(number, /^\d+$/);
      for (const [i, plate] of plates.entries()) {
        const inside = plate.left >= pane.x && plate.right <= pane.x + pane.width + 0.5;
        assert.ok(inside && plate.top >= pane.y, "a label lies in the picture");
        assert.ok(text[i].left >= plate.left - 0.5 && text[i].right <= plate.right + 0.5, "a text fits on its plate");
      }
    }
    for (const [i, a] of labels.entries()) {
      for (const b of labels.slice(i + 1)) {
        const overlap = a.plates.some((p) =>
          b.plates.some((q) => p.left < q.right && q.left < p.right && p.top < q.bottom && q.top < p.bottom),
        );
        assert.ok(!overlap, `the labels ${a.number} and ${b.number} overlap`);
      }
    }
    const lines = await page.evaluate(() =>
      [...document.querySelectorAll('svg.boxes [data-testid="box"]')].map((box) => [
        box.classList.contains("hue-none"),
        parseFloat(getComputedStyle(box.querySelector(".line")).strokeWidth),
      ]),
    );
    const widths = (plain) => new Set(lines.filter(([none]) => none === plain).map(([, width]) => width));
    const [mentioned, others] = [[...widths(false)], [...widths(true)]];
    assert.ok(mentioned.length > 0, "the answer names boxes");
    if (others.length) assert.ok(Math.max(...others) < Math.min(...mentioned), `${others} and ${mentioned}`);
  });

  test("the list sorts, hides, and selects several by mouse and keys", async () => {
    await begin(page);
    await slide(page, "score-slider", "0.1");
    const list = () =>
      page.evaluate(() =>
        [...document.querySelectorAll('[data-testid="object-row"]')].map((row) => ({
          index: Number(row.dataset.index),
          selected: row.getAttribute("aria-selected") === "true",
        })),
      );
    const order = async () => (await list()).map(({ index }) => index);
    const chosen = async () => (await list()).flatMap(({ index, selected }) => (selected ? [index] : []));
    const numbers = await order();
    assert.ok(numbers.length >= 4, `${numbers.length} rows`);
    const areas = Object.fromEntries((await boxes(page)).map((b) => [b.index, area(b.box)]));
    await page.getByTestId("sort-area").click();
    const large = await order();
    for (let i = 1; i < large.length; i++) assert.ok(areas[large[i]] <= areas[large[i - 1]] * 1.001, `${large}`);
    await page.getByTestId("sort-area").click();
    assert.deepEqual(await order(), [...large].reverse());
    await page.getByTestId("sort-number").click();
    assert.deepEqual(await order(), numbers);
    const row = (place) => page.getByTestId("object-row").nth(place);
    await row(0).click();
    await row(2).click({ modifiers: ["Shift"] });
    assert.deepEqual(await chosen(), numbers.slice(0, 3));
    await row(1).click({ modifiers: ["Control"] });
    assert.deepEqual(await chosen(), [numbers[0], numbers[2]]);
    const before = (await boxes(page)).length;
    await page.keyboard.press("Escape");
    await page.getByTestId("object-shown").nth(1).click();
    await page.mouse.move(0, 0);
    await page.getByTestId("picture").focus();
    assert.equal((await boxes(page)).length, before - 1);
    await page.getByTestId("object-list").focus();
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("h");
    assert.equal((await boxes(page)).length, before, "H shows the box of the row again");
    await page.keyboard.press("Shift+ArrowDown");
    await page.keyboard.press("Shift+ArrowDown");
    assert.deepEqual(await chosen(), numbers.slice(1, 4));
    await page.keyboard.press("Control+a");
    assert.deepEqual(await chosen(), numbers);
    await page.keyboard.press("Escape");
    await page.keyboard.press("Home");
    await page.keyboard.press("Delete");
    assert.equal(await rows(page), numbers.length - 1);
    await page.keyboard.press("Control+z");
    assert.equal(await rows(page), numbers.length);
  });

  test("rows show the part of the picture in their box, and the score as a bar", async () => {
    await begin(page);
    await slide(page, "score-slider", "0.1");
    const { width, height } = await size(page);
    const shown = await page.evaluate(
      ([width, height]) =>
        [...document.querySelectorAll('[data-testid="object-row"]')].map((row) => {
          const style = getComputedStyle(row.querySelector('[data-testid="object-thumbnail"]'));
          const two = (value) => value.split(" ").map(parseFloat);
          const [[across, down], [left, top]] = [two(style.backgroundSize), two(style.backgroundPosition)];
          const scale = across / width;
          return {
            index: Number(row.dataset.index),
            isPicture: /^url\("blob:/.test(style.backgroundImage),
            isWhole: Math.abs(down / height - scale) < 0.01 * scale,
            crop: [-left, -top, parseFloat(style.width) - left, parseFloat(style.height) - top].map((x) => x / scale),
            side: Math.max(parseFloat(style.width), parseFloat(style.height)),
            score: Number(row.querySelector(".row-score").textContent),
            bar: parseFloat(getComputedStyle(row.querySelector(".score-bar")).backgroundSize) / 100,
          };
        }),
      [width, height],
    );
    const drawn = Object.fromEntries((await boxes(page)).map(({ index, box }) => [index, box]));
    assert.ok(shown.length >= 4);
    for (const { index, isPicture, isWhole, crop, side, score, bar } of shown) {
      assert.ok(isPicture && isWhole, `row ${index} has the picture behind it`);
      assert.ok(side <= 32.5, `row ${index}: ${side} px`);
      const edges = drawn[index].map((edge, at) => Math.min(Math.max(edge, 0), at % 2 ? height : width));
      const sides = [edges[2] - edges[0], edges[3] - edges[1]];
      const margins = edges.map((_, at) => 0.12 * sides[at % 2] + 1.5);
      crop.forEach((edge, at) => {
        const off = at < 2 ? edges[at] - edge : edge - edges[at];
        assert.ok(off > -1.5 && off <= margins[at], `row ${index}: ${crop} shows ${edges}`);
      });
      assert.ok(Math.abs(bar - score) <= 0.011, `row ${index}: a bar of ${bar} for ${score}`);
    }
  });

  test("the picture keeps its size while sliders move, and the filters have numbers, a count and a histogram", async () => {
    await begin(page);
    const pane = () => page.locator("#picture").boundingBox();
    const still = await pane();
    for (const score of ["0.01", "0.5", "1"]) {
      await slide(page, "score-slider", score);
      assert.deepEqual(await pane(), still, `at ${score}`);
      assert.equal(Number(await page.getByTestId("score-number").inputValue()), Number(score));
    }
    assert.equal(await page.getByTestId("box-total").innerText(), "0 boxes (100 is the most the chat can use)");
    await draw(page, [0.4, 0.4], [0.6, 0.6]);
    assert.deepEqual(await pane(), still, "with the first own box");
    await page.getByTestId("score-number").fill("0.2");
    await page.getByTestId("score-number").press("Enter");
    await frames(page);
    assert.equal(await page.getByTestId("score-slider").inputValue(), "0.2");
    const count = await rows(page);
    assert.match(await page.getByTestId("box-total").innerText(), new RegExp(`^${count} boxes? \\(100 is`));
    await page.getByTestId("nms-number").fill("7");
    await page.getByTestId("nms-number").press("Enter");
    await frames(page);
    await page.waitForFunction(() => document.querySelector('[data-testid="nms-number"]').value === "1.00");
    const bars = await page.locator('[data-testid="histogram"] rect').count();
    assert.ok(bars > 3, `${bars} bars`);
    const below = await page.locator('[data-testid="histogram"] rect.below').count();
    assert.ok(below > 0 && below < bars, `${below} of ${bars} bars are below the threshold`);
  });

  test("a phrase brings its boxes into view", async () => {
    await begin(page);
    const phrase = page.locator('[data-testid="phrase"]:not([data-objects=""])').first();
    await page.keyboard.press("1");
    for (let step = 0; step < 12; step++) await page.getByTestId("zoom-in").click();
    await drag(page, await onScreenPane(page), { x: 5000, y: 5000 }, { button: "middle" });
    await tab(page, "chat");
    const before = await corner(page);
    await phrase.click();
    assert.equal(await phrase.getAttribute("aria-pressed"), "true");
    await settled(page);
    assert.notDeepEqual(await corner(page), before);
    const pane = await page.locator("#picture").boundingBox();
    const lines = page.locator('svg.boxes [data-testid="box"][data-lit="true"] .line');
    assert.ok((await lines.count()) > 0);
    for (const line of await lines.all()) {
      const box = await line.boundingBox();
      const inside = box.x >= pane.x - 2 && box.y >= pane.y - 2;
      assert.ok(inside && box.x + box.width <= pane.x + pane.width + 2 && box.y + box.height <= pane.y + pane.height + 2);
      assert.ok(Math.min(box.width, box.height) >= 23);
    }
    await phrase.click();
    assert.equal(await phrase.getAttribute("aria-pressed"), "false");
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));
});

describe("boxes by finger", { skip }, () => {
  let browser, page, session;
  before(async () => {
    const phone = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 3 };
    browser = await open({ webgpu: false, ...phone });
    ({ page } = browser);
    await page.goto(URL_OF_MINI);
    await modelReady(page);
    await answered(page, 0);
    await page.getByTestId("show-all").check();
    session = await page.context().newCDPSession(page);
  });
  after(() => browser?.close());

  const touch = (type, ...points) =>
    session.send("Input.dispatchTouchEvent", { type, touchPoints: points.map(({ x, y }, id) => ({ x, y, id })) });

  async function swipe(from, to) {
    await touch("touchStart", from);
    for (let step = 1; step <= 6; step++) {
      await touch("touchMove", { x: from.x + ((to.x - from.x) * step) / 6, y: from.y + ((to.y - from.y) * step) / 6 });
    }
    await touch("touchEnd");
    // A tap that follows at once would count as the end of the swipe.
    await page.waitForTimeout(400);
    await frames(page);
  }

  async function tap(at) {
    await touch("touchStart", at);
    await touch("touchEnd");
    await frames(page);
  }

  test("two taps make a box, and so does a drag", async () => {
    await beginByFinger(page);
    await page.getByTestId("draw").tap();
    const { width, height } = await size(page);
    await tap(await onScreen(page, [0.2, 0.3]));
    await tap(await onScreen(page, [0.5, 0.7]));
    await swipe(await onScreen(page, [0.6, 0.2]), await onScreen(page, [0.9, 0.6]));
    const own = await ownBoxes(page);
    assert.equal(own.length, 2);
    const room = 2 / ((await percent(page)) / 100);
    closeTo(own[0].box, [width * 0.2, height * 0.3, width * 0.5, height * 0.7], room);
    closeTo(own[1].box, [width * 0.6, height * 0.2, width * 0.9, height * 0.6], room);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `the page is ${wide} px too wide`);
  });

  test("a finger drags a handle and a box", async () => {
    await beginByFinger(page);
    await drawByFinger([0.3, 0.3], [0.6, 0.6]);
    const [{ box }] = await ownBoxes(page);
    const scale = (await percent(page)) / 100;
    const handle = middle(await page.locator('[data-handle="se"]').boundingBox());
    await swipe(handle, { x: handle.x + 30, y: handle.y + 20 });
    let now = (await ownBoxes(page))[0].box;
    closeTo(now, [box[0], box[1], box[2] + 30 / scale, box[3] + 20 / scale], 3 / scale);
    const inside = middle(await ownBox(page).boundingBox());
    const before = now;
    await swipe(inside, { x: inside.x - 25, y: inside.y - 15 });
    now = (await ownBoxes(page))[0].box;
    closeTo(now, before.map((side, i) => side - (i % 2 ? 15 : 25) / scale), 3 / scale);
  });

  test("two fingers zoom and move, one scrolls the page, a cancelled one leaves nothing", async () => {
    await beginByFinger(page);
    const fit = await percent(page);
    const [a, b] = [await onScreen(page, [0.4, 0.5]), await onScreen(page, [0.6, 0.5])];
    await touch("touchStart", a, b);
    for (let step = 1; step <= 5; step++) {
      await touch("touchMove", { x: a.x - 12 * step, y: a.y }, { x: b.x + 12 * step, y: b.y });
    }
    await touch("touchEnd");
    await frames(page);
    const close = await percent(page);
    assert.ok(close > 1.5 * fit, `${close} % after ${fit} %`);
    const before = await corner(page);
    const at = await onScreenPane(page);
    const other = { x: at.x + 60, y: at.y };
    await touch("touchStart", at, other);
    for (let step = 1; step <= 5; step++) {
      await touch("touchMove", { x: at.x + 4 * step, y: at.y + 2 * step }, { x: other.x + 4 * step, y: other.y + 2 * step });
    }
    await touch("touchEnd");
    await frames(page);
    near(await corner(page), { x: before.x + 20, y: before.y + 10 }, 3, "two fingers move the picture");
    assert.equal(await selected(page), 0);
    await page.getByTestId("zoom-fit").tap();
    await page.getByTestId("draw").tap();
    await touch("touchStart", a);
    await touch("touchMove", { x: a.x + 40, y: a.y + 40 });
    await frames(page);
    await counted(page.locator("svg.boxes .preview"), 1);
    await touch("touchCancel");
    await frames(page);
    await counted(page.locator("svg.boxes .preview"), 0);
    assert.equal((await ownBoxes(page)).length, 0);
    await swipe(a, { x: a.x + 60, y: a.y + 40 });
    assert.equal((await ownBoxes(page)).length, 1, "the next drag draws");
    const styles = await page.evaluate(() => {
      const { touchAction, userSelect } = getComputedStyle(document.querySelector("svg.boxes"));
      return { touchAction, userSelect };
    });
    assert.deepEqual(styles, { touchAction: "none", userSelect: "none" });
    await page.getByTestId("draw").tap();
    await beginByFinger(page);
    assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector("svg.boxes")).touchAction), "pan-y");
  });

  test("the controls on the picture are large enough for fingers", async () => {
    await beginByFinger(page);
    await drawByFinger([0.4, 0.2], [0.6, 0.4]);
    const buttons = page.locator(".stage-bar button, .selection button, .tools button");
    for (const button of await buttons.all()) {
      if (!(await button.isVisible())) continue;
      const { width, height } = await button.boundingBox();
      assert.ok(width >= 44 && height >= 44, `${await button.innerText()}: ${width} x ${height}`);
    }
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));

  async function drawByFinger(from, to) {
    await page.getByTestId("draw").tap();
    await swipe(await onScreen(page, from), await onScreen(page, to));
    await page.getByTestId("draw").tap();
    await frames(page);
  }

  // No boxes of the user, nothing selected, the whole picture.
  async function beginByFinger(page) {
    await page.evaluate(() => scrollTo(0, 0));
    while (await page.getByTestId("undo-box").isEnabled()) await page.getByTestId("undo-box").evaluate((b) => b.click());
    await page.evaluate(() => document.querySelector("#picture").focus({ preventScroll: true }));
    await page.keyboard.press("Escape");
    await page.keyboard.press("Escape");
    await page.keyboard.press("0");
    await frames(page);
  }
});

// The list of objects, no boxes of the user, nothing selected, the usual filters, the whole picture, which
// has the focus.
async function begin(page) {
  await tab(page, "objects");
  while (await page.getByTestId("undo-box").isEnabled()) await page.getByTestId("undo-box").click();
  await page.mouse.move(0, 0);
  await page.getByTestId("picture").focus();
  for (let i = 0; i < 3; i++) await page.keyboard.press("Escape");
  await page.keyboard.press("0");
  await slide(page, "score-slider", "0.3");
  await slide(page, "nms-slider", "0.8");
  await page.getByTestId("show-all").check();
  await page.getByTestId("picture").focus();
  await frames(page);
}

// Width and height of the picture in its pixels.
const size = (page) =>
  page.evaluate(() => {
    const [, , width, height] = document.querySelector("svg.boxes").getAttribute("viewBox").split(" ").map(Number);
    return { width, height };
  });

// A place in shares of the picture, in CSS pixels of the window.
const onScreen = (page, [x, y]) =>
  page.evaluate(
    ([x, y]) => {
      const svg = document.querySelector("svg.boxes");
      const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
      const point = new DOMPoint(x * width, y * height).matrixTransform(svg.querySelector("g").getScreenCTM());
      return { x: point.x, y: point.y };
    },
    [x, y],
  );

// Waits until the picture has come to its new view.
const settled = async (page) => {
  await page.waitForTimeout(250);
  await frames(page);
};

// The middle of the pane.
const onScreenPane = async (page) => middle(await page.locator("#picture").boundingBox());

// A point of the window in pixels of the picture.
const inPicture = (page, at) =>
  page.evaluate(({ x, y }) => {
    const group = document.querySelector("svg.boxes g");
    const point = new DOMPoint(x, y).matrixTransform(group.getScreenCTM().inverse());
    return { x: point.x, y: point.y };
  }, at);

// The picture's upper left corner on the screen.
async function corner(page) {
  await frames(page);
  return onScreen(page, [0, 0]);
}

const percent = async (page) => {
  await frames(page);
  return parseInt(await page.getByTestId("zoom-full").innerText(), 10);
};

const labelHeight = (page) =>
  page.evaluate(() => document.querySelector('[data-testid="box-label"] rect').getBoundingClientRect().height);

// The drawn boxes: number, whether of the user, corners in pixels of the picture, and on the screen.
async function boxes(page) {
  await frames(page);
  return page.evaluate(() =>
    [...document.querySelectorAll('svg.boxes [data-testid="box"]')].map((mark) => {
      const line = mark.querySelector(".line");
      const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => Number(line.getAttribute(name)));
      const rect = line.getBoundingClientRect();
      return {
        index: Number(mark.dataset.index),
        own: mark.dataset.own === "true",
        box: [x, y, x + width, y + height],
        screen: { x: rect.x, y: rect.y, width: rect.width, height: rect.height },
      };
    }),
  );
}

const ownBoxes = async (page) => (await boxes(page)).filter(({ own }) => own);

const ownBox = (page) => page.locator('svg.boxes [data-testid="box"][data-own="true"] .line');

const rows = async (page) => {
  await frames(page);
  return page.getByTestId("object-row").count();
};

const selected = async (page) => {
  await frames(page);
  return page.locator('svg.boxes [data-testid="box"].selected').count();
};

// Selects a box by its row.
async function pick(page, { index }) {
  await page.keyboard.press("Escape");
  await page.locator(`[data-testid="object-row"][data-index="${index}"]`).click();
  await page.mouse.move(0, 0);
  await page.getByTestId("picture").focus();
  assert.equal(await selected(page), 1);
}

async function drag(page, from, to, { button = "left", shift = false } = {}) {
  if (shift) await page.keyboard.down("Shift");
  await page.mouse.move(from.x, from.y);
  await page.mouse.down({ button });
  await page.mouse.move((from.x + to.x) / 2, (from.y + to.y) / 2);
  await page.mouse.move(to.x, to.y);
  await page.mouse.up({ button });
  if (shift) await page.keyboard.up("Shift");
  await frames(page);
}

// Draws a box between two places in shares of the picture, and leaves the tool.
async function draw(page, from, to) {
  await page.getByTestId("picture").focus();
  await page.keyboard.press("r");
  await drag(page, await onScreen(page, from), await onScreen(page, to));
  await page.keyboard.press("v");
  await frames(page);
}

const middle = ({ x, y, width, height }) => ({ x: x + width / 2, y: y + height / 2 });

const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);

function near(found, wanted, room, what = "") {
  const away = Math.hypot(found.x - wanted.x, found.y - wanted.y);
  assert.ok(away <= room, `${what}: ${found.x}, ${found.y} is ${away} away from ${wanted.x}, ${wanted.y}`);
}

function closeTo(found, wanted, room, what = "") {
  const away = Math.max(...found.map((side, i) => Math.abs(side - wanted[i])));
  assert.ok(away <= room, `${what}: ${found} is ${away} away from ${wanted}`);
}

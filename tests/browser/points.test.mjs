// Row Point prompts: a click picks the smallest proposal under the pointer, whatever its score, and more
// clicks go outwards. nano on the CPU.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { counted, happened, nothingForbidden, openNano, slide } from "./page.mjs";

describe("point prompts", () => {
  let browser, page;
  before(async () => {
    browser = await openNano();
    ({ page } = browser);
  });
  after(() => browser?.close());

  test("a click picks the smallest proposal below the threshold too, and more clicks cycle outwards", async () => {
    // With no box above the threshold every pick becomes a box of the user.
    await slide(page, "score-slider", "1");
    await page.getByTestId("show-all").check();
    const { boxes } = (await happened(page, "Proposed")).at(-1);
    const { at, under } = crowded(boxes.map(({ bbox, box }) => bbox ?? box));
    assert.ok(under.length >= 3, `${under.length} proposals there`);
    await page.getByTestId("tool-point").click();
    const before = await own();
    for (const expected of under.slice(0, 3)) {
      await click(at);
      const boxes = await own();
      assert.equal(boxes.length, before.length + 1, "each click replaces the pick before");
      near(boxes.at(-1), expected);
    }
    for (let left = under.length - 3; left >= 0; left -= 1) await click(at);
    near((await own()).at(-1), under[0], "around the end");
    await page.getByTestId("picture").focus();
    await page.keyboard.press("Control+z");
    assert.equal((await own()).length, before.length, "one step takes it back");
  });

  test("a proposal that is shown is selected and not added", async () => {
    await slide(page, "score-slider", "0");
    const { boxes } = (await happened(page, "Proposed")).at(-1);
    const before = (await own()).length;
    const { at } = crowded(boxes.map(({ bbox, box }) => bbox ?? box));
    await page.keyboard.press("Escape");
    await page.getByTestId("picture").focus();
    await page.keyboard.press("p");
    await click(at);
    await counted(page.locator('svg.boxes [data-testid="box"].selected'), 1);
    assert.ok((await own()).length <= before + 1);
    await page.keyboard.press("v");
    assert.equal(await page.getByTestId("tool-select").getAttribute("aria-pressed"), "true");
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));

  // The middle of the box with the most distinct ones around it, and those, smallest first.
  function crowded(boxes) {
    const same = (a, b) => a.every((side, i) => Math.abs(side - b[i]) <= 0.5);
    const distinct = boxes.filter((box, i) => boxes.findIndex((other) => same(other, box)) === i);
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    const around = ([x, y]) =>
      distinct
        .filter(([x1, y1, x2, y2]) => x >= x1 && x <= x2 && y >= y1 && y <= y2)
        .sort((a, b) => area(a) - area(b));
    const middles = distinct.map(([x1, y1, x2, y2]) => [Math.round((x1 + x2) / 2), Math.round((y1 + y2) / 2)]);
    const all = middles.map((at) => ({ at, under: around(at) }));
    return all.sort((a, b) => b.under.length - a.under.length)[0];
  }

  // Clicks at a point of the picture.
  async function click([x, y]) {
    const place = await page.locator("svg.boxes").evaluate(
      (svg, [x, y]) => {
        const { left, top, width, height } = svg.getBoundingClientRect();
        const { width: columns, height: rows } = svg.viewBox.baseVal;
        const scale = Math.min(width / columns, height / rows);
        return [left + (width - columns * scale) / 2 + x * scale, top + (height - rows * scale) / 2 + y * scale];
      },
      [x, y],
    );
    await page.mouse.click(...place);
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  }

  // The corners of the boxes of the user.
  const own = () =>
    page.evaluate(() =>
      [...document.querySelectorAll('svg.boxes [data-testid="box"][data-own="true"] .line')].map((line) => {
        const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => Number(line.getAttribute(name)));
        return [x, y, x + w, y + h];
      }),
    );

  function near(found, wanted, what = "") {
    const away = Math.max(...found.map((side, i) => Math.abs(side - wanted[i])));
    assert.ok(away <= 1, `${what} ${found} is ${away} away from ${wanted}`);
  }
});

// The page stays responsive while the model works: latency of typing and of a slider, busy and idle.

import assert from "node:assert/strict";
import { test } from "node:test";
import { answered, ask, open, URL_OF_PAGE } from "./page.mjs";

const TIMES = 30;

test("typing and sliding while the model works", async () => {
  const browser = await open();
  const { page } = browser;
  try {
    await page.goto(URL_OF_PAGE);
    await answered(page, 0);
    const idle = await handling(page);
    const turn = await ask(page, "Please describe this image in detail.");
    const busy = await handling(page);
    const still = await page.getByTestId("stop").isVisible();
    await answered(page, turn);
    for (const kind of ["typing", "sliding"]) {
      const [a, b] = [median(idle[kind]), median(busy[kind])];
      console.log(`${kind}: idle ${a.toFixed(1)} ms, busy ${b.toFixed(1)} ms, ratio ${(b / a).toFixed(2)}`);
      assert.ok(Number.isFinite(b / a));
    }
    console.log(still ? "the model worked throughout" : "the answer ended before the last key");
  } finally {
    await browser.close();
  }
});

// Milliseconds from each input to the frame after it.
function handling(page) {
  return page.evaluate(async (times) => {
    const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    const measure = async (mark, value) => {
      const field = document.querySelector(`[data-testid="${mark}"]`);
      const took = [];
      for (let i = 0; i < times; i += 1) {
        const start = performance.now();
        field.value = value(i);
        field.dispatchEvent(new Event("input", { bubbles: true }));
        await painted();
        took.push(performance.now() - start);
      }
      return took;
    };
    return {
      typing: await measure("question", (i) => "x".repeat(i + 1)),
      sliding: await measure("score-slider", (i) => 0.2 + 0.01 * (i % 20)),
    };
  }, TIMES);
}

function median(values) {
  return [...values].sort((a, b) => a - b)[TIMES >> 1];
}

// Accessibility: axe finds nothing serious, wide and narrow, light and dark; screenshots.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { answered, nothingForbidden, open, PICTURES, URL_OF_PAGE } from "./page.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SIZES = { 1280: { width: 1280, height: 800 }, 390: { width: 390, height: 844 } };

test("axe finds nothing serious, and nothing overflows", async (context) => {
  const browser = await open({ webgpu: false });
  const { page, seen } = browser;
  try {
    await page.goto(URL_OF_PAGE);
    await answered(page, 0);
    for (const [name, size] of Object.entries(SIZES)) {
      for (const colorScheme of ["light", "dark"]) {
        await page.setViewportSize(size);
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        await page.screenshot({ path: join(PICTURES, `page-${name}-${colorScheme}.png`) });
        await context.test(`${name} px, ${colorScheme}`, async () => {
          assert.deepEqual(await serious(page), []);
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          assert.ok(wide <= 0, `the page is ${wide} px too wide`);
        });
        await page.getByTestId("model-state").click();
        await page.getByTestId("model-address").fill("models/nano");
        await page.screenshot({ path: join(PICTURES, `models-${name}-${colorScheme}.png`) });
        await context.test(`the model manager at ${name} px, ${colorScheme}`, async () => {
          assert.deepEqual(await serious(page), []);
          const wide = await page.getByTestId("manager").evaluate((m) => m.scrollWidth - m.clientWidth);
          assert.ok(wide <= 0, `the manager is ${wide} px too wide`);
        });
        await page.keyboard.press("Escape");
        assert.ok(!(await page.getByTestId("manager").isVisible()));
      }
    }
    nothingForbidden(seen);
  } finally {
    await browser.close();
  }
});

test("axe finds nothing serious in the empty page, the history, the settings and the strip", async (context) => {
  const browser = await open({ webgpu: false });
  const { page, seen } = browser;
  const picture = (name) => new URL(`../../web/static/samples/${name}`, import.meta.url).pathname;
  const toAndFro = {
    history: { in: () => page.getByTestId("history").click(), out: () => page.keyboard.press("Escape") },
    settings: { in: () => page.getByTestId("settings").click(), out: () => page.keyboard.press("Escape") },
    camera: { in: () => page.getByTestId("open-camera").click(), out: () => page.keyboard.press("Escape") },
    empty: { in: () => page.getByTestId("new").click(), out: () => page.getByTestId("undo").click() },
    strip: { in: () => page.getByTestId("strip").waitFor(), out: () => {} },
  };
  try {
    await page.goto(URL_OF_PAGE);
    await answered(page, 0);
    await page.getByTestId("file-input").setInputFiles([picture("coffee.jpg"), picture("cat.jpg")]);
    await page.getByTestId("strip-picture").nth(1).waitFor();
    for (const [name, size] of Object.entries(SIZES)) {
      for (const colorScheme of ["light", "dark"]) {
        await page.setViewportSize(size);
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        for (const [state, way] of Object.entries(toAndFro)) {
          await way.in();
          await page.waitForTimeout(300);
          await page.screenshot({ path: join(PICTURES, `${state}-${name}-${colorScheme}.png`) });
          await context.test(`${state} at ${name} px, ${colorScheme}`, async () => {
            assert.deepEqual(await serious(page), []);
            const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
            assert.ok(wide <= 0, `the page is ${wide} px too wide`);
          });
          await way.out();
        }
      }
    }
    nothingForbidden(seen);
  } finally {
    await browser.close();
  }
});

async function serious(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => self.axe.run());
  return violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
}

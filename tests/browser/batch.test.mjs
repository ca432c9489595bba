// Rows Batch and annotate-assist: one task for many pictures, its files, and the review of its boxes. nano
// on the CPU.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { answered, ask, asked, counted, hold, nothingForbidden, openNano, LONG, PICTURES, URL_OF_NANO } from "./page.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const READER = new URL("../reference/batch.py", import.meta.url);
const PYTHON = process.env.CHATREX_PYTHON ?? "python3";
// The first number of a picture of a batch.
const FIRST = 2 ** 30;

const sample = (name) => readFile(new URL(`../../web/static/samples/${name}`, import.meta.url));
const NAMES = ["scene.png", "cat.jpg", "broken.png", "coffee.jpg", "rocket.jpg"];
const FILES = await Promise.all(
  NAMES.map(async (name) => ({
    name,
    mimeType: name.endsWith("png") ? "image/png" : "image/jpeg",
    buffer: name === "broken.png" ? Buffer.from("no picture") : await sample(name),
  })),
);

const hasPython = (() => {
  try {
    execFileSync(PYTHON, ["-c", "import json, zipfile"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

describe("batch", () => {
  let browser, page, folder;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "chatrex-batch-"));
    browser = await openNano();
    ({ page } = browser);
  });
  after(async () => {
    await browser?.close();
    await rm(folder, { recursive: true, force: true });
  });

  test("a task is needed, and files that are no pictures are left out", async () => {
    await page.getByTestId("batch-open").click();
    const start = page.getByTestId("batch-start");
    assert.ok(await start.isDisabled());
    const text = { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("x") };
    await page.getByTestId("batch-files").setInputFiles([...FILES, text]);
    await page.getByText("5 pictures chosen, 1 other file left out.").waitFor();
    assert.ok(await start.isDisabled(), "Find needs words");
    await page.getByTestId("batch-words").fill("cat; dog; ball");
    assert.ok(await start.isEnabled());
    await axe("setup");
  });

  test("pictures are worked on one after the other, and a pause waits for the running one", async () => {
    // In the page: a fast machine would finish all pictures before a click from outside.
    const paused = page.evaluate(pausesAfterTheFirst);
    await page.getByTestId("batch-start").click();
    await paused;
    await state("paused");
    const seen = await states();
    assert.equal(seen[0], "done");
    assert.ok(seen.includes("waiting"), seen.join());
    assert.ok(!seen.includes("running"), seen.join());
    assert.match(await progress(), /^\d of 5 done(, 1 failed)?\. Paused\.$/);
    await page.getByTestId("batch-close").click();
    assert.match(await page.getByTestId("batch-line").innerText(), /Paused/);
  });

  test("after a reload the queue is paused, what is done is done, and nothing is asked", async () => {
    await page.getByTestId("batch-open").click();
    const [before, details] = [await states(), await texts()];
    await page.reload();
    await page.getByTestId("batch-line").waitFor();
    await page.getByTestId("batch-show").click();
    assert.deepEqual(await states(), before);
    assert.deepEqual(await texts(), details);
    await state("paused");
    assert.deepEqual(await looks(), []);
  });

  test("the user's own question goes first, and the batch works on afterwards, each picture once", async () => {
    const left = (await states()).filter((state) => state === "waiting").length;
    await page.getByTestId("batch-running").getByTestId("batch-resume").click();
    await page.waitForFunction((first) => self.requests.some((r) => r.Look?.picture >= first), FIRST, { timeout: LONG });
    await page.getByTestId("batch-close").click();
    const own = await answered(page, await ask(page, "How many cats are there?"));
    assert.equal(own.state, "done");
    await page.getByTestId("batch-open").click();
    await state("finished");
    assert.deepEqual(await states(), ["done", "done", "failed", "done", "done"]);
    assert.equal(await progress(), "4 of 5 done, 1 failed.");
    const again = (await looks()).length - left;
    assert.ok(again <= 1, `${again} pictures more than those left: only the interrupted one may come again`);
    const broken = await page.getByTestId("batch-item").nth(2).innerText();
    assert.match(broken, /cannot be opened: this browser cannot read it as a picture\.\s*Error code: Unsupported/);
    await axe("finished");
  });

  test("a failed picture is tried again, and those done are not", async () => {
    const before = await looks();
    await page.getByTestId("batch-retry").click();
    await state("finished");
    assert.equal((await states())[2], "failed");
    assert.deepEqual(await looks(), before);
  });

  test("JSONL and ZIP hold the same results", { skip: !hasPython }, async () => {
    await saved("jsonl");
    await page.getByTestId("batch-with-pictures").check();
    await saved("zip");
    await writeFile(join(folder, "expected.json"), JSON.stringify({ states: await states(), pictures: true }));
    console.log(execFileSync(PYTHON, [READER.pathname, folder], { encoding: "utf8" }));
  });

  test("a review by keys alone: accept, reject, label, draw, undo, pictures", async () => {
    await page.getByTestId("batch-review").focus();
    await page.keyboard.press("Enter");
    await page.getByTestId("review").waitFor();
    const all = Number(/of (\d+) reviewed/.exec(await review())[1]);
    assert.ok(all >= 4, `${all} entries`);
    const certainty = async () => Number(/(\d+) % certain/.exec(await review())?.[1] ?? 50);
    const first = await certainty();
    await page.keyboard.press("ArrowRight");
    assert.ok((await certainty()) >= first, "the least certain comes first");
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("Space");
    await decided(1);
    await page.keyboard.press("x");
    await decided(2);
    await page.keyboard.press("2");
    await decided(3);
    await page.keyboard.press("Control+z");
    await decided(2);
    assert.match(await review(), /Open\.$/);
    const place = () => page.getByTestId("review-place").innerText();
    while (!(await place()).startsWith("Picture 1 ")) await page.keyboard.press("Control+ArrowLeft");
    assert.match(await place(), /scene\.png$/);
    const boxes = page.getByTestId("review-box");
    const drawn = await boxes.count();
    await page.keyboard.press("r");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Shift+ArrowRight");
    await page.keyboard.press("3");
    await boxes.nth(drawn).waitFor();
    assert.equal(await boxes.nth(drawn).getAttribute("data-state"), "accepted");
    await page.keyboard.press("Control+ArrowRight");
    assert.match(await place(), /cat\.jpg$/);
    await page.keyboard.press("Control+ArrowRight");
    assert.match(await place(), /coffee\.jpg$/, "the failed picture has nothing to review");
    await page.screenshot({ path: join(PICTURES, "review.png") });
    await axe("review");
  });

  test("a box is drawn with the pointer", async () => {
    const before = await page.getByTestId("review-box").count();
    await page.getByTestId("review-draw").click();
    const { x, y, width, height } = await page.getByTestId("review-picture").boundingBox();
    await page.mouse.move(x + width / 2 - 20, y + height / 2 - 20);
    await page.mouse.down();
    await page.mouse.move(x + width / 2 + 30, y + height / 2 + 25, { steps: 4 });
    await page.mouse.up();
    await page.getByTestId("review-add").click();
    await counted(page.getByTestId("review-box"), before + 1);
    await page.keyboard.press("Control+z");
    await counted(page.getByTestId("review-box"), before);
  });

  test("the review outlives the page", async () => {
    const before = await review();
    await page.reload();
    await page.getByTestId("batch-item").nth(4).waitFor({ state: "attached" });
    await page.getByTestId("batch-open").click();
    await page.getByTestId("batch-review").click();
    assert.equal(await review(), before);
    await page.keyboard.press("Escape");
    assert.ok(!(await page.getByTestId("batch").isVisible()));
  });

  test("only accepted and corrected boxes are saved", { skip: !hasPython }, async () => {
    await page.getByTestId("batch-open").click();
    await page.getByTestId("review-back").click();
    assert.ok(await page.getByTestId("batch-accepted").isChecked());
    const lines = await saved("jsonl");
    await saved("zip");
    const records = lines.trimEnd().split("\n").map((line) => JSON.parse(line));
    const boxes = records.flatMap((record) => record.boxes ?? []);
    const own = boxes.filter((box) => box.score === undefined);
    assert.equal(own.length, 1, "the drawn one");
    assert.equal(own[0].label, "ball");
    assert.ok(boxes.length <= 2, `${boxes.length} boxes`);
    assert.equal(records.filter((record) => record.reviewed === false).length > 0, true);
    await page.getByTestId("batch-accepted").uncheck();
    const everything = (await saved("jsonl")).trimEnd().split("\n").map((line) => JSON.parse(line));
    const all = everything.flatMap((record) => record.boxes ?? []);
    assert.ok(all.length > 0 && all.every((box) => box.score !== undefined), "as the model found them");
  });

  test("a picture opens on the page with its answer, and Ctrl with arrows steps through the others", async () => {
    await page.getByTestId("batch-open-picture").nth(0).click();
    assert.equal((await answered(page, 0)).state, "done");
    await page.getByText("Find cat, dog, ball").first().waitFor();
    await page.getByTestId("batch-open").click();
    await page.getByTestId("batch-open-picture").nth(2).click();
    await page.getByTestId("strip-picture").nth(1).waitFor();
    const current = () =>
      page.evaluate(() =>
        [...document.querySelectorAll('[data-testid="strip-picture"]')].findIndex((b) => b.ariaCurrent === "true"),
      );
    await page.waitForFunction(() => document.querySelectorAll('[data-testid="strip-picture"]')[1]?.ariaCurrent === "true");
    await page.getByTestId("picture").focus();
    await page.keyboard.press("Control+ArrowLeft");
    await page.waitForFunction(() => document.querySelectorAll('[data-testid="strip-picture"]')[0]?.ariaCurrent === "true");
    assert.equal(await current(), 0);
  });

  test("cancel leaves out what waits, and a new batch takes the opened pictures into the history", async () => {
    await page.getByTestId("batch-open").click();
    await page.getByTestId("batch-new").click();
    await page.getByTestId("batch-delete").click();
    await page.getByTestId("batch-group").click();
    await page.getByText("2 pictures chosen.").waitFor();
    await page.getByTestId("batch-task").selectOption("name-all");
    await page.getByTestId("batch-history").check();
    const release = await hold(page, 0);
    await page.getByTestId("batch-start").click();
    await item(0, "running");
    await page.getByTestId("batch-cancel").click();
    await release();
    await state("finished");
    assert.deepEqual(await states(), ["skipped", "skipped"]);
    await page.getByTestId("batch-again").click();
    await state("finished");
    assert.deepEqual(await states(), ["done", "done"]);
    await page.getByTestId("batch-close").click();
    await page.getByTestId("history").click();
    await page.getByTestId("drawer").getByText("scene.png").first().waitFor();
    await page.keyboard.press("Escape");
  });

  test("one tab at a time has the batch", async () => {
    const other = await browser.context.newPage();
    await other.goto(URL_OF_NANO);
    await other.getByTestId("batch-open").click();
    await other.getByTestId("batch-elsewhere").waitFor();
    await counted(other.getByTestId("batch-start"), 0);
    // The batch is deleted: the other tab may begin one.
    await page.bringToFront();
    await page.getByTestId("batch-open").click();
    await page.getByTestId("batch-new").click();
    await page.getByTestId("batch-delete").click();
    await other.bringToFront();
    await other.getByTestId("batch-check").click();
    await other.getByTestId("batch-start").waitFor();
    // Then this tab begins one first.
    await page.bringToFront();
    await begin(page);
    await state("finished");
    await other.bringToFront();
    await begin(other);
    await other.getByTestId("batch-elsewhere").waitFor();
    // Once this tab is left, the other one has the results.
    await page.goto("about:blank");
    await other.getByTestId("batch-check").click();
    await other.locator('[data-testid="batch-item"][data-state="done"]').waitFor();
    await other.close();
    await page.goto(URL_OF_NANO);
    await page.getByTestId("batch-open").click();
    await state("finished");
    await page.getByTestId("batch-close").click();
    assert.equal((await answered(page, 0)).state, "done");
  });

  test("a batch that another tab left is not overwritten", async () => {
    const other = await browser.context.newPage();
    await page.getByTestId("batch-open").click();
    await page.getByTestId("batch-new").click();
    await page.getByTestId("batch-delete").click();
    await other.goto(URL_OF_NANO);
    await other.getByTestId("batch-open").click();
    await other.getByTestId("batch-start").waitFor();
    await page.bringToFront();
    await begin(page);
    await state("finished");
    await page.goto("about:blank");
    await other.bringToFront();
    await begin(other);
    await other.locator('[data-testid="batch-item"][data-state="done"]').waitFor();
    await other.getByText("The batch: another tab left one that is kept.").waitFor();
    await other.close();
    await page.goto(URL_OF_NANO);
    assert.equal((await answered(page, 0)).state, "done");
  });

  test("everything fits on a phone", async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    // The bar of a phone has no room for the button.
    await page.getByTestId("new").click();
    await page.getByTestId("start-batch").click();
    await axe("phone");
    for (const where of ["batch-review", "review-back"]) {
      const wide = await page.getByTestId("batch").evaluate((b) => b.scrollWidth - b.clientWidth);
      assert.ok(wide <= 0, `${wide} px too wide`);
      await page.screenshot({ path: join(PICTURES, `batch-phone-${where}.png`) });
      await page.getByTestId(where).click();
    }
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));

  async function begin(page) {
    await page.getByTestId("batch-files").setInputFiles(FILES.slice(0, 1));
    await page.getByTestId("batch-task").selectOption("name-all");
    await page.getByTestId("batch-start").click();
  }

  // Runs in the page: pauses the batch as soon as a picture is done.
  function pausesAfterTheFirst() {
    const pause = () => {
      if (!document.querySelector('[data-testid="batch-item"][data-state="done"]')) return false;
      document.querySelector('[data-testid="batch-running"] [data-testid="batch-pause"]').click();
      return true;
    };
    return new Promise((done) => {
      const observer = new MutationObserver(() => {
        if (!pause()) return;
        observer.disconnect();
        done();
      });
      observer.observe(document.body, { subtree: true, childList: true, attributes: true });
    });
  }

  // Waits for the state of a picture, and of the batch.
  const item = (index, state) =>
    page.locator(`[data-testid="batch-item"][data-state="${state}"]`).nth(index).waitFor({ timeout: LONG });
  const state = (state) =>
    page.locator(`[data-testid="batch-running"][data-state="${state}"]`).waitFor({ timeout: LONG });
  const states = () => page.getByTestId("batch-item").evaluateAll((all) => all.map((item) => item.dataset.state));
  const texts = () => page.getByTestId("batch-item").allInnerTexts();
  const progress = async () => (await page.getByTestId("batch-progress").innerText()).trim();
  const looks = async () => (await asked(page, "Look")).filter((look) => look.picture >= FIRST);
  const review = async () => (await page.getByTestId("review-status").innerText()).trim();
  const decided = (count) => page.getByText(new RegExp(`^${count} of \\d+ reviewed`)).first().waitFor();

  // Saves a file of the batch and returns its text.
  async function saved(kind) {
    const coming = page.waitForEvent("download", { timeout: LONG });
    await page.getByTestId(`batch-${kind}`).click();
    const download = await coming;
    const path = join(folder, download.suggestedFilename());
    await download.saveAs(path);
    await page.getByTestId("batch-said").getByText("Sent to your downloads").waitFor();
    return readFile(path, "utf8");
  }

  async function axe(name) {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.screenshot({ path: join(PICTURES, `batch-${name}-${colorScheme}.png`) });
      if (!(await page.evaluate(() => "axe" in self))) await page.evaluate(AXE);
      const found = await page.evaluate(() => self.axe.run(document.querySelector('[data-testid="batch"]')));
      const bad = found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html).join(" ")}`);
      assert.deepEqual(bad, [], `${name} ${colorScheme}`);
    }
  }
});

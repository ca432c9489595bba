// What can be taken out of the page and brought back: real downloads from the page, read by independent
// programs, and files that come back by the button and by a drop. nano on the CPU.

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { cameraJpeg } from "./exif.mjs";
import {
  answered,
  ask,
  counted,
  dismissed,
  drawnBoxes,
  drop,
  inTab,
  looked,
  nothingForbidden,
  open,
  openNano,
  openPicture,
  LONG,
  PICTURES,
} from "./page.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SCENE = new URL("../../web/static/samples/scene.png", import.meta.url);
const READER = new URL("../reference/exports.py", import.meta.url);
// Question and answer with tags of HTML and Markdown.
const HOSTILE = "</script><script>self.evil = 1</script><!-- *x* \"'";
// The box of the user: x, y, width, height.
const LAMP = [10.5, 20.25, 30, 40.5];

// Why the files are not read by independent programs; false if they are.
const PYTHON = process.env.CHATREX_PYTHON ?? "python3";
const missing = (() => {
  try {
    execFileSync(PYTHON, ["-c", "import PIL, pycocotools, label_studio_sdk"], { stdio: "ignore" });
    return false;
  } catch {
    return `${PYTHON} with pillow, pycocotools and label-studio-sdk is not here`;
  }
})();

describe("exports", () => {
  let browser, page, folder, size;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "chatrex-exports-"));
    browser = await openNano();
    ({ page } = browser);
    size = await page.locator("#picture img").evaluate((i) => [i.naturalWidth, i.naturalHeight]);
  });
  after(async () => {
    await browser?.close();
    await rm(folder, { recursive: true, force: true });
  });

  test("boxes of a COCO file become boxes of the user with their labels, once", async () => {
    const before = await count();
    const file = join(folder, "lamp.json");
    await writeFile(file, coco(LAMP, "my lamp"));
    assert.match(await brought(file), /^Added 1 box of lamp\.json\.$/);
    await named("my lamp");
    assert.equal(await count(), before + 1);
    const box = (await drawnBoxes(page)).at(-1);
    assert.deepEqual(box, [10.5, 20.25, 40.5, 60.75]);
    assert.match(await brought(file), /^Nothing new in lamp\.json\. Left out: 1 there already\.$/);
    assert.equal(await count(), before + 1);
  });

  test("boxes without a label are asked about before they are saved", async () => {
    await show("coco");
    const question = page.getByTestId("unlabelled");
    assert.match(await question.innerText(), /box(es)? ha(s|ve) no label/);
    let downloads = 0;
    page.on("download", () => (downloads += 1));
    await page.getByTestId("export-save").click();
    assert.match(await said(), /Choose what happens to such boxes/);
    assert.equal(downloads, 0);
    page.removeAllListeners("download");
    await page.getByTestId("as-object").check();
    await hide();
  });

  test("every format of boxes is downloaded", async () => {
    const boxes = await drawnBoxes(page);
    for (const [format, ending] of [
      ["coco", "coco.json"],
      ["yolo", "yolo.zip"],
      ["voc", "xml"],
      ["csv", "csv"],
      ["box-2d", "box_2d.json"],
      ["label-studio", "label-studio.json"],
    ]) {
      const { path, words } = await saved(format, { scope: "all" });
      assert.ok(path.endsWith(`/scene.${ending}`), path);
      assert.match(words, new RegExp(`Sent to your downloads: scene\\..* \\(${boxes.length} boxes, `));
    }
    const file = JSON.parse(await readFile(join(folder, "scene.coco.json"), "utf8"));
    assert.equal(file.annotations.length, boxes.length);
    assert.deepEqual([file.images[0].width, file.images[0].height], size);
    assert.ok(file.categories.some(({ name }) => name === "object"));
    const lamp = file.annotations.at(-1);
    assert.deepEqual(lamp.bbox, LAMP);
    const labels = file.annotations.map(({ category_id }) => file.categories[category_id - 1].name);
    assert.equal(labels.at(-1), "my lamp");
    const expected = boxes.map((box, index) => ({ box, label: labels[index], own: index === boxes.length - 1 }));
    await writeFile(join(folder, "expected.json"), JSON.stringify({ size, boxes: expected }));
  });

  test("a scope takes only its boxes", async () => {
    const { path } = await saved("csv", { scope: "own" });
    const lines = (await readFile(path, "utf8")).trimEnd().split("\r\n");
    assert.equal(lines.length, 2);
    assert.match(lines[1], /,my lamp,,10\.5,20\.25,40\.5,60\.75,user$/);
    await saved("csv", { scope: "all" });
  });

  test("annotated and covered pictures have the full size", async () => {
    await saved("annotated", { scope: "all", as: "scene.boxes.png" });
    await show("annotated");
    await page.getByTestId("export-footer").check();
    await page.getByTestId("export-text").fill("14");
    await page.getByTestId("export-line").fill("5");
    await hide();
    await saved("annotated", { scope: "mentioned", as: "footer.png" });
    await saved("redacted", { scope: "own", as: "scene.redacted.png" });
    await show("redacted");
    await page.getByTestId("cover-blur").check();
    await hide();
    await saved("redacted", { scope: "own", as: "blurred.png" });
    for (const name of ["scene.boxes.png", "scene.redacted.png", "blurred.png", "footer.png"]) {
      const png = await readFile(join(folder, name));
      assert.equal(png.readUInt32BE(16), size[0], name);
      const extra = png.readUInt32BE(20) - size[1];
      assert.ok(name === "footer.png" ? extra > 30 : extra === 0, `${name} is ${extra} px higher`);
      if (name.includes("oxes") || name === "footer.png") await writeFile(join(PICTURES, `export-${name}`), png);
    }
  });

  test("without a selected box there is nothing to cover", async () => {
    await show("redacted");
    await page.getByTestId("scope-selected").check();
    await page.getByTestId("export-save").click();
    assert.match(await said(), /Choose the boxes to cover first/);
    await hide();
  });

  test("independent programs read the files and find the same boxes", { skip: missing }, async () => {
    await writeFile(join(folder, "scene.png"), await readFile(SCENE));
    const { stdout } = await promisify(execFile)(PYTHON, [READER.pathname, folder]);
    console.log(stdout.trim());
  });

  test("hostile words stay words in Markdown and in the page", async () => {
    assert.equal((await answered(page, await ask(page, HOSTILE))).state, "done");
    const { path } = await saved("markdown");
    const markdown = await readFile(path, "utf8");
    assert.match(markdown, /\*\*cats\*\* \\\[\d\\\]/);
    assert.ok(!markdown.includes("<script"), markdown);
    const { path: file } = await saved("page");
    const { path: json } = await saved("document");
    assert.ok(file.endsWith("scene.chatrex.html") && json.endsWith("scene.chatrex.json"));
  });

  test("the saved page works from the disk, by pointer and by keyboard, and asks for nothing", async () => {
    const viewer = await browser.context.newPage();
    const seen = [];
    viewer.on("request", (request) => seen.push(request.url().slice(0, 5)));
    viewer.on("console", (message) => seen.push(message.text()));
    viewer.on("pageerror", (error) => seen.push(String(error)));
    await viewer.goto(pathToFileURL(join(folder, "scene.chatrex.html")).href);
    const phrase = viewer.locator(".phrase").first();
    const numbers = (await phrase.getAttribute("data-boxes")).split(" ").sort();
    assert.equal(numbers.length, 5);
    const lit = () =>
      viewer.evaluate(() => [...document.querySelectorAll(".box.lit")].map((b) => b.dataset.box).sort());
    assert.deepEqual(await lit(), []);
    await phrase.hover();
    assert.deepEqual(await lit(), numbers);
    await phrase.click();
    await viewer.mouse.move(0, 0);
    assert.deepEqual(await lit(), numbers, "a click keeps them");
    await viewer.screenshot({ path: join(PICTURES, "export-page.png") });
    await viewer.keyboard.press("Escape");
    assert.deepEqual(await lit(), []);
    await viewer.locator("body").click({ position: { x: 2, y: 2 } });
    await viewer.keyboard.press("Tab");
    assert.deepEqual(await lit(), numbers, "so does the focus");
    await viewer.locator(".phrase").first().blur();
    await viewer.locator(".box.shown rect.line").first().hover();
    assert.equal((await lit()).length, 1);
    await counted(viewer.locator(".phrase.lit"), 1);
    assert.ok((await viewer.innerText("body")).includes(HOSTILE));
    assert.equal(await viewer.evaluate(() => self.evil), undefined);
    assert.deepEqual(seen.filter((what) => !["file:", "data:"].includes(what)), []);
    await viewer.evaluate(AXE);
    const { violations } = await viewer.evaluate(() => self.axe.run());
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), []);
    await viewer.close();
  });

  test("the saved page dropped on the page goes on", async () => {
    await page.reload();
    await answered(page, 0);
    const file = await readFile(join(folder, "scene.chatrex.html"));
    await looked(page, () => drop(page, file, "scene.chatrex.html", "text/html"));
    const outcome = page.getByTestId("exchange-outcome");
    await outcome.getByText("Opened scene.chatrex.html: 2 answers").waitFor({ timeout: LONG });
    const question = page.getByTestId("asked").nth(1);
    await question.waitFor();
    assert.ok((await question.innerText()).endsWith(HOSTILE));
    assert.equal(await page.evaluate(() => self.evil), undefined);
    await named("my lamp");
    const phrase = page.getByTestId("phrase").first();
    await phrase.hover();
    const lit = await page.locator('[data-testid="box"][data-lit="true"]').count();
    assert.equal(lit, 5, "phrases find their boxes after the engine proposed them again");
    assert.equal((await answered(page, await ask(page, "How many cats are there?"))).state, "done");
    await counted(page.getByTestId("answer"), 3);
  });

  test("our JSON comes back to the open picture, and its turns only once", async () => {
    await openPicture(page, SCENE.pathname);
    const file = join(folder, "scene.chatrex.json");
    assert.match(await brought(file), /^Opened scene\.chatrex\.json: 2 answers, \d+ boxes\.$/);
    await named("my lamp");
    const turns = await page.getByTestId("answer").count();
    assert.equal(turns, 2);
    await brought(file);
    await counted(page.getByTestId("answer"), turns);
  });

  test("YOLO, Label Studio and labelled JSON come back too", async () => {
    for (const files of [["scene.yolo.zip"], ["scene.label-studio.json"], ["scene.box_2d.json"]]) {
      await openPicture(page, SCENE.pathname);
      const before = await count();
      assert.match(await brought(...files.map((name) => join(folder, name))), /^Added \d+ boxes of /);
      assert.ok((await count()) > before);
      await named("my lamp");
    }
    const [labels, classes] = [join(folder, "other.txt"), join(folder, "classes.txt")];
    await writeFile(labels, "1 0.5 0.5 0.25 0.25\n0 0.1 0.1 0.1 0.1\n");
    await writeFile(classes, "tea pot\nspoon\n");
    assert.match(await brought(labels, classes), /^Added 2 boxes of other\.txt\.$/);
    await named("spoon");
  });

  test("a photograph that a camera turned is covered upright, without its metadata", async () => {
    const jpeg = await cameraJpeg(page, await readFile(SCENE), { isRotated: true });
    assert.ok(jpeg.includes("Exif"));
    await looked(page, () => drop(page, jpeg, "turned.jpg", "image/jpeg"));
    const file = join(folder, "turned.json");
    await writeFile(file, coco(LAMP, "face"));
    assert.match(await brought(file), /^Added 1 box/);
    const { path } = await saved("redacted", { scope: "own" });
    assert.ok(path.endsWith("/turned.redacted.png"), path);
    const png = await readFile(path);
    assert.deepEqual([png.readUInt32BE(16), png.readUInt32BE(20)], size);
    assert.ok(!png.includes("Exif") && !png.includes("eXIf"));
  });

  const html = "<!doctype html><p>hello";
  for (const [name, content, expected] of [
    ["broken.json", "{", /damaged.*Corrupt/s],
    ["other.json", '{"a": 1}', /no kind that can be imported.*Unsupported/s],
    ["big.json", coco(LAMP, "x", [9, 9]), /picture of 9 × 9 pixels.*InvalidInput/s],
    ["plain.html", html, /not a conversation.*Unsupported/s],
    ["cut.zip", "PK\u0003\u0004", /archive is damaged.*Corrupt/s],
    ["words.txt", "hello world", /line 1 is not.*Corrupt/s],
    ["empty.json", "", /is empty.*Corrupt/s],
  ]) {
    test(`${name} gets one sentence with a code, and nothing is lost`, async () => {
      const before = [await count(), await page.getByTestId("answer").count()];
      const file = join(folder, name);
      await writeFile(file, content);
      assert.match(await brought(file), expected);
      assert.deepEqual([await count(), await page.getByTestId("answer").count()], before);
      await page.getByTestId("exchange-dismiss").click();
    });
  }

  test("axe finds nothing in the dialog, wide and narrow, light and dark", async () => {
    for (const width of [1280, 390]) {
      for (const colorScheme of ["light", "dark"]) {
        await page.setViewportSize({ width, height: 844 });
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        for (const format of ["annotated", "redacted", "yolo"]) {
          await show(format);
          await page.evaluate(AXE);
          const { violations } = await page.evaluate(() => self.axe.run('[data-testid="exchange"]'));
          assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), []);
          const dialog = page.getByTestId("exchange");
          const wide = await dialog.evaluate((d) => d.scrollWidth - d.clientWidth);
          assert.ok(wide <= 0, `the dialog is ${wide} px too wide`);
          await page.screenshot({ path: join(PICTURES, `export-${format}-${width}-${colorScheme}.png`) });
          await hide();
        }
      }
    }
  });

  test("there were no foreign requests and no policy violations", () => {
    const foreign = browser.seen.foreign.filter((url) => !url.startsWith("file:"));
    nothingForbidden({ ...browser.seen, foreign });
  });

  // A COCO file with one box for the picture.
  function coco(bbox, name, [width, height] = []) {
    return JSON.stringify({
      images: [{ id: 7, file_name: "scene.png", width, height }],
      annotations: [{ id: 1, image_id: 7, category_id: 3, bbox }],
      categories: [{ id: 3, name }],
    });
  }

  // Waits for a box with this name in the list.
  const named = (name) =>
    inTab(page, "objects", () => page.getByTestId("object-name").getByText(name, { exact: true }).first().waitFor());

  const count = async () => Number(await page.getByTestId("box-count").innerText());

  // Opens the dialog with a format.
  async function show(format) {
    await page.getByTestId("export").click();
    await page.getByTestId("export-format").selectOption(format);
  }

  async function hide() {
    await page.getByTestId("exchange-close").click();
  }

  // The page shows changes with the next frame.
  const frames = () =>
    page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

  // What the page says of the last export or import, once it has ended.
  async function said() {
    const line = page.getByTestId("exchange-outcome");
    await line.filter({ hasNotText: /^\s*$|…$/ }).waitFor({ timeout: LONG });
    await frames();
    const text = await page.locator(".exchange-outcome").innerText();
    return text.replace(/\s*Dismiss\s*$/, "");
  }

  // Imports files with the button, and returns what the page says.
  async function brought(...files) {
    await page.evaluate(dismissed);
    await page.getByTestId("import").setInputFiles(files);
    return said();
  }

  // Saves a file: its path and what the page says.
  async function saved(format, { scope, as } = {}) {
    await show(format);
    if (scope) await page.getByTestId(`scope-${scope}`).check();
    const coming = page.waitForEvent("download", { timeout: LONG });
    await page.getByTestId("export-save").click();
    const download = await coming;
    const path = join(folder, as ?? download.suggestedFilename());
    await download.saveAs(path);
    await page.getByTestId("exchange-outcome").getByText("Sent to your downloads").waitFor();
    const words = await said();
    await hide();
    return { path, words };
  }
});

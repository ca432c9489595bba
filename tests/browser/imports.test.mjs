// Row Import boxes: Pascal VOC, CSV and lists of other models come in with the same care as the formats of
// exports.test.mjs. Row Export: corrected links and other answers are in the saved documents. nano on the CPU.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { dismissed, drawnBoxes, drop, LONG, nothingForbidden, openNano, openPicture } from "./page.mjs";

const SCENE = new URL("../../web/static/samples/scene.png", import.meta.url);

describe("imports", () => {
  let browser, page, folder, size;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "chatrex-imports-"));
    browser = await openNano();
    ({ page } = browser);
    size = await page.locator("#picture img").evaluate((i) => [i.naturalWidth, i.naturalHeight]);
  });
  after(async () => {
    await browser?.close();
    await rm(folder, { recursive: true, force: true });
  });

  test("Pascal VOC, CSV and a fenced list come in as boxes of the user with their labels", async () => {
    const [width, height] = size;
    const files = {
      "scene.xml": [voc([10, 20, 40, 60], "red lamp"), [10, 20, 40, 60], "red lamp"],
      "table.csv": [
        `filename,width,height,class,xmin,ymin,xmax,ymax\nx/scene.png,${width},${height},"a ""big"" vase",50,20,80.5,61\nother.png,1,1,no,0,0,1,1\n`,
        [50, 20, 80.5, 61],
        'a "big" vase',
      ],
      "list.json": [
        '```json\n{"objects": [{"box_2d": [500, 500, 750, 1000], "label": "rug"}, {"box_2d": "no"}]}\n```',
        [width / 2, height / 2, width, (height * 3) / 4],
        "rug",
      ],
    };
    for (const [name, [text, box, label]] of Object.entries(files)) {
      const rest = name === "list.json" ? " Left out: 1 not an upright box inside the picture." : "";
      assert.equal(await brought([name, text]), `Added 1 box of ${name}.${rest}`);
      await page.getByTestId("object-name").getByText(label, { exact: true }).waitFor({ state: "attached" });
      // The picture's own coordinates are f32.
      const drawn = (await drawnBoxes(page)).at(-1).map((x) => Math.round(x * 100) / 100);
      assert.deepEqual(drawn, box, name);
    }
  });

  test("of several VOC files the one of the picture is taken, and a drop works too", async () => {
    const other = ["other.xml", voc([0, 0, 9, 9], "no")];
    const own = ["scene.xml", voc([100, 20, 140, 60], "chair")];
    assert.equal(await brought(other, own), "Added 1 box of scene.xml.");
    await drop(page, Buffer.from(voc([150, 20, 190, 60], "stool")), "stool.xml", "text/xml");
    await page.getByTestId("object-name").getByText("stool", { exact: true }).waitFor({ state: "attached" });
  });

  test("hostile and foreign files get one sentence with a code, and change nothing", async () => {
    const before = await drawnBoxes(page);
    const bomb = `<!DOCTYPE a [<!ENTITY a "${"x".repeat(1000)}">${[..."bcdefgh"]
      .map((name, i) => `<!ENTITY ${name} "${`&${"abcdefg"[i]};`.repeat(10)}">`)
      .join("")}]><annotation><object><name>&h;</name></object></annotation>`;
    for (const [name, text, what, code] of [
      ["bomb.xml", bomb, /the XML is damaged/, "Corrupt"],
      ["picture.xml", "<svg/>", /no Pascal VOC annotation/, "Corrupt"],
      ["empty.xml", "<annotation></annotation>", /no boxes inside this picture/, "Corrupt"],
      ["wide.xml", voc([0, 0, 9, 9], "x", [9, 9]), /9 × 9 pixels/, "InvalidInput"],
      ["far.csv", "x1,y1,x2,y2\n90000,0,90010,9\n", /no boxes inside this picture/, "Corrupt"],
      ["table.csv", "name,age\nx,3\n", /no columns x1, y1, x2 and y2/, "Corrupt"],
      ["list.json", '[{"label": "cat"}]', /of no kind that can be imported/, "Unsupported"],
    ]) {
      const words = await brought([name, text]);
      assert.match(words, what, name);
      assert.match(words, new RegExp(`Error code: ${code}$`), name);
      assert.deepEqual(await drawnBoxes(page), before, name);
    }
  });

  test("corrected links and other answers are in the saved document, and come back", async () => {
    const phrase = page.getByTestId("phrase").first();
    await phrase.click();
    await page.getByTestId("relink").first().click();
    const editor = page.getByTestId("link-editor");
    const options = editor.getByTestId("link-add").locator("option");
    const free = (await options.evaluateAll((all) => all.map(({ value }) => value))).filter(Boolean);
    await editor.getByTestId("link-add").selectOption(free[0]);
    await phrase.getByTestId("edited").waitFor();
    const objects = await phrase.getAttribute("data-objects");
    await editor.getByTestId("link-done").click();
    const document = await saved("document");
    const links = Object.values(document.turns[0].links);
    assert.deepEqual(links, [objects.split(",").map(Number)]);
    // Another answer, as one more try would leave it.
    const other = { state: "done", spans: [{ text: "Something else." }] };
    document.turns[0] = { ...document.turns[0], others: [other], version: 1 };
    await openPicture(page, SCENE.pathname);
    await brought(["again.json", JSON.stringify(document)]);
    assert.equal(await page.getByTestId("phrase").first().getAttribute("data-objects"), objects);
    assert.equal(await page.getByTestId("edited").first().innerText(), "your boxes");
    assert.equal(await page.getByTestId("version").innerText(), "2 / 2");
    await page.getByTestId("version-before").click();
    await page.getByTestId("answer").getByText("Something else.").waitFor();
    await page.getByTestId("version-after").click();
    const again = await saved("document");
    const { boxes, ...rest } = again.turns[0];
    const { boxes: before, ...expected } = document.turns[0];
    assert.deepEqual([rest, boxes.length], [expected, before.length]);
    // The page of its own has the same document, and shows the user's boxes.
    const html = await saved("page");
    const inside = JSON.parse(/id="chatrex-conversation">(.*?)<\/script>/s.exec(html)[1]);
    assert.deepEqual(inside.turns[0].links, document.turns[0].links);
    assert.ok(html.includes(`data-boxes="${objects.split(",").join(" ")}"`), "the phrase has the user's boxes");
    const broken = structuredClone(document);
    broken.turns[0].links = { 1: [99] };
    assert.match(await brought(["broken.json", JSON.stringify(broken)]), /a link leads to no box.*Error code: Corrupt$/s);
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));

  function voc([xmin, ymin, xmax, ymax], label, [width, height] = size) {
    return `<annotation><filename>a.png</filename><size><width>${width}</width><height>${height}</height></size>
      <object><name>${label}</name><bndbox><xmin>${xmin}</xmin><ymin>${ymin}</ymin><xmax>${xmax}</xmax>
      <ymax>${ymax}</ymax></bndbox></object></annotation>`;
  }

  // Imports files with the button, and returns what the page says.
  async function brought(...files) {
    await page.evaluate(dismissed);
    const paths = [];
    for (const [name, text] of files) {
      const path = join(folder, name);
      await writeFile(path, text);
      paths.push(path);
    }
    await page.getByTestId("import").setInputFiles(paths);
    await page.getByTestId("exchange-outcome").filter({ hasNotText: /^\s*$|…$/ }).waitFor({ timeout: LONG });
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    const text = await page.locator(".exchange-outcome").innerText();
    return text.replace(/\s*Dismiss\s*$/, "");
  }

  // Saves a file and returns its content.
  async function saved(format) {
    await page.getByTestId("export").click();
    await page.getByTestId("export-format").selectOption(format);
    const coming = page.waitForEvent("download", { timeout: LONG });
    await page.getByTestId("export-save").click();
    const path = join(folder, "saved");
    await (await coming).saveAs(path);
    await page.getByTestId("exchange-close").click();
    const text = await readFile(path, "utf8");
    return format === "document" ? JSON.parse(text) : text;
  }
});

// Pictures come in by every way, and what cannot be taken is said in a sentence. On the CPU.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { webpWithOrientation } from "./exif.mjs";
import { ALWAYS } from "./flags.mjs";
import { answered, ask, asked, counted, drop, looked, modelReady, nothingForbidden, open, URL_OF_PAGE } from "./page.mjs";

const read = (name) => readFile(new URL(`../../web/static/samples/${name}`, import.meta.url));
const [COFFEE, CAT, ROCKET] = await Promise.all(["coffee.jpg", "cat.jpg", "rocket.jpg"].map(read));
const jpeg = (name, buffer) => ({ name, mimeType: "image/jpeg", buffer });

describe("pictures", () => {
  let browser, page, context;
  before(async () => {
    // The browser's own test picture in place of a camera; whether it is allowed is up to the test.
    browser = await open({ webgpu: false, args: [...ALWAYS, "--use-fake-device-for-media-stream"] });
    ({ page, context } = browser);
    await page.goto(URL_OF_PAGE);
    await answered(page, 0);
  });
  after(() => browser?.close());

  test("several chosen files: the first opens, the rest wait beside it, and each keeps its own chat", async () => {
    const files = [jpeg("coffee.jpg", COFFEE), jpeg("cat.jpg", CAT), jpeg("rocket.jpg", ROCKET)];
    await looked(page, () => page.getByTestId("file-input").setInputFiles(files));
    const strip = page.getByTestId("strip-picture");
    await strip.nth(2).waitFor();
    await counted(strip, 3);
    assert.equal(await current(page), 0);
    assert.equal((await answered(page, await ask(page, "Where is the cup?"))).state, "done");
    await looked(page, () => strip.nth(1).click());
    await counted(page.getByTestId("answer"), 0);
    await page.getByTestId("picture").focus();
    await page.keyboard.press("Control+ArrowLeft");
    assert.equal((await answered(page, 0)).state, "done");
    assert.equal(await current(page), 0);
    await looked(page, async () => {
      await page.keyboard.press("Control+ArrowRight");
      await page.waitForFunction(() => document.querySelectorAll('[data-testid="answer"]').length === 0);
      await page.keyboard.press("Control+ArrowRight");
    });
    assert.equal(await current(page), 2);
    await page.getByTestId("question").fill("two words");
    await page.keyboard.press("Control+ArrowLeft");
    assert.equal(await current(page), 2, "in the text box the keys move the cursor");
    await page.reload();
    await page.getByTestId("strip-picture").nth(2).waitFor();
    assert.equal(await current(page), 2);
  });

  test("a dropped folder is read, and what is no picture in it is counted", async () => {
    await modelReady(page);
    const folder = await mkdtemp(join(tmpdir(), "pictures-"));
    await mkdir(join(folder, "more"));
    await writeFile(join(folder, "a.jpg"), COFFEE);
    await writeFile(join(folder, "more", "b.jpg"), CAT);
    await writeFile(join(folder, "more", "c.jpg"), "no picture");
    await writeFile(join(folder, "notes.txt"), "no picture");
    const session = await context.newCDPSession(page);
    const data = { items: [], files: [folder], dragOperationsMask: 1 };
    await looked(page, async () => {
      for (const type of ["dragEnter", "dragOver", "drop"]) {
        await session.send("Input.dispatchDragEvent", { type, x: 300, y: 300, data });
      }
    });
    await page.getByTestId("toast").getByText("1 file is not a picture this browser can read.").waitFor();
    await counted(page.getByTestId("strip-picture"), 2);
    await rm(folder, { recursive: true });
  });

  test("an address of another page is not followed, and the page says what to do", async () => {
    const prevented = await page.evaluate(() => {
      const data = new DataTransfer();
      data.setData("text/uri-list", "https://elsewhere.example/cat.jpg");
      data.setData("text/html", '<img src="https://elsewhere.example/cat.jpg">');
      return ["dragover", "drop"].map((kind) => {
        const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data });
        document.body.dispatchEvent(event);
        return event.defaultPrevented;
      });
    });
    assert.deepEqual(prevented, [true, true]);
    await page.getByTestId("toast").getByText("Save the picture and drop the file here.").waitFor();
    assert.equal(page.url(), URL_OF_PAGE);
    await counted(page.getByTestId("picture-address"), 0, "the policy allows no other host");
  });

  test("a picture of this page that is dragged onto it opens", async () => {
    await looked(page, () =>
      page.evaluate(() => {
        const data = new DataTransfer();
        data.setData("text/uri-list", new URL("samples/rocket.jpg", document.baseURI).href);
        document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data }));
      }),
    );
    await page.getByTestId("toast").getByText("Opened rocket.jpg.").waitFor();
  });

  const paste = (what, focused) =>
    page.evaluate(
      async ([what, focused]) => {
        const canvas = new OffscreenCanvas(40, 20);
        canvas.getContext("2d").fillRect(0, 0, 20, 20);
        const picture = new File([await canvas.convertToBlob()], "image.png", { type: "image/png" });
        const data = new DataTransfer();
        if (what.includes("text")) data.setData("text/plain", "cups\t3");
        if (what.includes("picture")) data.items.add(picture);
        const target = document.querySelector(`[data-testid="${focused}"]`);
        target.focus();
        const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
        target.dispatchEvent(event);
        return event.defaultPrevented;
      },
      [what, focused],
    );

  test("pasted text wins in the text box; a picture alone opens", async () => {
    assert.equal(await paste("text and picture", "question"), false);
    assert.equal(await paste("text", "question"), false);
    await looked(page, async () => assert.equal(await paste("picture", "question"), true));
    await looked(page, async () => assert.equal(await paste("text and picture", "picture"), true));
  });

  test("what cannot be read gets one sentence, and everything is kept", async () => {
    const looks = (await asked(page, "Look")).length;
    const heic = Buffer.concat([Buffer.from([0, 0, 0, 24]), Buffer.from("ftypheic\0\0\0\0mif1heic")]);
    const cases = [
      [jpeg("cut.jpg", COFFEE.subarray(0, COFFEE.length * 0.95)), /cut short/],
      [{ name: "phone.heic", mimeType: "image/heic", buffer: heic }, /HEIC/],
      [jpeg("nothing.jpg", Buffer.from("nothing")), /cannot read it as a picture/],
    ];
    for (const [file, expected] of cases) {
      await page.getByTestId("file-input").setInputFiles(file);
      await page.getByTestId("error").waitFor();
      assert.match(await page.getByTestId("error").innerText(), expected);
      await counted(page.getByTestId("error"), 1);
      await page.getByTestId("dismiss").click();
    }
    assert.equal((await asked(page, "Look")).length, looks);
  });

  test("a phone's panorama without an end marker opens, and shows", async () => {
    const end = COFFEE.lastIndexOf(Buffer.from([0xff, 0xd9]));
    const panorama = Buffer.concat([COFFEE.subarray(0, end), Buffer.from("SEFH of the maker SEFT")]);
    await looked(page, () => page.getByTestId("file-input").setInputFiles(jpeg("panorama.jpg", panorama)));
    await counted(page.getByTestId("error"), 0);
    await page.waitForFunction(() => document.querySelector("#picture img")?.naturalWidth > 0);
  });

  test("a WebP with an orientation is turned, on the screen too", async () => {
    // 8 by 4 pixels, the left half red, with the orientation 6: the red half belongs to the top.
    const turned = await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(64, 32);
      const context = canvas.getContext("2d");
      context.fillStyle = "#00f";
      context.fillRect(0, 0, 64, 32);
      context.fillStyle = "#f00";
      context.fillRect(0, 0, 32, 32);
      const simple = new Uint8Array(await (await canvas.convertToBlob({ type: "image/webp", quality: 1 })).arrayBuffer());
      return Array.from(simple);
    });
    await looked(page, () =>
      page.getByTestId("file-input").setInputFiles({ name: "turned.webp", mimeType: "image/webp", buffer: webpWithOrientation(Buffer.from(turned), 64, 32, 6) }),
    );
    const { pixels } = (await asked(page, "Look")).at(-1);
    assert.deepEqual(pixels, { width: 32, height: 64 });
    const [top, bottom] = await page.evaluate(async () => {
      const image = document.querySelector('[data-testid="picture"] img');
      await image.decode();
      const canvas = new OffscreenCanvas(32, 64);
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      return [8, 56].map((y) => [...context.getImageData(16, y, 1, 1).data]);
    });
    assert.ok(top[0] > 150 && top[2] < 100, `red above: ${top}`);
    assert.ok(bottom[2] > 150 && bottom[0] < 100, `blue below: ${bottom}`);
  });

  test("a refused camera is a sentence, an allowed one gives a still and stops", async () => {
    const session = await context.browser().newBrowserCDPSession?.() ?? (await context.newCDPSession(page));
    const permit = (setting) =>
      session.send("Browser.setPermission", { permission: { name: "camera" }, setting, origin: new URL(URL_OF_PAGE).origin });
    await permit("denied");
    await page.getByTestId("open-camera").click();
    await page.getByText("The camera is not allowed here.").waitFor();
    assert.ok(await page.getByTestId("shutter").isDisabled());
    await page.keyboard.press("Escape");
    assert.ok(!(await page.getByTestId("camera").isVisible()));
    await permit("granted");
    await page.evaluate(() => {
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      self.streams = [];
      navigator.mediaDevices.getUserMedia = async (how) => {
        const stream = await ask(how);
        self.streams.push(stream);
        return stream;
      };
    });
    await page.getByTestId("open-camera").click();
    await looked(page, () => page.getByTestId("shutter").click());
    const states = () => page.evaluate(() => self.streams.flatMap((stream) => stream.getTracks().map((track) => track.readyState)));
    assert.deepEqual(await states(), ["ended"]);
    await page.getByTestId("toast").getByText("Opened camera.jpg.").waitFor();
    await page.getByTestId("open-camera").click();
    await page.locator("video.live").waitFor();
    await page.getByTestId("camera-close").click();
    assert.deepEqual(await states(), ["ended", "ended"]);
  });

  test("one click on a card of the empty page runs picture and question", async () => {
    await page.getByTestId("new").click();
    await page.getByTestId("start").waitFor();
    await looked(page, () => drop(page, CAT, "cat.jpg", "image/jpeg"));
    await page.getByTestId("remove-picture").click();
    await page.getByTestId("start").waitFor();
    await looked(page, () => page.locator('[data-testid="sample-card"][data-sample="coffee.jpg"]').click());
    assert.equal((await answered(page, 0)).state, "done");
  });

  test("there were no foreign requests and no policy violations", () => nothingForbidden(browser.seen));
});

test("a new version is offered, not during an answer, and reloading keeps everything", async () => {
  const browser = await open({ webgpu: false });
  const { page, context } = browser;
  try {
    await page.goto(URL_OF_PAGE);
    const { words } = await answered(page, 0);
    await page.evaluate(() => navigator.serviceWorker.ready);
    await page.waitForFunction(() => navigator.serviceWorker.controller);
    await page.reload();
    await answered(page, 0);
    await counted(page.getByTestId("new-version"), 0);
    // Another script of the same scope takes over, as a new version does.
    await page.evaluate(() => navigator.serviceWorker.register("./service_worker.js?next"));
    await page.getByTestId("new-version").waitFor();
    await page.getByTestId("new-version").getByRole("button").click();
    await page.waitForFunction(() => !document.querySelector('[data-testid="new-version"]'));
    assert.equal((await answered(page, 0)).words, words);
    const manifest = await page.evaluate(async () => (await fetch(document.querySelector("link[rel=manifest]").href)).json());
    const session = await context.newCDPSession(page);
    const { errors } = await session.send("Page.getAppManifest");
    assert.deepEqual(errors, []);
    assert.equal(manifest.display, "standalone");
    for (const { src } of manifest.icons) {
      assert.equal(await page.evaluate(async (src) => (await fetch(src)).status, src), 200, src);
    }
  } finally {
    await browser.close();
  }
});

// The place of the open picture in the strip.
const current = (page) =>
  page.evaluate(() => [...document.querySelectorAll('[data-testid="strip-picture"]')].findIndex((p) => p.ariaCurrent === "true"));

// The installed page: what the system reads from its manifest, shared pictures, opened files, the offer.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { answered, counted, open, DEEP_SITE, LONG, URL_OF_NANO, URL_OF_PAGE } from "./page.mjs";
import { site } from "./origins.mjs";

const OTHER = join(DEEP_SITE, "samples/cat.jpg");

// The name of the picture that is open, as the list of exported files shows it.
const openName = (page) =>
  page.evaluate(async () => {
    const request = indexedDB.open((await indexedDB.databases())[0].name);
    const database = await new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
    const stores = [...database.objectStoreNames];
    const texts = [];
    for (const name of stores) {
      const all = database.transaction(name).objectStore(name).getAll();
      texts.push(JSON.stringify(await new Promise((resolve) => (all.onsuccess = () => resolve(all.result)))));
    }
    database.close();
    return texts.join("\n");
  });

test("install: the manifest has what the system asks for", async () => {
  const browser = await open({ webgpu: false });
  const { page, context } = browser;
  try {
    await page.goto(URL_OF_NANO);
    const session = await context.newCDPSession(page);
    const { errors, data } = await session.send("Page.getAppManifest");
    assert.deepEqual(errors, []);
    const manifest = JSON.parse(data);
    for (const field of ["name", "short_name", "description", "background_color", "theme_color"]) {
      assert.equal(typeof manifest[field], "string", field);
    }
    assert.deepEqual([manifest.start_url, manifest.scope, manifest.id, manifest.display], ["./", "./", "./", "standalone"]);
    const sizes = manifest.icons.map(({ sizes }) => sizes);
    assert.ok(sizes.includes("192x192") && sizes.includes("512x512"), `${sizes}`);
    for (const { src, sizes, type } of manifest.icons) {
      const icon = await page.evaluate(async (src) => {
        const blob = await (await fetch(src)).blob();
        const image = new Image();
        image.src = URL.createObjectURL(blob);
        await image.decode();
        return [`${image.naturalWidth}x${image.naturalHeight}`, blob.type];
      }, src);
      assert.equal(icon[1], type, src);
      if (sizes !== "any") assert.equal(icon[0], sizes, src);
    }
    const share = manifest.share_target;
    assert.deepEqual([share.action, share.method, share.enctype], ["./share", "POST", "multipart/form-data"]);
    assert.equal(share.params.files[0].name, "picture");
    assert.ok(share.params.files[0].accept.includes("image/*"));
    const [handler] = manifest.file_handlers;
    assert.equal(handler.action, "./");
    assert.ok(handler.accept["image/*"].includes(".jpg"));
  } finally {
    await browser.close();
  }
});

test("OS share sheet: a shared picture is opened, and nothing is sent to the host", async () => {
  const form = `<!doctype html><title>Share</title><link rel="icon" href="data:,"><form action="share" method="post" enctype="multipart/form-data">
    <input type="text" name="title" value="A cat"><input type="file" name="picture" multiple><button>Share</button></form>`;
  const chatrex = await site({ extra: { "form.html": form } });
  const browser = await open({ webgpu: false });
  const { page } = browser;
  try {
    await page.goto(`${chatrex.url}/?model=nano`);
    await answered(page, 0);
    await page.getByTestId("offline-badge").waitFor({ timeout: LONG });
    await page.goto(`${chatrex.url}/form.html`);
    await page.waitForFunction(() => navigator.serviceWorker.controller);
    // The system posts such a form.
    await page.locator("input[type=file]").setInputFiles(OTHER);
    await page.locator("button").click();
    await page.waitForURL(`${chatrex.url}/`);
    await page.waitForFunction(() => document.querySelector('[data-testid="box"], [data-testid="status"]'));
    const { width, height } = await page.waitForFunction(() => {
      const image = document.querySelector('[data-testid="picture"] img');
      return image?.naturalWidth === 451 ? { width: image.naturalWidth, height: image.naturalHeight } : null;
    }, null, { timeout: LONG }).then((size) => size.jsonValue());
    assert.deepEqual([width, height], [451, 300]);
    assert.deepEqual(chatrex.log.filter(({ method, body }) => method !== "GET" || body.length > 0), []);
    const caches = await page.evaluate(() => caches.keys());
    assert.ok(caches.every((name) => !name.startsWith("shared")), `${caches}`);
    await page.waitForTimeout(500);
    assert.match(await openName(page), /cat\.jpg/);

    // A share without a picture says so, and keeps what is open.
    await page.goto(`${chatrex.url}/form.html`);
    await page.locator("button").click();
    await page.waitForURL(`${chatrex.url}/`);
    await page.getByText("No picture came with it.").waitFor();
    await page.waitForFunction(() => document.querySelector('[data-testid="picture"] img')?.naturalWidth === 451);
    assert.deepEqual(browser.seen.errors, []);
  } finally {
    await browser.close();
    await chatrex.close();
  }
});

test("\"Open with\": files of the system's launch queue are opened", async () => {
  const browser = await open({ webgpu: false });
  const { page } = browser;
  try {
    // Stands for the queue that an installed page has; it keeps launches until there is a consumer.
    await page.addInitScript((bytes) => {
      const file = () => new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], "opened.jpg", { type: "image/jpeg" });
      const queue = {
        setConsumer(consumer) {
          self.consumers = (self.consumers ?? 0) + 1;
          setTimeout(() => consumer({ targetURL: location.href, files: [{ kind: "file", getFile: async () => file() }] }));
        },
      };
      Object.defineProperty(self, "launchQueue", { value: queue });
    }, (await readFile(OTHER)).toString("base64"));
    await page.goto(URL_OF_NANO);
    await page.waitForFunction(() => document.querySelector('[data-testid="picture"] img')?.naturalWidth === 451, null, { timeout: LONG });
    assert.equal(await page.evaluate(() => self.consumers), 1);
  } finally {
    await browser.close();
  }
});

test("install: offered after the first answer, only where the browser can, and in one visit only", async () => {
  const browser = await open({ webgpu: false });
  const { page } = browser;
  // The browser's own event comes at any moment and would replace the test's.
  await page.addInitScript(() => {
    const stop = (event) => event.isTrusted && event.stopImmediatePropagation();
    addEventListener("beforeinstallprompt", stop, { capture: true });
  });
  // Stands for the browser, which fires the event where a page can be installed.
  const offer = () =>
    page.evaluate(() => {
      const event = new Event("beforeinstallprompt", { cancelable: true });
      event.prompt = async () => (self.prompted = (self.prompted ?? 0) + 1);
      dispatchEvent(event);
      return event.defaultPrevented;
    });
  try {
    await page.goto(`${URL_OF_PAGE}?model=nano`);
    await page.getByTestId("question").waitFor({ state: "attached" });
    assert.equal(await offer(), true, "the browser shows no bar of its own");
    const early = await page.evaluate(() => [
      document.querySelectorAll('[data-testid="install"]').length,
      document.querySelectorAll('[data-testid="answer"][data-state="done"]').length,
    ]);
    assert.ok(early[0] <= early[1], "not before the first answer");
    await answered(page, 0);
    await page.getByTestId("install").click();
    assert.equal(await page.evaluate(() => self.prompted), 1);
    await page.waitForFunction(() => !document.querySelector('[data-testid="install"]'));
    await page.reload();
    await answered(page, 0);
    await offer();
    await page.waitForTimeout(300);
    await counted(page.getByTestId("install"), 0, "it is not offered again");
  } finally {
    await browser.close();
  }
});

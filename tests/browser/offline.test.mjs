// After one visit the page works without a network, and updates to a new version.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { answered, ask, DEEP_SITE, DEEP_URL_OF_PAGE, LONG, modelReady, open, URL_OF_PAGE } from "./page.mjs";

test("a reloaded page without a network answers", async () => {
  const browser = await open({ webgpu: false });
  const { context, page } = browser;
  try {
    await page.goto(URL_OF_PAGE);
    await answered(page, 0);
    await page.getByTestId("offline-badge").waitFor({ timeout: LONG });
    await context.setOffline(true);
    await page.reload();
    assert.equal((await answered(page, 0)).state, "done");
    assert.equal((await answered(page, await ask(page, "How many objects are there?"))).state, "done");
    const whole = await part(page, null);
    assert.equal(whole.status, 200);
    assert.deepEqual(await part(page, "bytes=1000-1999"), {
      status: 206,
      range: `bytes 1000-1999/${whole.bytes.length}`,
      bytes: whole.bytes.slice(1000, 2000),
    });
    const rest = await part(page, `bytes=${whole.bytes.length - 5}-`);
    assert.deepEqual([rest.status, rest.bytes], [206, whole.bytes.slice(-5)]);
    assert.equal((await part(page, `bytes=${whole.bytes.length}-`)).status, 416);
    assert.equal((await part(page, "bytes=0-9", '"another version"')).status, 200);
  } finally {
    await browser.close();
  }
});

test("the page works in a subfolder, and a new version takes over at the next visit", async () => {
  const browser = await open({ webgpu: false });
  const { page } = browser;
  try {
    await page.goto(DEEP_URL_OF_PAGE);
    await modelReady(page);
    await page.getByTestId("offline-badge").waitFor({ timeout: LONG });
    await newVersion();
    await page.evaluate(async () => {
      const registration = await navigator.serviceWorker.ready;
      await registration.update();
      const coming = registration.installing ?? registration.waiting ?? registration.active;
      while (coming.state !== "activated") {
        if (coming.state === "redundant") throw new Error("the new version was not stored");
        await new Promise((resolve) => coming.addEventListener("statechange", resolve, { once: true }));
      }
    });
    assert.equal(await page.title(), "ChatRex", "the current visit is not disturbed");
    await page.reload();
    await page.waitForFunction(() => document.title === "The next version", null, { timeout: LONG });
    const caches = await page.evaluate(async () => (await self.caches.keys()).length);
    assert.equal(caches, 1, "the older version is gone");
  } finally {
    await browser.close();
  }
});

// The status, the range and the bytes that the service worker gives for a range of a stored file.
function part(page, range, version) {
  return page.evaluate(
    async ([range, version]) => {
      const headers = { ...(range && { Range: range }), ...(version && { "If-Range": version }) };
      const response = await fetch("models/mini/projector.safetensors", { headers });
      const bytes = [...new Uint8Array(await response.arrayBuffer())];
      return { status: response.status, range: response.headers.get("Content-Range"), bytes };
    },
    [range, version],
  );
}

// Changes the title of the served copy and the version in its service worker.
async function newVersion() {
  const page = join(DEEP_SITE, "index.html");
  const html = await readFile(page, "utf8");
  await writeFile(page, html.replace(/<title>.*<\/title>/, "<title>The next version</title>"));
  const program = join(DEEP_SITE, "service_worker.js");
  const code = await readFile(program, "utf8");
  await writeFile(
    program,
    code.replace(/("index\.html":")[0-9a-f]{8}/, "$100000000").replace(/(VERSION = ")[0-9a-f]{8}/, "$100000000"),
  );
}

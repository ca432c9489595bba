// A model of real size is downloaded into the browser over a bad network, stored, and loaded. Not part
// of the tests: `cargo xtask manual large FOLDER` runs it.

import assert from "node:assert/strict";
import { readdir, readFile, stat } from "node:fs/promises";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startHost } from "./faults.mjs";
import { bring, manager, memory, row, stands, visit } from "./manager.mjs";
import { modelReady } from "./page.mjs";

const FOLDER = process.env.CHATREX_FOLDER;
const CUT = 50e6;
const DAY = 86_400_000;

let host, browser, page, folder, size, longest;
before(async () => {
  host = await startHost();
  const files = new Map();
  for (const name of await readdir(FOLDER)) files.set(name, await readFile(join(FOLDER, name)));
  const shards = [...files.keys()].filter((name) => name.endsWith(".safetensors"));
  folder = host.add("large", files, { cutEvery: CUT, corruptOnce: [shards.at(-1), 1_000_000] });
  size = [...files].reduce((sum, [name, { length }]) => sum + (name === "model.json" ? 0 : length), 0);
  browser = await visit(host, { webgpu: true });
  page = browser.page;
  page.setDefaultTimeout(DAY);
});
after(async () => {
  await browser?.close();
  await host?.close();
});

// Measures the longest time in which the page did not respond, in milliseconds.
const watched = () =>
  page.evaluate(() => {
    self.longest = 0;
    let last = performance.now();
    setInterval(() => {
      const now = performance.now();
      self.longest = Math.max(self.longest, now - last - 50);
      last = now;
    }, 50);
  });

test("it survives closed connections, a damaged piece and a reload", { timeout: DAY }, async () => {
  await modelReady(page);
  const shell = await memory(page);
  await manager(page);
  await watched();
  const began = Date.now();
  await bring(page, folder.address);
  while (folder.served < size / 2) await new Promise((done) => setTimeout(done, 100));
  longest = await page.evaluate(() => self.longest);
  const first = await memory(page);
  await page.reload();
  await modelReady(page);
  await manager(page);
  await watched();
  await stands(page, "partial");
  await row(page).getByTestId("resume").click();
  await stands(page, "ready", DAY);
  const seconds = (Date.now() - began) / 1000;
  longest = Math.max(longest, await page.evaluate(() => self.longest));
  const peak = Math.max(first, await memory(page));
  console.log(
    `${(size / 1e6).toFixed(0)} MB in ${seconds.toFixed(0)} s, ${((folder.served / size - 1) * 100).toFixed(2)} % fetched twice; ` +
      `wasm memory ${shell.toFixed(0)} MB before, ${peak.toFixed(0)} MB at most; the page did not respond for ${longest.toFixed(0)} ms at most`,
  );
  assert.ok(folder.served <= size * 1.02, `${folder.served} bytes for ${size}`);
  assert.equal(folder.corruptOnce, undefined, "the damaged piece was sent");
  assert.ok(peak - shell < 128, `${peak - shell} MB above the shell`);
  assert.ok(longest < 500, "the page stays responsive");
});

test("what is stored is what the folder holds", { timeout: DAY }, async () => {
  for (const name of await readdir(FOLDER)) {
    if (!name.endsWith(".safetensors")) continue;
    const stored = await page.evaluate(async (name) => {
      const root = await navigator.storage.getDirectory();
      const models = await root.getDirectoryHandle("models");
      for await (const folder of models.values()) {
        const file = await (await folder.getFileHandle(name)).getFile();
        const hash = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
        return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
      }
    }, name);
    const hash = createHash("sha256");
    for await (const chunk of createReadStream(join(FOLDER, name))) hash.update(chunk);
    assert.equal(stored, hash.digest("hex"), name);
    assert.ok((await stat(join(FOLDER, name))).size > 0);
  }
});

test("it is uploaded to the GPU", { timeout: DAY }, async () => {
  const before = await memory(page);
  await watched();
  const began = Date.now();
  await row(page).getByTestId("load").click();
  await stands(page, "loaded", DAY);
  const peak = await memory(page);
  longest = await page.evaluate(() => self.longest);
  console.log(
    `checked and uploaded in ${((Date.now() - began) / 1000).toFixed(0)} s; wasm memory ${before.toFixed(0)} MB before, ` +
      `${peak.toFixed(0)} MB at most; the page did not respond for ${longest.toFixed(0)} ms at most`,
  );
  assert.ok(peak - before < 128, `${peak - before} MB above the shell`);
});

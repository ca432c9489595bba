// The user's actions in the model manager.

import assert from "node:assert/strict";
import { counted, open, LONG, PLAIN_NAME } from "./page.mjs";

// Opens the page of `host` with nano, of which the served models are copies; its worker exposes its wasm memory.
export async function visit(host, { webgpu = false } = {}) {
  const flags = [`--host-resolver-rules=MAP ${PLAIN_NAME} 127.0.0.1`];
  const browser = await open({ webgpu, flags, serviceWorkers: "block" });
  await browser.context.route("**/worker_start.js", async (route) => {
    if (new URL(route.request().url()).hostname === PLAIN_NAME) return route.continue();
    const response = await route.fetch();
    const body = (await response.text()).replace("await init()", "self.wasm = await init()");
    await route.fulfill({ response, body });
  });
  await browser.page.goto(`${host.url}?model=nano`);
  return browser;
}

// Size of the worker's wasm memory in megabytes; it never shrinks.
export async function memory(page) {
  const sizes = page.workers().map((worker) => worker.evaluate(() => self.wasm?.memory.buffer.byteLength ?? 0));
  return Math.max(...(await Promise.all(sizes))) / 1e6;
}

export async function manager(page) {
  await page.getByTestId("model-state").click();
  await page.getByTestId("manager").waitFor();
}

export const row = (page) => page.getByTestId("model").first();

export async function stands(page, state, timeout = 60_000) {
  await page.locator(`[data-testid="model"][data-state="${state}"]`).waitFor({ timeout });
}

export async function look(page, address) {
  await page.getByTestId("model-address").fill(address);
  await page.getByTestId("survey").click();
}

export async function survey(page, address) {
  await look(page, address);
  await page.getByTestId("offer").waitFor({ timeout: LONG });
}

export async function accept(page) {
  await page.getByTestId("accept").check();
  await page.getByTestId("begin").click();
}

export async function bring(page, address) {
  await survey(page, address);
  await accept(page);
}

// Waits until more bytes of a folder were served.
export async function moves(page, folder, bytes = 1 << 18) {
  await stands(page, "moving");
  const before = folder.served;
  while (folder.served < before + bytes) await new Promise((done) => setTimeout(done, 20));
}

// The one message of the manager: its sentence and, where `code` is given, its code.
export async function complains(page, says, code) {
  const message = page.getByTestId("model-error");
  await message.waitFor({ timeout: LONG });
  const words = await message.innerText();
  console.log(words);
  assert.match(words, says);
  if (code) assert.equal(await message.getByTestId("error-code").innerText(), `Error code: ${code}`);
  await counted(message, 1);
}

export async function remove(page) {
  await row(page).getByTestId("delete").click();
  await row(page).getByTestId("delete-yes").click();
  await page.getByTestId("model").waitFor({ state: "detached", timeout: LONG });
}

// Number of model folders in the browser's storage.
export const kept = (page) =>
  page.evaluate(async () => {
    const root = await navigator.storage.getDirectory();
    const models = await root.getDirectoryHandle("models");
    let count = 0;
    for await (const _ of models.keys()) count += 1;
    return count;
  });

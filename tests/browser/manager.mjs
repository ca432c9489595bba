// The user's actions in the model manager.

import { LONG, open } from "./page.mjs";

// Opens the page of `host` with nano, of which the served models are copies; its worker exposes its wasm memory.
export async function visit(host, { webgpu = false } = {}) {
  const browser = await open({ webgpu, serviceWorkers: "block" });
  await browser.context.route("**/worker_start.js", async (route) => {
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

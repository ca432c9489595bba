// Opens the page in the browser that `cargo xtask test` names, watching for what must never happen.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

export const URL_OF_PAGE = needed("CHATREX_URL");
export const DEEP_URL_OF_PAGE = needed("CHATREX_DEEP_URL");
export const PICTURES = needed("CHATREX_PICTURES");
export const SITE = needed("CHATREX_SITE");
export const PROGRAM = needed("CHATREX_PROGRAM");

const ALWAYS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

function needed(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; run \`cargo xtask test --only browser\``);
  return value;
}

// A browser profile of its own. `webgpu: false` leaves the browser without an adapter.
export async function open({ webgpu = true, ...options } = {}) {
  const profile = await mkdtemp(join(tmpdir(), "chatrex-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: needed("CHATREX_BROWSER"),
    headless: true,
    args: webgpu ? [...ALWAYS, ...WEBGPU] : ALWAYS,
    viewport: { width: 1280, height: 800 },
    ...options,
  });
  const page = context.pages()[0] ?? (await context.newPage());
  const seen = watch(context, page);
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  return {
    context,
    page,
    seen,
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

// Everything the browser did that a test may have to judge.
function watch(context, page) {
  const seen = { foreign: [], violations: [], errors: [], log: [] };
  const own = new URL(URL_OF_PAGE).origin;
  context.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== own && !["blob:", "data:"].includes(protocol)) seen.foreign.push(request.url());
  });
  context.on("console", (message) => {
    const text = message.text();
    seen.log.push(`${message.type()}: ${text}`);
    if (/content security policy|policy violation/i.test(text)) seen.violations.push(text);
    else if (message.type() === "error") seen.errors.push(text);
  });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  return seen;
}

// What the engine's worker reports about its device when asked to check it.
export async function check(page) {
  const report = await page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const worker = new Worker("./worker_start.js?check", { type: "module" });
        worker.onmessage = (message) => resolve(message.data[0]);
        worker.onerror = (error) => reject(new Error(error.message));
      }),
  );
  return JSON.parse(report);
}

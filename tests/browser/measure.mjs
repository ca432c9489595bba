// A browser of its own to measure in.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { ALWAYS, HARDWARE, SOFTWARE, needed } from "./flags.mjs";

// Opens `path`, relative to the site, calls `use` with the page, and closes the browser.
export async function measuring(path, use) {
  const profile = await mkdtemp(join(tmpdir(), "chatrex-bench-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: needed("CHATREX_BROWSER"),
    headless: true,
    args: [...ALWAYS, ...(process.env.CHATREX_GPU ? HARDWARE : SOFTWARE)],
    serviceWorkers: "block",
  });
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    page.setDefaultTimeout(0);
    page.on("console", (message) => console.error(message.text()));
    page.on("pageerror", (error) => console.error(String(error)));
    await page.goto(new URL(path, needed("CHATREX_URL")).href);
    return await use(page);
  } finally {
    await context.close();
    await rm(profile, { recursive: true, force: true });
  }
}

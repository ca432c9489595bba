// Browsers with a profile of their own.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { ALWAYS, needed } from "./flags.mjs";

// Opens a browser with a new profile, `flags` beside those of every browser, and `options` of Playwright. `close` closes
// it and removes the profile.
export async function newBrowser({ flags = [], ...options } = {}) {
  const profile = await mkdtemp(join(tmpdir(), "chatrex-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: needed("CHATREX_BROWSER"),
    headless: true,
    args: [...ALWAYS, ...flags],
    ...options,
  });
  const close = async () => {
    await context.close();
    await rm(profile, { recursive: true, force: true });
  };
  return { context, close };
}

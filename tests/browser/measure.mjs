// Browsers to measure in, and medians.

import { HARDWARE, SOFTWARE, needed } from "./flags.mjs";
import { newBrowser } from "./profile.mjs";

// The upper median of numbers.
export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

// Opens `path`, relative to the site, calls `use` with the page, and closes the browser.
export async function measuring(path, use) {
  const flags = process.env.CHATREX_GPU ? HARDWARE : SOFTWARE;
  const { context, close } = await newBrowser({ flags, serviceWorkers: "block" });
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    page.setDefaultTimeout(0);
    page.on("console", (message) => console.error(message.text()));
    page.on("pageerror", (error) => console.error(String(error)));
    await page.goto(new URL(path, needed("CHATREX_URL")).href);
    return await use(page);
  } finally {
    await close();
  }
}

// The way of a cold visit on the software adapter: seconds until the model is ready, until the sample has boxes and
// until its question is answered, also beside another version.
//
//     CHATREX_BROWSER=/path/to/chrome node tests/browser/ready.mjs SITE [OTHER_SITE]
//
// SITE and OTHER_SITE are folders that `cargo xtask dist --out` writes. Visits to the two alternate. Optional:
// CHATREX_REPEATS (3 visits), CHATREX_MODEL (nano or mini, the default). Times of a software adapter are not GPU times;
// the ratio shows how much compilation each version waits for.

import { resolve } from "node:path";
import { SOFTWARE } from "./flags.mjs";
import { median } from "./measure.mjs";
import { site } from "./origins.mjs";
import { newBrowser } from "./profile.mjs";

const FOLDERS = process.argv.slice(2).map((folder) => resolve(folder));
const REPEATS = Number(process.env.CHATREX_REPEATS ?? 3);
const MODEL = process.env.CHATREX_MODEL ?? "mini";
const LONG = 600_000;

if (FOLDERS.length === 0) {
  console.error("name the folder of a site");
  process.exit(2);
}

// Seconds from the start of a visit with a new profile to each event of the worker.
async function visit(url) {
  const { context, close } = await newBrowser({ flags: SOFTWARE, serviceWorkers: "block" });
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    page.setDefaultTimeout(LONG);
    await page.addInitScript(() => {
      try {
        localStorage.setItem("chatrex.engines", JSON.stringify({ "*": { device: "wgpu" } }));
      } catch {
        // A blank page has no storage.
      }
      self.seconds = {};
      const Plain = self.Worker;
      self.Worker = class extends Plain {
        constructor(...args) {
          super(...args);
          this.addEventListener("message", ({ data }) => {
            const [name] = Object.keys(JSON.parse(data[0]));
            self.seconds[name] ??= performance.now() / 1e3;
          });
        }
      };
    });
    await page.goto(`${url}/?model=${MODEL}`);
    await page.waitForFunction(() => self.seconds.Done);
    const { Ready, Proposed, Done } = await page.evaluate(() => self.seconds);
    return { ready: Ready, boxes: Proposed, answer: Done };
  } finally {
    await close();
  }
}

const servers = await Promise.all(FOLDERS.map((folder) => site({ folder })));
try {
  const visits = servers.map(() => []);
  for (let repeat = 0; repeat < REPEATS; repeat++) {
    for (const [index, server] of servers.entries()) visits[index].push(await visit(server.url));
  }
  for (const what of ["ready", "boxes", "answer"]) {
    const times = visits.map((all) => median(all.map((one) => one[what])));
    const ratio = times.length > 1 ? `, theirs / ours ${(times[1] / times[0]).toFixed(2)}` : "";
    console.log(`${what}: ${times.map((time) => `${time.toFixed(1)} s`).join(", ")}${ratio}`);
  }
} finally {
  for (const server of servers) await server.close();
}

// Times of the page alone: frames while sliders and hovers change it, with an idle and with a busy engine, and
// the way to a usable page, also beside another version.
//
//     CHATREX_BROWSER=/path/to/chrome node tests/browser/frames.mjs SITE [OTHER_SITE]
//
// SITE and OTHER_SITE are folders that `cargo xtask dist --out` writes. Visits to the two alternate. Optional:
// CHATREX_REPEATS (7 visits), CHATREX_STEPS (40 steps of slider and hover in a block), CHATREX_BLOCKS (8 pairs of
// an idle and a busy block, in the order idle, busy, busy, idle). The row "script" is a fixed loop of plain script
// on the same thread: what a busy core costs its neighbour on this machine.

import { resolve } from "node:path";
import { median } from "./measure.mjs";
import { site } from "./origins.mjs";
import { newBrowser } from "./profile.mjs";

const FOLDERS = process.argv.slice(2).map((folder) => resolve(folder));
const REPEATS = Number(process.env.CHATREX_REPEATS ?? 7);
const STEPS = Number(process.env.CHATREX_STEPS ?? 40);
const BLOCKS = Number(process.env.CHATREX_BLOCKS ?? 8);
const LONG = 600_000;
// Frames as fast as they are made: a frame then takes as long as its work.
const UNTHROTTLED = ["--disable-frame-rate-limit", "--disable-gpu-vsync"];

if (FOLDERS.length === 0) {
  console.error("name the folder of a site");
  process.exit(2);
}

const rounded = (value) => Number(value.toFixed(2));

// Opens a new profile, calls `use` with a page, and removes the profile.
async function visiting(flags, use) {
  const viewport = { width: 1280, height: 800 };
  const { context, close } = await newBrowser({ flags, viewport, serviceWorkers: "block" });
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    page.setDefaultTimeout(LONG);
    return await use(page);
  } finally {
    await close();
  }
}

// Milliseconds from the start of a cold visit to the first paint, the first content, a text box that takes
// words, and all controls.
function visit(url) {
  return visiting([], async (page) => {
    await page.addInitScript(() => {
      const look = () => {
        const now = performance.now();
        const box = document.querySelector("textarea#question");
        if (box && !box.disabled) self.usable ??= now;
        if (document.querySelector('[data-testid="file-input"]')) self.complete = now;
        else requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    });
    await page.goto(url);
    await page.waitForFunction(() => self.complete && performance.getEntriesByName("first-contentful-paint").length);
    return page.evaluate(() => {
      const at = (name) => performance.getEntriesByName(name)[0]?.startTime ?? NaN;
      return { paint: at("first-paint"), content: at("first-contentful-paint"), usable: self.usable, complete: self.complete };
    });
  });
}

// Runs in the page: the milliseconds from each change to the end of the frame that shows it. With `busy` a
// question is always being answered.
async function frames([kind, steps, busy]) {
  const frame = () =>
    new Promise((done) => {
      requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = done;
        port2.postMessage(null);
      });
    });
  const slider = document.querySelector('[data-testid="score-slider"]');
  const boxes = () => document.querySelectorAll('[data-testid="box"]');
  const change = {
    slider(step) {
      const setter = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
      setter.call(slider, String(0.2 + 0.6 * Math.abs(((step / 30) % 2) - 1)));
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    },
    hover(step) {
      const all = boxes();
      const mark = all[step % Math.max(all.length, 1)]?.getBoundingClientRect();
      const pane = document.querySelector('[data-testid="picture"]');
      const at = mark && { clientX: mark.x + mark.width / 2, clientY: mark.y + mark.height / 2 };
      const surface = pane.querySelector(".boxes") ?? pane;
      surface.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, pointerId: 1, pointerType: "mouse", ...at }));
    },
    script(step) {
      const map = new Map();
      for (let i = 0; i < 120000; i++) map.set(`${i % 500}`, i + step);
    },
  }[kind];
  let asking = null;
  if (busy) {
    asking = setInterval(() => {
      const [text, send] = ["question", "send"].map((id) => document.querySelector(`[data-testid="${id}"]`));
      if (!text || !send || document.querySelector('[data-testid="stop"]')) return;
      const setter = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set;
      setter.call(text, "Describe every object of the picture in detail.");
      text.dispatchEvent(new Event("input", { bubbles: true }));
      setTimeout(() => document.querySelector('[data-testid="send"]')?.click());
    }, 20);
  }
  const times = [];
  let answering = 0;
  for (let step = 0; step < steps; step++) {
    const start = performance.now();
    change(step);
    if (kind !== "script") await frame();
    times.push(performance.now() - start);
    if (document.querySelector('[data-testid="stop"]')) answering += 1;
    await new Promise((done) => setTimeout(done, 16));
  }
  clearInterval(asking);
  return { times, answering: answering / steps };
}

// The engine computes at least this many milliseconds for a piece of an answer, so that one answer is written
// during all steps: nano answers within a frame or two, and the frames would be those of new turns.
const PIECE = 400;

async function frameTimes(url) {
  return visiting(UNTHROTTLED, async (page) => {
    await page.goto(`${url}/?model=nano`);
    await page.waitForFunction(() => document.querySelector('[data-testid="answer"][data-state="done"]'));
    await page.workers()[0].evaluate((piece) => {
      const post = self.postMessage;
      self.postMessage = (message, ...rest) => {
        post.call(self, message, ...rest);
        if (!message[0].startsWith('{"Said"')) return;
        for (const end = performance.now() + piece; performance.now() < end; );
      };
    }, PIECE);
    await page.evaluate(() => document.querySelectorAll("details.panel").forEach((panel) => (panel.open = true)));
    const rows = [];
    const answered = () => page.waitForFunction(() => !document.querySelector('[data-testid="stop"]'));
    for (const kind of ["slider", "hover", "script"]) {
      const blocks = { idle: [], busy: [] };
      await page.evaluate(frames, [kind, 20, false]);
      for (let i = 0; i < BLOCKS; i++) {
        for (const state of i % 2 ? ["busy", "idle"] : ["idle", "busy"]) {
          if (state === "idle") await answered();
          blocks[state].push(await page.evaluate(frames, [kind, STEPS, state === "busy"]));
        }
      }
      await answered();
      const [idle, busy] = [blocks.idle, blocks.busy].map((all) => median(all.flatMap(({ times }) => times)));
      const shares = blocks.busy.map(({ answering }) => answering);
      rows.push({
        change: kind,
        "idle ms": rounded(idle),
        "busy ms": rounded(busy),
        "busy / idle": rounded(busy / idle),
        "median of pairs": rounded(median(blocks.busy.map(({ times }, i) => median(times) / median(blocks.idle[i].times)))),
        "share of steps with an answer running": rounded(shares.reduce((sum, share) => sum + share, 0) / shares.length),
      });
    }
    return rows;
  });
}

const servers = await Promise.all(FOLDERS.map((folder) => site({ folder })));
try {
  console.table(await frameTimes(servers[0].url));
  const visits = servers.map(() => []);
  for (let i = 0; i < REPEATS; i++) {
    for (const [at, { url }] of servers.entries()) visits[at].push(await visit(`${url}/`));
  }
  const summary = visits.map((all, at) => ({
    site: FOLDERS[at],
    ...Object.fromEntries(Object.keys(all[0]).map((key) => [`${key} ms`, rounded(median(all.map((one) => one[key])))])),
  }));
  console.table(summary);
  if (summary.length > 1) {
    const [own, other] = summary;
    const ratio = (key) => rounded(own[key] / other[key]);
    // The paint may be of the text box itself.
    const wait = (one) => Math.max(one["usable ms"] - one["paint ms"], 0);
    console.log(`first paint to usable, this site / other: ${rounded(wait(own) / wait(other))}`);
    console.log(`usable, this site / other: ${ratio("usable ms")}`);
    console.log(`all controls, this site / other: ${ratio("complete ms")}`);
  }
} finally {
  await Promise.all(servers.map((server) => server.close()));
}

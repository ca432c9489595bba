// Times of a visit over a slow connection: until the first boxes and the first word, cold and warm.
//
//     CHATREX_URL=http://localhost:8080/ CHATREX_BROWSER=/path/to/chrome node tests/browser/visits.mjs
//
// The site is passed on by a server of this script that sends 20 Mbit/s in all, to the page, to its workers
// and to its service worker. A cold visit has an empty profile; a warm visit is the next one of that
// profile, after the service worker has stored everything. Optional: CHATREX_MBIT, CHATREX_REPEATS.

import { createServer, request as ask } from "node:http";
import { needed, SOFTWARE } from "./flags.mjs";
import { median } from "./measure.mjs";
import { newBrowser } from "./profile.mjs";

const SITE = needed("CHATREX_URL");
const MBIT = Number(process.env.CHATREX_MBIT ?? 20);
const REPEATS = Number(process.env.CHATREX_REPEATS ?? 3);
const CHUNK = 16 * 1024;
const LONG = 600_000;

// Resolves when `bytes` more bytes may have been sent.
let free = 0;
let sent = 0;
function turn(bytes) {
  const now = performance.now();
  free = Math.max(free, now) + (bytes * 8) / (MBIT * 1000);
  sent += bytes;
  return new Promise((done) => setTimeout(done, free - now));
}

const server = createServer((request, response) => {
  const headers = { ...request.headers, host: new URL(SITE).host };
  const onward = ask(new URL(request.url, SITE), { method: request.method, headers }, async (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    for await (const bytes of answer) {
      for (let at = 0; at < bytes.length; at += CHUNK) {
        const part = bytes.subarray(at, at + CHUNK);
        await turn(part.length);
        response.write(part);
      }
    }
    response.end();
  });
  onward.on("error", (error) => response.destroy(error));
  request.pipe(onward);
});
await new Promise((done) => server.listen(0, "localhost", done));
const address = `http://localhost:${server.address().port}/`;

// Runs in the page: the times of the first drawn box and the first word of an answer, in milliseconds since
// the visit began.
function clock() {
  self.times = {};
  const shows = {
    boxes: () => document.querySelector('[data-testid="box"]'),
    word: () => ["streaming", "done"].includes(document.querySelector('[data-testid="answer"]')?.dataset.state),
  };
  const look = () => {
    for (const [name, there] of Object.entries(shows)) {
      if (!(name in self.times) && there()) self.times[name] = performance.now();
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}

async function visit(context) {
  const page = await context.newPage();
  page.setDefaultTimeout(LONG);
  const before = sent;
  await page.goto(address);
  await page.waitForFunction(() => self.times?.boxes && self.times?.word);
  const times = await page.evaluate(() => self.times);
  await page.getByTestId("offline-badge").waitFor();
  await page.close();
  return { ...times, megabytes: (sent - before) / 1e6 };
}

const rows = [];
for (const [device, flags] of [
  ["CPU", []],
  ["SwiftShader", SOFTWARE],
]) {
  const visits = { cold: [], warm: [] };
  for (let i = 0; i < REPEATS; i++) {
    const { context, close } = await newBrowser({ flags, viewport: { width: 1280, height: 800 } });
    await context.addInitScript(clock);
    for (const kind of ["cold", "warm"]) visits[kind].push(await visit(context));
    await close();
  }
  for (const [kind, list] of Object.entries(visits)) {
    const of = (name) => median(list.map((times) => times[name]));
    rows.push({
      device,
      visit: kind,
      "boxes, s": (of("boxes") / 1000).toFixed(1),
      "first word, s": (of("word") / 1000).toFixed(1),
      "sent, MB": of("megabytes").toFixed(1),
    });
  }
}
console.table(rows);
server.close();
server.closeAllConnections();

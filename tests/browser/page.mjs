// Opens the page in the browser of `cargo xtask test`, and records requests, errors and messages.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { SOFTWARE as WEBGPU, needed } from "./flags.mjs";
import { newBrowser } from "./profile.mjs";

export const URL_OF_PAGE = needed("CHATREX_URL");
// The page with the model for drawn scenes, whichever model is the default.
export const URL_OF_NANO = `${URL_OF_PAGE}?model=nano`;
// Whether this version has the model for photographs.
export const HAS_MINI = existsSync(new URL("../../assets/models/mini/model.json", import.meta.url));
// A document of the site that starts no engine.
export const QUIET = `${URL_OF_PAGE}start.js`;
export const DEEP_URL_OF_PAGE = needed("CHATREX_DEEP_URL");
export const PICTURES = needed("CHATREX_PICTURES");
export const DEEP_SITE = needed("CHATREX_DEEP_SITE");
export const PROGRAM = needed("CHATREX_PROGRAM");

// A name of this machine that browsers do not trust, as they trust `localhost`; `visit` maps it.
export const PLAIN_NAME = "chatrex.test";

// Timeout in milliseconds; a software adapter on a busy machine is slow.
export const LONG = Number(process.env.CHATREX_LONG ?? 600_000);
// The same for what needs no model.
const PATIENCE = Math.min(LONG, 120_000);

// Opens a browser with a profile of its own. `webgpu: false` disables WebGPU adapters; `flags` are added.
export async function open({ webgpu = true, flags = [], ...options } = {}) {
  const { context, close } = await newBrowser({
    flags: [...(webgpu ? WEBGPU : []), ...flags],
    viewport: { width: 1280, height: 800 },
    ...options,
  });
  context.setDefaultTimeout(PATIENCE);
  context.setDefaultNavigationTimeout(LONG);
  const page = context.pages()[0] ?? (await context.newPage());
  const seen = watch(context, page);
  // Tests with WebGPU are about the GPU path, whichever engine is faster on a software adapter.
  if (webgpu) await context.addInitScript(preferGpu);
  await context.addInitScript(record);
  return { context, page, seen, close };
}

// Opens a browser with nano on the CPU and waits for the answer about its sample.
export async function openNano() {
  const browser = await open({ webgpu: false });
  await browser.page.goto(URL_OF_NANO);
  assert.equal((await answered(browser.page, 0)).state, "done");
  return browser;
}

// Runs in the page: remembers the GPU path for every adapter.
function preferGpu() {
  try {
    localStorage.setItem("chatrex.engines", JSON.stringify({ "*": { device: "wgpu" } }));
  } catch {
    // A blank page has no storage.
  }
}

// Runs in the page: records the messages between page and worker, and reports policy violations.
function record() {
  addEventListener("securitypolicyviolation", (event) => {
    console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`);
  });
  const Plain = self.Worker;
  self.requests = [];
  self.events = [];
  self.Worker = class extends Plain {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({ data }) => {
        const event = JSON.parse(data[0]);
        if (!event.Progress) self.events.push(event);
      });
    }
    postMessage(message, ...rest) {
      self.requests.push(JSON.parse(message[0]));
      super.postMessage(message, ...rest);
    }
  };
}

// Records foreign requests, policy violations, errors and the console.
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

// The worker's report about its device: a matrix product, and with `kernels` the sweep of every kernel
// against the CPU.
export async function check(page, { kernels }) {
  const report = await page.evaluate(
    (kernels) =>
      new Promise((resolve, reject) => {
        const what = kernels ? "check" : "product";
        const worker = new Worker(`./worker_dev_start.js?${what}`, { type: "module" });
        worker.onmessage = (message) => resolve(message.data[0]);
        worker.onerror = (error) => reject(new Error(error.message));
      }),
    kernels,
  );
  return JSON.parse(report);
}

// Waits until the model answers questions.
export async function modelReady(page) {
  await page.locator('[data-testid="model-state"][data-state="ready"]').waitFor({ timeout: LONG });
}

// Waits until the answer of turn `turn` (from 0) has ended, and returns its state and text.
export async function answered(page, turn) {
  const answer = page.getByTestId("answer").nth(turn);
  await page.waitForFunction(
    (turn) => {
      const answer = document.querySelectorAll('[data-testid="answer"]')[turn];
      return ["done", "stopped", "failed"].includes(answer?.dataset.state);
    },
    turn,
    { timeout: LONG },
  );
  return { state: await answer.getAttribute("data-state"), words: await answer.innerText() };
}

// Asserts that `locator` matches `count` elements. The page draws in frames, so it may be a moment until it does.
export async function counted(locator, count, message) {
  const end = performance.now() + 5000;
  while ((await locator.count()) !== count && performance.now() < end) await new Promise((done) => setTimeout(done, 20));
  assert.equal(await locator.count(), count, message);
}

// Asks a question and returns the number of the turn.
export async function ask(page, question) {
  const turn = await page.getByTestId("answer").count();
  await page.getByTestId("question").fill(question);
  await page.getByTestId("send").click();
  await page.getByTestId("answer").nth(turn).waitFor();
  return turn;
}

// Keeps the next answer of the worker unfinished: after `pieces` pieces nothing of it reaches the page until
// the returned function is called. Meanwhile the worker's `say` sends an event to the page.
export async function hold(page, pieces) {
  const [worker] = page.workers();
  await worker.evaluate((pieces) => {
    const post = self.postMessage;
    const held = [];
    self.postMessage = (message) => {
      const isPiece = message[0].startsWith('{"Said"');
      if (pieces === 0 && (isPiece || message[0].startsWith('{"Done"'))) return held.push(message);
      post.call(self, message);
      if (isPiece) pieces -= 1;
    };
    self.say = (message) => post.call(self, [JSON.stringify(message)]);
    self.release = () => {
      self.postMessage = post;
      held.forEach((message) => post.call(self, message));
    };
  }, pieces);
  return () => worker.evaluate(() => self.release());
}

// Waits until words of the answer of turn `turn` are there, and returns them.
export async function streaming(page, turn) {
  const answer = page.locator(`[data-testid="answer"] >> nth=${turn}`);
  await page.waitForFunction(
    (turn) => document.querySelectorAll('[data-testid="answer"]')[turn]?.dataset.state === "streaming",
    turn,
    { timeout: LONG },
  );
  return (await answer.locator(".words").innerText()).trim();
}

// Opens a tab beside the picture, "chat" or "objects", without moving the focus.
export async function tab(page, name) {
  const button = page.getByTestId(`tab-${name}`);
  if ((await button.getAttribute("aria-selected")) !== "true") await button.evaluate((tab) => tab.click());
}

// Does something in a tab, and opens the one again that was open before.
export async function inTab(page, name, act) {
  const before = (await page.getByTestId("tab-chat").getAttribute("aria-selected")) === "true" ? "chat" : "objects";
  await tab(page, name);
  const result = await act();
  await tab(page, before);
  return result;
}

// Waits until what changed is drawn: the page updates once per frame.
export const frames = (page) =>
  page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

// Moves a slider, of the objects or elsewhere.
export async function slide(page, slider, value) {
  const element = page.getByTestId(slider);
  const isOfObjects = await element.evaluate((slider) => Boolean(slider.closest("#panel-objects")));
  if (isOfObjects) await inTab(page, "objects", () => element.fill(value));
  else await element.fill(value);
  await frames(page);
}

// Opens a sample from the empty page.
export async function openSample(page, file) {
  if (!(await page.getByTestId("start").isVisible())) await page.getByTestId("new").click();
  await page.locator(`[data-testid="sample-card"][data-sample="${file}"]`).click();
}

// Opens a picture through the file input and waits for its boxes.
export async function openPicture(page, file) {
  await looked(page, () => page.getByTestId("file-input").setInputFiles(file));
}

// Opens a picture by `act` and waits for its boxes, not those of an earlier picture.
export async function looked(page, act) {
  const before = Math.max(...(await asked(page, "Look")).map((look) => look.picture));
  await act();
  await page.waitForFunction(
    (before) => self.events.some((event) => event.Proposed?.picture > before),
    before,
    { timeout: LONG },
  );
}

// Drops a picture on the page.
export function drop(page, picture, name, type) {
  return page.evaluate(
    ([base64, name, type]) => {
      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], name, { type }));
      const event = { bubbles: true, cancelable: true, dataTransfer: data };
      for (const kind of ["dragenter", "dragover", "drop"]) {
        document.body.dispatchEvent(new DragEvent(kind, event));
      }
    },
    [picture.toString("base64"), name, type],
  );
}

// The numbers of the highlighted boxes.
export function lit(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll('[data-testid="box"][data-lit="true"]')]
      .map((box) => Number(box.dataset.index))
      .sort((a, b) => a - b),
  );
}

// Intersection over union of two boxes.
export function overlap(a, b) {
  const side = (from, to) => Math.max(0, to - from);
  const both = side(Math.max(a[0], b[0]), Math.min(a[2], b[2])) * side(Math.max(a[1], b[1]), Math.min(a[3], b[3]));
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return both / (area(a) + area(b) - both);
}

// Median milliseconds from an input to the frame after it: a key, a step of a slider, the pointer on a phrase.
export function handling(page) {
  return page.evaluate(async () => {
    const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    const measure = async (act) => {
      const took = [];
      for (let i = 0; i < 21; i += 1) {
        const start = performance.now();
        act(i);
        await painted();
        took.push(performance.now() - start);
      }
      return took.sort((a, b) => a - b)[took.length >> 1];
    };
    const field = (mark) => document.querySelector(`[data-testid="${mark}"]`);
    const put = (mark, value) => {
      field(mark).value = value;
      field(mark).dispatchEvent(new Event("input", { bubbles: true }));
    };
    const usual = field("score-slider").value;
    const phrase = [...document.querySelectorAll('[data-testid="phrase"]')].at(-1);
    const times = {
      typing: await measure((i) => put("question", "x".repeat(i + 1))),
      sliding: await measure((i) => put("score-slider", 0.2 + 0.01 * i)),
      pointing: await measure((i) => phrase.dispatchEvent(new PointerEvent(i % 2 ? "pointerleave" : "pointerenter", { bubbles: true }))),
    };
    put("question", "");
    put("score-slider", usual);
    return times;
  });
}

// The conversation as the page saves it.
export async function exported(page) {
  await page.getByTestId("export").click();
  await page.getByTestId("export-format").selectOption("document");
  const coming = page.waitForEvent("download", { timeout: LONG });
  await page.getByTestId("export-save").click();
  const path = await (await coming).path();
  await page.getByTestId("exchange-close").click();
  return JSON.parse(await readFile(path, "utf8"));
}

// Brings a saved conversation to the open picture.
export async function imported(page, saved) {
  const buffer = Buffer.from(JSON.stringify(saved));
  await page.getByTestId("import").setInputFiles({ name: "saved.chatrex.json", mimeType: "application/json", buffer });
  await page.getByTestId("exchange-outcome").getByText(/^Opened saved\.chatrex\.json/).waitFor({ timeout: LONG });
}

// All events of a kind so far.
export const happened = (page, kind) =>
  page.evaluate((kind) => self.events.flatMap((event) => event[kind] ?? []), kind);

// All requests of a kind so far.
export const asked = (page, kind) =>
  page.evaluate((kind) => self.requests.flatMap((request) => request[kind] ?? []), kind);

// The drawn boxes by number: `[x1, y1, x2, y2]` in pixels of the picture.
export async function drawnBoxes(page) {
  await page.getByTestId("show-all").check();
  return page.evaluate(() => {
    const boxes = [];
    for (const mark of document.querySelectorAll('[data-testid="box"]')) {
      const line = mark.querySelector(".line");
      const [x, y, width, height] = ["x", "y", "width", "height"].map((name) =>
        Number(line.getAttribute(name)),
      );
      boxes[Number(mark.dataset.index)] = [x, y, x + width, y + height];
    }
    return boxes;
  });
}

// Asserts that there were no foreign requests, policy violations or errors.
export function nothingForbidden({ foreign, violations, errors }) {
  assert.deepEqual({ foreign, violations, errors }, { foreign: [], violations: [], errors: [] });
}

// Runs in the page: dismisses what an import or export said, which a new picture takes away at any moment.
export const dismissed = () => document.querySelector('[data-testid="exchange-dismiss"]')?.click();

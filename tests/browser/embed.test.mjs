// The page in a frame of another origin, and the custom element.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { counted, open, DEEP_SITE, LONG } from "./page.mjs";
import { origin, site } from "./origins.mjs";

const PICTURE = join(DEEP_SITE, "samples/scene.png");
const OTHER = join(DEEP_SITE, "samples/cat.jpg");

// A page that holds the element and records its events. Its policy allows its own files and the site.
function hostPage(chatrex, element) {
  const policy = `default-src 'none'; script-src 'self' ${chatrex}; frame-src ${chatrex}; connect-src 'self'; style-src 'self'; img-src 'self' data:`;
  const html = `<!doctype html><html lang="en"><title>A shop</title><link rel="icon" href="data:,">
    <link rel="stylesheet" href="host.css"><script src="host.js"></script>
    <script src="${chatrex}/chat-rex.js"></script><h1>A shop</h1>${element}<p class="far">The end</p>`;
  return { body: html, headers: { "Content-Security-Policy": policy } };
}

const HOST_CSS = `chat-rex { height: 600px; } chat-rex::part(frame) { outline: 3px solid rgb(1, 2, 3); } .far { margin-top: 2000px; }`;

// Runs before the element: records its events, messages of frames and policy violations.
const HOST_JS = `
  self.heard = [];
  self.raw = [];
  for (const type of ["ready", "progress", "boxes", "answer", "select", "error"]) {
    document.addEventListener(type, ({ target, detail }) => {
      if (target.localName === "chat-rex") self.heard.push({ type, detail });
    }, true);
  }
  addEventListener("message", ({ data, origin }) => self.raw.push({ data, origin }));
  addEventListener("securitypolicyviolation", (event) => {
    console.error("policy violation: " + event.violatedDirective + " " + event.blockedURI);
  });
`;

// Waits for an event of the element whose detail fulfils `check`; gives the details of all of this type.
async function event(page, type, check = () => true) {
  for (const end = Date.now() + 120_000; Date.now() < end; await page.waitForTimeout(50)) {
    const found = await page.evaluate((type) => self.heard.filter((event) => event.type === type), type);
    const details = found.map(({ detail }) => detail);
    if (details.some(check)) return details;
  }
  throw new Error(`no event ${type}`);
}

const plain = (detail) => JSON.parse(JSON.stringify(detail));

describe("the page in a frame of another origin", () => {
  let browser, page, shop, chatrex, frame;

  before(async () => {
    shop = await origin({ "host.js": HOST_JS, "host.css": HOST_CSS, "scene.png": { body: await readFile(PICTURE) } });
    chatrex = await site({ hosts: [shop.url] });
    shop.files[""] = hostPage(
      chatrex.url,
      '<chat-rex model="nano" src="scene.png" prompt="How many objects are there?" label="Ask about it">Loading…</chat-rex>',
    );
    browser = await open({ webgpu: false });
    ({ page } = browser);
    await page.goto(shop.url);
    await event(page, "answer");
    frame = page.frames().find((frame) => frame.url().startsWith(chatrex.url));
  });

  after(async () => {
    await browser?.close();
    await Promise.all([shop?.close(), chatrex?.close()]);
  });

  test("custom element: it loads, asks, and tells boxes and answer as events", async () => {
    const [ready] = await event(page, "ready");
    assert.equal(ready.model.name, "nano");
    assert.deepEqual(ready.versions, [1]);
    const boxes = (await event(page, "boxes")).find(({ picture }) => picture);
    assert.deepEqual(boxes.picture, await page.evaluate(async () => {
      const { width, height } = await createImageBitmap(await (await fetch("scene.png")).blob());
      return { width, height };
    }));
    assert.ok(boxes.boxes.length > 2, `${boxes.boxes.length} boxes`);
    for (const { box, score } of boxes.boxes) {
      assert.ok(box.length === 4 && box.every(Number.isFinite) && score > 0, `${box} ${score}`);
    }
    const [answer] = await event(page, "answer");
    assert.equal(answer.question, "How many objects are there?");
    assert.equal(answer.spans.map(({ text }) => text).join(""), answer.text);
    assert.match(answer.text, /\w/);
    assert.equal(answer.byVisitor, false);
    const stages = (await event(page, "progress")).map(({ stage }) => stage);
    assert.ok(stages.includes("load"), `${[...new Set(stages)]}`);
    assert.equal(await page.evaluate(() => self.heard.filter(({ type }) => type === "error").length), 0);
    assert.equal(await frame.getByTestId("answer").innerText().then((text) => text.includes(answer.text.trim())), true);
  });

  test("custom element: phrases name boxes, and methods give promises", async () => {
    const answer = await page.evaluate(() =>
      document.querySelector("chat-rex").ask("cat; dog; penguin; banana; tree; car", { kind: "find" }),
    );
    const linked = answer.spans.flatMap(({ objects }) => objects ?? []);
    assert.ok(linked.length > 0 && linked.every((index) => index < answer.boxes.length), answer.text);
    const named = await page.evaluate(async () => {
      const element = document.querySelector("chat-rex");
      const { boxes } = await element.propose({ score: 0.3 });
      const [x1, y1, x2, y2] = boxes[0].box.map(Math.round);
      return element.ask("What is <obj0>?", { boxes: [[x1, y1, x2, y2]] });
    });
    assert.match(named.question, /^What is \[\d+\]\?$/);
    assert.match(named.text, /\w/);
    const [few, many] = await page.evaluate(async () => {
      const element = document.querySelector("chat-rex");
      const strict = await element.propose({ score: 0.9 });
      const loose = await element.propose({ score: 0.3 });
      return [strict.boxes.length, loose.boxes.length];
    });
    assert.ok(few <= many, `${few} boxes above 0.9, ${many} above 0.3`);
  });

  test("custom element: a selection goes both ways", async () => {
    const chosen = await page.evaluate(() => document.querySelector("chat-rex").select([1]));
    assert.deepEqual(chosen.boxes, [1]);
    await frame.locator('[data-testid="box"][data-index="1"][data-lit="true"]').waitFor({ state: "attached" });
    // The pane is the one stop of the picture; the full stop key goes to the next box.
    await frame.getByTestId("picture").first().focus();
    await page.keyboard.press(".");
    const told = await event(page, "select", ({ byVisitor, boxes }) => byVisitor && boxes.length === 1);
    assert.deepEqual(told.at(-1).boxes, [2]);
  });

  test("no picture leaves unless the host asks for it", async () => {
    await frame.getByTestId("file-input").setInputFiles(OTHER);
    const picture = 'document.querySelector("chat-rex")';
    await event(page, "boxes", ({ picture }) => picture?.width === 451);
    const sent = await page.evaluate(() => {
      const blobs = [];
      const visit = (value) => {
        if (value instanceof Blob || value instanceof ArrayBuffer || ArrayBuffer.isView(value)) blobs.push(value);
        else if (value && typeof value === "object") Object.values(value).forEach(visit);
      };
      self.raw.forEach(({ data }) => visit(data));
      return { blobs: blobs.length, longest: Math.max(...self.raw.map(({ data }) => JSON.stringify(data).length)) };
    });
    assert.equal(sent.blobs, 0, "no message carries bytes");
    const bytes = await page.evaluate(`${picture}.picture().then((blob) => blob.size)`);
    assert.equal(bytes, (await readFile(OTHER)).length);
  });

  test("malformed messages are refused with a code, and nothing is lost", async () => {
    const turns = await frame.getByTestId("answer").count();
    const codes = await page.evaluate(async (target) => {
      const frame = document.querySelector("chat-rex").shadowRoot.querySelector("iframe").contentWindow;
      const codes = [];
      const loop = { v: 1, id: "loop", type: "stop" };
      loop.self = loop;
      for (const message of [
        "words",
        null,
        [],
        { v: 2, id: "a", type: "stop" },
        { v: 1, id: "b", type: "fly" },
        { v: 1, type: "stop" },
        { v: 1, id: "c", type: "load" },
        { v: 1, id: "d", type: "load", picture: new Blob(["no picture"]) },
        { v: 1, id: "e", type: "ask", question: 7 },
        { v: 1, id: "f", type: "select", boxes: [999] },
        loop,
      ]) {
        const reply = new Promise((resolve) => {
          const listen = ({ data }) => {
            if (data.type !== "error") return;
            removeEventListener("message", listen);
            resolve([data.id, data.code, typeof data.message]);
          };
          addEventListener("message", listen);
        });
        frame.postMessage(message, target);
        codes.push(await reply);
      }
      return codes;
    }, chatrex.url);
    assert.deepEqual(codes, [
      [null, "Protocol", "string"],
      [null, "Protocol", "string"],
      [null, "Protocol", "string"],
      ["a", "Unsupported", "string"],
      ["b", "Protocol", "string"],
      [null, "Protocol", "string"],
      ["c", "InvalidInput", "string"],
      ["d", "Unsupported", "string"],
      ["e", "Protocol", "string"],
      ["f", "InvalidInput", "string"],
      [null, "Protocol", "string"],
    ]);
    await counted(frame.getByTestId("answer"), turns);
    assert.ok((await frame.getByTestId("box").count()) > 0, "the picture and its boxes are there");
  });

  test("plain wheel never zooms: the host page scrolls", async () => {
    await page.evaluate(() => scrollTo(0, 0));
    const zoom = () => frame.locator(".zoom-percent").first().innerText();
    const before = await zoom();
    const pane = await page.locator("chat-rex").boundingBox();
    await page.mouse.move(pane.x + pane.width / 2, pane.y + 200);
    for (let i = 0; i < 6; i++) {
      await page.mouse.wheel(0, 200);
      await page.waitForTimeout(50);
    }
    await page.waitForFunction(() => scrollY > 0);
    assert.equal(await zoom(), before);
    await page.evaluate(() => scrollTo(0, 0));
  });

  test("the frame is compact, and its parts have names for style sheets", async () => {
    for (const hidden of ["model-state", "history", "settings", "gallery"]) {
      assert.equal(await frame.getByTestId(hidden).first().isVisible().catch(() => false), false, hidden);
    }
    assert.ok(await frame.getByTestId("question").isVisible());
    assert.match(await frame.locator(".small-print").first().innerText(), /\w/);
    const outline = await page.evaluate(() => {
      const frame = document.querySelector("chat-rex").shadowRoot.querySelector("iframe");
      return [getComputedStyle(frame).outlineColor, frame.title, document.querySelector("chat-rex").shadowRoot.querySelector("[part=status]").hidden];
    });
    assert.deepEqual(outline, ["rgb(1, 2, 3)", "Ask about it", true]);
  });

  test("no policy is violated on either side, and nothing is posted to a server", async () => {
    const { violations, errors } = browser.seen;
    assert.deepEqual({ violations, errors }, { violations: [], errors: [] });
    for (const { log } of [shop, chatrex]) {
      assert.deepEqual(log.filter(({ method, body }) => method !== "GET" || body.length > 0), []);
    }
  });
});

test("a frame keeps nothing, in its own site neither", async () => {
  const chatrex = await site({ extra: { "own.html": '<!doctype html><script src="host.js"></script><script src="chat-rex.js"></script>', "host.js": HOST_JS } });
  const browser = await open({ webgpu: false });
  const { page } = browser;
  try {
    await page.goto(`${chatrex.url}/own.html`);
    await page.evaluate(() => {
      document.body.innerHTML = '<chat-rex model="nano" src="samples/scene.png" prompt="How many objects are there?"></chat-rex>';
    });
    await event(page, "answer");
    // A change is written after 300 ms.
    await page.waitForTimeout(700);
    const kept = await page.evaluate(async () => ({
      local: localStorage.length,
      session: sessionStorage.length,
      caches: (await caches.keys()).length,
      databases: (await indexedDB.databases()).length,
      workers: (await navigator.serviceWorker.getRegistrations()).length,
    }));
    assert.deepEqual(kept, { local: 0, session: 0, caches: 0, databases: 0, workers: 0 });
  } finally {
    await browser.close();
    await chatrex.close();
  }
});

test("readonly: the visitor has no text box, no tools and no files, the host still asks", async () => {
  const shop = await origin({ "host.js": HOST_JS, "host.css": HOST_CSS, "scene.png": { body: await readFile(PICTURE) } });
  const chatrex = await site({ hosts: [shop.url] });
  shop.files[""] = hostPage(chatrex.url, '<chat-rex model="nano" readonly></chat-rex>');
  const browser = await open({ webgpu: false });
  const { page } = browser;
  try {
    await page.goto(shop.url);
    await event(page, "ready");
    const asked = await page.evaluate(async () => {
      const element = document.querySelector("chat-rex");
      const early = await element.ask("What is it?").catch(({ code }) => code);
      element.load(new URL("scene.png", location).href);
      return [early, (await element.ask("How many objects are there?")).text];
    });
    assert.equal(asked[0], "NotReady");
    assert.match(asked[1], /\w/);
    const frame = page.frames().find((frame) => frame.url().startsWith(chatrex.url));
    assert.match(frame.url(), /readonly=1/);
    for (const hidden of ["question", "tool-draw", "remove-picture", "choose-file"]) {
      assert.equal(await frame.getByTestId(hidden).first().isVisible().catch(() => false), false, hidden);
    }
    await page.evaluate(() => document.querySelector("chat-rex").setAttribute("src", "missing.png"));
    const errors = await event(page, "error", ({ code }) => code === "Network");
    assert.match(errors.at(-1).message, /missing\.png/);
    const removed = await page.evaluate(() => {
      const element = document.querySelector("chat-rex");
      const call = element.ask("What is it?").catch(({ code }) => code);
      element.remove();
      return call;
    });
    assert.equal(removed, "Cancelled");
    assert.deepEqual(browser.seen.violations, []);
  } finally {
    await browser.close();
    await Promise.all([shop.close(), chatrex.close()]);
  }
});

test("a page of another origin is refused: by the policy, and its messages are not answered", async () => {
  const shop = await origin({ "host.js": HOST_JS, "host.css": HOST_CSS });
  const [listed, unlisted] = [await site({ hosts: ["https://elsewhere.example"] }), await site()];
  // The policy lets it in, the list of hosts does not.
  const open_ = await site({ policy: (text) => text.replace(/frame-ancestors[^;]*/, `frame-ancestors ${shop.url}`) });
  const browser = await open({ webgpu: false });
  const { page } = browser;
  try {
    for (const { url } of [listed, unlisted, open_]) {
      shop.files[""] = hostPage(url, "");
      await page.goto(shop.url);
      await page.evaluate(() => {
        customElements.get("chat-rex").patience = 3_000;
        document.body.append(document.createElement("chat-rex"));
      });
      const [{ code, message }] = await event(page, "error");
      assert.equal(code, "NotReady", url);
      assert.match(message, /embed\.json/);
      if (url === open_.url) {
        const frame = page.frames().find((frame) => frame.url().startsWith(url));
        await frame.getByTestId("question").waitFor({ state: "attached", timeout: LONG });
        await page.waitForTimeout(1_000);
      }
      assert.deepEqual(plain(await page.evaluate(() => self.raw)), [], url);
    }
  } finally {
    await browser.close();
    await Promise.all([shop, listed, unlisted, open_].map((server) => server.close()));
  }
});

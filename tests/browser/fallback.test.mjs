// A browser without a GPU adapter: the CPU answers, and the page shows a note.

import assert from "node:assert/strict";
import { test } from "node:test";
import { answered, happened, nothingForbidden, open, URL_OF_PAGE } from "./page.mjs";

const absent = {
  "no adapter": async () => {},
  "no WebGPU at all": (context) =>
    context.route("**/timestamp_query.js", (route) =>
      route.fulfill({
        contentType: "text/javascript",
        body: "delete WorkerNavigator.prototype.gpu; delete self.GPUAdapter;",
      }),
    ),
};

for (const [what, prepare] of Object.entries(absent)) {
  test(`${what}: the CPU answers`, async () => {
    const browser = await open({ webgpu: false, serviceWorkers: "block" });
    const { context, page, seen } = browser;
    try {
      await prepare(context);
      await page.goto(URL_OF_PAGE);
      assert.equal((await answered(page, 0)).state, "done");
      const [ready] = await happened(page, "Ready");
      assert.equal(ready.device, "cpu");
      const note = await page.getByTestId("device-note").innerText();
      assert.match(note, /processor/);
      nothingForbidden(seen);
    } finally {
      await browser.close();
    }
  });
}

// Servers with an origin of their own: the site with another policy, and pages of other sites.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { needed } from "./flags.mjs";

const TYPES = {
  "": "text/html; charset=utf-8",
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".jpg": "image/jpeg",
  ".js": "text/javascript",
  ".json": "application/json",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

// A server of `files`, by path: `{ body, type, headers }` or a text. `answer` may reply to other paths with
// such an object; `name` is that of the host. `log` gets method, path and body of every request.
export async function origin(files, { answer = async () => null, name = "127.0.0.1" } = {}) {
  const log = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const path = decodeURIComponent(new URL(request.url, "http://x").pathname).slice(1);
    log.push({ method: request.method, path, body: Buffer.concat(chunks) });
    const found = files[path] ?? (request.method === "GET" ? await answer(path) : null);
    const { body = "not found", type, headers } = typeof found === "string" ? { body: found } : (found ?? {});
    const all = { "Content-Type": type ?? TYPES[extname(path)] ?? "application/octet-stream", "Cache-Control": "no-store", ...headers };
    const range = found && /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    if (range) {
      const part = body.subarray(Number(range[1]), Number(range[2]) + 1);
      all["Content-Range"] = `bytes ${range[1]}-${Number(range[1]) + part.length - 1}/${body.length}`;
      response.writeHead(206, all);
      response.end(part);
      return;
    }
    response.writeHead(found ? 200 : 404, all);
    response.end(body);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const url = `http://${name}:${server.address().port}`;
  return { url, log, files, close: () => new Promise((done) => server.close(done).closeAllConnections()) };
}

// The site in `folder` under an origin of its own. `hosts` may embed it, `policy` changes its content security policy,
// `extra` are files beside it that have no policy.
export async function site({ folder = needed("CHATREX_DEEP_SITE"), hosts = [], policy = (text) => text, extra = {} } = {}) {
  const text = await readFile(join(folder, "_headers"), "utf8");
  const lines = text.split("\n").filter((line) => /^\s+\S/.test(line));
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(":")).trim(), line.slice(line.indexOf(":") + 1).trim()]),
  );
  const name = "Content-Security-Policy";
  headers[name] = policy(headers[name].replace("frame-ancestors 'self'", `frame-ancestors 'self' ${hosts.join(" ")}`));
  const answer = async (path) => {
    try {
      return { body: await readFile(join(folder, path || "index.html")), headers };
    } catch {
      return null;
    }
  };
  const files = { "embed.json": { body: JSON.stringify({ hosts }), headers }, ...extra };
  return origin(files, { answer, name: "localhost" });
}

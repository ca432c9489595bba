// An HTTP server for the page and for model folders with injected faults.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import { setTimeout as later } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { URL_OF_PAGE } from "./page.mjs";

const NANO = "assets/models/nano";
const CHUNK = 1 << 14;

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

// Nano's files under another name and in smaller pieces; `spoil` may change their bytes, `change` the
// manifest.
export async function copyOfNano({ name, piece = 1 << 16, spoil = () => {}, change = (manifest) => manifest }) {
  const files = new Map();
  for (const file of await readdir(NANO)) files.set(file, await readFile(`${NANO}/${file}`));
  const manifest = JSON.parse(files.get("model.json"));
  spoil(files, manifest);
  manifest.name = name;
  manifest.piece_bytes = piece;
  for (const shard of manifest.shards) {
    const bytes = files.get(shard.name);
    shard.sha256 = sha256(bytes);
    shard.pieces = [];
    for (let at = 0; at < bytes.length; at += piece) shard.pieces.push(sha256(bytes.subarray(at, at + piece)));
  }
  files.set("model.json", Buffer.from(JSON.stringify(change(manifest))));
  return files;
}

// The files with other texts for added tokens of the tokenizer; `names` maps the old ones to the new ones.
export function renamed(files, names) {
  const tokenizer = JSON.parse(files.get("tokenizer.json"));
  for (const token of tokenizer.added_tokens) token.content = names[token.content] ?? token.content;
  const bytes = Buffer.from(JSON.stringify(tokenizer));
  files.set("tokenizer.json", bytes);
  const manifest = JSON.parse(files.get("model.json"));
  Object.assign(manifest.tokenizer, { bytes: bytes.length, sha256: sha256(bytes) });
  return files.set("model.json", Buffer.from(JSON.stringify(manifest)));
}

// Size in bytes of all files except the manifest.
export const sizeOf = (files) =>
  [...files].reduce((sum, [name, bytes]) => sum + (name === "model.json" ? 0 : bytes.length), 0);

// Serves folders below `folders/`. A folder is `{ files, served, requests, …faults }`:
//   cutEvery      closes the connection after this many bytes, again and again
//   corruptOnce   [file, byte]: sends a wrong byte there once
//   ranges        false: ignores range headers
//   html          sends a web page with status 200 for every file except the manifest
//   redirect      redirects every file except the manifest to this address
//   short         the file that lacks its last byte
//   version       the entity tag; may change
//   rate          bytes per second of each connection
//   refuse        closes every connection before it carries a byte
//   gzip          compresses every file except the manifest, and ignores range headers
export async function startHost() {
  const folders = new Map();
  const server = createServer((incoming, response) => {
    const [, folder, file] = /^\/folders\/([^/]+)\/([^?]*)/.exec(incoming.url) ?? [];
    const found = folders.get(folder);
    const answered = found ? send(found, file, incoming, response) : pass(incoming, response);
    answered.catch(() => response.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://localhost:${server.address().port}/`;
  return {
    url,
    add(name, files, faults = {}) {
      const folder = { files, served: 0, requests: 0, ranges: true, version: "1", sent: 0, ...faults };
      folders.set(name, folder);
      return Object.assign(folder, { address: `${url}folders/${name}` });
    },
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

// Other requests are forwarded to the server of `cargo xtask`.
function pass(incoming, response) {
  return new Promise((done, fail) => {
    const { host: _, ...headers } = incoming.headers;
    const outgoing = request(new URL(incoming.url, URL_OF_PAGE), { method: incoming.method, headers });
    outgoing.on("error", fail);
    outgoing.on("response", (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response).on("finish", done).on("error", fail);
    });
    outgoing.end();
  });
}

async function send(folder, name, incoming, response) {
  let bytes = folder.files.get(name);
  const plain = name !== "model.json";
  if (plain) folder.requests += 1;
  if (plain && folder.refuse) return void response.destroy();
  if (plain && folder.redirect) return void response.writeHead(302, { location: folder.redirect }).end();
  if (!bytes) return void response.writeHead(404).end("not here");
  if (plain && folder.html) {
    return void response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><p>Welcome");
  }
  if (folder.short === name) bytes = bytes.subarray(0, -1);
  if (plain && folder.gzip) {
    const headers = { "content-type": "application/octet-stream", "content-encoding": "gzip" };
    return void response.writeHead(200, headers).end(gzipSync(bytes));
  }
  const tag = `"${folder.version}"`;
  const headers = { "content-type": "application/octet-stream", etag: tag };
  const same = (incoming.headers["if-range"] ?? tag) === tag;
  const range = folder.ranges && same && /^bytes=(\d+)-(\d+)$/.exec(incoming.headers.range ?? "");
  let [start, end] = [0, bytes.length];
  if (range) {
    start = Number(range[1]);
    end = Math.min(Number(range[2]) + 1, bytes.length);
    if (start >= end) return void response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
    headers["content-range"] = `bytes ${start}-${end - 1}/${bytes.length}`;
  }
  response.writeHead(range ? 206 : 200, { ...headers, "content-length": end - start });
  if (!plain) return void response.end(bytes);
  await stream(folder, name, bytes, start, end, response);
}

// Sends and counts bytes in chunks, and closes the connection where a fault asks for it.
async function stream(folder, name, bytes, start, end, response) {
  for (let at = start; at < end; ) {
    if (response.destroyed) return;
    if (folder.refuse) return void response.destroy();
    const left = folder.cutEvery ? folder.cutEvery - (folder.sent % folder.cutEvery) : Infinity;
    let chunk = bytes.subarray(at, Math.min(end, at + CHUNK, at + left));
    const [bad, place] = folder.corruptOnce ?? [];
    if (bad === name && at <= place && place < at + chunk.length) {
      chunk = Buffer.from(chunk);
      chunk[place - at] ^= 0x40;
      folder.corruptOnce = undefined;
    }
    at += chunk.length;
    folder.sent += chunk.length;
    folder.served += chunk.length;
    await new Promise((done) => response.write(chunk, done));
    if (folder.rate) await later((chunk.length / folder.rate) * 1000);
    if (folder.cutEvery && folder.sent % folder.cutEvery === 0 && at < end) {
      await later(10);
      return void response.destroy();
    }
  }
  response.end();
}

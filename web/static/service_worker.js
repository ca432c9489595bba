// Stores the page and its default model for use without a network. `cargo xtask` prepends two constants:
// `FILES`, the SHA-256 of every file of the site by its path relative to this one, and `VERSION`, the
// SHA-256 of them all.

const SCOPE = new URL("./", self.location).href;
const LIST = "files.json";
const PREFIX = `chatrex ${SCOPE} `;
const CURRENT = PREFIX + VERSION;
// Pictures that the system shared, until the page takes them.
const SHARED = `shared with ${SCOPE}`;

// A version takes over as soon as it is stored completely: open pages are not disturbed, the next visit
// gets it. Waiting for that visit instead does not work everywhere: Chromium sometimes keeps a new
// version waiting that should take over during a reload.
self.addEventListener("install", (event) => event.waitUntil(store().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(deleteOlder()));
self.addEventListener("fetch", (event) => {
  if (isShare(event.request)) {
    event.respondWith(receive(event.request));
    return;
  }
  const path = pathOf(event.request);
  if (path !== null) event.respondWith(stored(path, event.request));
});

// Whether the system shares pictures with the installed page (`share_target` in manifest.json).
function isShare(request) {
  return request.method === "POST" && request.url.split(/[?#]/)[0] === `${SCOPE}share`;
}

// Puts shared pictures where the page takes them, and opens the page. They are not sent on.
async function receive(request) {
  let count = 0;
  try {
    const form = await request.formData();
    await caches.delete(SHARED);
    const cache = await caches.open(SHARED);
    for (const file of form.getAll("picture")) {
      if (!(file instanceof File) || file.size === 0) continue;
      const headers = { "Content-Type": file.type, "X-Name": encodeURIComponent(file.name) };
      await cache.put(`${SCOPE}shared/${String(count).padStart(4, "0")}`, new Response(file, { headers }));
      count += 1;
    }
  } catch (error) {
    console.warn("what was shared cannot be read:", error);
  }
  return Response.redirect(`${SCOPE}?shared=${count}`, 303);
}

// The path of a request in FILES, or null for other requests.
function pathOf(request) {
  const url = request.url.split(/[?#]/)[0];
  if (request.method !== "GET" || !url.startsWith(SCOPE)) return null;
  const path = url.slice(SCOPE.length) || "index.html";
  return Object.hasOwn(FILES, path) ? path : null;
}

async function stored(path, request) {
  const cache = await caches.open(CURRENT);
  const whole = await cache.match(SCOPE + path);
  if (!whole) return fetch(request);
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get("Range") ?? "");
  const version = request.headers.get("If-Range") ?? whole.headers.get("ETag");
  return range && version === whole.headers.get("ETag") ? part(whole, range) : whole;
}

// The part of a file that a Range header asks for. A first visit is controlled as soon as everything is
// stored, and its worker may then be in the middle of a file that it reads in ranges.
async function part(whole, [, first, last]) {
  const bytes = await whole.blob();
  const start = Number(first);
  const end = Math.min(last === "" ? bytes.size : Number(last) + 1, bytes.size);
  const headers = new Headers(whole.headers);
  if (start >= end) {
    headers.set("Content-Range", `bytes */${bytes.size}`);
    return new Response(null, { status: 416, headers });
  }
  headers.set("Content-Range", `bytes ${start}-${end - 1}/${bytes.size}`);
  headers.set("Content-Length", String(end - start));
  return new Response(bytes.slice(start, end), { status: 206, headers });
}

// Stores every file; unchanged ones are copied from older caches.
async function store() {
  const cache = await caches.open(CURRENT);
  const older = await olderFiles();
  for (const [path, hash] of Object.entries(FILES)) {
    const copy = older.get(`${path} ${hash}`);
    const response = copy ?? (await fetch(SCOPE + path, { cache: "no-cache" }));
    if (!response.ok) throw new Error(`${path}: status ${response.status}`);
    await cache.put(SCOPE + path, response);
  }
  await cache.put(SCOPE + LIST, new Response(JSON.stringify(FILES)));
}

// The files of complete older caches, by "path hash".
async function olderFiles() {
  const files = new Map();
  for (const name of await olderCaches()) {
    const cache = await caches.open(name);
    const list = await cache.match(SCOPE + LIST);
    for (const [path, hash] of Object.entries(list ? await list.json() : {})) {
      const response = await cache.match(SCOPE + path);
      if (response) files.set(`${path} ${hash}`, response);
    }
  }
  return files;
}

async function deleteOlder() {
  for (const name of await olderCaches()) await caches.delete(name);
  await self.clients.claim();
}

async function olderCaches() {
  return (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CURRENT);
}

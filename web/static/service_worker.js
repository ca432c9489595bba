// Stores the page and its default model for use without a network. `cargo xtask` prepends two constants:
// `FILES`, the SHA-256 of every file of the site by its path relative to this one, and `VERSION`, the
// SHA-256 of them all.

const SCOPE = new URL("./", self.location).href;
const LIST = "files.json";
const PREFIX = `chatrex ${SCOPE} `;
const CURRENT = PREFIX + VERSION;

// A version takes over as soon as it is stored completely: open pages are not disturbed, the next visit
// gets it. Waiting for that visit instead does not work everywhere: Chromium sometimes keeps a new
// version waiting that should take over during a reload.
self.addEventListener("install", (event) => event.waitUntil(store().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(deleteOlder()));
self.addEventListener("fetch", (event) => {
  const path = pathOf(event.request);
  if (path !== null) event.respondWith(stored(path, event.request));
});

// The path of a request in FILES, or null for other requests.
function pathOf(request) {
  const url = request.url.split(/[?#]/)[0];
  if (request.method !== "GET" || !url.startsWith(SCOPE)) return null;
  const path = url.slice(SCOPE.length) || "index.html";
  return Object.hasOwn(FILES, path) ? path : null;
}

async function stored(path, request) {
  const cache = await caches.open(CURRENT);
  return (await cache.match(SCOPE + path)) ?? fetch(request);
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

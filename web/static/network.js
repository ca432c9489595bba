// Records what this page, or this worker, requests and sends, for the page's list of network activity:
// requests from Resource Timing, what the content security policy refused, and the bytes of bodies that are
// handed to fetch, XMLHttpRequest, sendBeacon and WebSocket. Nothing of it is sent anywhere: a worker tells its
// page over a channel whose name only the two know.

const PREFIX = "chatrex network ";
const isPage = typeof document !== "undefined";
const own = { requests: new Map(), refused: [], sent: new Map() };
const workers = { requests: new Map(), refused: [], sent: new Map(), reported: false };

const name = isPage ? `${PREFIX}${Date.now()} ${Math.random()}` : self.name;
const channel = name.startsWith(PREFIX) && self.BroadcastChannel ? new BroadcastChannel(name) : null;

function add(to, url, bytes, count = 1) {
  const known = to.get(url) ?? { url, bytes: 0, count: 0, unmeasured: 0 };
  known.count += count;
  if (bytes === null) known.unmeasured += 1;
  else known.bytes += bytes;
  to.set(url, known);
}

function tell(kind, ...values) {
  if (!isPage) channel?.postMessage([kind, values]);
}

function requested(url, bytes) {
  add(own.requests, url, bytes);
  tell("requests", url, bytes);
}

function refused(violation) {
  own.refused.push(violation);
  tell("refused", violation);
}

function sent(target, body) {
  const bytes = size(body);
  if (bytes === 0) return;
  let url = String(target);
  try {
    url = new URL(url, self.location.href).href;
  } catch {
    // The browser refuses it too.
  }
  add(own.sent, url, bytes);
  tell("sent", url, bytes);
}

// The bytes of a body; null where only its reader knows.
function size(body) {
  if (body === undefined || body === null) return 0;
  if (typeof body === "string") return new TextEncoder().encode(body).length;
  if (body instanceof Blob) return body.size;
  if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) return body.byteLength;
  if (body instanceof URLSearchParams) return new TextEncoder().encode(String(body)).length;
  return null;
}

const plainFetch = self.fetch;
self.fetch = function fetch(input, init) {
  sent(input?.url ?? input, init?.body ?? (input instanceof Request ? input.body : undefined));
  return plainFetch.call(this, input, init);
};

if (self.XMLHttpRequest) {
  const { open, send } = XMLHttpRequest.prototype;
  const targets = new WeakMap();
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    targets.set(this, url);
    return open.call(this, method, url, ...rest);
  };
  XMLHttpRequest.prototype.send = function (body) {
    sent(targets.get(this), body);
    return send.call(this, body);
  };
}

if (self.Navigator?.prototype.sendBeacon) {
  const plain = Navigator.prototype.sendBeacon;
  Navigator.prototype.sendBeacon = function (url, body) {
    sent(url, body);
    return plain.call(this, url, body);
  };
}

if (self.WebSocket) {
  const plain = WebSocket.prototype.send;
  WebSocket.prototype.send = function (body) {
    sent(this.url, body);
    return plain.call(this, body);
  };
}

self.addEventListener("securitypolicyviolation", ({ blockedURI, effectiveDirective }) => {
  refused({ url: blockedURI, directive: effectiveDirective });
});

if (self.PerformanceObserver) {
  const observe = (list) => {
    for (const { name, transferSize } of list.getEntries()) requested(name, transferSize ?? 0);
  };
  new PerformanceObserver(observe).observe({ type: "resource", buffered: true });
  for (const { name, transferSize } of performance.getEntriesByType("navigation")) requested(name, transferSize ?? 0);
}

if (isPage) {
  channel?.addEventListener("message", ({ data: [kind, values] }) => {
    workers.reported = true;
    if (kind === "refused") workers.refused.push(...values);
    else if (kind === "requests" || kind === "sent") add(workers[kind], ...values);
  });
  // The name for the worker, and the report as JSON.
  self.networkName = name;
  self.networkReport = () => {
    const list = (kind) => [...own[kind].values(), ...workers[kind].values()];
    return JSON.stringify({
      requests: list("requests"),
      refused: [...own.refused, ...workers.refused],
      sent: list("sent"),
      worker: workers.reported,
    });
  };
} else {
  tell("started");
}

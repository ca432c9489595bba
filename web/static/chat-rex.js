// The custom element <chat-rex>: the page of this site in a frame, with attributes, methods and events. A
// classic script, so that one tag without CORS headers is enough:
//
//     <script src="https://chatrex.example/chat-rex.js"></script>
//     <chat-rex src="dog.jpg" prompt="What is in the picture?"></chat-rex>
//
// The site must list the origin of the host in `embed.json` and in `frame-ancestors` of its policy. The types
// are in `chat-rex.d.ts`, the messages in docs/embedding.md.
(() => {
  const VERSION = 1;
  // The folder of this script is that of the page; none where a bundler runs it as a module.
  const SITE = document.currentScript?.src ? new URL("./", document.currentScript.src).href : null;
  // Milliseconds between two attempts to reach the page.
  const GREETING = 300;

  const styles = new CSSStyleSheet();
  styles.replaceSync(`
    :host { display: block; position: relative; min-height: 24rem; }
    :host([hidden]) { display: none; }
    iframe { position: absolute; inset: 0; width: 100%; height: 100%; border: 0; }
    [part="status"] { position: absolute; inset: 0; display: grid; place-content: center; margin: 0; text-align: center; }
    [part="status"][hidden] { display: none; }
  `);

  class ChatRexError extends Error {
    constructor({ code, message, fault }) {
      super(message);
      this.name = "ChatRexError";
      Object.assign(this, { code, fault });
    }
  }

  class ChatRexElement extends HTMLElement {
    static observedAttributes = ["src", "model", "prompt", "readonly", "settings", "page", "label"];
    // Milliseconds without a word of the page until an error says so.
    static patience = 30_000;

    #frame = null;
    #origin = null;
    #status;
    #greeter = null;
    #late = null;
    #isThere = false;
    #waiting = [];
    #pending = new Map();
    #ids = 0;
    #loads = 0;
    // Settled when the picture of the latest `load` is there: what follows is about that picture.
    #fetched = null;
    #isPlanned = false;

    constructor() {
      super();
      const root = this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [styles];
      this.#status = document.createElement("p");
      this.#status.setAttribute("part", "status");
      this.#status.setAttribute("role", "status");
      const slot = document.createElement("slot");
      slot.textContent = "…";
      this.#status.append(slot);
      root.append(this.#status);
    }

    connectedCallback() {
      addEventListener("message", this.#receive);
      this.#start();
      this.#plan();
    }

    disconnectedCallback() {
      removeEventListener("message", this.#receive);
      this.#end("the element was removed");
    }

    attributeChangedCallback(name, before, now) {
      if (!this.isConnected || before === now) return;
      if (name === "label") this.#frame?.setAttribute("title", this.#label());
      else if (name === "src" || name === "prompt") this.#plan();
      else {
        this.#end("the element was set up anew");
        this.#start();
        this.#plan();
      }
    }

    // Opens a picture: an address, which this page fetches, or a blob or bytes. Gives its boxes.
    async load(source, { name } = {}) {
      const load = ++this.#loads;
      const fetched = this.#picture(source);
      this.#fetched = fetched.catch(() => {});
      const picture = await fetched;
      if (load !== this.#loads) throw this.#failed("Cancelled", "another picture followed");
      return this.#request("load", { picture, name: name ?? picture.name ?? nameOf(source) }, null);
    }

    ask(question, { kind, boxes } = {}) {
      const corners = boxes && Array.from(boxes, (box) => Array.from(box?.box ?? box));
      return this.#request("ask", { question, kind, boxes: corners });
    }

    propose({ granularity, score, nms } = {}) {
      return this.#request("propose", { granularity, score, nms });
    }

    select(numbers) {
      return this.#request("select", { boxes: Array.from(numbers) });
    }

    stop() {
      this.#send({ type: "stop", id: ++this.#ids });
    }

    // The picture that is open, which the visitor may have chosen.
    async picture() {
      return (await this.#request("picture", {})).picture;
    }

    #label() {
      return this.getAttribute("label") ?? "ChatRex";
    }

    #start() {
      const page = this.getAttribute("page") ?? SITE;
      let address;
      try {
        address = new URL(page ?? "", page === null ? undefined : document.baseURI);
      } catch {
        this.#tell(this.#failed("InvalidInput", "the attribute page is not the address of a ChatRex page"));
        return;
      }
      const options = { embed: "1", model: this.getAttribute("model") };
      for (const flag of ["readonly", "settings"]) options[flag] = this.hasAttribute(flag) ? "1" : null;
      for (const [key, value] of Object.entries(options)) if (value) address.searchParams.set(key, value);
      this.#origin = address.origin;
      this.#frame = document.createElement("iframe");
      this.#frame.setAttribute("part", "frame");
      this.#frame.setAttribute("title", this.#label());
      this.#frame.setAttribute("allow", "clipboard-write");
      this.#frame.src = address.href;
      this.shadowRoot.append(this.#frame);
      this.#status.hidden = false;
      this.#greeter = setInterval(() => this.#post({ type: "hello", id: ++this.#ids }), GREETING);
      this.#late = setTimeout(() => {
        const what = `the page at ${address.origin} does not answer. Its embed.json and frame-ancestors must name ${location.origin}`;
        this.#tell(this.#failed("NotReady", what));
      }, ChatRexElement.patience);
    }

    #end(reason) {
      clearInterval(this.#greeter);
      clearTimeout(this.#late);
      this.#frame?.remove();
      this.#frame = null;
      this.#isThere = false;
      this.#model = null;
      this.#loads += 1;
      this.#waiting = [];
      const pending = [...this.#pending.values()];
      this.#pending.clear();
      pending.forEach(({ reject }) => reject(this.#failed("Cancelled", reason)));
    }

    // Does what the attributes ask for, once for several that change together.
    #plan() {
      if (this.#isPlanned) return;
      this.#isPlanned = true;
      queueMicrotask(() => {
        this.#isPlanned = false;
        if (this.isConnected) this.#carryOut();
      });
    }

    #loaded = null;
    #asked = null;

    async #carryOut() {
      const [frame, src, prompt] = [this.#frame, this.getAttribute("src"), this.getAttribute("prompt")];
      try {
        if (src && (this.#loaded?.src !== src || this.#loaded.frame !== frame)) {
          this.#loaded = { src, frame };
          this.#asked = null;
          await this.load(src);
        }
        if (src && prompt && this.#loaded?.frame === frame && this.#asked !== prompt) {
          this.#asked = prompt;
          await this.ask(prompt);
        }
      } catch {
        // The event error told it.
      }
    }

    async #picture(source) {
      if (source instanceof Blob) return source;
      if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return new Blob([source]);
      try {
        const response = await fetch(new URL(source, document.baseURI));
        if (!response.ok) throw new Error(`status ${response.status}`);
        return await response.blob();
      } catch (cause) {
        const failure = this.#failed("Network", `${source} cannot be fetched (${cause.message})`);
        this.#tell(failure);
        throw failure;
      }
    }

    #failed(code, message) {
      return new ChatRexError({ code, message });
    }

    #tell(failure) {
      const detail = { code: failure.code, message: failure.message, fault: failure.fault };
      this.dispatchEvent(new CustomEvent("error", { detail }));
    }

    async #request(type, fields, before = this.#fetched) {
      const frame = this.#frame;
      if (!frame) throw this.#failed("NotReady", "the element is not in a document");
      if (before) await before;
      if (frame !== this.#frame) throw this.#failed("Cancelled", "the element was removed or set up anew");
      const id = ++this.#ids;
      return new Promise((resolve, reject) => {
        this.#pending.set(id, { type, resolve, reject });
        this.#send({ type, id, ...fields });
      });
    }

    // Messages before the page listens wait.
    #send(message) {
      if (this.#isThere) this.#post(message);
      else this.#waiting.push(message);
    }

    #post(message) {
      const given = Object.entries(message).filter(([, value]) => value !== undefined);
      // A greeting says nothing, and the frame may still show its first, empty document.
      const target = message.type === "hello" ? "*" : this.#origin;
      this.#frame?.contentWindow?.postMessage({ v: VERSION, ...Object.fromEntries(given) }, target);
    }

    #model = null;

    #isSame(model) {
      const [before, now] = [this.#model, JSON.stringify(model)];
      this.#model = now;
      return before === now;
    }

    #receive = ({ source, origin, data }) => {
      if (!this.#frame || source !== this.#frame.contentWindow || origin !== this.#origin) return;
      if (data?.v !== VERSION) return;
      if (!this.#isThere) {
        this.#isThere = true;
        clearInterval(this.#greeter);
        clearTimeout(this.#late);
        this.#status.hidden = true;
        this.#waiting.splice(0).forEach((message) => this.#post(message));
      }
      const { v, id, type, ...detail } = data;
      const pending = this.#pending.get(id);
      if (type === "error") {
        this.#pending.delete(id);
        const failure = new ChatRexError(detail);
        this.#tell(failure);
        pending?.reject(failure);
        return;
      }
      const outcome = { load: "boxes", propose: "boxes", ask: "answer", select: "select", picture: "picture" };
      if (pending && outcome[pending.type] === type) {
        this.#pending.delete(id);
        pending.resolve(detail);
      }
      // Several greetings may be answered.
      if (type === "picture" || (type === "ready" && this.#isSame(detail.model))) return;
      // What fits no request is the visitor's.
      if (["answer", "select"].includes(type)) detail.byVisitor = id === null;
      this.dispatchEvent(new CustomEvent(type, { detail }));
    };
  }

  for (const name of ["src", "model", "prompt", "page", "label"]) {
    Object.defineProperty(ChatRexElement.prototype, name, {
      get() {
        return this.getAttribute(name);
      },
      set(value) {
        if (value === null || value === undefined) this.removeAttribute(name);
        else this.setAttribute(name, value);
      },
    });
  }
  for (const name of ["readonly", "settings"]) {
    Object.defineProperty(ChatRexElement.prototype, name, {
      get() {
        return this.hasAttribute(name);
      },
      set(value) {
        this.toggleAttribute(name, Boolean(value));
      },
    });
  }

  // The last part of an address.
  function nameOf(source) {
    if (typeof source !== "string" && !(source instanceof URL)) return "";
    return String(source).split(/[?#]/)[0].split("/").pop();
  }

  if (!customElements.get("chat-rex")) customElements.define("chat-rex", ChatRexElement);
})();

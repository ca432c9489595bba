// Types of the custom element <chat-rex>. Importing `chat-rex.js` defines it.

import type { AskTime, BoxXyxy, ErrorCode, Fault, Granularity, Span, StopReason } from "./chatrex.js";

/** A box of the page, in pixels of the picture. */
export interface PageBox {
  box: BoxXyxy;
  /** Absent for boxes that were drawn or given. */
  score?: number;
  label?: string;
}

/** The boxes that a question can name. */
export interface BoxesDetail {
  /** Null where no picture is open. */
  picture: { width: number; height: number } | null;
  boxes: PageBox[];
  /** Boxes beyond those that a question can name. */
  left_out: number;
}

/** A complete or stopped answer. */
export interface AnswerDetail {
  question: string;
  text: string;
  /** `objects` are indices into `boxes`. */
  spans: Span[];
  boxes: PageBox[];
  stop: StopReason;
  tokens?: number;
  milliseconds?: AskTime;
  /** True for a question of the visitor. */
  byVisitor: boolean;
}

export interface ProgressDetail {
  /** `load`: the model; `look`: boxes; `answer`: text so far. */
  stage: "load" | "look" | "answer";
  done: number;
  /** 0 where unknown. */
  total: number;
  text?: string;
  spans?: Span[];
}

export interface ReadyDetail {
  /** Versions of the messages that the page understands. */
  versions: number[];
  model: { name: string; licence: string; knows: string | null; device: string };
}

export interface SelectDetail {
  boxes: number[];
  /** True where the visitor selected them. */
  byVisitor: boolean;
}

export interface ErrorDetail {
  code: ErrorCode;
  message: string;
  /** Absent for errors of the element itself. */
  fault?: Fault;
}

/** Every promise of the element rejects with this; the event `error` tells the same. */
export interface ElementError extends Error, ErrorDetail {
  readonly name: "ChatRexError";
}

export interface ChatRexEvents {
  ready: CustomEvent<ReadyDetail>;
  progress: CustomEvent<ProgressDetail>;
  boxes: CustomEvent<BoxesDetail>;
  answer: CustomEvent<AnswerDetail>;
  select: CustomEvent<SelectDetail>;
  error: CustomEvent<ErrorDetail>;
}

/**
 * The ChatRex page in a frame. CSS parts: `frame`, `status` (what is shown until the page answers; its text is
 * the content of the element).
 */
export interface ChatRexElement extends HTMLElement {
  /** Address of a picture, which the host page fetches. */
  src: string | null;
  /** A built-in model by its name. */
  model: string | null;
  /** The question that is asked about `src`. */
  prompt: string | null;
  /** Only the host opens pictures and asks. */
  readonly: boolean;
  /** The bar with models and settings is shown. */
  settings: boolean;
  /** Address of the page's folder; default: that of this script. */
  page: string | null;
  /** Title of the frame. */
  label: string | null;

  /** Opens a picture; gives its boxes. */
  load(source: string | URL | Blob | BufferSource, options?: { name?: string }): Promise<BoxesDetail>;

  /**
   * Asks about the picture; questions are answered one after the other. `<objK>` in the question is box K of
   * `boxes`, without `boxes` box K of the page.
   */
  ask(
    question: string,
    options?: {
      /** Default: `free`. */
      kind?: "free" | "find" | "count" | "describe" | "describe-long" | "name";
      boxes?: Iterable<BoxXyxy | { box: BoxXyxy }>;
    },
  ): Promise<AnswerDetail>;

  /** Chooses boxes by other thresholds. */
  propose(options?: { granularity?: Granularity; score?: number; nms?: number }): Promise<BoxesDetail>;

  /** Selects boxes by their numbers. */
  select(numbers: Iterable<number>): Promise<SelectDetail>;

  /** Stops the running answer. */
  stop(): void;

  /** The picture that is open; the only way in which a picture of the visitor reaches the host. */
  picture(): Promise<Blob>;

  addEventListener<K extends keyof ChatRexEvents>(
    type: K,
    listener: (this: ChatRexElement, event: ChatRexEvents[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "chat-rex": ChatRexElement;
  }
}

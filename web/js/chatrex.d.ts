// Types of the messages between a page and the worker. `tests/javascript_types.rs` checks this part
// against the JSON of the Rust protocol (`src/protocol`).

/** A box by its corners `x1, y1, x2, y2`, in pixels of the picture, EXIF orientation applied. */
export type BoxXyxy = [number, number, number, number];

/** The device that computes; `auto` is the GPU if there is one, else the CPU. */
export type DevicePreference = "auto" | "wgpu" | "cpu";

/** Element type of the KV cache on a GPU. */
export type KvCacheDType = "f32" | "f16";

/** Activations that quantized weights are multiplied with on the CPU; `int8` is faster and not exact. */
export type CpuActivations = "f32" | "int8";

/** Which boxes are found: `coarse` finds whole objects, `fine` also their parts. */
export type Granularity = "fine" | "coarse";

/** A box that was found. It may extend beyond the edges of the picture. */
export interface Proposal {
  box: BoxXyxy;
  /** 0 to 1. */
  score: number;
  /** The kind that a detector says it is; absent where the model's boxes have no names. */
  label?: string;
}

/** A part of an answer. */
export interface Span {
  /** Text without tags; `[K]` if the model named box K without a phrase. */
  text: string;
  /** Indices of the boxes that the text names; absent for plain text. */
  objects?: number[];
  /** True for a phrase whose boxes are still to come. */
  open?: boolean;
}

/** How tokens are sampled. */
export interface Sampling {
  /** Softmax temperature, 0 to 100; 0 is greedy. */
  temperature: number;
  /** Sample from the k most likely tokens, 1 to 64. */
  top_k: number;
  /** Sample from the most likely tokens whose probabilities add up to this, above 0 to 1. */
  top_p: number;
  /** The same seed gives the same answer. */
  seed: number;
  /** Whether lists of boxes name boxes of the question only. */
  grammar: boolean;
  /** Repetition penalty, above 0 to 10; 1 is none. Absent for the model's own. */
  repetition_penalty?: number;
}

/** Why an answer ended: by the end token, by the token limit or by the user. */
export type StopReason = "end" | "length" | "stopped";

/** Durations of an answer in milliseconds. */
export interface AskTime {
  /** Vision towers, box encoder and projectors; 0 when cached from an earlier question. */
  look: number;
  /** Prefill: the prompt through the decoder. */
  prefill: number;
  /** From the question to the first token. */
  first_token: number;
  /** Decode: all tokens after the first. */
  decode: number;
}

/** Durations of finding boxes in milliseconds. */
export interface LookTime {
  /** Preprocessing. */
  prepare: number;
  /** The proposal network. */
  upn: number;
}

/** A complete answer. */
export interface Answer {
  /** The prompt as the model read it. */
  prompt: string;
  /** The generated text with tags, without the end token. */
  text: string;
  /** The text in parts; joined they have no tags. */
  spans: Span[];
  /** Generated tokens, the end token included. */
  tokens: number;
  /** Tokens that were prefilled for this answer; a cached prefix does not count. */
  prefill_tokens: number;
  /** Tokens of the question, without earlier turns. */
  question_tokens: number;
  /** Bytes of all GPU buffers at its end; absent on the CPU. */
  gpu_bytes?: number;
  stop: StopReason;
  milliseconds: AskTime;
}

/** The long operations of the engine; units are bytes, steps or tokens. */
export type Stage = "Fetch" | "Upload" | "Compile" | "Propose" | "Look" | "Read";

/** How much of a stage is done. */
export interface Progress {
  stage: Stage;
  done: number;
  /** 0 where unknown. */
  total: number;
}

/** Bytes that a model needs on a GPU. */
export interface MemoryNeeds {
  upn: number;
  towers: number;
  decoder: number;
  cache: number;
  upn_scratch: number;
  towers_scratch: number;
  decoder_scratch: number;
  /** The largest single buffer of weights. */
  largest_buffer: number;
}

/** Whether a model runs on a device. */
export type Verdict = "fits" | "tight" | "will_not_run";

/** Which parts stay on the device while another one works. */
export type Residency = "All" | "Decoder" | "OneByOne";

/** The memory plan of a model on a device. */
export interface Fit {
  verdict: Verdict;
  residency: Residency;
  /** One sentence. */
  reason: string;
  needs: MemoryNeeds;
}

/** The licence of a part of a model. */
export interface PartLicence {
  /** The part, e.g. `detector`. */
  part: string;
  /** SPDX expression or common name. */
  name: string;
  /** Text or notice. */
  text?: string;
  /** Where the part comes from. */
  source?: string;
}

/** Limits of a device; 0 where unknown. */
export interface Limits {
  buffer: number;
  binding: number;
  workgroup_storage: number;
  workgroup_size: number;
  workgroups: number;
  storage_buffers: number;
}

/** What is known of a GPU; texts are empty where nothing tells them. */
export interface Hardware {
  vendor: string;
  architecture: string;
  description: string;
  backend: string;
  /** Whether the adapter computes with f16. */
  f16: boolean;
  /** Whether the engine's kernels use subgroups. */
  subgroups: boolean;
  /** Whether the adapter imitates a GPU in software. */
  fallback: boolean;
  limits: Limits;
}

/** Description of a loaded model and its device. */
export interface ModelCard {
  /** The address it was loaded from. */
  asked_for: string;
  /** Short name, e.g. `nano`. */
  name: string;
  licence: string;
  /** Licences of the parts that come from others. */
  licence_parts?: PartLicence[];
  trained_on: string;
  /** What it knows, in a sentence. */
  knows?: string;
  /** The kinds that its detector names. */
  classes?: string[];
  /** Whether it reads text alone; absent for no. */
  text_only?: boolean;
  /** `wgpu` or `cpu`. */
  device: string;
  /** Name of the GPU adapter or of the CPU. */
  adapter: string;
  /** True on a software adapter or the CPU. */
  software: boolean;
  /** Score threshold for boxes. */
  default_score: number;
  /** IoU threshold of non-maximum suppression. */
  default_nms: number;
  /** Score from which the best box of a kind without other boxes is kept. */
  default_first_of_kind?: number;
  /** Limit of an answer in tokens. */
  default_max_tokens: number;
  /** 1 is none. */
  default_repetition_penalty: number;
  /** The words of the model's own system prompt; empty for none. */
  default_system: string;
  /** Whether the model was trained on several questions about the same boxes. */
  multi_turn: boolean;
  /** What is known of the GPU; `null` on the CPU. */
  hardware: Hardware | null;
  /** Version of the engine. */
  engine: string;
  /** Bytes of weights in files. */
  weight_bytes: number;
  fit: Fit;
}

/** The area an error belongs to. */
export type FaultKind = "Picture" | "Question" | "Model" | "File" | "Network" | "Device";

/** The cause of an error. */
export type ErrorCode =
  /** The cause is not known. */
  | "Unknown"
  /** GPU or CPU memory does not suffice. */
  | "OutOfMemory"
  /** The GPU was reset or removed. */
  | "DeviceLost"
  /** The GPU failed in some other way. */
  | "DeviceFailed"
  /** There is no usable GPU adapter. */
  | "NoAdapter"
  /** The GPU driver does not compile a shader. */
  | "ShaderRejected"
  /** The device computes wrong values. */
  | "WrongResult"
  /** A checksum, length or structure does not match. */
  | "Corrupt"
  /** A file, model or address does not exist. */
  | "NotFound"
  /** A version, format or feature is not supported. */
  | "Unsupported"
  /** The user cancelled, or the model was disposed. */
  | "Cancelled"
  /** A picture, a question or an option cannot be used. */
  | "InvalidInput"
  /** The browser has no space left. */
  | "Quota"
  /** Another tab holds the resource. */
  | "InUse"
  /** A file cannot be read or written. */
  | "Storage"
  /** The network or the server. */
  | "Network"
  /** The rules of the page forbid it. */
  | "Forbidden"
  /** Something is needed first, such as a picture. */
  | "NotReady"
  /** Page and worker do not understand each other. */
  | "Protocol"
  /** The worker stopped. */
  | "WorkerLost";

/** What failed, where, and what the user can do about it. */
export interface Fault {
  kind: FaultKind;
  code: ErrorCode;
  /** The file, tensor, argument or device concerned. */
  place: string;
  what: string;
  /** Empty where there is nothing to do. */
  advice: string;
}

/** Width and height of a picture in pixels. */
export interface ImageSize {
  width: number;
  height: number;
}

/** A question that was answered. */
export interface Exchange {
  /** As the model read it. */
  question: string;
  /** With tags. */
  answer: string;
}

/** How sure the model was of a box that its answer names. */
export interface Link {
  /** Index of the box. */
  object: number;
  /** Its probability among all boxes of the question. */
  probability: number;
  /** The most probable other box. */
  runner_up: RunnerUp | null;
}

/** A box that the model could have named instead. */
export interface RunnerUp {
  /** Index of the box. */
  object: number;
  /** Its probability among all boxes of the question. */
  probability: number;
}

/** A message to the worker. */
export type EngineRequest =
  | {
      Load: {
        model: string;
        device: DevicePreference;
        memory: number | null;
        cache?: KvCacheDType;
        activations?: CpuActivations;
      };
    }
  /** The RGB bytes are attached; without `pixels` the picture is the one sent before. */
  | { Look: { picture: number; pixels: ImageSize | null; granularity: Granularity } }
  | {
      Ask: {
        turn: number;
        picture: number;
        boxes: BoxXyxy[];
        question: string;
        max_tokens: number;
        sampling: Sampling;
        earlier?: Exchange[];
        /** The words of the system prompt in place of the model's own; empty for none. */
        system?: string;
      };
    }
  | { Stop: { turn: number } }
  /** For the last answered turn. */
  | { Links: { turn: number } }
  | { Compare: { turn: number; picture: number; boxes: BoxXyxy[] } };

/** A message of the worker. */
export type EngineEvent =
  | { Progress: Progress }
  | { Ready: ModelCard }
  | { Proposed: { picture: number; granularity: Granularity; boxes: Proposal[]; milliseconds: LookTime } }
  | { Said: { turn: number; spans: Span[] } }
  | { Done: { turn: number; answer: Answer } }
  /** One entry per index in the answer, in their order. */
  | { Links: { turn: number; links: Link[] } }
  /** Cosines of the object tokens, row by row. */
  | { Compared: { turn: number; likeness: number[][] } }
  | { Failed: { turn: number | null; picture: number | null; fault: Fault } };

// Types of this module.

/** The error of every call that fails, except by an `AbortSignal`. */
export declare class ChatRexError extends Error implements Fault {
  constructor(fault: Fault);
  readonly name: "ChatRexError";
  readonly kind: FaultKind;
  readonly code: ErrorCode;
  readonly place: string;
  readonly what: string;
  readonly advice: string;
}

export interface LoadOptions {
  /** Default: `auto`. */
  device?: DevicePreference;
  /** GPU memory limit in bytes; default: all there is. */
  memory?: number | null;
  /** Element type of the KV cache; default: `f16` for quantized weights, else `f32`. */
  cache?: KvCacheDType;
  /** Activations of quantized weights on the CPU; default: `f32`. */
  activations?: CpuActivations;
  /** Address of `worker_start.js`, of the page's origin; default: beside this module. */
  workerUrl?: string | URL;
  /** Called with the progress of every operation of this model. */
  onProgress?: (progress: Progress) => void;
  /** Stops loading: the promise rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** A picture; transparent pixels are blended with white. At most 64 megapixels. */
export type PictureSource =
  | Blob
  | ImageBitmap
  | ImageData
  /** `height * width * 3` bytes, row-major. */
  | { width: number; height: number; rgb: Uint8Array | Uint8ClampedArray };

export interface LookOptions {
  /** Default: `coarse`. */
  granularity?: Granularity;
  /** Least score; default: those of the model's card. */
  score?: number;
  /** IoU threshold of non-maximum suppression, 0 disables it; default: that of the model's card. */
  nms?: number;
  /** Most boxes; default: 100, the most that a question takes. */
  limit?: number;
  /** The promise rejects with the signal's reason; the worker finishes its work. */
  signal?: AbortSignal;
}

export interface AskOptions {
  /** The boxes that the question and the answer may name by their indices; at most 100. */
  boxes?: Iterable<BoxXyxy | { box: BoxXyxy }>;
  /** The answer ends after this many tokens; default: that of the model's card. */
  maxTokens?: number;
  /** Default: greedy, with `grammar`. */
  sampling?: Partial<Sampling>;
  /** Stops the answer: iteration and `answer` fail with the signal's reason. */
  signal?: AbortSignal;
}

/**
 * An answer that is being generated. Iterating gives the whole answer so far whenever it grew, at last the
 * complete one; leaving the loop early stops the answer.
 */
export interface Turn extends AsyncIterable<Span[]> {
  /** The complete answer, or the part before it was stopped. */
  readonly answer: Promise<Answer>;
  /** Stops between two tokens; what was generated stays the answer. */
  stop(): void;
  [Symbol.asyncIterator](): AsyncGenerator<Span[], Answer, void>;
}

/** One model in a worker of its own, and its current picture. */
export declare class ChatRex {
  private constructor();

  /** Opens the model folder at `url`, relative to the page or absolute. */
  static load(url: string | URL, options?: LoadOptions): Promise<ChatRex>;

  /** The loaded model. */
  readonly card: ModelCard;

  /** Makes `picture` the current one and finds boxes in it, best first. */
  look(picture: PictureSource, options?: LookOptions): Promise<Proposal[]>;

  /** Finds boxes in the current picture again, with other options. */
  propose(options?: LookOptions): Promise<Proposal[]>;

  /**
   * Asks about the current picture, that of the last `look` that was awaited. Questions are answered one
   * after the other. This does not throw: iterating the turn does, and its `answer` rejects.
   */
  ask(question: string, options?: AskOptions): Turn;

  /** Terminates the worker. Pending and later calls reject with the code `Cancelled`. */
  dispose(): void;
}

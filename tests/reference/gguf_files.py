"""Small GGUF files with synthetic contents, and the values that the package `gguf` reads from them.

    gguf_files.py OUT [LLAMA_TOKENIZER]

Writes to OUT
  types.gguf          a tensor of every element type that chatrex reads, and metadata of every type
  types.safetensors   the values of these tensors as f32
  llama.gguf          a LLaMA of random weights with the SentencePiece vocabulary LLAMA_TOKENIZER (default
                      tests/data/golden/tokenizer_llama/tokenizer.model)
  qwen2.gguf          a Qwen2 of random weights with a vocabulary of byte pairs
  llama.safetensors, qwen2.safetensors
                      some of their values as f32, under the names and in the row order of the models in
                      `transformers`

Needs gguf==0.19.0 and numpy==2.4.6. The script gives the same bytes every time.
"""

import json
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

WIDTH = 32
HEADS = 2
KV_HEADS = 1
HEAD_WIDTH = WIDTH // HEADS
HIDDEN = 64
LAYERS = 2

# Offsets of the f16 values of a block.
HALVES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q2_K: [80, 82],
    Type.Q3_K: [108],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a synthetic model<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|user|>\n' + message['content'] + eos_token }}{% else %}"
    "{{ '<|assistant|>\n' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)


def safetensors(path, tensors):
    header, at = {}, 0
    for name, values in tensors.items():
        end = at + values.nbytes
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.astype("<f4").tobytes())


def blocks(rng, kind, rows, columns):
    """Random rows in the form of `kind`."""
    if kind == Type.F32:
        return rng.normal(size=(rows, columns)).astype(np.float32)
    if kind == Type.F16:
        return rng.normal(size=(rows, columns)).astype(np.float16)
    if kind == Type.BF16:
        values = rng.normal(size=(rows, columns)).astype(np.float32)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(rows, -1)
    count, size = gguf.GGML_QUANT_SIZES[kind]
    packed = rng.integers(0, 256, size=(rows, columns // count, size), dtype=np.uint8)
    for offset in HALVES[kind]:
        halves = (rng.normal(size=packed.shape[:2]) * 0.02).astype(np.float16)
        packed[:, :, offset : offset + 2] = halves[..., None].view(np.uint8)
    return packed.reshape(rows, -1)


def values_of(data, kind):
    return gguf.quants.dequantize(data, kind).astype(np.float32)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_types(out):
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(out / "types.gguf", "llama")
    writer.add_uint8("made.u8", 200)
    writer.add_int8("made.i8", -100)
    writer.add_uint16("made.u16", 60_000)
    writer.add_int16("made.i16", -30_000)
    writer.add_uint32("made.u32", 4_000_000_000)
    writer.add_int32("made.i32", -2_000_000_000)
    writer.add_uint64("made.u64", 2**40)
    writer.add_int64("made.i64", -(2**40))
    writer.add_float32("made.f32", 0.1)
    writer.add_float64("made.f64", 0.1)
    writer.add_bool("made.true", True)
    writer.add_bool("made.false", False)
    writer.add_string("made.text", "Größe \u2581 猫")
    writer.add_array("made.texts", ["a", "", "ü"])
    writer.add_array("made.integers", [1, -2, 3])
    writer.add_array("made.floats", [0.5, -0.25])
    writer.add_array("made.flags", [True, False])
    writer.add_array("made.nested", [[1, 2], [3]])
    values = {}
    for kind in [Type.F32, Type.F16, Type.BF16, *HALVES]:
        data = blocks(rng, kind, 2, 256)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        values[kind.name] = values_of(data, kind)
    finish(writer)
    safetensors(out / "types.safetensors", values)


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Numbers and values of the fields of a protocol buffer."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
        yield key >> 3, value


def pieces(path):
    """Texts, scores and types of a SentencePiece vocabulary."""
    for number, message in fields(path.read_bytes()):
        if number == 1:
            piece = {1: b"", 2: 0.0, 3: 1} | dict(fields(message))
            yield piece[1].decode(), piece[2], piece[3]


def permuted(data, heads):
    """Rows in the order of the files of LLaMA (`permute` in `convert_hf_to_gguf.py` of llama.cpp)."""
    shape = data.shape
    return data.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write_model(out, architecture, vocabulary, biased, tied):
    rng = np.random.default_rng(len(architecture))
    writer = gguf.GGUFWriter(out / f"{architecture}.gguf", architecture)
    writer.add_name(f"synthetic {architecture}")
    writer.add_license("cc0-1.0")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0 if architecture == "llama" else 1_000_000.0)
    tokens = vocabulary(writer)
    values = {}

    def add(name, ours, kind, rows, columns=None, heads=None, keep=True):
        if columns is None:
            data = rng.normal(size=rows).astype(np.float32) + (1 if "norm" in name else 0)
            stored = values_of(data, kind)
        else:
            data = blocks(rng, kind, rows, columns)
            stored = values_of(data, kind)
        if keep:
            values[ours] = stored
        if heads and architecture == "llama":
            data = permuted(data, heads)
        writer.add_tensor(name, data, raw_dtype=kind)

    add("token_embd.weight", "model.embed_tokens.weight", Type.Q8_0, tokens, WIDTH, keep=tied)
    add("output_norm.weight", "model.norm.weight", Type.F32, WIDTH)
    if not tied:
        add("output.weight", "lm_head.weight", Type.F16, tokens, WIDTH, keep=False)
    for layer in range(LAYERS):
        theirs, ours = f"blk.{layer}", f"model.layers.{layer}"
        add(f"{theirs}.attn_norm.weight", f"{ours}.input_layernorm.weight", Type.F32, WIDTH)
        add(f"{theirs}.ffn_norm.weight", f"{ours}.post_attention_layernorm.weight", Type.F32, WIDTH)
        for name, heads, kind in [("q", HEADS, Type.Q4_1), ("k", KV_HEADS, Type.Q4_0), ("v", KV_HEADS, Type.Q5_1)]:
            rotated = heads if name != "v" else None
            stem = f"{ours}.self_attn.{name}_proj"
            add(f"{theirs}.attn_{name}.weight", f"{stem}.weight", kind, heads * HEAD_WIDTH, WIDTH, rotated)
            if biased:
                add(f"{theirs}.attn_{name}.bias", f"{stem}.bias", Type.F32, heads * HEAD_WIDTH, None, rotated)
        add(f"{theirs}.attn_output.weight", f"{ours}.self_attn.o_proj.weight", Type.Q4_1, WIDTH, WIDTH)
        add(f"{theirs}.ffn_gate.weight", f"{ours}.mlp.gate_proj.weight", Type.Q5_0, HIDDEN, WIDTH)
        add(f"{theirs}.ffn_up.weight", f"{ours}.mlp.up_proj.weight", Type.BF16, HIDDEN, WIDTH)
        add(f"{theirs}.ffn_down.weight", f"{ours}.mlp.down_proj.weight", Type.Q8_0, WIDTH, HIDDEN)
    finish(writer)
    safetensors(out / f"{architecture}.safetensors", values)


def sentencepiece(path):
    def add(writer):
        texts, scores, types = zip(*pieces(path))
        writer.add_tokenizer_model("llama")
        writer.add_token_list(list(texts))
        writer.add_token_scores(list(scores))
        writer.add_token_types(list(types))
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template(ZEPHYR)
        return len(texts)

    return add


def byte_pairs(writer):
    # The characters that stand for bytes (`bytes_to_unicode` in GPT-2's encoder.py).
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "Ġw o"]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = characters + [merge.replace(" ", "") for merge in merges] + special
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - len(special)) + [3] * len(special))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 3)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)
    return len(tokens)


def main():
    out = Path(sys.argv[1])
    here = Path(__file__).resolve().parent.parent
    default = here / "data/golden/tokenizer_llama/tokenizer.model"
    vocabulary = Path(sys.argv[2]) if len(sys.argv) > 2 else default
    out.mkdir(parents=True, exist_ok=True)
    write_types(out)
    write_model(out, "llama", sentencepiece(vocabulary), biased=False, tied=False)
    write_model(out, "qwen2", byte_pairs, biased=True, tied=True)


if __name__ == "__main__":
    main()

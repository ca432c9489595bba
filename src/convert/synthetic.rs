//! Checkpoints of random numbers with the names, shapes and element types of the published ones,
//! so that everything can be tried at full size without them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::convert::Watch;
use crate::convert::required_tensors::{RequiredTensor, needed};
use crate::error::{Fault, FaultKind};
use crate::model::chatrex::ChatRexConfig;
use crate::model::config::ModelConfig;
use crate::model::presets::{Preset, set_depths};
use crate::model::upn::UpnConfig;
use crate::text::prompt::ChatTemplate;
use crate::weights::dtype::DType;
use crate::weights::manifest::Part;

/// Tensors of one hub shard take at most this many bytes.
const SHARD: u64 = 2 << 30;

/// Values that are drawn and written at a time.
const PORTION: usize = 1 << 22;

/// Writes a random checkpoint into `out`; `layers` blocks of the language model and `depth` in every
/// stage of the towers and of UPN instead of all.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    like: Preset,
    layers: Option<usize>,
    depth: Option<usize>,
    out: &Path,
    watch: &dyn Watch,
) -> Result<(), Fault> {
    std::fs::create_dir_all(out).map_err(|error| Fault::file(out, error))?;
    let table = Table::draw();
    let architecture = match like {
        Preset::ChatRex7b => "LlavaRexLlamaForCausalLM",
        Preset::RexSeek3b | Preset::UpnLarge => "RexSeekQwenForCausalLM",
        Preset::Nano => {
            return Err(Fault::new(
                FaultKind::Question,
                "--like",
                "nano has no published checkpoint",
                "See `chatrex fake-checkpoint --help`",
            ));
        }
    };
    // Of UPN alone the sizes of the other parts do not matter.
    let mut chatrex = like.chatrex().unwrap_or_else(ChatRexConfig::rexseek_3b);
    let mut config = like.upn();
    set_depths(&mut chatrex, &mut config, layers, depth);
    if like == Preset::UpnLarge {
        upn(&table, chatrex, config, &out.join("upn_large.pth"), watch)
    } else {
        hub(&table, chatrex, architecture, out, watch)
    }
}

/// Normal numbers of deviation 0.02, to be picked at random.
struct Table {
    values: Vec<f32>,
}

impl Table {
    fn draw() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut unit = || (next(&mut state) >> 40) as f32 / (1 << 24) as f32 + 1e-7;
        let values = (0..1 << 16)
            .map(|_| {
                let radius = (-2.0 * unit().ln()).sqrt();
                0.02 * radius * (std::f32::consts::TAU * unit()).cos()
            })
            .collect();
        Self { values }
    }

    /// `count` values from a seed, each stored by `store`.
    fn fill(&self, count: usize, seed: u64, dtype: DType) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0xa076_1d64_78bd_642f) | 1;
        let mut bytes = Vec::with_capacity(count * dtype.bytes() as usize);
        let mut left = count;
        while left > 0 {
            let random = next(&mut state);
            for lane in 0..left.min(4) {
                let value = self.values[(random >> (16 * lane) & 0xffff) as usize];
                match dtype {
                    DType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
                    DType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
                    DType::F32 | DType::U32 => bytes.extend(value.to_le_bytes()),
                }
            }
            left -= left.min(4);
        }
        bytes
    }

    /// Writes a tensor: norms are about one, everything else about zero.
    fn write(
        &self,
        file: &mut impl Write,
        tensor: &Stored,
        seed: u64,
        watch: &dyn Watch,
    ) -> std::io::Result<()> {
        let count = tensor.shape.iter().product::<usize>();
        let portions: Vec<usize> = (0..count).step_by(PORTION).collect();
        for pair in portions.chunks(4) {
            let made: Vec<Vec<u8>> = pair
                .par_iter()
                .map(|&start| {
                    let count = PORTION.min(count - start);
                    let seed = seed.wrapping_mul(0x1_0001) + start as u64;
                    if tensor.is_norm() {
                        ones(count, tensor.dtype)
                    } else {
                        self.fill(count, seed, tensor.dtype)
                    }
                })
                .collect();
            for bytes in made {
                file.write_all(&bytes)?;
                watch.more(bytes.len() as u64);
            }
        }
        Ok(())
    }
}

fn ones(count: usize, dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F16 => f16::ONE.to_le_bytes().repeat(count),
        DType::BF16 => bf16::ONE.to_le_bytes().repeat(count),
        DType::F32 | DType::U32 => 1.0_f32.to_le_bytes().repeat(count),
    }
}

/// Marsaglia's xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

struct Stored {
    name: String,
    shape: Vec<usize>,
    dtype: DType,
}

impl Stored {
    fn of(needed: RequiredTensor, dtype: DType) -> Self {
        Self {
            name: needed.name,
            shape: needed.shape,
            dtype,
        }
    }

    fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.dtype.bytes()
    }

    fn is_norm(&self) -> bool {
        self.shape.len() == 1 && self.name.ends_with("weight")
    }
}

fn hub(
    table: &Table,
    chatrex: ChatRexConfig,
    architecture: &str,
    out: &Path,
    watch: &dyn Watch,
) -> Result<(), Fault> {
    let llama = !chatrex.llm.qkv_bias;
    let (llm_type, tower_type) = if llama {
        (DType::F16, DType::F32)
    } else {
        (DType::BF16, DType::BF16)
    };
    let config = ModelConfig {
        recipe: chatrex.recipe(),
        upn: None,
        template: ChatTemplate::qwen(),
        bos: None,
        chatrex: chatrex.clone(),
    };
    let mut tensors: Vec<Stored> = Vec::new();
    for needed in needed(&config)? {
        let dtype = if needed.part == Part::Decoder {
            llm_type
        } else {
            tower_type
        };
        tensors.push(Stored::of(needed, dtype));
    }
    let clip = "vision_tower.vision_tower.vision_model.";
    let last = chatrex.clip.num_hidden_layers - 1;
    let unused: Vec<Stored> = tensors
        .iter()
        .filter_map(|tensor| {
            let rest = tensor
                .name
                .strip_prefix(&format!("{clip}encoder.layers.0."))?;
            let name = format!("{clip}encoder.layers.{last}.{rest}");
            Some((name, tensor.shape.clone()))
        })
        .chain(["weight", "bias"].map(|end| {
            (
                format!("{clip}post_layernorm.{end}"),
                vec![chatrex.clip.hidden_size],
            )
        }))
        .map(|(name, shape)| Stored {
            name,
            shape,
            dtype: tower_type,
        })
        .collect();
    tensors.extend(unused);
    if chatrex.llm.tie_word_embeddings {
        tensors.push(Stored {
            name: "lm_head.weight".into(),
            shape: vec![chatrex.llm.vocab_size, chatrex.llm.hidden_size],
            dtype: llm_type,
        });
    }
    watch.total(tensors.iter().map(Stored::bytes).sum());
    write_shards(table, &tensors, out, watch)?;
    let mut described = serde_json::to_value(&chatrex.llm).expect("plain data");
    let more = json!({
        "architectures": [architecture],
        "model_type": if llama { "llama" } else { "qwen2" },
        "torch_dtype": if llama { "float16" } else { "bfloat16" },
        "rope_scaling": null,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_vision_select_layer": -2,
        "tokenizer_model_max_length": 2048,
        "trained_on": "nothing: random numbers",
    });
    if let (Some(described), Value::Object(more)) = (described.as_object_mut(), more) {
        described.extend(more);
    }
    save(&out.join("config.json"), &described)?;
    let words = tokenizer(chatrex.llm.vocab_size - 104, llama);
    save(&out.join("tokenizer.json"), &words)?;
    if llama {
        save(
            &out.join("tokenizer_config.json"),
            &json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}),
        )?;
    }
    Ok(())
}

fn save(path: &Path, value: &Value) -> Result<(), Fault> {
    let text = serde_json::to_vec(value).expect("plain data");
    std::fs::write(path, text).map_err(|error| Fault::file(path, error))
}

fn write_shards(
    table: &Table,
    tensors: &[Stored],
    out: &Path,
    watch: &dyn Watch,
) -> Result<(), Fault> {
    let mut shards: Vec<Vec<&Stored>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        if filled > 0 && filled + tensor.bytes() > SHARD {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += tensor.bytes();
        shards.last_mut().expect("never empty").push(tensor);
    }
    let mut map = serde_json::Map::new();
    let count = shards.len();
    let mut seed = 1;
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut at = 0;
        for tensor in shard {
            let end = at + tensor.bytes();
            let dtype = serde_json::to_value(tensor.dtype).expect("a plain name");
            header.insert(
                tensor.name.clone(),
                json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [at, end]}),
            );
            map.insert(tensor.name.clone(), name.clone().into());
            at = end;
        }
        let path = out.join(&name);
        let fail = |error: std::io::Error| Fault::file(&path, error);
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(fail)?);
        let mut text = serde_json::to_vec(&header).expect("plain data");
        text.resize(text.len().next_multiple_of(8), b' ');
        file.write_all(&(text.len() as u64).to_le_bytes())
            .map_err(fail)?;
        file.write_all(&text).map_err(fail)?;
        for tensor in shard {
            seed += 1;
            table.write(&mut file, tensor, seed, watch).map_err(fail)?;
        }
        file.flush().map_err(fail)?;
    }
    let total: u64 = tensors.iter().map(Stored::bytes).sum();
    save(
        &out.join("model.safetensors.index.json"),
        &json!({"metadata": {"total_size": total}, "weight_map": map}),
    )
}

/// A byte-level tokenizer with `size` tokens that mean nothing beyond the bytes and the marks.
fn tokenizer(size: usize, llama: bool) -> Value {
    let specials: &[&str] = if llama {
        &["<unk>", "<s>", "</s>"]
    } else {
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    };
    let mut vocabulary = serde_json::Map::new();
    let first = if llama { specials.len() } else { 0 };
    let words = size - specials.len();
    for (index, letter) in byte_letters().into_iter().enumerate() {
        vocabulary.insert(letter.to_string(), (first + index).into());
    }
    for index in 256..words {
        vocabulary.insert(format!("<unused{index}>"), (first + index).into());
    }
    let start = if llama { 0 } else { words };
    let added: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(index, token)| {
            json!({
                "id": start + index, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    for (index, token) in specials.iter().enumerate() {
        vocabulary.insert((*token).into(), (start + index).into());
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": [],
        },
    })
}

/// GPT-2's letter for every byte: printable ones stand for themselves, the others for letters from
/// 256 on.
fn byte_letters() -> Vec<char> {
    let mut spare = 256;
    (0..=255_u8)
        .map(|byte| {
            let plain = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if plain {
                u32::from(byte)
            } else {
                spare += 1;
                spare - 1
            };
            char::from_u32(code).expect("below the surrogates")
        })
        .collect()
}

/// UPN's tensors.
fn upn(
    table: &Table,
    chatrex: ChatRexConfig,
    upn: UpnConfig,
    path: &Path,
    watch: &dyn Watch,
) -> Result<(), Fault> {
    let config = ModelConfig {
        recipe: chatrex.recipe(),
        upn: Some(upn),
        template: ChatTemplate::qwen(),
        bos: None,
        chatrex,
    };
    let tensors: Vec<Stored> = needed(&config)?
        .into_iter()
        .filter(|needed| needed.part == Part::Upn)
        .map(|needed| Stored::of(needed, DType::F32))
        .collect();
    write_pth(table, &tensors, path, watch)
}

/// Tensors as `torch.save` writes them: a zip archive of stored entries, the pickle first.
fn write_pth(
    table: &Table,
    tensors: &[Stored],
    path: &Path,
    watch: &dyn Watch,
) -> Result<(), Fault> {
    watch.total(tensors.iter().map(Stored::bytes).sum());
    let fail = |error: std::io::Error| Fault::file(path, error);
    let mut zip = Zip {
        file: BufWriter::with_capacity(1 << 20, File::create(path).map_err(fail)?),
        at: 0,
        entries: Vec::new(),
    };
    zip.entry("upn_large/data.pkl", &mut |out| {
        out.write_all(&pickle(tensors))
    })
    .map_err(fail)?;
    zip.entry("upn_large/byteorder", &mut |out| out.write_all(b"little"))
        .map_err(fail)?;
    for (index, tensor) in tensors.iter().enumerate() {
        let name = format!("upn_large/data/{index}");
        zip.entry(&name, &mut |out| {
            table.write(out, tensor, index as u64 + 1, watch)
        })
        .map_err(fail)?;
    }
    zip.entry("upn_large/version", &mut |out| out.write_all(b"3\n"))
        .map_err(fail)?;
    zip.finish().map_err(fail)
}

/// `{"model": {name: tensor, ...}}` in pickle protocol 2.
fn pickle(tensors: &[Stored]) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    let text = |out: &mut Vec<u8>, text: &str| {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let number = |out: &mut Vec<u8>, number: usize| {
        out.push(b'J');
        out.extend((number as i32).to_le_bytes());
    };
    let numbers = |out: &mut Vec<u8>, numbers: &[usize]| {
        out.push(b'(');
        numbers.iter().for_each(|&n| number(out, n));
        out.push(b't');
    };
    out.extend(b"}(");
    text(&mut out, "model");
    out.extend(b"}(");
    for (index, tensor) in tensors.iter().enumerate() {
        text(&mut out, &tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(b"ctorch\nFloatStorage\n");
        text(&mut out, &index.to_string());
        text(&mut out, "cpu");
        number(&mut out, tensor.shape.iter().product());
        out.extend(b"tQ");
        number(&mut out, 0);
        numbers(&mut out, &tensor.shape);
        let mut strides = vec![1; tensor.shape.len()];
        for axis in (1..tensor.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * tensor.shape[axis];
        }
        numbers(&mut out, &strides);
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"uu.");
    out
}

/// A zip archive of stored entries, each below four gigabytes.
struct Zip<W> {
    file: W,
    at: u64,
    entries: Vec<(String, u32, u32, u64)>,
}

/// Counts and checks what passes.
struct Passing<'a, W> {
    out: &'a mut W,
    check: crc32fast::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Passing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write_all(bytes)?;
        self.check.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Zip<W> {
    /// An entry whose size and checksum follow it; its bytes begin at a multiple of 64.
    fn entry(
        &mut self,
        name: &str,
        fill: &mut dyn FnMut(&mut Passing<W>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let start = self.at;
        let head = 30 + name.len() as u64 + 4;
        let room = (start + head).next_multiple_of(64) - (start + head);
        let mut header = b"PK\x03\x04".to_vec();
        // Version 2.0; bit 3: sizes come later.
        header.extend([20, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        header.extend([0; 12]);
        header.extend((name.len() as u16).to_le_bytes());
        header.extend((room as u16 + 4).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend(b"FB");
        header.extend((room as u16).to_le_bytes());
        header.resize(header.len() + room as usize, b'Z');
        self.file.write_all(&header)?;
        let mut passing = Passing {
            out: &mut self.file,
            check: crc32fast::Hasher::new(),
            bytes: 0,
        };
        fill(&mut passing)?;
        let (check, bytes) = (passing.check.finalize(), passing.bytes);
        let size = u32::try_from(bytes).map_err(std::io::Error::other)?;
        self.file.write_all(b"PK\x07\x08")?;
        for word in [check, size, size] {
            self.file.write_all(&word.to_le_bytes())?;
        }
        self.at = start + header.len() as u64 + bytes + 16;
        self.entries.push((name.into(), check, size, start));
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<()> {
        let start = self.at;
        let mut directory = Vec::new();
        for (name, check, size, offset) in &self.entries {
            directory.extend(b"PK\x01\x02");
            directory.extend([20, 0, 20, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
            for word in [*check, *size, *size] {
                directory.extend(word.to_le_bytes());
            }
            directory.extend((name.len() as u16).to_le_bytes());
            directory.extend([0; 12]);
            directory.extend(
                u32::try_from(*offset)
                    .map_err(std::io::Error::other)?
                    .to_le_bytes(),
            );
            directory.extend(name.as_bytes());
        }
        self.file.write_all(&directory)?;
        let count = u16::try_from(self.entries.len()).map_err(std::io::Error::other)?;
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend(count.to_le_bytes());
        end.extend(count.to_le_bytes());
        end.extend((directory.len() as u32).to_le_bytes());
        end.extend(
            u32::try_from(start)
                .map_err(std::io::Error::other)?
                .to_le_bytes(),
        );
        end.extend([0, 0]);
        self.file.write_all(&end)?;
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::checkpoint::Checkpoint;
    use crate::convert::{Conversion, convert};
    use crate::weights::quant::Rounding;
    use crate::weights::storage::QuantPreset;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Counted {
        total: AtomicU64,
        more: AtomicU64,
    }

    impl Watch for Counted {
        fn total(&self, bytes: u64) {
            self.total.store(bytes, Ordering::Relaxed);
        }

        fn more(&self, bytes: u64) {
            self.more.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("chatrex-fake-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    #[test]
    fn a_pth_holds_its_tensors() {
        let table = Table::draw();
        let stored = |name: &str, shape: &[usize]| Stored {
            name: name.into(),
            shape: shape.into(),
            dtype: DType::F32,
        };
        // The last one takes two portions.
        let tensors = [
            stored("transformer.norm.weight", &[5]),
            stored("transformer.norm.bias", &[5]),
            stored("transformer.linear.weight", &[3, 7]),
            stored("conv.weight", &[4, 3, 2, 2]),
            stored("wide.weight", &[3, PORTION / 2]),
        ];
        let folder = scratch("pth");
        let path = folder.join("small.pth");
        let watch = Counted::default();
        write_pth(&table, &tensors, &path, &watch).expect("a file");
        let total = watch.total.into_inner();
        assert_eq!(total, tensors.iter().map(Stored::bytes).sum::<u64>());
        assert_eq!(watch.more.into_inner(), total);
        let found = Checkpoint::open_upn(&path).expect("a zip of tensors");
        assert_eq!(found.names().count(), tensors.len());
        for tensor in &tensors {
            let located = found.get(&tensor.name).expect("stored");
            assert_eq!(located.shape, tensor.shape, "{}", tensor.name);
            let values = found.values(&tensor.name).expect("floats");
            if tensor.is_norm() {
                assert!(values.iter().all(|&value| value == 1.0));
                continue;
            }
            let squares = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            let spread = (squares / values.len() as f64).sqrt();
            assert!((0.005..0.05).contains(&spread), "{}: {spread}", tensor.name);
        }
        std::fs::remove_dir_all(&folder).expect("a folder");
    }

    #[test]
    fn a_small_folder_converts() {
        for (llama, architecture) in [
            (false, "RexSeekQwenForCausalLM"),
            (true, "LlavaRexLlamaForCausalLM"),
        ] {
            let folder = scratch(architecture);
            let mut chatrex = ChatRexConfig::nano(700);
            chatrex.llm.num_hidden_layers = 3;
            chatrex.llm.qkv_bias = !llama;
            chatrex.llm.tie_word_embeddings = !llama;
            let watch = Counted::default();
            let model = folder.join("model");
            std::fs::create_dir_all(&model).expect("a folder");
            hub(&Table::draw(), chatrex, architecture, &model, &watch).expect("a folder");
            assert_eq!(watch.more.into_inner(), watch.total.into_inner());
            let converted = convert(
                &Conversion {
                    model,
                    upn: None,
                    out: folder.join("out"),
                    quant: QuantPreset::Q4,
                    group: 32,
                    rounding: Rounding::Nearest,
                    template: None,
                    prefixes: Vec::new(),
                    name: None,
                },
                &Counted::default(),
            );
            let converted = converted.unwrap_or_else(|fault| panic!("{fault}"));
            let forms = |form| converted.tensors.iter().filter(|t| t.form == form).count();
            assert_eq!(
                forms("q4"),
                7,
                "the seven matrices of the block in the middle"
            );
            let skipped = |name: &str| converted.skipped.iter().any(|s| s.ends_with(name));
            assert!(skipped("post_layernorm.weight") && skipped("lm_head.weight") != llama);
            std::fs::remove_dir_all(&folder).expect("a folder");
        }
    }
}

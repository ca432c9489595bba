//! Checkpoints of random weights with the names, shapes and dtypes of the published ones, for trying the
//! converter and the engine at full size.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::convert::options::ByteProgress;
use crate::convert::required_tensors::{RequiredTensor, required_tensors};
use crate::error::{Fault, FaultKind};
use crate::model::chatrex::ChatRexConfig;
use crate::model::config::ModelConfig;
use crate::model::presets::{Preset, set_depths};
use crate::model::upn::UpnConfig;
use crate::weights::dtype::DType;
use crate::weights::manifest::Part;

/// Maximum bytes of the tensors of a hub shard.
const SHARD_BYTES: u64 = 2 << 30;

/// Values that are generated and written at a time.
const CHUNK: usize = 1 << 22;

/// Writes a random checkpoint of `preset` into `out`. `layers` limits the decoder's layers, `depth` the
/// blocks per stage of the towers and of UPN.
///
/// # Errors
/// The preset has no published checkpoint, or a file cannot be written.
pub fn write(
    preset: Preset,
    layers: Option<usize>,
    depth: Option<usize>,
    out: &Path,
    progress: &dyn ByteProgress,
) -> Result<(), Fault> {
    std::fs::create_dir_all(out).map_err(|error| Fault::file(out, error))?;
    let table = Table::new();
    let architecture = match preset {
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
    // For UPN alone the configuration of the other parts is not used.
    let mut chatrex = preset.chatrex().unwrap_or_else(ChatRexConfig::rexseek_3b);
    let mut config = preset.upn();
    set_depths(&mut chatrex, &mut config, layers, depth);
    if preset == Preset::UpnLarge {
        write_upn(
            &table,
            chatrex,
            config,
            &out.join("upn_large.pth"),
            progress,
        )
    } else {
        write_hub(&table, chatrex, architecture, out, progress)
    }
}

/// Normally distributed values of standard deviation 0.02, from which weights are drawn.
struct Table {
    values: Vec<f32>,
}

impl Table {
    fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut uniform = || (xorshift(&mut state) >> 40) as f32 / (1 << 24) as f32 + 1e-7;
        let values = (0..1 << 16)
            .map(|_| {
                let radius = (-2.0 * uniform().ln()).sqrt();
                0.02 * radius * (std::f32::consts::TAU * uniform()).cos()
            })
            .collect();
        Self { values }
    }

    /// `count` values from a seed, stored as `dtype`.
    fn fill(&self, count: usize, seed: u64, dtype: DType) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0xa076_1d64_78bd_642f) | 1;
        let mut bytes = Vec::with_capacity(count * dtype.bytes() as usize);
        let mut remaining = count;
        while remaining > 0 {
            let random = xorshift(&mut state);
            for lane in 0..remaining.min(4) {
                let value = self.values[(random >> (16 * lane) & 0xffff) as usize];
                match dtype {
                    DType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
                    DType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
                    DType::F32 | DType::U32 => bytes.extend(value.to_le_bytes()),
                }
            }
            remaining -= remaining.min(4);
        }
        bytes
    }

    /// Writes a tensor: norm weights are 1, everything else is random.
    fn write(
        &self,
        file: &mut impl Write,
        tensor: &Tensor,
        seed: u64,
        progress: &dyn ByteProgress,
    ) -> std::io::Result<()> {
        let count = tensor.shape.iter().product::<usize>();
        let chunks: Vec<usize> = (0..count).step_by(CHUNK).collect();
        for group in chunks.chunks(4) {
            let generated: Vec<Vec<u8>> = group
                .par_iter()
                .map(|&start| {
                    let count = CHUNK.min(count - start);
                    let seed = seed.wrapping_mul(0x1_0001) + start as u64;
                    if tensor.is_norm() {
                        ones(count, tensor.dtype)
                    } else {
                        self.fill(count, seed, tensor.dtype)
                    }
                })
                .collect();
            for bytes in generated {
                file.write_all(&bytes)?;
                progress.add(bytes.len() as u64);
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

/// Marsaglia's xorshift64.
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A tensor to write.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    dtype: DType,
}

impl Tensor {
    fn new(required: RequiredTensor, dtype: DType) -> Self {
        Self {
            name: required.name,
            shape: required.shape,
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

/// Writes a hub folder: shards, configuration and tokenizer.
fn write_hub(
    table: &Table,
    chatrex: ChatRexConfig,
    architecture: &str,
    out: &Path,
    progress: &dyn ByteProgress,
) -> Result<(), Fault> {
    let llama = !chatrex.llm.qkv_bias;
    let (llm_type, tower_type) = if llama {
        (DType::F16, DType::F32)
    } else {
        (DType::BF16, DType::BF16)
    };
    let config = ModelConfig::from_chatrex(chatrex.clone(), None);
    let mut tensors: Vec<Tensor> = Vec::new();
    for required in required_tensors(&config)? {
        let dtype = if required.part == Part::Decoder {
            llm_type
        } else {
            tower_type
        };
        tensors.push(Tensor::new(required, dtype));
    }
    let clip = "vision_tower.vision_tower.vision_model.";
    let last = chatrex.towers.clip.num_hidden_layers - 1;
    let unused: Vec<Tensor> = tensors
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
                vec![chatrex.towers.clip.hidden_size],
            )
        }))
        .map(|(name, shape)| Tensor {
            name,
            shape,
            dtype: tower_type,
        })
        .collect();
    tensors.extend(unused);
    if chatrex.llm.tie_word_embeddings {
        tensors.push(Tensor {
            name: "lm_head.weight".into(),
            shape: vec![chatrex.llm.vocab_size, chatrex.llm.hidden_size],
            dtype: llm_type,
        });
    }
    progress.set_total(tensors.iter().map(Tensor::bytes).sum());
    write_shards(table, &tensors, out, progress)?;
    let mut config = serde_json::to_value(&chatrex.llm).expect("plain data");
    let more = json!({
        "architectures": [architecture],
        "model_type": if llama { "llama" } else { "qwen2" },
        "torch_dtype": if llama { "float16" } else { "bfloat16" },
        "rope_scaling": null,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_vision_select_layer": -2,
        "tokenizer_model_max_length": 2048,
        "trained_on": "nothing: random weights",
    });
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    save(&out.join("config.json"), &config)?;
    let tokenizer = tokenizer(chatrex.llm.vocab_size - 104, llama);
    save(&out.join("tokenizer.json"), &tokenizer)?;
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
    tensors: &[Tensor],
    out: &Path,
    progress: &dyn ByteProgress,
) -> Result<(), Fault> {
    let mut shards: Vec<Vec<&Tensor>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        if filled > 0 && filled + tensor.bytes() > SHARD_BYTES {
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
            table
                .write(&mut file, tensor, seed, progress)
                .map_err(fail)?;
        }
        file.flush().map_err(fail)?;
    }
    let total: u64 = tensors.iter().map(Tensor::bytes).sum();
    save(
        &out.join("model.safetensors.index.json"),
        &json!({"metadata": {"total_size": total}, "weight_map": map}),
    )
}

/// A byte-level tokenizer of `size` tokens: the bytes, the special tokens and unused ones.
fn tokenizer(size: usize, llama: bool) -> Value {
    let specials: &[&str] = if llama {
        &["<unk>", "<s>", "</s>"]
    } else {
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    };
    let mut vocabulary = serde_json::Map::new();
    let first = if llama { specials.len() } else { 0 };
    let ordinary = size - specials.len();
    for (index, character) in byte_characters().into_iter().enumerate() {
        vocabulary.insert(character.to_string(), (first + index).into());
    }
    for index in 256..ordinary {
        vocabulary.insert(format!("<unused{index}>"), (first + index).into());
    }
    let start = if llama { 0 } else { ordinary };
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

/// GPT-2's character for every byte: printable bytes as themselves, the others from U+0100 on.
fn byte_characters() -> Vec<char> {
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

/// Writes UPN as a `.pth` file.
fn write_upn(
    table: &Table,
    chatrex: ChatRexConfig,
    upn: UpnConfig,
    path: &Path,
    progress: &dyn ByteProgress,
) -> Result<(), Fault> {
    let config = ModelConfig::from_chatrex(chatrex, Some(upn));
    let tensors: Vec<Tensor> = required_tensors(&config)?
        .into_iter()
        .filter(|required| required.part == Part::Upn)
        .map(|required| Tensor::new(required, DType::F32))
        .collect();
    write_pth(table, &tensors, path, progress)
}

/// Writes tensors like `torch.save`: a zip archive of stored entries, the pickle first.
fn write_pth(
    table: &Table,
    tensors: &[Tensor],
    path: &Path,
    progress: &dyn ByteProgress,
) -> Result<(), Fault> {
    progress.set_total(tensors.iter().map(Tensor::bytes).sum());
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
            table.write(out, tensor, index as u64 + 1, progress)
        })
        .map_err(fail)?;
    }
    zip.entry("upn_large/version", &mut |out| out.write_all(b"3\n"))
        .map_err(fail)?;
    zip.finish().map_err(fail)
}

/// `{"model": {name: tensor, ...}}` in pickle protocol 2.
fn pickle(tensors: &[Tensor]) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    let text = |out: &mut Vec<u8>, text: &str| {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let integer = |out: &mut Vec<u8>, value: usize| {
        out.push(b'J');
        out.extend((value as i32).to_le_bytes());
    };
    let tuple = |out: &mut Vec<u8>, values: &[usize]| {
        out.push(b'(');
        values.iter().for_each(|&value| integer(out, value));
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
        integer(&mut out, tensor.shape.iter().product());
        out.extend(b"tQ");
        integer(&mut out, 0);
        tuple(&mut out, &tensor.shape);
        let mut strides = vec![1; tensor.shape.len()];
        for axis in (1..tensor.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * tensor.shape[axis];
        }
        tuple(&mut out, &strides);
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"uu.");
    out
}

/// Writes a zip archive of stored entries, each below 4 GiB.
struct Zip<W> {
    file: W,
    at: u64,
    entries: Vec<(String, u32, u32, u64)>,
}

/// Counts bytes and computes their checksum.
struct CheckedWriter<'a, W> {
    out: &'a mut W,
    check: crc32fast::Hasher,
    bytes: u64,
}

impl<W: Write> Write for CheckedWriter<'_, W> {
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
    /// Writes an entry, followed by its size and checksum; its data is aligned to 64 bytes.
    fn entry(
        &mut self,
        name: &str,
        fill: &mut dyn FnMut(&mut CheckedWriter<W>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let start = self.at;
        let head = 30 + name.len() as u64 + 4;
        let padding = (start + head).next_multiple_of(64) - (start + head);
        let mut header = b"PK\x03\x04".to_vec();
        // Version 2.0; bit 3: sizes follow the data.
        header.extend([20, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        header.extend([0; 12]);
        header.extend((name.len() as u16).to_le_bytes());
        header.extend((padding as u16 + 4).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend(b"FB");
        header.extend((padding as u16).to_le_bytes());
        header.resize(header.len() + padding as usize, b'Z');
        self.file.write_all(&header)?;
        let mut writer = CheckedWriter {
            out: &mut self.file,
            check: crc32fast::Hasher::new(),
            bytes: 0,
        };
        fill(&mut writer)?;
        let (check, bytes) = (writer.check.finalize(), writer.bytes);
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
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Counter {
        total: AtomicU64,
        written: AtomicU64,
    }

    impl ByteProgress for Counter {
        fn set_total(&self, bytes: u64) {
            self.total.store(bytes, Ordering::Relaxed);
        }

        fn add(&self, bytes: u64) {
            self.written.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_pth_holds_its_tensors() {
        let table = Table::new();
        let tensor = |name: &str, shape: &[usize]| Tensor {
            name: name.into(),
            shape: shape.into(),
            dtype: DType::F32,
        };
        // The last tensor takes two chunks.
        let tensors = [
            tensor("transformer.norm.weight", &[5]),
            tensor("transformer.norm.bias", &[5]),
            tensor("transformer.linear.weight", &[3, 7]),
            tensor("conv.weight", &[4, 3, 2, 2]),
            tensor("wide.weight", &[3, CHUNK / 2]),
        ];
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("small.pth");
        let progress = Counter::default();
        write_pth(&table, &tensors, &path, &progress).expect("a file");
        let total = progress.total.into_inner();
        assert_eq!(total, tensors.iter().map(Tensor::bytes).sum::<u64>());
        assert_eq!(progress.written.into_inner(), total);
        let found = Checkpoint::open_upn(&path).expect("a zip of tensors");
        assert_eq!(found.names().count(), tensors.len());
        for tensor in &tensors {
            let view = found.get(&tensor.name).expect("stored");
            assert_eq!(view.shape, tensor.shape, "{}", tensor.name);
            let values = found.values(&tensor.name).expect("floats");
            if tensor.is_norm() {
                assert!(values.iter().all(|&value| value == 1.0));
                continue;
            }
            let squares = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            let deviation = (squares / values.len() as f64).sqrt();
            assert!(
                (0.005..0.05).contains(&deviation),
                "{}: {deviation}",
                tensor.name
            );
        }
    }

    #[test]
    fn a_small_folder_converts() {
        for (llama, architecture) in [
            (false, "RexSeekQwenForCausalLM"),
            (true, "LlavaRexLlamaForCausalLM"),
        ] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let mut chatrex = ChatRexConfig::nano(700);
            chatrex.llm.num_hidden_layers = 3;
            chatrex.llm.qkv_bias = !llama;
            chatrex.llm.tie_word_embeddings = !llama;
            let progress = Counter::default();
            let model = folder.path().join("model");
            std::fs::create_dir_all(&model).expect("a folder");
            write_hub(&Table::new(), chatrex, architecture, &model, &progress).expect("a folder");
            assert_eq!(progress.written.into_inner(), progress.total.into_inner());
            let converted = convert(
                &Conversion {
                    model,
                    upn: None,
                    detector: None,
                    detector_side: None,
                    adapter: None,
                    out: folder.path().join("out"),
                    quant: QuantPreset::Q4,
                    group: 32,
                    rounding: Rounding::Nearest,
                    template: None,
                    prefixes: Vec::new(),
                    name: None,
                },
                &(),
            );
            let converted = converted.unwrap_or_else(|fault| panic!("{fault}"));
            let count = |form| converted.tensors.iter().filter(|t| t.form == form).count();
            assert_eq!(count("q4"), 7, "the seven matrices of the middle layer");
            let skipped = |name: &str| converted.skipped.iter().any(|s| s.ends_with(name));
            assert!(skipped("post_layernorm.weight") && skipped("lm_head.weight") != llama);
        }
    }
}

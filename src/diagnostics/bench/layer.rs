//! One block of a network, from one file: what another runtime is given too, so that both compute
//! the same.
//!
//! The file is a safetensors file whose metadata say in `family` what it holds and in `config` its
//! sizes, as JSON:
//!
//! - `decoder`: a language model of one block ([`DecoderConfig`]). Row `i` of the embedding is what
//!   the model reads at position `i`, so that the work is a number of tokens.
//! - `clip` ([`ClipVitConfig`]) and `convnext` ([`ConvNextConfig`]): a block of a tower, named from
//!   its own root. Tensor `x` is what it reads; metadata `read` lists the positions of its output
//!   that are read back.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, FaultKind};
use crate::gpu::readback::read;
use crate::memory::KvCacheDType;
use crate::model::clip_vit::{self, ClipVitConfig};
use crate::model::convnext::{self, ConvNextConfig};
use crate::model::decoder::{Decoder, DecoderConfig, KvCache};
use crate::nn::{Init, Loader, WeightMap, WeightSource};
use crate::weights::download::TensorSink;
use crate::weights::manifest::TensorEntry;
use crate::weights::safetensors;

/// Bytes that go to the device at a time.
const PORTION: usize = 4 << 20;

/// What a block of a tower reads.
const INPUT: &str = "x";

/// A block on its device, with what it reads.
pub enum Layer {
    /// Of a language model.
    Decoder(Box<Language>),
    /// Of CLIP.
    Clip {
        /// The block.
        block: Box<clip_vit::Block>,
        /// `[1, tokens, C]`.
        x: Tensor<3>,
        /// Positions of the output that are read back.
        rows: Tensor<1, Int>,
    },
    /// Of ConvNeXt.
    ConvNext {
        /// The block.
        block: Box<convnext::Block>,
        /// `[1, H, W, C]`.
        x: Tensor<4>,
        /// Positions of the output that are read back.
        rows: Tensor<1, Int>,
    },
}

/// A language model of one block, and what it has read.
pub struct Language {
    llm: Decoder,
    cache: KvCache,
}

/// What `tests/reference/layer.py` says of a layer.
#[derive(Debug, Deserialize)]
pub struct Meta {
    /// The layer's name.
    pub name: String,
    /// What is computed.
    pub cases: Vec<LayerCase>,
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// So many tokens at once.
    Prefill(usize),
    /// One token after so many others.
    Decode(usize),
    /// All of a tower's input.
    Forward,
}

impl Display for Work {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        match self {
            Self::Prefill(tokens) => write!(f, "prefill {tokens}"),
            Self::Decode(tokens) => write!(f, "decode after {tokens}"),
            Self::Forward => f.write_str("forward"),
        }
    }
}

/// Work, and what comes out of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerCase {
    /// What is computed.
    pub work: Work,
    /// The last token's logits, or a tower's output at the positions that are read back, computed in
    /// f64.
    #[serde(skip_serializing)]
    pub expected: Vec<f64>,
}

impl LayerCase {
    /// Cosine between `output` and what is expected, and their largest difference; an error where
    /// the outputs do not stand for the same.
    ///
    /// # Errors
    /// Another length, values that are no numbers, a cosine below [`COSINE`] or a difference above
    /// [`EXACT`].
    pub fn compare(&self, output: &[f32]) -> Result<(f64, f64), String> {
        let (mut dot, mut squares, mut worst) = (0.0, [0.0; 2], 0.0_f64);
        let largest = self.expected.iter().fold(0.0_f64, |n, b| n.max(b.abs()));
        for (&a, b) in output.iter().zip(&self.expected) {
            let a = f64::from(a);
            dot += a * b;
            squares[0] += a * a;
            squares[1] += b * b;
            worst = worst.max((a - b).abs());
        }
        let cosine = dot / (squares[0] * squares[1]).sqrt();
        let alike = cosine > COSINE && worst <= EXACT * largest;
        if output.len() == self.expected.len() && alike {
            Ok((cosine, worst))
        } else {
            let (found, wanted) = (output.len(), self.expected.len());
            Err(format!(
                "{found} outputs with a cosine of {cosine} to the {wanted} expected and a difference of {worst}"
            ))
        }
    }
}

/// Outputs that are less alike are not of the same layer.
pub const COSINE: f64 = 0.999;

/// Nor are outputs that are further away than this part of the largest one: where a residual
/// carries most of an output, a wrong attention hardly turns it.
pub const EXACT: f64 = 1e-3;

/// A safetensors file whose tensors are on the device.
struct Opened<'a> {
    name: &'a str,
    metadata: serde_json::Value,
    shapes: BTreeMap<String, Vec<usize>>,
    weights: WeightMap,
    device: &'a Device,
}

impl<'a> Opened<'a> {
    fn read(name: &'a str, file: &[u8], device: &'a Device) -> Result<Self, Fault> {
        let wrong = |what: String| Fault::new(FaultKind::Model, name, what, "");
        let (metadata, tensors) = safetensors::read(file).map_err(wrong)?;
        let mut opened = Self {
            name,
            metadata,
            shapes: BTreeMap::new(),
            weights: WeightMap::new(device, |_| true),
            device,
        };
        for stored in tensors {
            let dtype = serde_json::from_value(stored.dtype.into())
                .map_err(|error| wrong(format!("tensor {}: {error}", stored.name)))?;
            let entry = TensorEntry {
                shard: name.into(),
                offset: 0,
                dtype,
                shape: stored.shape,
            };
            opened.weights.begin(&stored.name, &entry)?;
            for portion in stored.bytes.chunks(PORTION) {
                opened.weights.bytes(portion)?;
            }
            opened.weights.end()?;
            opened.shapes.insert(stored.name, entry.shape);
        }
        Ok(opened)
    }

    fn wrong(&self, what: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Model, self.name, what, "")
    }

    fn metadata(&self, key: &str) -> &str {
        self.metadata[key].as_str().unwrap_or_default()
    }

    /// Metadata that are JSON of their own.
    fn parsed<T: DeserializeOwned>(&self, key: &str) -> Result<T, Fault> {
        serde_json::from_str(self.metadata(key))
            .map_err(|error| self.wrong(format!("metadata {key:?}: {error}")))
    }

    /// What a tower's block of `width` reads, and the positions of its output that are read back.
    fn input<const D: usize>(&self, width: usize) -> Result<(Tensor<D>, Tensor<1, Int>), Fault> {
        let shape = self.shapes.get(INPUT).map_or(&[][..], Vec::as_slice);
        let shape: [usize; D] = shape
            .try_into()
            .ok()
            .filter(|shape: &[usize; D]| shape[D - 1] == width && !shape.contains(&0))
            .ok_or_else(|| {
                self.wrong(format!(
                    "tensor {INPUT}: has shape {shape:?}, wanted {D} sides of which the last is {width}"
                ))
            })?;
        let rows: Vec<u32> = self.parsed("read")?;
        let positions = shape[..D - 1].iter().product::<usize>();
        if rows.is_empty() || rows.iter().any(|&row| row as usize >= positions) {
            return Err(self.wrong(format!(
                "metadata \"read\": wanted some of 0 to {}",
                positions - 1
            )));
        }
        let x = self
            .weights
            .tensor(INPUT, &shape, &Init::Zeros, self.device)?
            .reshape(shape);
        let count = rows.len();
        let rows: Vec<i32> = rows.into_iter().map(u32::cast_signed).collect();
        let rows = Tensor::from_data(TensorData::new(rows, [count]), self.device);
        Ok((x, rows))
    }
}

impl Layer {
    /// Puts the file's weights on `device`; `name` is the file's.
    ///
    /// # Errors
    /// The file is damaged, or holds other tensors than its configuration needs.
    pub fn open(name: &str, file: &[u8], device: &Device) -> Result<Self, Fault> {
        let opened = Opened::read(name, file, device)?;
        let root = Loader::new(&opened.weights, device);
        let layer = match opened.metadata("family") {
            "decoder" => {
                let config: DecoderConfig = opened.parsed("config")?;
                let llm = Decoder::load(&root, &config)?;
                let cache = KvCache::new(&config, config.vocab_size, KvCacheDType::F32, device);
                Self::Decoder(Box::new(Language { llm, cache }))
            }
            "clip" => {
                let config: ClipVitConfig = opened.parsed("config")?;
                let (width, heads) = (config.hidden_size, config.num_attention_heads);
                if heads == 0 || width % heads != 0 {
                    return Err(opened.wrong(format!("{heads} heads share no width of {width}")));
                }
                let block = Box::new(clip_vit::Block::load(&root, &config)?);
                let (x, rows) = opened.input(width)?;
                Self::Clip { block, x, rows }
            }
            "convnext" => {
                let config: ConvNextConfig = opened.parsed("config")?;
                let (&[width], 1) = (&config.dims[..], config.kernel % 2) else {
                    let (dims, kernel) = (&config.dims, config.kernel);
                    return Err(opened.wrong(format!(
                        "widths {dims:?} and a kernel of {kernel}, wanted one width and an odd kernel"
                    )));
                };
                let block = Box::new(convnext::Block::load(&root, &config, width)?);
                let (x, rows) = opened.input(width)?;
                Self::ConvNext { block, x, rows }
            }
            other => {
                let what = format!("metadata \"family\": {other:?}, not decoder, clip or convnext");
                return Err(opened.wrong(what));
            }
        };
        opened.weights.finish()?;
        Ok(layer)
    }

    /// Does `work`: the last token's logits, or a tower's output at the positions that are read back.
    ///
    /// # Errors
    /// The layer does no such work or holds fewer tokens, or the device fails.
    pub async fn run(&mut self, work: Work) -> Result<Vec<f32>, Fault> {
        let y = match (self, work) {
            (Self::Decoder(language), Work::Prefill(tokens)) => language.prefill(tokens)?,
            (Self::Decoder(language), Work::Decode(past)) => language.decode(past)?,
            (Self::Clip { block, x, rows }, Work::Forward) => {
                picked(block.forward(x.clone()), rows)
            }
            (Self::ConvNext { block, x, rows }, Work::Forward) => {
                picked(block.forward(x.clone()), rows)
            }
            (_, work) => {
                let what = format!("{work} is nothing that this layer does");
                return Err(Fault::new(FaultKind::Question, "layer", what, ""));
            }
        };
        read("the output of the layer", y).await
    }
}

/// Rows `rows` of `y` `[.., C]`, one after another.
fn picked<const D: usize>(y: Tensor<D>, rows: &Tensor<1, Int>) -> Tensor<1> {
    let shape = y.dims();
    let width = shape[D - 1];
    let positions = shape[..D - 1].iter().product::<usize>();
    y.reshape([positions, width])
        .select(0, rows.clone())
        .reshape([rows.dims()[0] * width])
}

impl Language {
    /// Reads tokens 0 to `tokens` into an empty cache: the logits after the last.
    fn prefill(&mut self, tokens: usize) -> Result<Tensor<1>, Fault> {
        self.within(tokens)?;
        let ids: Vec<u32> = (0..tokens as u32).collect();
        self.cache.truncate(0);
        let embeds = self.llm.embed(&ids).unsqueeze();
        Ok(self.llm.prefill(embeds, &mut self.cache))
    }

    /// Reads token `past` after the `past` tokens before it: the logits after it.
    fn decode(&mut self, past: usize) -> Result<Tensor<1>, Fault> {
        self.within(past.saturating_add(1))?;
        if self.cache.len() < past {
            self.prefill(past)?;
        }
        self.cache.truncate(past);
        Ok(self.llm.step(past as u32, &mut self.cache))
    }

    fn within(&self, tokens: usize) -> Result<(), Fault> {
        let most = self.cache.capacity();
        if tokens == 0 || tokens > most {
            let what = format!("{tokens} tokens, the file has 1 to {most}");
            let kind = FaultKind::Question;
            return Err(Fault::new(kind, "layer", what, "Choose other cases"));
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn file(header: &Value, bytes: &[u8]) -> Vec<u8> {
        let header = header.to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend(bytes);
        file
    }

    /// A header with `metadata` and tensors of smooth numbers, and the numbers.
    fn made(metadata: &Value, tensors: &[(&str, &[usize])]) -> (Value, Vec<u8>) {
        let mut header = json!({"__metadata__": metadata});
        let mut bytes = Vec::new();
        for (seed, &(name, shape)) in tensors.iter().enumerate() {
            let count: usize = shape.iter().product();
            let start = bytes.len();
            for i in 0..count {
                bytes.extend((((seed * 7 + i) as f32).sin() * 0.5).to_le_bytes());
            }
            header[name] =
                json!({"dtype": "F32", "shape": shape, "data_offsets": [start, bytes.len()]});
        }
        (header, bytes)
    }

    /// A whole block of two heads over a width of 8.
    fn decoder() -> (Value, Vec<u8>) {
        let config = r#"{"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "vocab_size": 12, "tie_word_embeddings": false}"#;
        made(
            &json!({"family": "decoder", "config": config}),
            &[
                ("model.embed_tokens.weight", &[12, 8]),
                ("lm_head.weight", &[12, 8]),
                ("model.norm.weight", &[8]),
                ("model.layers.0.input_layernorm.weight", &[8]),
                ("model.layers.0.post_attention_layernorm.weight", &[8]),
                ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
                ("model.layers.0.self_attn.q_proj.bias", &[8]),
                ("model.layers.0.self_attn.k_proj.weight", &[4, 8]),
                ("model.layers.0.self_attn.k_proj.bias", &[4]),
                ("model.layers.0.self_attn.v_proj.weight", &[4, 8]),
                ("model.layers.0.self_attn.v_proj.bias", &[4]),
                ("model.layers.0.self_attn.o_proj.weight", &[8, 8]),
                ("model.layers.0.mlp.gate_proj.weight", &[16, 8]),
                ("model.layers.0.mlp.up_proj.weight", &[16, 8]),
                ("model.layers.0.mlp.down_proj.weight", &[8, 16]),
            ],
        )
    }

    /// Five tokens of two heads over a width of 8, of which two are read.
    fn clip() -> (Value, Vec<u8>) {
        let config = r#"{"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 4, "patch_size": 2}"#;
        made(
            &json!({"family": "clip", "config": config, "read": "[0, 4]"}),
            &[
                ("x", &[1, 5, 8]),
                ("layer_norm1.weight", &[8]),
                ("layer_norm1.bias", &[8]),
                ("self_attn.q_proj.weight", &[8, 8]),
                ("self_attn.q_proj.bias", &[8]),
                ("self_attn.k_proj.weight", &[8, 8]),
                ("self_attn.k_proj.bias", &[8]),
                ("self_attn.v_proj.weight", &[8, 8]),
                ("self_attn.v_proj.bias", &[8]),
                ("self_attn.out_proj.weight", &[8, 8]),
                ("self_attn.out_proj.bias", &[8]),
                ("layer_norm2.weight", &[8]),
                ("layer_norm2.bias", &[8]),
                ("mlp.fc1.weight", &[16, 8]),
                ("mlp.fc1.bias", &[16]),
                ("mlp.fc2.weight", &[8, 16]),
                ("mlp.fc2.bias", &[8]),
            ],
        )
    }

    /// A map of 3 x 4 over a width of 4, of which three positions are read.
    fn convnext() -> (Value, Vec<u8>) {
        let config = r#"{"depths": [1], "dims": [4]}"#;
        made(
            &json!({"family": "convnext", "config": config, "read": "[0, 7, 11]"}),
            &[
                ("x", &[1, 3, 4, 4]),
                ("conv_dw.weight", &[4, 1, 7, 7]),
                ("conv_dw.bias", &[4]),
                ("norm.weight", &[4]),
                ("norm.bias", &[4]),
                ("mlp.fc1.weight", &[16, 4]),
                ("mlp.fc1.bias", &[16]),
                ("mlp.fc2.weight", &[4, 16]),
                ("mlp.fc2.bias", &[4]),
                ("ramma", &[4]),
            ],
        )
    }

    fn open((header, bytes): &(Value, Vec<u8>)) -> Layer {
        Layer::open("f", &file(header, bytes), &Device::flex()).expect("a block")
    }

    fn run(layer: &mut Layer, work: Work) -> Result<Vec<f32>, Fault> {
        pollster::block_on(layer.run(work))
    }

    #[test]
    fn a_token_is_the_same_alone_and_with_others() {
        let mut layer = open(&decoder());
        let together = run(&mut layer, Work::Prefill(6)).expect("6 tokens");
        let alone = run(&mut layer, Work::Decode(5)).expect("5 before it");
        assert_eq!(alone.len(), 12);
        for (a, b) in alone.iter().zip(&together) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        for work in [
            Work::Prefill(0),
            Work::Prefill(13),
            Work::Decode(12),
            Work::Decode(usize::MAX),
            Work::Forward,
        ] {
            assert!(run(&mut layer, work).is_err(), "{work}");
        }
    }

    /// Zeros as the last product's weight leave the input and, where there is one, the bias.
    #[test]
    fn towers_give_the_positions_that_are_read() {
        for (mut made, width, read) in [(clip(), 8, &[0, 4][..]), (convnext(), 4, &[0, 7, 11])] {
            let mut layer = open(&made);
            let plain = run(&mut layer, Work::Forward).expect("a block");
            assert_eq!(plain.len(), read.len() * width);
            assert!(run(&mut layer, Work::Prefill(1)).is_err());
            let (header, bytes) = &mut made;
            let input: Vec<f32> = numbers(header, bytes, "x");
            let mut names = vec!["mlp.fc2.weight", "mlp.fc2.bias"];
            if width == 8 {
                names.extend(["self_attn.out_proj.weight", "self_attn.out_proj.bias"]);
            }
            for name in names {
                let at = &header[name]["data_offsets"];
                let [start, end] = [&at[0], &at[1]].map(|at| at.as_u64().expect("an offset"));
                bytes[start as usize..end as usize].fill(0);
            }
            let still = run(&mut open(&made), Work::Forward).expect("a block");
            let kept = read
                .iter()
                .flat_map(|row| &input[row * width..(row + 1) * width]);
            assert!(still.iter().eq(kept), "{still:?}");
            assert_ne!(plain, still);
        }
    }

    fn numbers(header: &Value, bytes: &[u8], name: &str) -> Vec<f32> {
        let at = &header[name]["data_offsets"];
        let [start, end] = [&at[0], &at[1]].map(|at| at.as_u64().expect("an offset"));
        let (words, _) = bytes[start as usize..end as usize].as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }

    #[test]
    fn outputs_of_something_else_are_noticed() {
        let case = LayerCase {
            work: Work::Prefill(1),
            expected: vec![1.0, -2.0],
        };
        let (cosine, worst) = case.compare(&[1.0, -2.001]).expect("the same");
        assert!(cosine > 0.9999 && (worst - 0.001).abs() < 1e-6);
        for wrong in [
            &[2.0, 1.0][..],
            &[1.0],
            &[f32::NAN, -2.0],
            &[0.0, 0.0],
            &[1.0, -2.01],
        ] {
            assert!(case.compare(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn work_travels_as_json() {
        for (text, work, name) in [
            (r#"{"prefill":16}"#, Work::Prefill(16), "prefill 16"),
            (r#"{"decode":16}"#, Work::Decode(16), "decode after 16"),
            (r#""forward""#, Work::Forward, "forward"),
        ] {
            assert_eq!(serde_json::from_str::<Work>(text).expect(text), work);
            assert_eq!(serde_json::to_string(&work).expect(text), text);
            assert_eq!(work.to_string(), name);
        }
        assert!(serde_json::from_str::<Work>(r#"{"prefill":-1}"#).is_err());
    }

    fn take_compile_error(header: &Value, bytes: &[u8], says: &str) {
        refused_file(&file(header, bytes), says);
    }

    fn refused_file(file: &[u8], says: &str) {
        let fault = Layer::open("f", file, &Device::flex()).err().expect(says);
        assert!(fault.to_string().contains(says), "{fault}");
    }

    #[test]
    fn damaged_files_are_refused_in_words() {
        let (header, bytes) = decoder();
        let good = file(&header, &bytes);
        refused_file(&good[..4], "no safetensors");
        refused_file(&good[..100], "has a header of");
        refused_file(&good[..good.len() - 1], "are not its bytes");
        let but = |change: &dyn Fn(&mut Value), says: &str| {
            let mut header = header.clone();
            change(&mut header);
            take_compile_error(&header, &bytes, says);
        };
        but(
            &|header| header["model.norm.weight"]["shape"] = json!([usize::MAX, 9]),
            "model.norm.weight",
        );
        but(&|header| header["__metadata__"] = json!({}), "\"family\"");
        but(
            &|header| header["__metadata__"]["config"] = json!("{}"),
            "\"config\"",
        );
    }

    #[test]
    fn damaged_towers_are_refused_in_words() {
        let (clip, convnext) = (clip(), convnext());
        let but = |(header, bytes): &(Value, Vec<u8>), key: &str, value: Value, says: &str| {
            let mut header = header.clone();
            header["__metadata__"][key] = value;
            take_compile_error(&header, bytes, says);
        };
        for made in [&clip, &convnext] {
            but(made, "family", json!("resnet"), "\"resnet\"");
            but(made, "read", json!("[]"), "\"read\"");
            but(made, "read", json!("[12]"), "\"read\"");
            but(made, "read", json!("x"), "\"read\"");
            let (mut header, bytes) = (made.0.clone(), &made.1);
            header["x"]["shape"] = json!([made.1.len()]);
            take_compile_error(&header, bytes, "tensor x");
            header.as_object_mut().expect("an object").remove("x");
            take_compile_error(&header, bytes, "tensor x");
        }
        let config = clip.0["__metadata__"]["config"].as_str().expect("JSON");
        let three = config.replace("\"num_attention_heads\": 2", "\"num_attention_heads\": 3");
        but(&clip, "config", json!(three), "3 heads");
        for config in [
            r#"{"depths": [1], "dims": [4, 8]}"#,
            r#"{"depths": [1], "dims": [4], "kernel": 6}"#,
        ] {
            but(&convnext, "config", json!(config), "an odd kernel");
        }
    }
}

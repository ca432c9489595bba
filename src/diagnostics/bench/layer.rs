//! One layer of a network from a file, for comparison with another runtime on the same file.
//!
//! The file is safetensors with JSON metadata: `family` names the kind of layer, `config` has its sizes:
//!
//! - `decoder`: a decoder of one layer ([`DecoderConfig`]). Row `i` of the embedding is the input at
//!   position `i`, so the work is given by a number of tokens.
//! - `clip` ([`ClipVitConfig`]) and `convnext` ([`ConvNextConfig`]): a block of a tower; tensor names
//!   start at the block. Tensor `x` is the input; metadata `read` lists the output positions that are
//!   read back.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use burn::tensor::{Device, Int, Tensor, TensorData};
use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, FaultKind};
use crate::gpu::readback::read;
use crate::memory::{CpuActivations, KvCacheDType};
use crate::model::clip_vit::{self, ClipVitConfig};
use crate::model::convnext::{self, ConvNextConfig};
use crate::model::decoder::{Decoder, DecoderConfig, KvCache};
use crate::nn::{Init, Loader, WeightMap, WeightSource};
use crate::weights::download::TensorSink;
use crate::weights::manifest::TensorEntry;
use crate::weights::quant::{QWEIGHT, Rounding, SCALES};
use crate::weights::{DType, QuantScheme, safetensors};

/// Bytes that are uploaded at a time.
const CHUNK: usize = 4 << 20;

/// The input tensor of a tower's block.
const INPUT: &str = "x";

/// A layer on its device, with its input.
pub enum Layer {
    /// A decoder layer.
    Decoder(Box<OneLayerDecoder>),
    /// A block of CLIP.
    Clip {
        /// The block.
        block: Box<clip_vit::Block>,
        /// `[1, tokens, C]`.
        x: Tensor<3>,
        /// Output positions that are read back.
        rows: Tensor<1, Int>,
    },
    /// A block of ConvNeXt.
    ConvNext {
        /// The block.
        block: Box<convnext::Block>,
        /// `[1, H, W, C]`.
        x: Tensor<4>,
        /// Output positions that are read back.
        rows: Tensor<1, Int>,
    },
}

/// How the weights of a layer are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerOptions {
    /// Activations of quantized weights on the CPU.
    pub activations: CpuActivations,
    /// Whether f32 matrices are quantized to 8 bits in groups of 32.
    pub quantize: bool,
}

/// A decoder of one layer and its KV cache.
pub struct OneLayerDecoder {
    llm: Decoder,
    cache: KvCache,
}

/// The description of a layer that `tests/reference/layer.py` writes.
#[derive(Debug, Deserialize)]
pub struct Meta {
    /// The layer's name.
    pub name: String,
    /// The cases to compute.
    pub cases: Vec<LayerCase>,
}

/// A computation of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Prefill of this many tokens into an empty cache.
    Prefill(usize),
    /// Decoding of one token after this many.
    Decode(usize),
    /// The forward pass of a tower's block.
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

/// A computation and its expected output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerCase {
    /// The computation.
    pub work: Work,
    /// In f64: the last token's logits, or a tower's output at the positions that are read back.
    #[serde(skip_serializing)]
    pub expected: Vec<f64>,
}

impl LayerCase {
    /// The cosine similarity of `output` and the expected output, and their largest absolute
    /// difference.
    ///
    /// # Errors
    /// Another length, NaN, a cosine of [`MIN_COSINE`] or less, or a difference above
    /// [`MAX_DIFFERENCE`], with int8 activations or quantized matrices [`MAX_INT8_DIFFERENCE`].
    pub fn compare(&self, output: &[f32], options: LayerOptions) -> Result<(f64, f64), String> {
        let limit = match options == LayerOptions::default() {
            true => MAX_DIFFERENCE,
            false => MAX_INT8_DIFFERENCE,
        };
        let (mut dot, mut norms, mut worst) = (0.0, [0.0; 2], 0.0_f64);
        let largest = self.expected.iter().fold(0.0_f64, |n, b| n.max(b.abs()));
        for (&a, b) in output.iter().zip(&self.expected) {
            let a = f64::from(a);
            dot += a * b;
            norms[0] += a * a;
            norms[1] += b * b;
            worst = worst.max((a - b).abs());
        }
        let cosine = dot / (norms[0] * norms[1]).sqrt();
        let agrees = cosine > MIN_COSINE && worst <= limit * largest;
        if output.len() == self.expected.len() && agrees {
            Ok((cosine, worst))
        } else {
            let (actual, expected) = (output.len(), self.expected.len());
            Err(format!(
                "{actual} outputs, {expected} expected: cosine {cosine}, largest difference {worst}"
            ))
        }
    }
}

/// Lower limit of the cosine similarity.
pub const MIN_COSINE: f64 = 0.999;

/// Upper limit of the difference, relative to the largest output. The cosine alone is not enough: where
/// the residual dominates an output, wrong attention hardly changes its direction.
pub const MAX_DIFFERENCE: f64 = 1e-3;

/// The same with int8 activations.
pub const MAX_INT8_DIFFERENCE: f64 = 0.05;

/// A layer's file with its tensors on the device.
struct LayerFile<'a> {
    name: &'a str,
    metadata: serde_json::Value,
    shapes: BTreeMap<String, Vec<usize>>,
    weights: WeightMap,
    device: &'a Device,
}

/// The scheme of [`LayerOptions::quantize`].
const QUANTIZED: QuantScheme = QuantScheme::new(8, 32);

impl<'a> LayerFile<'a> {
    fn open(name: &'a str, file: &[u8], device: &'a Device, quantize: bool) -> Result<Self, Fault> {
        let fault = |what: String| Fault::new(FaultKind::Model, name, what, "");
        let (metadata, tensors) = safetensors::read(file).map_err(fault)?;
        let mut layer = Self {
            name,
            metadata,
            shapes: BTreeMap::new(),
            weights: WeightMap::new(device, |_| true),
            device,
        };
        for stored in tensors {
            let dtype = serde_json::from_value(stored.dtype.into())
                .map_err(|error| fault(format!("tensor {}: {error}", stored.name)))?;
            let entry = TensorEntry {
                shard: name.into(),
                offset: 0,
                dtype,
                shape: stored.shape,
            };
            let is_matrix = matches!(entry.shape[..], [_, columns] if QUANTIZED.fits(columns));
            match stored.name.strip_suffix("weight") {
                Some(stem) if quantize && is_matrix => {
                    layer.add_quantized(stem, &entry, stored.bytes)?;
                }
                _ => layer.add(&stored.name, &entry, stored.bytes)?,
            }
            layer.shapes.insert(stored.name, entry.shape);
        }
        Ok(layer)
    }

    fn add(&mut self, name: &str, entry: &TensorEntry, bytes: &[u8]) -> Result<(), Fault> {
        self.weights.begin(name, entry)?;
        for chunk in bytes.chunks(CHUNK) {
            self.weights.bytes(chunk)?;
        }
        self.weights.end()
    }

    /// Adds a matrix in 8 bits.
    fn add_quantized(
        &mut self,
        stem: &str,
        entry: &TensorEntry,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let values = entry.dtype.to_f32(bytes);
        let &[rows, columns] = &entry.shape[..] else {
            unreachable!("the caller has checked that it is a matrix");
        };
        let mut words = vec![0; QUANTIZED.words(values.len())];
        let mut scales = vec![f16::ZERO; QUANTIZED.scale_count(values.len())];
        QUANTIZED.quantize(&values, Rounding::Nearest, &mut words, &mut scales);
        let of = |dtype, shape| TensorEntry {
            dtype,
            shape,
            ..entry.clone()
        };
        let codes = of(DType::U32, vec![rows, QUANTIZED.words(columns)]);
        self.add(
            &format!("{stem}{QWEIGHT}"),
            &codes,
            bytemuck::cast_slice(&words),
        )?;
        let halves: &[u16] = scales.reinterpret_cast();
        let scales = of(DType::F16, QUANTIZED.scales_shape([rows, columns]));
        self.add(
            &format!("{stem}{SCALES}"),
            &scales,
            bytemuck::cast_slice(halves),
        )
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Model, self.name, what, "")
    }

    fn metadata(&self, key: &str) -> &str {
        self.metadata[key].as_str().unwrap_or_default()
    }

    /// A metadata value parsed as JSON.
    fn parsed<T: DeserializeOwned>(&self, key: &str) -> Result<T, Fault> {
        serde_json::from_str(self.metadata(key))
            .map_err(|error| self.fault(format!("metadata {key:?}: {error}")))
    }

    /// The input of a tower's block of `width` channels, and the output positions that are read back.
    fn input<const D: usize>(&self, width: usize) -> Result<(Tensor<D>, Tensor<1, Int>), Fault> {
        let shape = self.shapes.get(INPUT).map_or(&[][..], Vec::as_slice);
        let shape: [usize; D] = shape
            .try_into()
            .ok()
            .filter(|shape: &[usize; D]| shape[D - 1] == width && !shape.contains(&0))
            .ok_or_else(|| {
                self.fault(format!(
                    "tensor {INPUT}: has shape {shape:?}, expected {D} axes, the last of {width}"
                ))
            })?;
        let rows: Vec<u32> = self.parsed("read")?;
        let positions = shape[..D - 1].iter().product::<usize>();
        if rows.is_empty() || rows.iter().any(|&row| row as usize >= positions) {
            return Err(self.fault(format!(
                "metadata \"read\": expected positions from 0 to {}",
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
    /// Uploads the weights of `file` to `device`; `name` is the file's name.
    ///
    /// # Errors
    /// The file is damaged, or its tensors do not match its configuration.
    pub fn open(
        name: &str,
        file: &[u8],
        device: &Device,
        options: LayerOptions,
    ) -> Result<Self, Fault> {
        let file = LayerFile::open(name, file, device, options.quantize)?;
        let root = Loader::new(&file.weights, device).with_activations(options.activations);
        let layer = match file.metadata("family") {
            "decoder" => {
                let config: DecoderConfig = file.parsed("config")?;
                let llm = Decoder::load(&root, &config)?;
                let cache = KvCache::new(&config, config.vocab_size, KvCacheDType::F32, device);
                Self::Decoder(Box::new(OneLayerDecoder { llm, cache }))
            }
            "clip" => {
                let config: ClipVitConfig = file.parsed("config")?;
                let (width, heads) = (config.hidden_size, config.num_attention_heads);
                if heads == 0 || width % heads != 0 {
                    return Err(
                        file.fault(format!("{width} channels do not divide into {heads} heads"))
                    );
                }
                let block = Box::new(clip_vit::Block::load(&root, &config)?);
                let (x, rows) = file.input(width)?;
                Self::Clip { block, x, rows }
            }
            "convnext" => {
                let config: ConvNextConfig = file.parsed("config")?;
                let (&[width], 1) = (&config.dims[..], config.kernel % 2) else {
                    let (dims, kernel) = (&config.dims, config.kernel);
                    return Err(file.fault(format!(
                        "dims {dims:?} and kernel {kernel}: expected one width and an odd kernel"
                    )));
                };
                let block = Box::new(convnext::Block::load(&root, &config, width)?);
                let (x, rows) = file.input(width)?;
                Self::ConvNext { block, x, rows }
            }
            other => {
                let what = format!("metadata \"family\": {other:?}, not decoder, clip or convnext");
                return Err(file.fault(what));
            }
        };
        file.weights.finish()?;
        Ok(layer)
    }

    /// Computes `work`: the last token's logits, or a tower's output at the positions that are read
    /// back.
    ///
    /// # Errors
    /// The work does not suit the layer or needs more tokens than it has, or the device fails.
    pub async fn run(&mut self, work: Work) -> Result<Vec<f32>, Fault> {
        let y = match (self, work) {
            (Self::Decoder(decoder), Work::Prefill(tokens)) => decoder.prefill(tokens)?,
            (Self::Decoder(decoder), Work::Decode(past)) => decoder.decode(past)?,
            (Self::Clip { block, x, rows }, Work::Forward) => {
                select_rows(block.forward(x.clone()), rows)
            }
            (Self::ConvNext { block, x, rows }, Work::Forward) => {
                select_rows(block.forward(x.clone()), rows)
            }
            (_, work) => {
                let what = format!("this layer cannot compute {work}");
                return Err(Fault::new(FaultKind::Question, "layer", what, ""));
            }
        };
        read("output of the layer", y).await
    }
}

/// Rows `rows` of `y` `[.., C]`, concatenated.
fn select_rows<const D: usize>(y: Tensor<D>, rows: &Tensor<1, Int>) -> Tensor<1> {
    let shape = y.dims();
    let width = shape[D - 1];
    let positions = shape[..D - 1].iter().product::<usize>();
    y.reshape([positions, width])
        .select(0, rows.clone())
        .reshape([rows.dims()[0] * width])
}

impl OneLayerDecoder {
    /// Prefill of tokens `0..tokens` into an empty cache: the logits after the last. The layer computes all
    /// rows, as one that another layer follows.
    fn prefill(&mut self, tokens: usize) -> Result<Tensor<1>, Fault> {
        self.check_count(tokens)?;
        let ids: Vec<u32> = (0..tokens as u32).collect();
        self.cache.truncate(0);
        let embeds = self.llm.embed(&ids).unsqueeze();
        let hidden = self.llm.append(embeds, &mut self.cache);
        let last = hidden.narrow(1, tokens - 1, 1);
        Ok(self.llm.logits(last).flatten(0, 2))
    }

    /// Decodes token `past` after the `past` tokens before it: the logits after it.
    fn decode(&mut self, past: usize) -> Result<Tensor<1>, Fault> {
        self.check_count(past.saturating_add(1))?;
        if self.cache.len() < past {
            self.prefill(past)?;
        }
        self.cache.truncate(past);
        Ok(self.llm.step(past as u32, &mut self.cache))
    }

    fn check_count(&self, tokens: usize) -> Result<(), Fault> {
        let limit = self.cache.capacity();
        if tokens == 0 || tokens > limit {
            let what = format!("{tokens} tokens: the file has {limit}");
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

    /// A header with `metadata` and tensors of smooth values, and their bytes.
    fn tensors(metadata: &Value, shapes: &[(&str, &[usize])]) -> (Value, Vec<u8>) {
        let mut header = json!({"__metadata__": metadata});
        let mut bytes = Vec::new();
        for (seed, &(name, shape)) in shapes.iter().enumerate() {
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

    /// A layer of two heads over a width of 8.
    fn decoder() -> (Value, Vec<u8>) {
        let config = r#"{"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "vocab_size": 12, "tie_word_embeddings": false}"#;
        tensors(
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

    /// Five tokens of two heads over a width of 8; two positions are read back.
    fn clip() -> (Value, Vec<u8>) {
        let config = r#"{"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 4, "patch_size": 2}"#;
        tensors(
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

    /// A map of 3 x 4 over a width of 4; three positions are read back.
    fn convnext() -> (Value, Vec<u8>) {
        let config = r#"{"depths": [1], "dims": [4]}"#;
        tensors(
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
        Layer::open(
            "f",
            &file(header, bytes),
            &Device::flex(),
            LayerOptions::default(),
        )
        .expect("a block")
    }

    fn run(layer: &mut Layer, work: Work) -> Result<Vec<f32>, Fault> {
        pollster::block_on(layer.run(work))
    }

    #[test]
    fn decode_agrees_with_prefill() {
        let mut layer = open(&decoder());
        let prefill = run(&mut layer, Work::Prefill(6)).expect("a prefill");
        let decode = run(&mut layer, Work::Decode(5)).expect("a decoded token");
        assert_eq!(decode.len(), 12);
        for (a, b) in decode.iter().zip(&prefill) {
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

    /// With zeros as the weights and biases of the last linear layers, a block returns its input.
    #[test]
    fn towers_return_the_positions_that_are_read_back() {
        for (mut layer_file, width, read) in
            [(clip(), 8, &[0, 4][..]), (convnext(), 4, &[0, 7, 11])]
        {
            let mut layer = open(&layer_file);
            let output = run(&mut layer, Work::Forward).expect("a block");
            assert_eq!(output.len(), read.len() * width);
            assert!(run(&mut layer, Work::Prefill(1)).is_err());
            let (header, bytes) = &mut layer_file;
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
            let unchanged = run(&mut open(&layer_file), Work::Forward).expect("a block");
            let expected = read
                .iter()
                .flat_map(|row| &input[row * width..(row + 1) * width]);
            assert!(unchanged.iter().eq(expected), "{unchanged:?}");
            assert_ne!(output, unchanged);
        }
    }

    fn numbers(header: &Value, bytes: &[u8], name: &str) -> Vec<f32> {
        let at = &header[name]["data_offsets"];
        let [start, end] = [&at[0], &at[1]].map(|at| at.as_u64().expect("an offset"));
        let (words, _) = bytes[start as usize..end as usize].as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }

    #[test]
    fn outputs_of_another_layer_are_rejected() {
        let case = LayerCase {
            work: Work::Prefill(1),
            expected: vec![1.0, -2.0],
        };
        let (cosine, worst) = case
            .compare(&[1.0, -2.001], LayerOptions::default())
            .expect("equal outputs");
        assert!(cosine > 0.9999 && (worst - 0.001).abs() < 1e-6);
        for wrong in [
            &[2.0, 1.0][..],
            &[1.0],
            &[f32::NAN, -2.0],
            &[0.0, 0.0],
            &[1.0, -2.01],
        ] {
            assert!(
                case.compare(wrong, LayerOptions::default()).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn work_is_json() {
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

    fn rejects(header: &Value, bytes: &[u8], message: &str) {
        rejects_file(&file(header, bytes), message);
    }

    fn rejects_file(file: &[u8], message: &str) {
        let fault = Layer::open("f", file, &Device::flex(), LayerOptions::default())
            .err()
            .expect(message);
        assert!(fault.to_string().contains(message), "{fault}");
    }

    #[test]
    fn damaged_files_are_rejected() {
        let (header, bytes) = decoder();
        let good = file(&header, &bytes);
        rejects_file(&good[..4], "no safetensors");
        rejects_file(&good[..100], "has a header of");
        rejects_file(&good[..good.len() - 1], "are not its bytes");
        let but = |change: &dyn Fn(&mut Value), message: &str| {
            let mut header = header.clone();
            change(&mut header);
            rejects(&header, &bytes, message);
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
    fn damaged_towers_are_rejected() {
        let (clip, convnext) = (clip(), convnext());
        let but = |(header, bytes): &(Value, Vec<u8>), key: &str, value: Value, message: &str| {
            let mut header = header.clone();
            header["__metadata__"][key] = value;
            rejects(&header, bytes, message);
        };
        for tower in [&clip, &convnext] {
            but(tower, "family", json!("resnet"), "\"resnet\"");
            but(tower, "read", json!("[]"), "\"read\"");
            but(tower, "read", json!("[12]"), "\"read\"");
            but(tower, "read", json!("x"), "\"read\"");
            let (mut header, bytes) = (tower.0.clone(), &tower.1);
            header["x"]["shape"] = json!([tower.1.len()]);
            rejects(&header, bytes, "tensor x");
            header.as_object_mut().expect("an object").remove("x");
            rejects(&header, bytes, "tensor x");
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

//! One block of a language model with its last norm and a small head, from one file: what another
//! runtime is given too, so that both compute the same.
//!
//! The file is a safetensors file whose metadata `config` is a [`DecoderConfig`]. Row `i` of the
//! embedding is what the model reads at position `i`, so that a case is a number of tokens.

use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::model::decoder::{Decoder, DecoderConfig, KvCache};
use crate::model::upn::read;
use crate::nn::{Loader, StoredWeights};
use crate::weights::format::{Element, TensorEntry};
use crate::weights::stream::TensorSink;

/// Bytes that go to the device at a time.
const PORTION: usize = 4 << 20;

/// Where the header of a safetensors file begins.
const HEADER: usize = 8;

/// A block, and what it has read.
pub struct Layer {
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

/// Some tokens at once, or one after others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerCase {
    /// Whether one token follows `tokens` others.
    pub decode: bool,
    /// How many.
    pub tokens: usize,
    /// The logits of the last one, computed in f64.
    #[serde(skip_serializing)]
    pub expected: Vec<f64>,
}

impl LayerCase {
    /// Cosine between `logits` and what is expected, and their largest difference; an error where
    /// the outputs do not stand for the same.
    ///
    /// # Errors
    /// Another length, values that are no numbers, or a cosine below [`COSINE`].
    pub fn compare(&self, logits: &[f32]) -> Result<(f64, f64), String> {
        let (mut dot, mut squares, mut worst) = (0.0, [0.0; 2], 0.0_f64);
        for (&a, b) in logits.iter().zip(&self.expected) {
            let a = f64::from(a);
            dot += a * b;
            squares[0] += a * a;
            squares[1] += b * b;
            worst = worst.max((a - b).abs());
        }
        let cosine = dot / (squares[0] * squares[1]).sqrt();
        if logits.len() == self.expected.len() && cosine > COSINE {
            Ok((cosine, worst))
        } else {
            let (found, wanted) = (logits.len(), self.expected.len());
            Err(format!(
                "{found} logits with a cosine of {cosine} to the {wanted} expected"
            ))
        }
    }
}

/// Outputs that are less alike are not of the same layer.
pub const COSINE: f64 = 0.999;

#[derive(Deserialize)]
struct Stored {
    dtype: Element,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl Layer {
    /// Puts the file's weights on `device`; `name` is the file's.
    ///
    /// # Errors
    /// The file is damaged, or holds other tensors than its configuration needs.
    pub fn open(name: &str, file: &[u8], device: &Device) -> Result<Self, Fault> {
        let wrong = |what: String| Fault::new(crate::fault::FaultKind::Model, name, what, "");
        let (length, rest) = file
            .split_first_chunk::<HEADER>()
            .ok_or_else(|| wrong("is no safetensors file".into()))?;
        let length = u64::from_le_bytes(*length);
        let header = usize::try_from(length).ok();
        let (header, bytes) = header
            .and_then(|length| rest.split_at_checked(length))
            .ok_or_else(|| wrong(format!("has a header of {length} bytes")))?;
        let mut entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(header).map_err(|error| wrong(format!("header: {error}")))?;
        let metadata = entries.remove("__metadata__").unwrap_or_default();
        let config = metadata["config"].as_str().unwrap_or_default();
        let config: DecoderConfig = serde_json::from_str(config)
            .map_err(|error| wrong(format!("metadata \"config\": {error}")))?;
        let mut weights = StoredWeights::new(device, |_| true);
        for (tensor, entry) in entries {
            let stored: Stored = serde_json::from_value(entry)
                .map_err(|error| wrong(format!("tensor {tensor}: {error}")))?;
            let [start, end] = stored.data_offsets;
            let elements = stored
                .shape
                .iter()
                .try_fold(1_usize, |n, &side| n.checked_mul(side));
            let size = elements.and_then(|n| n.checked_mul(stored.dtype.bytes() as usize));
            let bytes = bytes
                .get(start..end)
                .filter(|bytes| Some(bytes.len()) == size);
            let bytes = bytes.ok_or_else(|| {
                wrong(format!(
                    "tensor {tensor}: {start} to {end} are not its bytes"
                ))
            })?;
            let entry = TensorEntry {
                shard: name.into(),
                offset: start as u64,
                dtype: stored.dtype,
                shape: stored.shape,
            };
            weights.begin(&tensor, &entry)?;
            for portion in bytes.chunks(PORTION) {
                weights.bytes(portion)?;
            }
            weights.end()?;
        }
        let llm = Decoder::load(&Loader::new(&weights, device), &config)?;
        weights.finish()?;
        let cache = KvCache::new(&config, config.vocab_size, device);
        Ok(Self { llm, cache })
    }

    /// Reads tokens 0 to `tokens` into an empty cache: the logits after the last.
    ///
    /// # Errors
    /// The file has not so many, or the device fails.
    pub async fn prefill(&mut self, tokens: usize) -> Result<Vec<f32>, Fault> {
        self.within(tokens)?;
        let ids: Vec<u32> = (0..tokens as u32).collect();
        self.cache.truncate(0);
        let embeds = self.llm.embed(&ids).unsqueeze();
        read(self.llm.prefill(embeds, &mut self.cache)).await
    }

    /// Reads token `past` after the `past` tokens before it: the logits after it.
    ///
    /// # Errors
    /// The file has not so many, or the device fails.
    pub async fn decode(&mut self, past: usize) -> Result<Vec<f32>, Fault> {
        self.within(past + 1)?;
        if self.cache.len() < past {
            self.prefill(past).await?;
        }
        self.cache.truncate(past);
        read(self.llm.step(past as u32, &mut self.cache)).await
    }

    fn within(&self, tokens: usize) -> Result<(), Fault> {
        let most = self.cache.capacity();
        if tokens == 0 || tokens > most {
            let what = format!("{tokens} tokens, the file has 1 to {most}");
            let kind = crate::fault::FaultKind::Question;
            return Err(Fault::new(kind, "layer", what, "Choose other cases"));
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    fn file(header: &serde_json::Value, bytes: &[u8]) -> Vec<u8> {
        let header = header.to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend(bytes);
        file
    }

    /// A whole block of two heads over a width of 8.
    fn whole() -> (serde_json::Value, Vec<u8>) {
        let config = r#"{"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "vocab_size": 12, "tie_word_embeddings": false}"#;
        let mut header = serde_json::json!({"__metadata__": {"config": config}});
        let mut bytes = Vec::new();
        let at = "model.layers.0";
        let tensors = [
            ("model.embed_tokens.weight".to_string(), vec![12, 8]),
            ("lm_head.weight".into(), vec![12, 8]),
            ("model.norm.weight".into(), vec![8]),
            (format!("{at}.input_layernorm.weight"), vec![8]),
            (format!("{at}.post_attention_layernorm.weight"), vec![8]),
            (format!("{at}.self_attn.q_proj.weight"), vec![8, 8]),
            (format!("{at}.self_attn.q_proj.bias"), vec![8]),
            (format!("{at}.self_attn.k_proj.weight"), vec![4, 8]),
            (format!("{at}.self_attn.k_proj.bias"), vec![4]),
            (format!("{at}.self_attn.v_proj.weight"), vec![4, 8]),
            (format!("{at}.self_attn.v_proj.bias"), vec![4]),
            (format!("{at}.self_attn.o_proj.weight"), vec![8, 8]),
            (format!("{at}.mlp.gate_proj.weight"), vec![16, 8]),
            (format!("{at}.mlp.up_proj.weight"), vec![16, 8]),
            (format!("{at}.mlp.down_proj.weight"), vec![8, 16]),
        ];
        for (seed, (name, shape)) in tensors.into_iter().enumerate() {
            let count: usize = shape.iter().product();
            let start = bytes.len();
            for i in 0..count {
                bytes.extend((((seed * 7 + i) as f32).sin() * 0.5).to_le_bytes());
            }
            header[name] = serde_json::json!(
                {"dtype": "F32", "shape": shape, "data_offsets": [start, bytes.len()]});
        }
        (header, bytes)
    }

    #[test]
    fn a_token_is_the_same_alone_and_with_others() {
        let (header, bytes) = whole();
        let device = Device::flex();
        let mut layer = Layer::open("f", &file(&header, &bytes), &device).expect("a block");
        let together = pollster::block_on(layer.prefill(6)).expect("6 tokens");
        let alone = pollster::block_on(layer.decode(5)).expect("5 before it");
        assert_eq!(alone.len(), 12);
        for (a, b) in alone.iter().zip(&together) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        assert!(pollster::block_on(layer.prefill(13)).is_err());
        assert!(pollster::block_on(layer.decode(12)).is_err());
    }

    #[test]
    fn outputs_of_something_else_are_noticed() {
        let case = LayerCase {
            decode: false,
            tokens: 1,
            expected: vec![1.0, -2.0],
        };
        let (cosine, worst) = case.compare(&[1.0, -2.001]).expect("the same");
        assert!(cosine > 0.9999 && (worst - 0.001).abs() < 1e-6);
        for wrong in [&[2.0, 1.0][..], &[1.0], &[f32::NAN, -2.0], &[0.0, 0.0]] {
            assert!(case.compare(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn damaged_files_are_refused_in_words() {
        let (mut header, bytes) = whole();
        let device = Device::flex();
        let good = file(&header, &bytes);
        let end = good.len();
        let refused = |file: &[u8], says: &str| {
            let fault = Layer::open("f", file, &device).err().expect(says);
            assert!(fault.to_string().contains(says), "{fault}");
        };
        refused(&good[..4], "no safetensors");
        refused(&good[..100], "has a header of");
        refused(&good[..end - 1], "are not its bytes");
        header["model.norm.weight"]["shape"] = serde_json::json!([usize::MAX, 9]);
        refused(&file(&header, &bytes), "model.norm.weight");
        header["__metadata__"] = serde_json::json!({});
        refused(&file(&header, &bytes), "\"config\"");
    }
}

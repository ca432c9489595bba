//! A GGUF file as the input of a conversion: a decoder of LLaMA's or Qwen2's shape, for plain chat.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use half::f16;

use super::Input;
use super::checkpoint::name_list;
use super::gguf::{Gguf, TensorInfo};
use super::gguf_tokenizer;
use super::options::Conversion;
use super::required_tensors::{RequiredTensor, required_tensors};
use super::write::{Packed, RowSource};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::model::config::ModelConfig;
use crate::model::decoder::DecoderConfig;
use crate::text::tokenizer::Tokenizer;
use crate::weights::QuantScheme;
use crate::weights::manifest::{Defaults, Licence, Provenance};
use crate::weights::storage::{QuantPreset, WeightFormat, storage_for};

/// Architectures whose networks are a [`Decoder`](crate::model::decoder::Decoder).
const ARCHITECTURES: [&str; 2] = ["llama", "qwen2"];

/// The most heads; far above any model of these architectures.
const MAX_HEADS: usize = 4096;

/// Names outside the blocks: the file's and this project's.
const OUTER_NAMES: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Names inside a block: the file's and this project's.
const BLOCK_NAMES: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Factors of the RoPE frequencies.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// This project's name of the tensor `name`; `None` if no network has it.
fn our_name(name: &str) -> Option<String> {
    if let Some((_, ours)) = OUTER_NAMES.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*ours).to_string());
    }
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (stem, ending) = rest.split_once('.')?;
    let is_number = !block.is_empty() && block.bytes().all(|byte| byte.is_ascii_digit());
    let is_known = is_number && matches!(ending, "weight" | "bias");
    let (_, ours) = BLOCK_NAMES
        .iter()
        .find(|(theirs, _)| is_known && *theirs == stem)?;
    Some(format!("model.layers.{block}.{ours}.{ending}"))
}

/// The tensors that a model requires, and where they are in a file.
pub(super) struct GgufRows {
    gguf: Gguf,
    /// The required tensors.
    pub required: Vec<RequiredTensor>,
    /// Names in the file by this project's.
    names: BTreeMap<String, String>,
    /// The width of a head whose rows of q and k are permuted.
    permuted_head: Option<usize>,
    /// Blocks of the decoder.
    layers: usize,
}

impl GgufRows {
    fn tensor(&self, index: usize) -> &TensorInfo {
        let name = &self.names[&self.required[index].name];
        self.gguf.tensor(name).expect("checked when opened")
    }

    /// The row of the file that is row `row` of tensor `index`.
    ///
    /// Files of LLaMA have the rows of q and k in the order in which neighbouring channels rotate
    /// together: channels `i` and `i + width / 2` of a head are at `2 i` and `2 i + 1`.
    fn stored_row(&self, index: usize, row: usize) -> usize {
        let name = &self.required[index].name;
        let rotates = |kind: &str| name.contains(&format!(".self_attn.{kind}_proj."));
        match self.permuted_head {
            Some(width) if rotates("q") || rotates("k") => {
                let (head, channel) = (row / width, row % width);
                head * width + channel % (width / 2) * 2 + channel / (width / 2)
            }
            _ => row,
        }
    }

    /// The bytes of `rows` of tensor `index` of more than one axis.
    fn stored_rows(
        &self,
        index: usize,
        rows: Range<usize>,
    ) -> impl Iterator<Item = Result<Cow<'_, [u8]>, Fault>> {
        let tensor = self.tensor(index);
        rows.map(move |row| self.gguf.row(tensor, self.stored_row(index, row)))
    }

    /// The scheme that keeps the codes and scales of tensor `index`.
    fn exact_scheme(&self, index: usize) -> Option<QuantScheme> {
        let scheme = self.tensor(index).kind.exact_scheme();
        scheme.filter(|_| self.required[index].matrix)
    }

    /// The format of tensor `index`: that of the file, if it is exact and has no more bits than `--quant`
    /// gives the tensor; else that of `--quant`.
    pub fn format(&self, index: usize, conversion: &Conversion) -> WeightFormat {
        let spec = self.required[index].spec();
        let asked = storage_for(spec, conversion.quant, conversion.group, self.layers);
        let most = match (asked, conversion.quant) {
            (WeightFormat::Quantized(scheme), _) => scheme.bits,
            // The width is no multiple of `group`, but one of 32.
            (WeightFormat::Dense(_), QuantPreset::Q4 | QuantPreset::Q8) => 8,
            (WeightFormat::Dense(_), QuantPreset::F16 | QuantPreset::F32) => 0,
        };
        match self.exact_scheme(index) {
            Some(scheme) if scheme.bits <= most => WeightFormat::Quantized(scheme),
            _ => asked,
        }
    }

    /// The licence as the file states it.
    pub fn licence(&self) -> Result<Licence, Fault> {
        let gguf = &self.gguf;
        let mut lines = Vec::new();
        for (key, label) in [
            ("general.name", "Model"),
            ("general.organization", "By"),
            ("general.author", "By"),
            ("general.license", "Licence"),
            ("general.license.name", "Licence"),
            ("general.license.link", "Text"),
            ("general.source.url", "Source"),
            ("general.url", "Source"),
        ] {
            if let Some(text) = gguf.text(key)? {
                lines.push(format!("{label}: {text}"));
            }
        }
        let name = gguf.text("general.license")?.unwrap_or("not stated");
        let stated = match gguf.has("general.license") {
            true => "As the GGUF file states:",
            false => "The GGUF file does not state its licence; ask its authors.",
        };
        lines.insert(0, stated.to_string());
        Ok(Licence {
            name: name.to_string(),
            text: lines.join("\n"),
            parts: Vec::new(),
        })
    }

    /// The file, for messages.
    #[cfg(feature = "native")]
    pub fn file(&self) -> String {
        self.gguf.place()
    }

    /// All bytes of the file.
    ///
    /// # Errors
    /// They cannot be read.
    #[cfg(feature = "native")]
    pub fn file_bytes(&self) -> Result<Cow<'_, [u8]>, Fault> {
        self.gguf.file_bytes()
    }

    /// Bytes of the required tensors in the file.
    pub fn bytes(&self) -> u64 {
        let tensors = 0..self.required.len();
        tensors.map(|index| self.tensor(index).bytes()).sum()
    }
}

impl RowSource for GgufRows {
    fn rows(&self, index: usize, rows: Range<usize>) -> Result<Vec<f32>, Fault> {
        let tensor = self.tensor(index);
        if tensor.shape.len() == 1 {
            // A vector is one row of the file; every element is a row here.
            let values = self.gguf.values(tensor)?;
            let order = rows.map(|row| values[self.stored_row(index, row)]);
            return Ok(order.collect());
        }
        let mut values = Vec::new();
        for bytes in self.stored_rows(index, rows) {
            tensor.kind.dequantize(&bytes?, &mut values);
        }
        Ok(values)
    }

    fn packed(&self, index: usize, rows: Range<usize>, scheme: QuantScheme) -> Option<Packed> {
        self.exact_scheme(index).filter(|exact| *exact == scheme)?;
        let kind = self.tensor(index).kind;
        let (mut words, mut scales) = (Vec::<u32>::new(), Vec::<f16>::new());
        for bytes in self.stored_rows(index, rows) {
            // Rows that cannot be read fail when their values are read.
            kind.repack(&bytes.ok()?, &mut words, &mut scales);
        }
        Some(Packed { words, scales })
    }

    fn place(&self, index: usize) -> String {
        self.gguf
            .tensor_place(&self.names[&self.required[index].name])
    }
}

/// A GGUF file that holds the tensors of a decoder.
pub(super) struct GgufModel {
    /// The decoder; neither proposer nor towers.
    pub config: ModelConfig,
    /// The content of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// The values of the required tensors.
    pub rows: GgufRows,
    /// Tensors without use.
    pub skipped: Vec<String>,
    /// What a user should know about the model.
    pub warnings: Vec<String>,
}

/// Opens the GGUF file of `conversion` as a model for plain chat.
///
/// # Errors
/// Those of [`GgufModel::open`]; a proposal network is given.
pub(super) fn open(conversion: &Conversion) -> Result<Input, Fault> {
    if let Some(file) = conversion.upn.as_ref().or(conversion.detector.as_ref()) {
        return Err(Fault::file(
            file,
            "a model for plain chat has no proposal network",
        ));
    }
    let model = GgufModel::open(conversion)?;
    let rows = &model.rows;
    let count = rows.required.len();
    let formats = (0..count).map(|index| rows.format(index, conversion));
    let formats: Vec<WeightFormat> = formats.collect();
    let required = rows.required.clone();
    Ok(Input {
        name: match &conversion.name {
            Some(name) => name.clone(),
            None => own_name(&rows.gguf, conversion)?,
        },
        precision: precision(&required, &formats),
        defaults: Defaults {
            score: 0.3,
            nms: 0.8,
            first_of_kind: None,
            max_tokens: 512,
            repetition_penalty: 1.0,
            multi_turn: false,
        },
        licence: rows.licence()?,
        provenance: Provenance {
            trained_on: "a converted GGUF file; its authors say what it was trained on".into(),
            commands: Vec::new(),
            knows: None,
        },
        read_bytes: rows.bytes(),
        tokenizer: model.tokenizer,
        warnings: model.warnings,
        config: model.config,
        required,
        formats,
        skipped: model.skipped,
        left_over: Vec::new(),
        rows: Box::new(model.rows),
    })
}

impl GgufModel {
    /// Opens the GGUF file of `conversion` and checks that it holds the tensors of a decoder.
    ///
    /// # Errors
    /// Those of [`Gguf::open`]; the architecture, a setting, the tokenizer or the chat template is not
    /// supported; sizes contradict each other; a tensor is missing, misshapen or unknown.
    pub fn open(conversion: &Conversion) -> Result<Self, Fault> {
        let path = &conversion.model;
        let template = conversion.chat_template()?;
        let gguf = Gguf::open(path)?;
        let architecture = architecture(&gguf)?;
        let llm = decoder_config(&gguf, architecture)?;
        let text = gguf_tokenizer::read(&gguf, architecture, template)?;
        if text.tokens > llm.vocab_size {
            let (tokens, rows) = (text.tokens, llm.vocab_size);
            return Err(Fault::model(
                gguf.place(),
                format!("has {tokens} tokens, the embedding {rows} rows"),
            ));
        }
        let bos = text.file.bos.clone();
        let tokenizer = Tokenizer::plain(&text.file.json, &gguf.place(), bos.as_deref())?;
        if tokenizer.vocab_size() != text.tokens {
            let (read, tokens) = (tokenizer.vocab_size(), text.tokens);
            return Err(Fault::model(
                gguf.place(),
                format!("has {tokens} tokens, of which only {read} can be read"),
            ));
        }
        let permuted_head = (architecture == "llama").then(|| llm.head_width());
        let config = ModelConfig {
            proposer: None,
            towers: None,
            llm,
            template: text.template,
            bos,
        };
        let required = required_tensors(&config)?;
        let (names, skipped) = assign(&gguf, &required)?;
        let layers = config.llm.num_hidden_layers;
        let rows = GgufRows {
            gguf,
            required,
            names,
            permuted_head,
            layers,
        };
        Ok(Self {
            config,
            tokenizer: text.file.json,
            rows,
            skipped,
            warnings: text.warnings,
        })
    }
}

/// `general.architecture`, if it is supported.
fn architecture(gguf: &Gguf) -> Result<&'static str, Fault> {
    let key = "general.architecture";
    let name = gguf.text(key)?;
    let name = name.ok_or_else(|| gguf.fault(key, "is missing"))?;
    let known = ARCHITECTURES.into_iter().find(|known| *known == name);
    known.ok_or_else(|| {
        let known = ARCHITECTURES.join(" and ");
        gguf.unsupported(
            key,
            format!("is {name:?}, which is not supported; supported are {known}"),
        )
    })
}

/// The sizes of the decoder, checked against the shapes of tensors, which lie within the file.
fn decoder_config(gguf: &Gguf, architecture: &str) -> Result<DecoderConfig, Fault> {
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str| -> Result<usize, Fault> {
        let value = gguf.integer(&key(name))?;
        let value = value.ok_or_else(|| gguf.fault(&key(name), "is missing"))?;
        if value == 0 {
            return Err(gguf.fault(&key(name), "is 0"));
        }
        Ok(value)
    };
    check_supported(gguf, architecture)?;
    let shape = |name: &str| -> Result<[usize; 2], Fault> {
        let place = gguf.tensor_place(name);
        let tensor = gguf.tensor(name);
        let tensor = tensor.ok_or_else(|| Fault::model(&place, "is missing"))?;
        match tensor.shape[..] {
            [rows, columns] => Ok([rows, columns]),
            _ => Err(Fault::model(
                place,
                format!("has shape {:?} instead of a matrix", tensor.shape),
            )),
        }
    };
    let agree = |name: &str, value: usize, tensor: &str, found: usize| {
        if value == found {
            return Ok(());
        }
        let what = format!("is {value}, but tensor {tensor} has {found}");
        Err(gguf.fault(&key(name), what))
    };
    let [vocab_size, hidden_size] = shape("token_embd.weight")?;
    agree(
        "embedding_length",
        size("embedding_length")?,
        "token_embd.weight",
        hidden_size,
    )?;
    let layers = size("block_count")?;
    let blocks = gguf.names().filter(|name| name.ends_with(".attn_q.weight"));
    agree("block_count", layers, "blk.*.attn_q.weight", blocks.count())?;
    let [intermediate_size, _] = shape("blk.0.ffn_up.weight")?;
    let length = size("feed_forward_length")?;
    agree(
        "feed_forward_length",
        length,
        "blk.0.ffn_up.weight",
        intermediate_size,
    )?;
    let heads = size("attention.head_count")?;
    let kv_heads = match gguf.has(&key("attention.head_count_kv")) {
        true => size("attention.head_count_kv")?,
        false => heads,
    };
    let [q_rows, _] = shape("blk.0.attn_q.weight")?;
    let [k_rows, _] = shape("blk.0.attn_k.weight")?;
    let width = q_rows / heads;
    let fits = heads <= MAX_HEADS
        && heads.is_multiple_of(kv_heads)
        && width > 0
        && width.is_multiple_of(2)
        && (q_rows, k_rows) == (heads * width, kv_heads * width);
    if !fits {
        return Err(gguf.fault(
            &key("attention.head_count"),
            format!(
                "is {heads} with {kv_heads} for keys, which do not fit {q_rows} rows of queries and {k_rows} of keys"
            ),
        ));
    }
    for name in [
        "attention.key_length",
        "attention.value_length",
        "rope.dimension_count",
    ] {
        match gguf.integer(&key(name))? {
            Some(found) if found != width => {
                let what =
                    format!("is {found}, which is not supported; a head has {width} channels");
                return Err(gguf.unsupported(&key(name), what));
            }
            _ => {}
        }
    }
    let positive = |name: &str, default: Option<f64>| -> Result<f64, Fault> {
        let value = gguf.float(&key(name))?.or(default);
        let value = value.ok_or_else(|| gguf.fault(&key(name), "is missing"))?;
        if value <= 0.0 {
            return Err(gguf.fault(&key(name), format!("is {value}")));
        }
        // The nearest decimal number, which f32 rounds to this value.
        Ok((value as f32).to_string().parse().unwrap_or(value))
    };
    Ok(DecoderConfig {
        hidden_size,
        intermediate_size,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        rms_norm_eps: positive("attention.layer_norm_rms_epsilon", None)?,
        rope_theta: positive("rope.freq_base", Some(10_000.0))?,
        vocab_size,
        tie_word_embeddings: gguf.tensor("output.weight").is_none(),
        qkv_bias: gguf.tensor("blk.0.attn_q.bias").is_some(),
        head_dim: (width * heads != hidden_size).then_some(width),
    })
}

/// Fails on settings under which the network would compute something else.
fn check_supported(gguf: &Gguf, architecture: &str) -> Result<(), Fault> {
    let key = |name: &str| format!("{architecture}.{name}");
    let experts = key("expert_count");
    if let Some(count) = gguf.integer(&experts)?.filter(|count| *count > 0) {
        let what = format!("is {count}; mixtures of experts are not supported");
        return Err(gguf.unsupported(&experts, what));
    }
    check_rope(gguf, architecture)
}

/// Fails on scaled RoPE and on positions of several axes.
fn check_rope(gguf: &Gguf, architecture: &str) -> Result<(), Fault> {
    let key = |name: &str| format!("{architecture}.{name}");
    let scaling = key("rope.scaling.type");
    let kind = gguf.text(&scaling)?;
    // Linear scaling is that of the factors below.
    if let Some(kind) = kind.filter(|kind| !matches!(*kind, "none" | "linear")) {
        let what = format!("is {kind:?}; scaled RoPE is not supported");
        return Err(gguf.unsupported(&scaling, what));
    }
    // A factor of 0 counts as none.
    let plain_factors: [(&str, &[f64]); 3] = [
        ("rope.scaling.factor", &[0.0, 1.0]),
        ("rope.scale_linear", &[0.0, 1.0]),
        ("rope.scaling.attn_factor", &[1.0]),
    ];
    for (name, plain) in plain_factors {
        let factor = gguf.float(&key(name))?;
        if let Some(factor) = factor.filter(|factor| !plain.contains(factor)) {
            let what = format!("is {factor}; scaled RoPE is not supported");
            return Err(gguf.unsupported(&key(name), what));
        }
    }
    let sections = key("rope.dimension_sections");
    if gguf.has(&sections) {
        let what = "divides RoPE among several positions, which is not supported";
        return Err(gguf.unsupported(&sections, what));
    }
    if let Some(factors) = gguf.tensor(ROPE_FACTORS)
        && gguf.values(factors)?.iter().any(|factor| *factor != 1.0)
    {
        let place = gguf.tensor_place(ROPE_FACTORS);
        let what = "scales the frequencies of RoPE, which is not supported";
        let fault = Fault::new(FaultKind::Model, place, what, "");
        return Err(fault.code(ErrorCode::Unsupported));
    }
    Ok(())
}

/// The file's name of every required tensor by this project's, and the names of tensors without use.
fn assign(
    gguf: &Gguf,
    required: &[RequiredTensor],
) -> Result<(BTreeMap<String, String>, Vec<String>), Fault> {
    let mut names = BTreeMap::new();
    let (mut skipped, mut unknown) = (Vec::new(), Vec::new());
    let requires = |ours: &String| required.iter().any(|tensor| tensor.name == *ours);
    for name in gguf.names() {
        match our_name(name).filter(requires) {
            Some(ours) => drop(names.insert(ours, name.to_string())),
            None if name == ROPE_FACTORS => skipped.push(name.to_string()),
            None => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        let (count, names) = (unknown.len(), name_list(unknown));
        let what = format!("holds {count} tensors that no part of the model uses: {names}");
        let fault = Fault::new(FaultKind::Model, gguf.place(), what, "");
        return Err(fault.code(ErrorCode::Unsupported));
    }
    for tensor in required {
        let Some(name) = names.get(&tensor.name) else {
            let what = format!("lacks a tensor: {}", tensor.name);
            return Err(Fault::model(gguf.place(), what));
        };
        let found = gguf.tensor(name).map(|found| &found.shape);
        if let Some(shape) = found.filter(|shape| **shape != tensor.shape) {
            return Err(Fault::model(
                gguf.tensor_place(name),
                format!("has shape {shape:?} instead of {:?}", tensor.shape),
            ));
        }
    }
    Ok((names, skipped))
}

/// The format of most weights, in words.
pub(super) fn precision(required: &[RequiredTensor], formats: &[WeightFormat]) -> String {
    let mut counts: Vec<(WeightFormat, usize)> = Vec::new();
    for (tensor, format) in required.iter().zip(formats) {
        let count = tensor.shape.iter().product::<usize>();
        match counts.iter_mut().find(|(known, _)| known == format) {
            Some((_, total)) => *total += count,
            None => counts.push((*format, count)),
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or_else(String::new, |(format, _)| match format {
        WeightFormat::Quantized(scheme) => {
            let minimums = if scheme.minimum { " with minimums" } else { "" };
            format!("q{}{minimums}, groups of {}", scheme.bits, scheme.group)
        }
        WeightFormat::Dense(dtype) => format!("{dtype:?}").to_lowercase(),
    })
}

/// `general.name`, else the name of the file.
fn own_name(gguf: &Gguf, conversion: &Conversion) -> Result<String, Fault> {
    let stated = gguf.text("general.name")?.map(str::trim);
    let file = conversion.model.file_stem().unwrap_or_default();
    Ok(match stated.filter(|name| !name.is_empty()) {
        Some(name) => name.to_string(),
        None => file.to_string_lossy().into_owned(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use burn::tensor::{Device, Tensor};
    use safetensors::SafeTensors;
    use serde::Deserialize;
    use tempfile::TempDir;

    use super::*;
    use crate::convert::convert;
    use crate::nn::{Init, WeightMap, WeightSource};
    use crate::weights::download::Downloader;
    use crate::weights::manifest::{MANIFEST, Manifest, Part};
    use crate::weights::quant::Rounding;
    use crate::weights::source::{BlockingRuntime, Folder};

    const FOLDER: &str = "tests/data/gguf";

    /// A temporary folder with the file `model.gguf` and the output `out`.
    struct Scratch(TempDir);

    impl Scratch {
        fn new(bytes: &[u8]) -> Self {
            let scratch = Self(tempfile::tempdir().expect("a temporary folder"));
            std::fs::write(scratch.path("model.gguf"), bytes).expect("a file");
            scratch
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn conversion(&self, quant: QuantPreset) -> Conversion {
            Conversion {
                model: self.path("model.gguf"),
                upn: None,
                detector: None,
                detector_side: None,
                adapter: None,
                out: self.path("out"),
                quant,
                group: 32,
                rounding: Rounding::Search,
                template: None,
                prefixes: Vec::new(),
                name: None,
            }
        }

        fn converted(&self, quant: QuantPreset) -> (Manifest, WeightMap) {
            converted(&self.conversion(quant))
        }

        fn tokenizer(&self, manifest: &Manifest) -> Tokenizer {
            let json = std::fs::read(self.path("out/tokenizer.json")).expect("a tokenizer");
            let config = ModelConfig::of(manifest, MANIFEST).expect("a known family");
            Tokenizer::plain(&json, "tokenizer.json", config.bos.as_deref()).expect("a tokenizer")
        }
    }

    fn recorded(name: &str) -> Vec<u8> {
        std::fs::read(format!("{FOLDER}/{name}")).expect("a recorded file")
    }

    fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().expect("f32")
    }

    /// Converts a model; returns its manifest and its weights.
    pub fn converted(conversion: &Conversion) -> (Manifest, WeightMap) {
        convert(conversion, &()).unwrap_or_else(|fault| panic!("{fault}"));
        let json = std::fs::read(conversion.out.join(MANIFEST)).expect("a manifest");
        let manifest = Manifest::parse(&json, MANIFEST).expect("a whole manifest");
        let mut weights = WeightMap::new(&Device::flex(), |_| true);
        let source = Folder(conversion.out.clone());
        let downloader = Downloader::new(&manifest, &source, None, &BlockingRuntime, &|_| ());
        pollster::block_on(downloader.tensors(&Part::ALL, &mut weights)).expect("shards");
        (manifest, weights)
    }

    /// The stored values of tensor `name`.
    pub fn loaded(weights: &WeightMap, name: &str, shape: &[usize]) -> Vec<f32> {
        let device = Device::flex();
        match (name.strip_suffix(".weight"), shape) {
            (Some(stem), &[rows, columns]) => {
                let weight = weights.weight(stem, [rows, columns], &Init::Zeros, &device);
                let ids: Vec<u32> = (0..rows as u32).collect();
                read(weight.expect(name).gather(&ids, &device))
            }
            _ => read(
                weights
                    .tensor(name, shape, &Init::Zeros, &device)
                    .expect(name),
            ),
        }
    }

    fn relative(values: &[f32], expected: &[f32]) -> f32 {
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
        let difference = squares(&mut values.iter().zip(expected).map(|(a, b)| a - b));
        (difference / squares(&mut expected.iter().copied())).sqrt()
    }

    #[test]
    fn weights_are_those_of_the_reference_in_the_order_of_the_networks() {
        for name in ["llama", "qwen2"] {
            let file = recorded(&format!("{name}.gguf"));
            let expected = recorded(&format!("{name}.safetensors"));
            let expected = SafeTensors::deserialize(&expected).expect("recorded values");
            for quant in [QuantPreset::F32, QuantPreset::Q8, QuantPreset::Q4] {
                let scratch = Scratch::new(&file);
                let (manifest, weights) = scratch.converted(quant);
                assert_eq!(manifest.family, "decoder");
                assert_eq!(manifest.name, format!("synthetic {name}"));
                assert_eq!(manifest.licence.name, "cc0-1.0");
                for (tensor, view) in expected.iter() {
                    let bytes = view.data().as_chunks::<4>().0.iter();
                    let expected: Vec<f32> = bytes.map(|b| f32::from_le_bytes(*b)).collect();
                    let found = loaded(&weights, tensor, view.shape());
                    // Q4_0, Q4_1, Q8_0 and vectors are exact in every case.
                    let requantized = ["v_proj.weight", "gate_proj", "up_proj"];
                    let exact = !requantized.iter().any(|part| tensor.contains(part));
                    if exact || quant == QuantPreset::F32 {
                        assert_eq!(found, expected, "{name} {quant:?} {tensor}");
                    } else {
                        let error = relative(&found, &expected);
                        assert!(error > 0.0 && error < 0.01, "{name} {tensor}: {error}");
                    }
                }
                let scales = manifest
                    .tensors
                    .get("model.layers.0.self_attn.q_proj.scales");
                let shape = scales.map(|scales| scales.shape.clone());
                let quantized = (quant != QuantPreset::F32).then(|| vec![32, 1, 2]);
                assert_eq!(shape, quantized, "{name} {quant:?}");
                let config = ModelConfig::of(&manifest, MANIFEST).expect("a known family");
                let llm = &config.llm;
                assert_eq!(llm.qkv_bias, name == "qwen2");
                assert_eq!(llm.tie_word_embeddings, name == "qwen2");
                assert_eq!((llm.rms_norm_eps, llm.head_width()), (1e-5, 16));
                assert_eq!(llm.rope_theta, if name == "qwen2" { 1e6 } else { 1e4 });
            }
        }
    }

    #[test]
    fn a_byte_pair_vocabulary_gives_its_ids() {
        let scratch = Scratch::new(&recorded("qwen2.gguf"));
        let (manifest, _) = scratch.converted(QuantPreset::Q4);
        let tokenizer = scratch.tokenizer(&manifest);
        let config = ModelConfig::of(&manifest, MANIFEST).expect("a known family");
        assert_eq!(config.bos, None);
        assert_eq!(config.template.stop, ["<|im_end|>", "<|endoftext|>"]);
        let first = config.template.first("Hi");
        assert!(first.starts_with("<|im_start|>system\nYou are a synthetic model<|im_end|>\n"));
        let id = |token: &str| i64::from(tokenizer.id(token).expect("a token"));
        let ids = tokenizer.encode("hello wo12<|im_end|>");
        let tokens = ["hello", "\u{120}wo", "1", "2", "<|im_end|>"];
        assert_eq!(ids, tokens.map(id));
        assert_eq!(tokenizer.encode("e\u{301}"), tokenizer.encode("\u{e9}"));
        let text = "Gr\u{f6}\u{df}e \u{732b} hello\n\tx";
        let ids: Vec<u32> = tokenizer.encode(text).iter().map(|id| *id as u32).collect();
        assert_eq!(tokenizer.decode(&ids), text);
    }

    #[test]
    fn a_sentencepiece_vocabulary_gives_the_recorded_ids() {
        #[derive(Deserialize)]
        struct Case {
            text: String,
            ids: Vec<i64>,
        }
        #[derive(Deserialize)]
        struct Cases {
            legacy: Vec<Case>,
        }
        let scratch = Scratch::new(&recorded("llama.gguf"));
        let (manifest, _) = scratch.converted(QuantPreset::Q4);
        let tokenizer = scratch.tokenizer(&manifest);
        let config = ModelConfig::of(&manifest, MANIFEST).expect("a known family");
        assert_eq!(config.bos.as_deref(), Some("<s>"));
        assert_eq!(config.template.stop, ["</s>"]);
        let json = std::fs::read("tests/data/golden/tokenizer_llama/cases.json");
        let cases: Cases = serde_json::from_slice(&json.expect("a file")).expect("cases");
        let mut compared = 0;
        // The recorded vocabulary also has the tags.
        let known = |case: &&Case| case.ids.iter().all(|id| *id < 420);
        for case in cases.legacy.iter().filter(known) {
            assert_eq!(
                tokenizer.encode_continuation(&case.text),
                case.ids,
                "{:?}",
                case.text
            );
            compared += 1;
        }
        assert!(compared > 5, "{compared}");
    }

    /// `bytes` with the first `from` behind `key` replaced by `to` of the same length.
    fn patched(bytes: &[u8], key: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let find = |bytes: &[u8], what: &[u8]| {
            let at = bytes.windows(what.len()).position(|window| window == what);
            at.expect("it is in the file")
        };
        let start = find(bytes, key.as_bytes());
        let at = start + find(&bytes[start..], from);
        let mut copy = bytes.to_vec();
        copy[at..at + to.len()].copy_from_slice(to);
        copy
    }

    #[test]
    fn files_without_a_usable_model_are_refused_by_name() {
        let [qwen2, llama] = ["qwen2.gguf", "llama.gguf"].map(recorded);
        let id = |name: &str| format!("tokenizer.ggml.{name}_token_id");
        for (file, key, from, to, says) in [
            (
                &qwen2,
                "tokenizer.ggml.merges",
                "merges",
                "MERGES",
                "key tokenizer.ggml.merges: is missing",
            ),
            (
                &qwen2,
                "tokenizer.ggml.merges",
                "hell o",
                "hell u",
                "does not make a token of two",
            ),
            (
                &qwen2,
                "tokenizer.ggml.tokens",
                "tokens",
                "TOKENS",
                "key tokenizer.ggml.tokens: is missing",
            ),
            (
                &qwen2,
                "tokenizer.ggml.pre",
                "qwen2",
                "dbrx1",
                "is \"dbrx1\", which is not supported",
            ),
            (
                &qwen2,
                "tokenizer.ggml.model",
                "gpt2",
                "bert",
                "is \"bert\", which is not supported",
            ),
            (
                &qwen2,
                "tokenizer.ggml.model",
                "model",
                "MODEL",
                "key tokenizer.ggml.model: is missing",
            ),
            (
                &qwen2,
                "general.architecture",
                "qwen2",
                "gemma",
                "is \"gemma\", which is not supported",
            ),
            (
                &qwen2,
                "general.architecture",
                "architecture",
                "ARCHITECTURE",
                "architecture: is missing",
            ),
            (
                &qwen2,
                "qwen2.block_count",
                "\u{2}\0\0\0",
                "\u{3}\0\0\0",
                "is 3, but tensor blk.*.attn_q.weight has 2",
            ),
            (
                &qwen2,
                "qwen2.embedding_length",
                " \0\0\0",
                "!\0\0\0",
                "is 33, but tensor token_embd.weight has 32",
            ),
            (
                &qwen2,
                "qwen2.attention.head_count",
                "\u{2}\0\0\0",
                "\u{3}\0\0\0",
                "which do not fit 32 rows",
            ),
            (
                &qwen2,
                "qwen2.attention.layer_norm_rms_epsilon",
                "epsilon",
                "EPSILON",
                "epsilon: is missing",
            ),
            (
                &qwen2,
                "blk.1.ffn_up.weight",
                "ffn_up",
                "ffn_uq",
                "holds 1 tensors that no part of the model uses: blk.1.ffn_uq",
            ),
            (
                &qwen2,
                "blk.1.attn_q.bias",
                "\u{1}\0\0\0 ",
                "\u{1}\0\0\0@",
                "tensor blk.1.attn_q.bias: ",
            ),
            (
                &qwen2,
                &*id("eos"),
                "\u{4}\0\0\0",
                "\u{6}\0\0\0",
                "instead of an integer",
            ),
            (
                &llama,
                "tokenizer.ggml.scores",
                "scores",
                "SCORES",
                "key tokenizer.ggml.scores: is missing",
            ),
            (
                &llama,
                "tokenizer.ggml.tokens",
                "<0x41>",
                "<0x4Z>",
                "has no piece for byte <0x41>",
            ),
            (
                &llama,
                "tokenizer.ggml.tokens",
                "<0x41>",
                "<0x42>",
                "are both \"<0x42>\"",
            ),
            (
                &llama,
                "tokenizer.chat_template",
                "<|user|>",
                "<|USER|>",
                "is none of the chat templates",
            ),
        ] {
            let bytes = patched(file, key, from.as_bytes(), to.as_bytes());
            let scratch = Scratch::new(&bytes);
            let fault = convert(&scratch.conversion(QuantPreset::Q4), &());
            let fault = fault.err().unwrap_or_else(|| panic!("{says}: converted"));
            assert!(fault.to_string().contains(says), "{says}: {fault}");
            assert!(!scratch.path("out").exists(), "{says}");
        }
    }

    /// `bytes` with `value` under `key`.
    fn with_float(bytes: &[u8], key: &str, value: f32) -> Vec<u8> {
        let entry = |key: &str, value: f32| {
            let mut entry = (key.len() as u64).to_le_bytes().to_vec();
            entry.extend(key.as_bytes());
            entry.extend(6_u32.to_le_bytes());
            entry.extend(value.to_le_bytes());
            entry
        };
        let mut added = entry(key, value);
        // With another entry the tensors stay aligned to 32 bytes.
        let length = 32 - (added.len() + entry("", 0.0).len()) % 32;
        added.extend(entry(&"x".repeat(length), 0.0));
        let count = *bytes[16..].first_chunk::<8>().expect("a header");
        let count = u64::from_le_bytes(count) + 2;
        let mut copy = bytes[..16].to_vec();
        copy.extend(count.to_le_bytes());
        copy.extend(added);
        copy.extend(&bytes[24..]);
        copy
    }

    #[test]
    fn scaled_rope_is_refused() {
        let file = recorded("qwen2.gguf");
        for (name, value, is_plain) in [
            ("rope.scaling.factor", 4.0, false),
            ("rope.scaling.factor", 1.0, true),
            ("rope.scaling.factor", 0.0, true),
            ("rope.scale_linear", 0.5, false),
            ("rope.scale_linear", 1.0, true),
            ("rope.scaling.attn_factor", 1.25, false),
            ("rope.scaling.attn_factor", 1.0, true),
            ("rope.dimension_sections", 1.0, false),
        ] {
            let key = format!("qwen2.{name}");
            let scratch = Scratch::new(&with_float(&file, &key, value));
            let opened = GgufModel::open(&scratch.conversion(QuantPreset::Q4));
            match opened.err().map(|fault| fault.to_string()) {
                None => assert!(is_plain, "{name} {value}: accepted"),
                Some(fault) => {
                    assert!(!is_plain, "{fault}");
                    assert!(fault.contains(&format!("key {key}: ")), "{fault}");
                    assert!(fault.contains("not supported"), "{fault}");
                }
            }
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_refused_by_name() {
        let mut file = recorded("qwen2.gguf");
        let gguf = Gguf::open(&PathBuf::from(format!("{FOLDER}/qwen2.gguf"))).expect("a file");
        let tensor = gguf.tensor("blk.1.attn_q.weight").expect("a tensor");
        let row = gguf.row(tensor, 0).expect("a row");
        let at = file.windows(row.len()).position(|window| *window == *row);
        // The scale of the first block: infinity.
        let at = at.expect("the row is in the file");
        file[at..at + 2].copy_from_slice(&[0, 0x7c]);
        let scratch = Scratch::new(&file);
        let fault = convert(&scratch.conversion(QuantPreset::Q4), &());
        let fault = fault.expect_err("not finite").to_string();
        assert!(
            fault.contains("tensor blk.1.attn_q.weight: holds"),
            "{fault}"
        );
        assert!(!scratch.path("out").join(MANIFEST).exists());
    }

    #[test]
    fn a_file_without_a_template_continues_text() {
        let bytes = recorded("qwen2.gguf");
        let bytes = patched(&bytes, "tokenizer.chat_template", b"template", b"TEMPLATE");
        let scratch = Scratch::new(&bytes);
        let converted = convert(&scratch.conversion(QuantPreset::Q4), &()).expect("a model");
        assert!(converted.warnings[0].contains("has no chat template"));
        let report = |name: &str| {
            let mut tensors = converted.tensors.iter();
            let tensor = tensors.find(|tensor| tensor.name.ends_with(name));
            let tensor = tensor.expect("a tensor");
            (tensor.form.clone(), tensor.worst == 0.0)
        };
        assert_eq!(
            report("layers.0.self_attn.q_proj.weight"),
            ("q4m".into(), true)
        );
        assert_eq!(
            report("layers.0.self_attn.k_proj.weight"),
            ("q4".into(), true)
        );
        assert_eq!(report("embed_tokens.weight"), ("q8".into(), true));
        assert_eq!(
            report("layers.0.self_attn.v_proj.weight"),
            ("q8".into(), false)
        );
    }
}

//! Recognizes a checkpoint: normalizes tensor names, derives the configuration from shapes and
//! `config.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::convert::checkpoint::{Checkpoint, name_list};
use crate::convert::disk::{self, read_json};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::image::prepare::SquareRecipe;
use crate::model::chatrex::ClipConvNextConfig;
use crate::model::class_projector::ClassProjectorConfig;
use crate::model::clip_vit::ClipVitConfig;
use crate::model::config::{ModelConfig, TowersConfig};
use crate::model::convnext::ConvNextConfig;
use crate::model::decoder::DecoderConfig;
use crate::model::nanodet::NanoDetConfig;
use crate::model::swin::SwinConfig;
use crate::model::upn::UpnConfig;
use crate::text::prompt::ChatTemplate;

/// Prefixes of names in other checkpoints of the same networks, and this project's: a wrapped model, CLIP
/// alone, OpenCLIP's ConvNeXt trunk.
const PREFIXES: [(&str, &str); 7] = [
    ("model.vision_tower.", "vision_tower."),
    ("model.vision_tower_aux.", "vision_tower_aux."),
    ("model.mm_projector.", "mm_projector."),
    ("model.mm_object_projector.", "mm_object_projector."),
    ("vision_model.", "vision_tower.vision_tower.vision_model."),
    ("visual.trunk.stem.", "vision_tower_aux.vision_stem."),
    ("visual.trunk.stages.", "vision_tower_aux.vision_stages."),
];

/// Prefix of the CLIP tower's tensors.
const CLIP: &str = "vision_tower.vision_tower.vision_model.";

/// A tensor of every decoder.
const DECODER: &str = "model.layers.0.self_attn.q_proj.weight";

/// Tensors of UPN in every size.
pub const UPN: [&str; 4] = [
    "backbone.model.backbone.patch_embed.proj.weight",
    "transformer.enc_output.weight",
    "transformer.level_embed",
    "transformer.tgt_embed.weight",
];

/// Tensors of NanoDet in every size.
pub const NANODET: [&str; 3] = [
    "backbone.stages.0.conv.weight",
    "fpn.lateral_convs.0.conv.weight",
    "head.gfl_cls.0.weight",
];

/// Normalized names, and the name of each in its file.
pub type Names = BTreeMap<String, String>;

/// Normalizes the checkpoint's names. `prefixes`, pairs of (theirs, ours), are replaced first.
///
/// # Errors
/// Two tensors get the same name.
pub fn names(checkpoint: &Checkpoint, prefixes: &[(String, String)]) -> Result<Names, Fault> {
    let prefixes = without_own(checkpoint, prefixes, &[DECODER]);
    let theirs = checkpoint.names();
    let pairs = theirs.map(|theirs| (rename(theirs, &prefixes), theirs.to_string()));
    unique(checkpoint, pairs)
}

/// The names of a proposal network in the checkpoint `file`. `prefixes`, pairs of (theirs, ours), are
/// replaced first; then the prefix of the tensors `known`, if they have one, is removed from all names.
///
/// # Errors
/// The tensors `known` have several prefixes; two tensors get the same name.
pub fn proposer_names(
    checkpoint: &Checkpoint,
    file: &Path,
    prefixes: &[(String, String)],
    known: &[&str],
) -> Result<Names, Fault> {
    let prefixes = without_own(checkpoint, prefixes, known);
    let theirs = checkpoint.names();
    let pairs = theirs.map(|theirs| (with_given_prefixes(theirs, &prefixes), theirs.to_string()));
    let names = unique(checkpoint, pairs)?;
    let Some(prefix) = common_prefix(&names, file, known)? else {
        return Ok(names);
    };
    let pairs = names.iter().map(|(name, theirs)| {
        let ours = name.strip_prefix(prefix).unwrap_or(name);
        (ours.to_string(), theirs.clone())
    });
    unique(checkpoint, pairs)
}

/// The prefix of the tensors `known`; `None` if one of them has none, or none of them exists.
fn common_prefix<'a>(
    names: &'a Names,
    file: &Path,
    known: &[&str],
) -> Result<Option<&'a str>, Fault> {
    let mut prefixes = BTreeSet::new();
    for name in names.keys() {
        prefixes.extend(known.iter().filter_map(|known| name.strip_suffix(*known)));
    }
    let first = prefixes.first().copied().unwrap_or_default();
    if prefixes.len() > 1 && !first.is_empty() {
        let list = name_list(prefixes);
        return Err(Fault::new(
            FaultKind::Model,
            file.display().to_string(),
            format!("has tensor names with several prefixes ({list})"),
            format!("Remove one of them with --prefix, e.g. --prefix {first}="),
        ));
    }
    Ok(Some(first).filter(|first| !first.is_empty()))
}

/// `prefixes` without those with which names in `known` begin that the checkpoint has: such a prefix is
/// meant for another file.
fn without_own<'a>(
    checkpoint: &Checkpoint,
    prefixes: &'a [(String, String)],
    known: &[&str],
) -> Vec<(&'a str, &'a str)> {
    let is_own = |prefix: &str| {
        let mut known = known.iter();
        known.any(|name| name.starts_with(prefix) && checkpoint.get(name).is_some())
    };
    let prefixes = prefixes.iter().map(|(a, b)| (a.as_str(), b.as_str()));
    prefixes.filter(|(theirs, _)| !is_own(theirs)).collect()
}

/// Pairs of normalized names and names in the file, as [`Names`].
fn unique(
    checkpoint: &Checkpoint,
    pairs: impl Iterator<Item = (String, String)>,
) -> Result<Names, Fault> {
    let mut names = Names::new();
    for (ours, theirs) in pairs {
        if let Some(other) = names.insert(ours.clone(), theirs.clone()) {
            return Err(Fault::model(
                checkpoint.place(&theirs),
                format!("and {other} are both read as {ours}"),
            ));
        }
    }
    Ok(names)
}

fn with_given_prefixes<'a>(name: &str, prefixes: &[(&'a str, &'a str)]) -> String {
    with_prefix_replaced(name, prefixes.iter().copied()).unwrap_or_else(|| name.to_string())
}

fn rename<'a>(name: &str, prefixes: &[(&'a str, &'a str)]) -> String {
    let name = with_given_prefixes(name, prefixes);
    let name = with_prefix_replaced(&name, PREFIXES.into_iter()).unwrap_or(name);
    match name.strip_suffix(".gamma") {
        Some(stem) if name.starts_with("vision_tower_aux.") => format!("{stem}.ramma"),
        _ => name,
    }
}

/// `name` with the first of `prefixes` that it has replaced; `None` if it has none.
fn with_prefix_replaced<'a>(
    name: &str,
    mut prefixes: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<String> {
    prefixes.find_map(|(theirs, ours)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)))
}

/// Shapes by normalized names.
pub struct Shapes<'a> {
    checkpoint: &'a Checkpoint,
    names: &'a Names,
    place: String,
}

impl<'a> Shapes<'a> {
    /// The tensors of `checkpoint` at `place`.
    pub fn new(checkpoint: &'a Checkpoint, names: &'a Names, place: &Path) -> Self {
        Self {
            checkpoint,
            names,
            place: place.display().to_string(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The prefix of a tensor whose name ends in `name`, if it has one.
    fn prefix_of(&self, name: &str) -> Option<&str> {
        self.names
            .values()
            .find_map(|theirs| theirs.strip_suffix(name))
            .filter(|prefix| !prefix.is_empty())
    }

    fn get<const D: usize>(&self, name: &str) -> Result<[usize; D], Fault> {
        let view = self
            .names
            .get(name)
            .and_then(|theirs| self.checkpoint.get(theirs))
            .ok_or_else(|| self.fault(name, "is missing".into()))?;
        view.shape.as_slice().try_into().map_err(|_| {
            let shape = &view.shape;
            self.fault(name, format!("has shape {shape:?} instead of {D} axes"))
        })
    }

    /// The shape of a tensor, or `default` if it is missing. All missing tensors are reported together,
    /// later.
    fn get_or<const D: usize>(&self, name: &str, default: [usize; D]) -> Result<[usize; D], Fault> {
        if self.has(name) {
            self.get(name)
        } else {
            Ok(default)
        }
    }

    /// The number of tensors `prefix0suffix`, `prefix1suffix`, ...
    fn count(&self, prefix: &str, suffix: &str) -> usize {
        (0..)
            .take_while(|i| self.has(&format!("{prefix}{i}{suffix}")))
            .count()
    }

    fn fault(&self, tensor: &str, what: String) -> Fault {
        Fault::model(format!("{}, tensor {tensor}", self.place), what)
    }
}

/// The relevant fields of a hub folder's `config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HubConfig {
    architectures: Vec<String>,
    model_type: String,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Value>,
    rope_scaling: Option<Value>,
    partial_rotary_factor: Option<f64>,
    vocab_size: Option<usize>,
    tie_word_embeddings: Option<bool>,
    mm_vision_select_layer: Option<i64>,
    use_sliding_window: Option<bool>,
    hidden_act: Option<String>,
    license: Option<String>,
    license_text: Option<String>,
    trained_on: Option<String>,
    made_by: Vec<String>,
    score: Option<f32>,
    first_of_kind: Option<f32>,
    nms: Option<f64>,
    knows: Option<String>,
    objects: Option<ClassProjectorConfig>,
}

/// Sizes that do not follow from shapes: the file `*vision_sizes.json` of the folder.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VisionSizes {
    clip: ClipSizes,
    image_low: Option<usize>,
    image_aux: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClipSizes {
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    layer_norm_eps: Option<f64>,
}

/// The model in a hub folder.
pub struct Described {
    /// Its configuration, without the proposal network.
    pub config: ModelConfig,
    /// Name and text of the licence in `config.json`, if there is one.
    pub licence: Option<(String, String)>,
    /// Training data by `config.json`.
    pub trained_on: Option<String>,
    /// The commands that produced the weights.
    pub made_by: Vec<String>,
    /// Default score threshold.
    pub score: Option<f32>,
    /// Default score threshold of the best box of a kind.
    pub first_of_kind: Option<f32>,
    /// Default NMS threshold.
    pub nms: Option<f64>,
    /// What the model knows, by `config.json`.
    pub knows: Option<String>,
    /// Whether the decoder is LLaMA rather than Qwen2.
    pub llama: bool,
}

/// Recognizes the model in the hub folder `folder`.
///
/// # Errors
/// The architecture is unknown, sizes contradict each other, or a tensor is missing.
pub fn describe(
    folder: &Path,
    shapes: &Shapes,
    template: Option<ChatTemplate>,
) -> Result<Described, Fault> {
    let path = folder.join("config.json");
    let place = path.display().to_string();
    let hub: HubConfig = read_json(&path)?.ok_or_else(|| Fault::model(&place, "is missing"))?;
    let architecture = format!("{} {}", hub.architectures.join(" "), hub.model_type).to_lowercase();
    let known = ["rex", "qwen2", "llama", "vicuna"];
    if let Some(prefix) = shapes.prefix_of(DECODER).filter(|_| !shapes.has(DECODER)) {
        return Err(Fault::new(
            FaultKind::Model,
            &shapes.place,
            format!("has tensor names like {prefix}{DECODER}"),
            format!("Remove the prefix with --prefix {prefix}="),
        ));
    }
    if !shapes.has(DECODER)
        || !(architecture.trim().is_empty() || known.iter().any(|k| architecture.contains(k)))
    {
        return Err(Fault::model(
            place,
            format!(
                "has an unknown architecture ({:?}); supported are ChatRex and RexSeek on Qwen2 or \
                 LLaMA",
                hub.architectures
            ),
        ));
    }
    let llm = decoder(&hub, shapes, &place)?;
    let llama = !llm.qkv_bias;
    let towers = match &hub.objects {
        Some(objects) => TowersConfig::Classes(*objects),
        None => clip_convnext(folder, &hub, shapes, architecture.contains("rexseek"))?,
    };
    let template = template.unwrap_or_else(|| {
        if llama {
            ChatTemplate::vicuna()
        } else {
            ChatTemplate::qwen()
        }
    });
    Ok(Described {
        config: ModelConfig {
            proposer: None,
            towers: Some(towers),
            llm,
            template,
            bos: None,
        },
        licence: hub
            .license
            .map(|name| (name, hub.license_text.unwrap_or_default())),
        trained_on: hub.trained_on,
        made_by: hub.made_by,
        score: hub.score,
        first_of_kind: hub.first_of_kind,
        nms: hub.nms,
        knows: hub.knows,
        llama,
    })
}

/// Both vision towers; `half_boxes` is whether boxes are rounded to f16.
fn clip_convnext(
    folder: &Path,
    hub: &HubConfig,
    shapes: &Shapes,
    half_boxes: bool,
) -> Result<TowersConfig, Fault> {
    let sizes = vision_sizes(folder)?;
    let clip = clip(hub, &sizes.clip, shapes)?;
    let convnext = convnext(shapes)?;
    let stride: usize = convnext.patch_size << (convnext.dims.len() - 1);
    let sizes = ClipConvNextConfig {
        image_low: sizes.image_low.unwrap_or(clip.image_size),
        image_aux: sizes.image_aux.unwrap_or(clip.grid() * stride),
        clip,
        convnext,
    };
    let recipe = SquareRecipe {
        half_boxes,
        ..sizes.recipe()
    };
    Ok(TowersConfig::ClipConvNext { sizes, recipe })
}

fn decoder(hub: &HubConfig, shapes: &Shapes, place: &str) -> Result<DecoderConfig, Fault> {
    let [vocab_size, hidden_size] = shapes.get("model.embed_tokens.weight")?;
    let at = "model.layers.0.";
    let [query_width, _] = shapes.get::<2>(&format!("{at}self_attn.q_proj.weight"))?;
    let [key_width, _] = shapes.get::<2>(&format!("{at}self_attn.k_proj.weight"))?;
    let [intermediate_size, _] = shapes.get::<2>(&format!("{at}mlp.gate_proj.weight"))?;
    let num_hidden_layers = shapes.count("model.layers.", ".input_layernorm.weight");
    let fault = |what: String| Fault::model(place, what);
    for (field, expected, actual) in [
        ("vocab_size", hub.vocab_size, vocab_size),
        ("hidden_size", hub.hidden_size, hidden_size),
        (
            "intermediate_size",
            hub.intermediate_size,
            intermediate_size,
        ),
        (
            "num_hidden_layers",
            hub.num_hidden_layers,
            num_hidden_layers,
        ),
    ] {
        if let Some(expected) = expected.filter(|&expected| expected != actual) {
            return Err(fault(format!(
                "has {field} {expected}, the tensors have {actual}"
            )));
        }
    }
    let rope_theta = rope_theta(hub, place)?;
    if hub.use_sliding_window == Some(true) {
        return Err(fault("has a sliding window, which is not supported".into()));
    }
    if let Some(act) = hub.hidden_act.as_deref().filter(|act| *act != "silu") {
        return Err(fault(format!("has hidden_act {act}; supported is silu")));
    }
    let heads = hub.num_attention_heads.filter(|&heads| heads > 0);
    let width = hub
        .head_dim
        .filter(|&width| width > 0)
        .or_else(|| Some(query_width / heads?))
        .ok_or_else(|| fault("lacks num_attention_heads".into()))?;
    let num_attention_heads = heads.unwrap_or(query_width / width.max(1));
    let num_key_value_heads = hub.num_key_value_heads.unwrap_or(key_width / width.max(1));
    if width == 0
        || !width.is_multiple_of(2)
        || num_attention_heads * width != query_width
        || num_key_value_heads * width != key_width
        || num_key_value_heads == 0
        || !num_attention_heads.is_multiple_of(num_key_value_heads)
    {
        return Err(fault(format!(
            "has {num_attention_heads} and {num_key_value_heads} heads of {width}, the tensors \
             have {query_width} and {key_width} rows"
        )));
    }
    let qkv_bias = shapes.has(&format!("{at}self_attn.q_proj.bias"));
    let tied = hub.tie_word_embeddings.unwrap_or(false) || !shapes.has("lm_head.weight");
    let default_theta = if qkv_bias { 1e6 } else { 1e4 };
    let default_eps = if qkv_bias { 1e-6 } else { 1e-5 };
    Ok(DecoderConfig {
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        rms_norm_eps: hub.rms_norm_eps.unwrap_or(default_eps),
        rope_theta: rope_theta.unwrap_or(default_theta),
        vocab_size,
        tie_word_embeddings: tied,
        qkv_bias,
        head_dim: (width * num_attention_heads != hidden_size).then_some(width),
    })
}

/// The base of RoPE's frequencies by `config.json`, in `rope_theta` or, of current versions of
/// `transformers`, in `rope_parameters`; `None` if it is not stated.
///
/// # Errors
/// RoPE is scaled or partial; two stated values differ; a value is missing or not positive.
fn rope_theta(hub: &HubConfig, place: &str) -> Result<Option<f64>, Fault> {
    let mut stated: Vec<(String, f64)> = Vec::new();
    stated.extend(hub.rope_theta.map(|theta| ("rope_theta".into(), theta)));
    for (field, value) in [
        ("rope_parameters", &hub.rope_parameters),
        ("rope_scaling", &hub.rope_scaling),
    ] {
        let Some(value) = value else { continue };
        let Some(entries) = value.as_object().filter(|entries| is_plain_rope(entries)) else {
            return Err(unsupported_rope(place, field, &brief(value)));
        };
        let theta = entries.get("rope_theta").and_then(Value::as_f64);
        stated.extend(theta.map(|theta| (format!("{field}.rope_theta"), theta)));
    }
    if let Some(part) = hub.partial_rotary_factor.filter(|part| *part != 1.0) {
        let (field, part) = ("partial_rotary_factor", part.to_string());
        return Err(unsupported_rope(place, field, &part));
    }
    let Some((field, theta)) = stated.first() else {
        let entries = hub.rope_parameters.as_ref().and_then(Value::as_object);
        return match entries.is_none_or(Map::is_empty) {
            true => Ok(None),
            false => {
                let what = "has rope_parameters without rope_theta";
                Err(Fault::model(place, what))
            }
        };
    };
    if let Some((other, value)) = stated.iter().find(|(_, value)| value != theta) {
        let what = format!("has {field} {theta}, but {other} {value}");
        return Err(Fault::model(place, what));
    }
    if *theta <= 0.0 {
        let what = format!("has {field} {theta}, which is not positive");
        return Err(Fault::model(place, what));
    }
    Ok(Some(*theta))
}

/// Whether `rope_parameters` or `rope_scaling` describe RoPE of all channels without scaling.
fn is_plain_rope(entries: &Map<String, Value>) -> bool {
    let is_one = |name: &str| entries.get(name).and_then(Value::as_f64) == Some(1.0);
    let mut stated = entries.iter().filter(|(_, value)| !value.is_null());
    stated.all(|(name, value)| match name.as_str() {
        "rope_theta" | "original_max_position_embeddings" => value.is_number(),
        "rope_type" | "type" => match value.as_str() {
            Some("default") => true,
            Some("linear") => is_one("factor"),
            _ => false,
        },
        "factor" | "attention_factor" | "partial_rotary_factor" => is_one(name),
        _ => false,
    })
}

fn unsupported_rope(place: &str, field: &str, value: &str) -> Fault {
    let what = format!("has {field} {value}, which is not supported");
    Fault::new(FaultKind::Model, place, what, "").code(ErrorCode::Unsupported)
}

/// JSON for a message; of a long object without its lists and objects.
fn brief(value: &Value) -> String {
    const MAX: usize = 200;
    let text = match value {
        Value::Object(entries) if value.to_string().len() > MAX => {
            let mut short = entries.clone();
            short.retain(|_, value| !value.is_array() && !value.is_object());
            Value::Object(short).to_string()
        }
        _ => value.to_string(),
    };
    text.chars().take(MAX).collect()
}

fn vision_sizes(folder: &Path) -> Result<VisionSizes, Fault> {
    let mut files = disk::list(folder)?;
    files.retain(|path| path.to_string_lossy().ends_with("vision_sizes.json"));
    files.sort();
    match files.first() {
        Some(path) => Ok(read_json(path)?.unwrap_or_default()),
        None => Ok(VisionSizes::default()),
    }
}

fn clip(hub: &HubConfig, sizes: &ClipSizes, shapes: &Shapes) -> Result<ClipVitConfig, Fault> {
    let name = format!("{CLIP}embeddings.patch_embedding.weight");
    let [hidden_size, num_channels, patch_size, _] = shapes.get(&name)?;
    let [positions, _] = shapes.get::<2>(&format!("{CLIP}embeddings.position_embedding.weight"))?;
    let grid = (positions.max(1) - 1).isqrt();
    let fc1 = format!("{CLIP}encoder.layers.0.mlp.fc1.weight");
    let [intermediate_size, _] = shapes.get::<2>(&fc1)?;
    let stored = shapes.count(&format!("{CLIP}encoder.layers."), ".layer_norm1.weight");
    // A tower without its unused last blocks has the shapes of a smaller one, but another feature layer.
    let is_whole = shapes.has(&format!("{CLIP}post_layernorm.weight"));
    let layers = match sizes.num_hidden_layers.or(is_whole.then_some(stored)) {
        Some(layers) if layers >= stored => layers,
        layers => {
            return Err(shapes.fault(
                &format!("{CLIP}encoder.layers"),
                format!(
                    "has {stored} layers of {layers:?}: without post_layernorm a vision_sizes.json beside \
                     config.json must have clip.num_hidden_layers"
                ),
            ));
        }
    };
    let select_layer = hub.mm_vision_select_layer.unwrap_or(-2);
    if grid * grid + 1 != positions || !(-(layers as i64)..0).contains(&select_layer) {
        return Err(shapes.fault(
            &name,
            format!("belongs to a tower of {positions} positions, {layers} layers, select_layer {select_layer}"),
        ));
    }
    Ok(ClipVitConfig {
        hidden_size,
        intermediate_size,
        num_hidden_layers: layers,
        num_attention_heads: sizes
            .num_attention_heads
            .unwrap_or(hidden_size.div_ceil(64)),
        image_size: grid * patch_size,
        patch_size,
        num_channels,
        layer_norm_eps: sizes.layer_norm_eps.unwrap_or(1e-5),
        select_layer,
    })
}

fn convnext(shapes: &Shapes) -> Result<ConvNextConfig, Fault> {
    let at = "vision_tower_aux.";
    let [_, _, patch_size, _] = shapes.get::<4>(&format!("{at}vision_stem.0.weight"))?;
    let (mut depths, mut dims, mut kernel) = (Vec::new(), Vec::new(), 7);
    for stage in 0.. {
        let blocks = format!("{at}vision_stages.{stage}.blocks.");
        let depth = shapes.count(&blocks, ".conv_dw.weight");
        if depth == 0 {
            break;
        }
        let [channels, _, side, _] = shapes.get::<4>(&format!("{blocks}0.conv_dw.weight"))?;
        depths.push(depth);
        dims.push(channels);
        kernel = side;
    }
    if dims.is_empty() {
        return Err(shapes.fault(
            &format!("{at}vision_stages.0.blocks.0.conv_dw.weight"),
            "is missing".into(),
        ));
    }
    Ok(ConvNextConfig {
        depths,
        dims,
        kernel,
        patch_size,
        ln_eps: 1e-6,
    })
}

/// The configuration of a proposal network. Fields that do not follow from shapes come from `FILE.json`
/// beside `FILE.pth`, by their names in [`UpnConfig`], else from UPN-Large.
///
/// # Errors
/// The shapes contradict each other.
pub fn upn(file: &Path, shapes: &Shapes) -> Result<UpnConfig, Fault> {
    let given: BTreeMap<String, Value> =
        read_json(&file.with_extension("json"))?.unwrap_or_default();
    let number = |name: &str| given.get(name).and_then(Value::as_f64);
    let size = |name: &str| number(name).map(|value| value as usize);
    let large = UpnConfig::large();
    let swin = "backbone.model.backbone.";
    let [embed_dim, ..] = shapes.get_or(
        &format!("{swin}patch_embed.proj.weight"),
        [large.backbone.embed_dim, 3, 4, 4],
    )?;
    let (mut depths, mut num_heads) = (Vec::new(), Vec::new());
    let mut window_size = large.backbone.window_size;
    for stage in 0.. {
        let blocks = format!("{swin}layers.{stage}.blocks.");
        let depth = shapes.count(&blocks, ".norm1.weight");
        if depth == 0 {
            break;
        }
        let table = format!("{blocks}0.attn.relative_position_bias_table");
        let [rows, heads] = shapes.get(&table)?;
        window_size = rows.isqrt().div_ceil(2);
        if rows != (2 * window_size.max(1) - 1).pow(2) {
            let what = format!("has {rows} rows, which is no square of an odd number");
            return Err(shapes.fault(&table, what));
        }
        depths.push(depth);
        num_heads.push(heads);
    }
    if depths.is_empty() {
        (depths, num_heads) = (large.backbone.depths, large.backbone.num_heads);
    }
    let fc1 = format!("{swin}layers.0.blocks.0.mlp.fc1.weight");
    let [hidden, width] = shapes.get_or(&fc1, [4 * embed_dim, embed_dim])?;
    let used: Vec<usize> = (0..depths.len())
        .filter(|stage| shapes.has(&format!("{swin}norm{stage}.weight")))
        .collect();
    let used = if used.is_empty() {
        large.return_interm_indices
    } else {
        used
    };
    let [num_feature_levels, d_model] = shapes.get_or(
        "transformer.level_embed",
        [large.num_feature_levels, large.d_model],
    )?;
    let [num_queries, _] =
        shapes.get_or("transformer.tgt_embed.weight", [large.num_queries, d_model])?;
    let layer = "transformer.encoder.layers.0.";
    let [d_ffn, _] = shapes.get_or(&format!("{layer}linear1.weight"), [large.d_ffn, d_model])?;
    let weights = format!("{layer}self_attn.attention_weights.weight");
    let n_points = size("n_points").unwrap_or(large.n_points);
    let per_head = num_feature_levels * n_points.max(1);
    let [samples, _] = shapes.get_or(&weights, [large.n_heads * per_head, d_model])?;
    let n_heads = samples / per_head;
    if n_heads * per_head != samples || n_heads == 0 || width == 0 {
        return Err(shapes.fault(
            &weights,
            format!("has {samples} rows for {num_feature_levels} levels of {n_points} points"),
        ));
    }
    let layers = |part: &str, default: usize| match shapes
        .count(&format!("transformer.{part}.layers."), ".linear1.weight")
    {
        0 => default,
        count => count,
    };
    Ok(UpnConfig {
        backbone: SwinConfig {
            embed_dim,
            depths,
            num_heads,
            window_size,
            mlp_ratio: hidden / width,
        },
        return_interm_indices: used,
        num_feature_levels,
        num_queries,
        d_model,
        n_heads,
        d_ffn,
        n_points,
        num_encoder_layers: layers("encoder", large.num_encoder_layers),
        num_decoder_layers: layers("decoder", large.num_decoder_layers),
        group_norm_groups: size("group_norm_groups").unwrap_or(large.group_norm_groups),
        temperature: number("temperature").unwrap_or(large.temperature),
        proposal_side: number("proposal_side").map_or(large.proposal_side, |side| side as f32),
        size: number("size").map_or(large.size, |size| size as u32),
        max_size: number("max_size").map_or(large.max_size, |size| size as u32),
    })
}

/// The sizes of NanoDet for the classes of COCO, from the shapes of its tensors.
///
/// # Errors
/// A tensor is missing, or the outputs are not those of 80 classes.
pub fn nanodet(shapes: &Shapes) -> Result<NanoDetConfig, Fault> {
    let config = NanoDetConfig::nanodet_g();
    let [stem, ..] = shapes.get::<4>("backbone.stages.0.conv.weight")?;
    let [neck, ..] = shapes.get::<4>("fpn.lateral_convs.0.conv.weight")?;
    let last = "head.gfl_cls.0.weight";
    let [outputs, ..] = shapes.get::<4>(last)?;
    let bins = outputs.saturating_sub(config.classes.len()) / 4;
    if config.classes.len() + 4 * bins != outputs || bins == 0 {
        let what = format!("has {outputs} rows, which are not 80 scores and 4 distributions");
        return Err(shapes.fault(last, what));
    }
    // Stage 1 of the original is the max-pool.
    let stages = (2..)
        .map(|stage| format!("backbone.stages.{stage}."))
        .take_while(|stage| shapes.has(&format!("{stage}in_conv.conv.weight")));
    let blocks =
        stages.map(|stage| shapes.count(&format!("{stage}res_blocks."), ".in_conv.conv.weight"));
    Ok(NanoDetConfig {
        blocks: blocks.collect(),
        stem,
        neck,
        reg_max: bins - 1,
        ..config
    })
}

/// Whether tensor `name` (normalized) of a checkpoint is known to be unused: CLIP layers after the feature
/// layer, tables that are recomputed, the head of a model with tied embeddings.
pub fn is_skipped(name: &str, config: &ModelConfig) -> bool {
    let below = |stem: &str, name: &str| name == stem || name.starts_with(&format!("{stem}."));
    let clip = match &config.towers {
        Some(TowersConfig::ClipConvNext { sizes, .. }) => {
            name.strip_prefix(CLIP).is_some_and(|name| {
                let unused = sizes.clip.unused_names();
                unused.iter().any(|unused| below(unused, name))
            })
        }
        _ => false,
    };
    clip || name.ends_with("rotary_emb.inv_freq")
        || (config.llm.tie_word_embeddings && name == "lm_head.weight")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn theta(config: Value) -> Result<Option<f64>, String> {
        let hub: HubConfig = serde_json::from_value(config).expect("a configuration");
        rope_theta(&hub, "config.json").map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_base_of_rope_is_read_in_both_spellings() {
        let nested = json!({"rope_type": "default", "rope_theta": 500000});
        for (config, expected) in [
            (json!({}), None),
            (json!({"rope_theta": null, "rope_parameters": {}}), None),
            (json!({"rope_theta": 250000.0}), Some(250000.0)),
            (json!({"rope_parameters": nested}), Some(500000.0)),
            (
                json!({"rope_theta": 5e5, "rope_parameters": nested}),
                Some(500000.0),
            ),
            (
                json!({"rope_theta": null, "rope_scaling": null, "rope_parameters": nested}),
                Some(500000.0),
            ),
            (
                json!({"rope_theta": 1e4, "rope_parameters": null}),
                Some(10000.0),
            ),
            (
                json!({"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": null}}),
                Some(10000.0),
            ),
            (
                json!({"rope_theta": 1e4, "rope_scaling": {"rope_type": "default"}}),
                Some(10000.0),
            ),
            (json!({"rope_scaling": {"type": "default"}}), None),
            (
                json!({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 1.0}}),
                Some(10000.0),
            ),
            (
                json!({"rope_parameters": {
                    "rope_theta": 7.5, "factor": 1, "partial_rotary_factor": 1.0, "mrope_section": null,
                    "original_max_position_embeddings": 4096,
                }, "partial_rotary_factor": 1.0}),
                Some(7.5),
            ),
        ] {
            let text = config.to_string();
            assert_eq!(theta(config), Ok(expected), "{text}");
        }
    }

    #[test]
    fn contradictions_of_rope_are_refused_by_both_values() {
        for (config, says) in [
            (
                json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 500000.0}}),
                "config.json: has rope_theta 10000, but rope_parameters.rope_theta 500000",
            ),
            (
                json!({"rope_scaling": {"rope_theta": 3}, "rope_parameters": {"rope_theta": 2}}),
                "has rope_parameters.rope_theta 2, but rope_scaling.rope_theta 3",
            ),
            (
                json!({"rope_theta": 0}),
                "has rope_theta 0, which is not positive",
            ),
            (
                json!({"rope_parameters": {"rope_theta": -5.0}}),
                "has rope_parameters.rope_theta -5, which is not positive",
            ),
            (
                json!({"rope_parameters": {"rope_type": "default"}}),
                "has rope_parameters without rope_theta",
            ),
        ] {
            let fault = theta(config).expect_err(says);
            assert!(fault.contains(says), "{says}: {fault}");
        }
    }

    #[test]
    fn scaled_rope_is_refused_in_both_spellings() {
        for scaling in [
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}),
            json!({"type": "yarn", "factor": 1.0}),
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}),
            json!({"rope_type": "dynamic", "factor": 2.0}),
            json!({"type": "linear"}),
            json!({"type": "linear", "factor": 4}),
            json!({"rope_type": "default", "factor": 4}),
            json!({"factor": 4}),
            json!({"rope_type": "default", "type": "mrope", "mrope_section": [16, 24, 24]}),
            json!({"rope_type": "default", "mrope_section": [16, 24, 24]}),
            json!({"rope_type": "longrope", "long_factor": vec![1.25; 64]}),
            json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
            json!({"rope_type": "default", "attention_factor": 1.5}),
            json!({"rope_type": 1}),
            json!({"rope_theta": "500000"}),
            json!({"full_attention": {"rope_type": "default", "rope_theta": 1e6}}),
            json!("yarn"),
            json!([]),
            json!(4),
        ] {
            for field in ["rope_scaling", "rope_parameters"] {
                let fault = theta(json!({"rope_theta": 1e6, field: scaling}));
                let fault = fault.expect_err("scaled RoPE");
                let is_plain = fault.contains(field) && fault.contains("which is not supported");
                assert!(is_plain && fault.len() < 300, "{fault}");
                let kinds = [&scaling["rope_type"], &scaling["type"]];
                let mut kinds = kinds.into_iter().filter_map(Value::as_str);
                assert!(kinds.all(|kind| fault.contains(kind)), "{fault}");
            }
        }
        let fault = theta(json!({"partial_rotary_factor": 0.25})).expect_err("partial RoPE");
        assert!(
            fault.contains("has partial_rotary_factor 0.25, which is not"),
            "{fault}"
        );
    }

    fn named(names: &[&str]) -> Names {
        let names = names
            .iter()
            .map(|name| ((*name).to_string(), (*name).to_string()));
        names.collect()
    }

    #[test]
    fn the_common_prefix_of_a_network_is_found() {
        let file = Path::new("upn.pth");
        let with = |prefixes: &[&str]| {
            let names = prefixes
                .iter()
                .flat_map(|prefix| UPN.map(|name| format!("{prefix}{name}")));
            let names: Vec<String> = names.chain(["epoch".to_string()]).collect();
            named(&names.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let long = "state_dict.model._orig_mod.";
        let cases: [(&[&str], Option<&str>); 5] = [
            (&[], None),
            (&[""], None),
            (&["", "ema."], None),
            (&["module."], Some("module.")),
            (&[long], Some(long)),
        ];
        for (prefixes, expected) in cases {
            let names = with(prefixes);
            let found = common_prefix(&names, file, &UPN).expect("one network");
            assert_eq!(found, expected, "{prefixes:?}");
        }
        // Tensors may be missing.
        let names = named(&["a.transformer.level_embed", "a.other", "b.other"]);
        assert_eq!(common_prefix(&names, file, &UPN), Ok(Some("a.")));
        let names = with(&["model.", "ema_model."]);
        let fault = common_prefix(&names, file, &UPN).expect_err("two networks");
        let fault = fault.to_string();
        assert!(fault.contains("prefixes (ema_model., model.). "), "{fault}");
        assert!(fault.ends_with("e.g. --prefix ema_model.="), "{fault}");
    }
}

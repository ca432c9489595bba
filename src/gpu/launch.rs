//! The only file that knows how burn launches WGSL.
//!
//! A [`Shader`] is a file of `shaders/` with a few `$NAME`s in it: constants that Rust shares, and
//! `$INPUT`, the access mode of a buffer the shader only reads. Natively several tensors may lie in
//! one buffer, and a dispatch may not bind one buffer for reading and for writing, so inputs are
//! declared `read_write` there; in a browser every tensor has a buffer of its own. A line
//! `// import NAME` stands for the file `shaders/shared/NAME.wgsl`; `NAME` may be a `$NAME`. Where
//! subgroups are used, `NAME_subgroups.wgsl` comes first if it is there.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cubecl::ir::attributes::BufferIOAttr;
use cubecl::ir::metadata::Info;
use cubecl::ir::settings::{Dim3, ExecutionMode, KernelSettings};
use cubecl::ir::{AddressType, ElemType, Scope, UIntKind};
use cubecl::prelude::{Client, CubeCount, KernelDefinition, KernelId, KernelMetadata};
use cubecl::server::{Handle, KernelArguments, MetadataBindingInfo};
use cubecl::{CubeKernel, PrecompiledSource};

/// A WGSL file and the constants it takes from Rust.
#[derive(Debug)]
pub struct Shader {
    /// The file's name in `shaders/`, without `.wgsl`.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
    /// What `$NAME` stands for.
    pub constants: &'static [(&'static str, u32)],
    /// Which file of `shaders/shared/` the import `$NAME` stands for.
    pub imports: &'static [(&'static str, &'static str)],
}

/// Names a file of `shaders/shared/` and takes its text along.
macro_rules! shared {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../shaders/shared/", $name, ".wgsl")))),*]
    };
}

/// The files of `shaders/shared/`.
pub const SHARED: &[(&str, &str)] = shared![
    "flash",
    "flash_whole",
    "argmax",
    "kv_f16",
    "kv_f32",
    "four_channels",
    "gelu",
    "gemv_accumulate",
    "grammar",
    "reduce",
    "reduce_subgroups",
    "identity",
    "x_vec4",
    "x_vec8",
    "dot_f16",
    "dot_f32",
    "dot_q4",
    "dot_q8",
    "one_channel",
    "quick_gelu",
    "relu",
    "scale_none",
    "scale_f16",
    "scale_f32",
    "vec4",
    "vec8",
    "tile_ends",
    "tiles",
    "dequant_f16",
    "dequant_f32",
    "dequant_q4",
    "dequant_q8",
];

/// Where WGSL is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// By naga, inside this program.
    Native,
    /// By the browser.
    Browser,
}

impl Dialect {
    /// The dialect of this build.
    pub const HERE: Self = if cfg!(target_family = "wasm") {
        Self::Browser
    } else {
        Self::Native
    };
}

impl Shader {
    /// The text as it is compiled.
    pub fn resolve(&self, dialect: Dialect, subgroups: bool) -> String {
        let input = match dialect {
            Dialect::Native => "read_write",
            Dialect::Browser => "read",
        };
        let lines = self
            .text
            .lines()
            .map(|line| match line.strip_prefix("// import ") {
                None => line,
                Some(name) => self.shared(name, subgroups),
            });
        // naga takes subgroup operations without being told, and does not know the word.
        let enable = (dialect == Dialect::Browser && self.has_subgroups(subgroups))
            .then_some("enable subgroups;");
        let lines = enable.into_iter().chain(lines);
        let text = lines.flat_map(|line| [line, "\n"]).collect::<String>();
        // Longer names first: one may begin with another.
        let mut constants = self.constants.to_vec();
        constants.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        constants
            .iter()
            .fold(text.replace("$INPUT", input), |text, (name, value)| {
                text.replace(&format!("${name}"), &value.to_string())
            })
    }

    /// Whether its text is another one with subgroups.
    fn has_subgroups(&self, subgroups: bool) -> bool {
        let imports = |line: &str| {
            let name = line.strip_prefix("// import ");
            name.is_some_and(|name| with_subgroups(name).is_some())
        };
        subgroups && self.text.lines().any(imports)
    }

    fn shared(&self, name: &str, subgroups: bool) -> &'static str {
        if subgroups && let Some(text) = with_subgroups(name) {
            return text;
        }
        let chosen = name.strip_prefix('$').map_or(name, |slot| {
            let found = self.imports.iter().find(|(import, _)| *import == slot);
            found
                .unwrap_or_else(|| panic!("{}: nothing stands for ${slot}", self.name))
                .1
        });
        let found = SHARED.iter().find(|(file, _)| *file == chosen);
        found
            .unwrap_or_else(|| panic!("{}: no shared file {chosen}", self.name))
            .1
    }
}

/// What a file of `shaders/shared/` is where subgroups are used, if that differs.
fn with_subgroups(name: &str) -> Option<&'static str> {
    let known = |(file, _): &&(&str, &str)| file.strip_suffix("_subgroups") == Some(name);
    SHARED.iter().find(known).map(|(_, text)| *text)
}

static SUBGROUPS: AtomicBool = AtomicBool::new(false);

/// From now on shaders are launched in the form that uses subgroups, or in the one that does not, as
/// at first. Only for devices that were made with the feature.
pub fn use_subgroups(subgroups: bool) {
    SUBGROUPS.store(subgroups, Ordering::Relaxed);
}

/// Whether shaders are launched in the form that uses subgroups.
pub fn uses_subgroups() -> bool {
    SUBGROUPS.load(Ordering::Relaxed)
}

/// Runs `groups` workgroups of a shader over buffers.
///
/// Bindings are numbered in the order `inputs`, `outputs`, then `words` as a uniform of
/// `vec4<u32>`s. The shader must use each of them. It finds its number among the groups as
/// `workgroup_id.y * num_workgroups.x + workgroup_id.x` and must ignore numbers past the end.
pub fn launch(
    shader: &Shader,
    client: &Client,
    groups: u64,
    inputs: &[&Handle],
    outputs: &[&Handle],
    words: &[u32],
) {
    assert!(
        words.len().is_multiple_of(4),
        "{}: {} words do not fill vec4<u32>s",
        shader.name,
        words.len()
    );
    let alignment = client.properties().memory.alignment;
    let mut arguments = KernelArguments::new();
    let declared = inputs
        .iter()
        .map(|input| (input, BufferIOAttr::ReadOnly))
        .chain(
            outputs
                .iter()
                .map(|output| (output, BufferIOAttr::WriteOnly)),
        );
    for (binding, (handle, access)) in declared.enumerate() {
        let offset = handle.offset_start.unwrap_or(0);
        assert!(
            offset.is_multiple_of(alignment),
            "{}: binding {binding} starts at byte {offset}, not a multiple of {alignment}",
            shader.name
        );
        arguments = arguments.with_buffer_io((*handle).clone().binding(), access);
    }
    let words = words
        .chunks_exact(2)
        .map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32)
        .collect();
    let (x, y) = fold_groups(groups);
    LAUNCHED.fetch_add(1, Ordering::Relaxed);
    let run = |compiled: Compiled| {
        client.launch(
            Box::new(compiled),
            CubeCount::Static(x, y, 1),
            arguments.with_info(MetadataBindingInfo::custom(words)),
        );
    };
    match Compiled::of(shader) {
        (compiled, false) => run(compiled),
        (compiled, true) => {
            super::compile_errors::watch(shader.name, compiled, run, client, outputs)
        }
    }
}

static LAUNCHED: AtomicU64 = AtomicU64::new(0);

/// How many kernels this program has launched; stock operations and replayed graphs not counted.
pub fn launched() -> u64 {
    LAUNCHED.load(Ordering::Relaxed)
}

/// Workgroups per dispatch dimension that every device allows.
const MAX_GROUPS: u64 = 65_535;

/// A two-dimensional grid of at least `groups` workgroups with little to spare.
fn fold_groups(groups: u64) -> (u32, u32) {
    assert!(
        (1..=MAX_GROUPS * MAX_GROUPS).contains(&groups),
        "{groups} workgroups, at most {MAX_GROUPS} squared"
    );
    let rows = groups.div_ceil(MAX_GROUPS);
    (groups.div_ceil(rows) as u32, rows as u32)
}

/// A shader's final text, known to burn's runtime by its hash: the pipeline cache sees nothing else.
#[derive(Clone)]
pub(super) struct Compiled {
    pub(super) text: Arc<str>,
    key: u64,
}

/// A shader among others: the file of a name is always the same.
type Identity = (
    &'static str,
    &'static [(&'static str, u32)],
    &'static [(&'static str, &'static str)],
    bool,
);

thread_local! {
    static COMPILED: RefCell<HashMap<Identity, Compiled>> = RefCell::default();
}

impl Compiled {
    /// Put together at a shader's first launch, and whether this is it.
    fn of(shader: &Shader) -> (Self, bool) {
        let subgroups = uses_subgroups();
        let identity = (shader.name, shader.constants, shader.imports, subgroups);
        COMPILED.with_borrow_mut(|known| {
            let mut first = false;
            let compiled = known.entry(identity).or_insert_with(|| {
                first = true;
                let text = shader.resolve(Dialect::HERE, subgroups);
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                Self {
                    text: text.into(),
                    key: hasher.finish(),
                }
            });
            (compiled.clone(), first)
        })
    }
}

impl KernelMetadata for Compiled {
    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.key)
    }

    fn address_type(&self) -> ElemType {
        ElemType::UInt(UIntKind::U32)
    }
}

impl CubeKernel for Compiled {
    fn define(&self) -> KernelDefinition {
        let settings = KernelSettings::new(
            Dim3::new_single(),
            ExecutionMode::Unchecked,
            AddressType::U32,
        );
        KernelDefinition {
            body: Scope::root(settings.clone()),
            settings,
            info: Info::default(),
        }
    }

    fn source(&self) -> Option<PrecompiledSource> {
        Some(PrecompiledSource {
            source: self.text.to_string(),
            entrypoint_name: "main".into(),
            lang: "wgsl",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_fold_into_two_dimensions() {
        assert_eq!(fold_groups(1), (1, 1));
        assert_eq!(fold_groups(65_535), (65_535, 1));
        assert_eq!(fold_groups(65_536), (32_768, 2));
        for groups in [65_537, 131_071, 1 << 24, 4_000_000_007] {
            let (x, y) = fold_groups(groups);
            let grid = u64::from(x) * u64::from(y);
            assert!(u64::from(x) <= MAX_GROUPS && u64::from(y) <= MAX_GROUPS);
            assert!(
                (groups..groups + MAX_GROUPS).contains(&grid),
                "{groups}: {x} x {y}"
            );
        }
    }
}

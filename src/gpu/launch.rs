//! Launches WGSL shaders through burn's runtime; the only file that knows how.

#[cfg(feature = "diagnostics")]
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cubecl::ir::attributes::BufferIOAttr;
use cubecl::ir::metadata::Info;
use cubecl::ir::settings::{Dim3, ExecutionMode, KernelSettings};
use cubecl::ir::{AddressType, ElemType, Scope, UIntKind};
use cubecl::prelude::{Client, CubeCount, KernelDefinition, KernelId, KernelMetadata};
use cubecl::server::{Handle, KernelArguments, MetadataBindingInfo};
use cubecl::{CubeKernel, PrecompiledSource};

use crate::gpu::compile_errors;
use crate::gpu::shader::{Dialect, Shader, uses_subgroups};
use crate::gpu::uniforms::Uniforms;

/// Runs `groups` workgroups of a shader over buffers.
///
/// Bindings are numbered in the order `inputs`, `outputs`, `uniforms`; the shader must use each of
/// them. Groups are folded into two dimensions: the shader takes `workgroup_index(group, groups)` and
/// must ignore indices past the end.
///
/// # Panics
/// `uniforms` are not those of the shader, or a buffer starts at an offset that the device cannot bind.
pub fn launch<U: Uniforms>(
    shader: &Shader,
    client: &Client,
    groups: u64,
    inputs: &[&Handle],
    outputs: &[&Handle],
    uniforms: &U,
) {
    assert_eq!(
        shader.uniforms.name,
        U::LAYOUT.name,
        "{}: uniforms",
        shader.name
    );
    let words = bytemuck::cast_slice(std::slice::from_ref(uniforms));
    launch_words(shader, client, groups, inputs, outputs, words);
}

fn launch_words(
    shader: &Shader,
    client: &Client,
    groups: u64,
    inputs: &[&Handle],
    outputs: &[&Handle],
    words: &[u32],
) {
    let alignment = client.properties().memory.alignment;
    let mut arguments = KernelArguments::new();
    let inputs = inputs.iter().map(|input| (input, BufferIOAttr::ReadOnly));
    let written = outputs
        .iter()
        .map(|output| (output, BufferIOAttr::WriteOnly));
    for (binding, (handle, access)) in inputs.chain(written).enumerate() {
        let offset = handle.offset_start.unwrap_or(0);
        assert!(
            offset.is_multiple_of(alignment),
            "{}: binding {binding} starts at byte {offset}, not a multiple of {alignment}",
            shader.name
        );
        arguments = arguments.with_buffer_io((*handle).clone().binding(), access);
    }
    let info = MetadataBindingInfo::custom(info_words(words));
    let (x, y) = fold_groups(groups, group_limit());
    LAUNCHED.fetch_add(1, Ordering::Relaxed);
    let (compiled, first) = Compiled::of(shader);
    let text = compiled.text.clone();
    let run = || {
        client.launch(
            Box::new(compiled),
            CubeCount::Static(x, y, 1),
            arguments.with_info(info),
        );
    };
    if first {
        compile_errors::watch(shader.name, text, run, client, outputs);
    } else {
        run();
    }
}

/// The uniforms in the 64-bit words of burn's runtime, padded to a multiple of 16 bytes.
fn info_words(words: &[u32]) -> Vec<u64> {
    words
        .chunks(4)
        .flat_map(|words| {
            let mut padded = [0; 4];
            padded[..words.len()].copy_from_slice(words);
            [(0, 1), (2, 3)].map(|(low, high): (usize, usize)| {
                u64::from(padded[low]) | u64::from(padded[high]) << 32
            })
        })
        .collect()
}

static LAUNCHED: AtomicU64 = AtomicU64::new(0);

/// The number of kernels this program has launched, without stock operations and replayed graphs.
pub fn launched() -> u64 {
    LAUNCHED.load(Ordering::Relaxed)
}

/// Workgroups per dispatch dimension that every device allows.
pub const MAX_GROUPS: u64 = 65_535;

#[cfg(feature = "diagnostics")]
thread_local! {
    static GROUP_LIMIT: Cell<u64> = const { Cell::new(MAX_GROUPS) };
}

fn group_limit() -> u64 {
    #[cfg(feature = "diagnostics")]
    return GROUP_LIMIT.get();
    #[cfg(not(feature = "diagnostics"))]
    MAX_GROUPS
}

/// While it lives, launches of this thread fold more than `limit` workgroups, so that a sweep checks with
/// small shapes what kernels do with more than 65,535.
#[cfg(feature = "diagnostics")]
pub struct GroupLimit(());

#[cfg(feature = "diagnostics")]
impl GroupLimit {
    /// Sets the limit, at least 1.
    pub fn new(limit: u64) -> Self {
        GROUP_LIMIT.set(limit);
        Self(())
    }
}

#[cfg(feature = "diagnostics")]
impl Drop for GroupLimit {
    fn drop(&mut self) {
        GROUP_LIMIT.set(MAX_GROUPS);
    }
}

/// The smallest two-dimensional grid of at least `groups` workgroups with the fewest rows, `limit` in a row.
fn fold_groups(groups: u64, limit: u64) -> (u32, u32) {
    assert!(
        (1..=limit * MAX_GROUPS).contains(&groups),
        "{groups} workgroups, at most {limit} x {MAX_GROUPS}"
    );
    let rows = groups.div_ceil(limit);
    (groups.div_ceil(rows) as u32, rows as u32)
}

/// The resolved text of a shader. Its hash is the key in the pipeline cache of burn's runtime.
#[derive(Clone)]
struct Compiled {
    text: Arc<str>,
    key: u64,
}

/// The key of a resolved text: a name always stands for the same file.
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
    /// The text of a shader, resolved at its first launch; and whether this launch is the first.
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
        assert_eq!(fold_groups(1, MAX_GROUPS), (1, 1));
        assert_eq!(fold_groups(65_535, MAX_GROUPS), (65_535, 1));
        assert_eq!(fold_groups(65_536, MAX_GROUPS), (32_768, 2));
        assert_eq!(fold_groups(7, 3), (3, 3));
        for groups in [65_537, 131_071, 1 << 24, 4_000_000_007] {
            let (x, y) = fold_groups(groups, MAX_GROUPS);
            let grid = u64::from(x) * u64::from(y);
            assert!(u64::from(x) <= MAX_GROUPS && u64::from(y) <= MAX_GROUPS);
            assert!(
                (groups..groups + MAX_GROUPS).contains(&grid),
                "{groups}: {x} x {y}"
            );
        }
    }

    #[test]
    fn uniforms_are_padded_to_vectors() {
        assert_eq!(info_words(&[1, 2, 3, 4]), [0x2_0000_0001, 0x4_0000_0003]);
        assert_eq!(info_words(&[5, 6, 7, 8, 9])[2..], [9, 0]);
        assert!(info_words(&[]).is_empty());
    }
}

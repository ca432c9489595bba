//! WGSL files and how they become the text that is compiled.
//!
//! A file of `shaders/` is plain WGSL without the parts that Rust knows. [`Shader::resolve`] puts a
//! prelude before it: the struct `Uniforms`, the shader's constants and [`WORKGROUP_INDEX`]. A line
//! `// import name` is replaced by `shaders/shared/name.wgsl`, or by `name_subgroups.wgsl` where
//! subgroups are used and the file exists; `// import NAME` is a slot that each variant of the shader
//! fills with a shared file.
//!
//! Natively several tensors may share a buffer, and a dispatch must not bind one buffer for reading
//! and for writing, so `var<storage, read>` becomes `read_write` there. In a browser every tensor has
//! its own buffer.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::gpu::uniforms::Layout;

/// A WGSL file, its uniforms and its constants.
#[derive(Debug)]
pub struct Shader {
    /// The file's name in `shaders/`, without `.wgsl`.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
    /// The struct that is bound last as `u`.
    pub uniforms: &'static Layout,
    /// Constants of type u32 in the prelude.
    pub constants: &'static [(&'static str, u32)],
    /// The shared file of each import slot.
    pub imports: &'static [(&'static str, &'static str)],
}

/// Names and texts of files of `shaders/shared/`.
macro_rules! shared {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../shaders/shared/", $name, ".wgsl")))),*]
    };
}

/// The files of `shaders/shared/`.
pub const SHARED: &[(&str, &str)] = shared![
    "argmax",
    "constants",
    "dequant_f16",
    "dequant_f32",
    "dequant_q4",
    "dequant_q8",
    "dot_f16",
    "dot_f32",
    "dot_q4",
    "dot_q8",
    "elementwise",
    "epilogue",
    "flash",
    "flash_whole",
    "four_channels",
    "gelu",
    "gemv_body",
    "gemv_few_rows",
    "gemv_one_row",
    "gemv_sums",
    "gemv_sums_subgroups",
    "grammar",
    "identity",
    "kv_f16",
    "kv_f32",
    "matmul_tiles",
    "one_channel",
    "pcg",
    "quick_gelu",
    "reduce",
    "reduce_subgroups",
    "relu",
    "rope",
    "scale_f16",
    "scale_f32",
    "scale_min_f16",
    "scale_none",
    "scaled_weights",
    "silu",
    "vec4",
    "vec8",
    "x_vec4",
    "x_vec8",
];

/// The compiler of the WGSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// naga, inside this program.
    Native,
    /// The browser's.
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

/// Dispatches are folded into two dimensions: the flat index of a workgroup, from
/// `@builtin(workgroup_id)` and `@builtin(num_workgroups)`.
const WORKGROUP_INDEX: &str = "\
fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}
";

impl Shader {
    /// The text that is compiled.
    ///
    /// # Panics
    /// An import names no shared file.
    pub fn resolve(&self, dialect: Dialect, subgroups: bool) -> String {
        let mut text = String::new();
        // naga enables subgroup operations by itself and does not know the directive.
        if subgroups && dialect == Dialect::Browser && self.has_subgroup_form() {
            text += "enable subgroups;\n";
        }
        text += &self.uniforms.wgsl();
        for (name, value) in self.constants {
            text += &format!("const {name}: u32 = {value}u;\n");
        }
        text += WORKGROUP_INDEX;
        for line in self.text.lines() {
            let line = match line.strip_prefix("// import ") {
                None => line,
                Some(name) => self.import(name, subgroups),
            };
            text += line;
            text += "\n";
        }
        if dialect == Dialect::Native {
            text = text.replace("var<storage, read>", "var<storage, read_write>");
        }
        text
    }

    /// Whether its text differs where subgroups are used.
    pub fn has_subgroup_form(&self) -> bool {
        self.text.lines().any(|line| {
            let name = line.strip_prefix("// import ");
            name.is_some_and(|name| with_subgroups(name).is_some())
        })
    }

    fn import(&self, name: &str, subgroups: bool) -> &'static str {
        if subgroups && let Some(text) = with_subgroups(name) {
            return text;
        }
        let file = if name.starts_with(|c: char| c.is_ascii_uppercase()) {
            let slot = self.imports.iter().find(|(slot, _)| *slot == name);
            slot.unwrap_or_else(|| panic!("{}: the import slot {name} is empty", self.name))
                .1
        } else {
            name
        };
        let shared = SHARED.iter().find(|(name, _)| *name == file);
        shared
            .unwrap_or_else(|| panic!("{}: no shared file {file}", self.name))
            .1
    }
}

/// The form of a shared file that uses subgroups, if it has one.
fn with_subgroups(name: &str) -> Option<&'static str> {
    let file = |(file, _): &&(&str, &str)| file.strip_suffix("_subgroups") == Some(name);
    SHARED.iter().find(file).map(|(_, text)| *text)
}
static SUBGROUPS: AtomicBool = AtomicBool::new(false);

/// Sets whether shaders use subgroups; they do not at first. Only for devices that have the feature.
pub fn use_subgroups(subgroups: bool) {
    SUBGROUPS.store(subgroups, Ordering::Relaxed);
}

/// Whether shaders use subgroups.
pub fn uses_subgroups() -> bool {
    SUBGROUPS.load(Ordering::Relaxed)
}

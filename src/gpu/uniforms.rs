//! Uniforms of a shader: one definition for Rust and WGSL.
//!
//! [`uniforms!`] emits the `#[repr(C)]` struct that a launcher fills and the fields from which
//! [`Shader::resolve`](super::shader::Shader::resolve) writes `struct Uniforms { .. }` before the
//! shader's text. The shader binds it last, as `var<uniform> u: Uniforms`.

use bytemuck::Pod;

/// The type of a field, in Rust and in WGSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// `u32`.
    U32,
    /// `f32`.
    F32,
    /// `[[u32; 4]; N]`, `array<vec4<u32>, N>`; starts at a multiple of 16 bytes.
    Vec4U32(usize),
}

impl FieldType {
    fn wgsl(self) -> String {
        match self {
            Self::U32 => "u32".to_owned(),
            Self::F32 => "f32".to_owned(),
            Self::Vec4U32(count) => format!("array<vec4<u32>, {count}>"),
        }
    }
}

/// Rust types that a field can have.
pub trait Field: Pod {
    /// The type in WGSL.
    const TYPE: FieldType;
}

impl Field for u32 {
    const TYPE: FieldType = FieldType::U32;
}

impl Field for f32 {
    const TYPE: FieldType = FieldType::F32;
}

impl<const N: usize> Field for [[u32; 4]; N]
where
    Self: Pod,
{
    const TYPE: FieldType = FieldType::Vec4U32(N);
}

/// A field of a uniforms struct.
#[derive(Debug)]
pub struct FieldLayout {
    /// The name, the same in Rust and WGSL.
    pub name: &'static str,
    /// The type.
    pub field_type: FieldType,
    /// The offset in the Rust struct, in bytes.
    pub offset: usize,
    /// The documentation, a string per line.
    pub doc: &'static [&'static str],
}

/// The uniforms struct of a shader.
#[derive(Debug)]
pub struct Layout {
    /// The name of the Rust struct.
    pub name: &'static str,
    /// Its size in WGSL, in bytes: that of the Rust struct, rounded up to its alignment.
    pub size: usize,
    /// Its fields, in order.
    pub fields: &'static [FieldLayout],
}

impl Layout {
    /// `struct Uniforms { .. }` in WGSL.
    pub(super) fn wgsl(&self) -> String {
        let field = |field: &FieldLayout| {
            let docs = field.doc.iter();
            let doc: String = docs.map(|line| format!("    //{line}\n")).collect();
            format!("{doc}    {}: {},\n", field.name, field.field_type.wgsl())
        };
        let fields: String = self.fields.iter().map(field).collect();
        format!("struct Uniforms {{\n{fields}}}\n")
    }
}

/// The alignment of a WGSL struct with fields of these types, in bytes.
pub const fn alignment(fields: &[FieldType]) -> usize {
    let mut index = 0;
    while index < fields.len() {
        if matches!(fields[index], FieldType::Vec4U32(_)) {
            return 16;
        }
        index += 1;
    }
    4
}

/// A struct that [`uniforms!`] defined.
pub trait Uniforms: Pod {
    /// Its fields.
    const LAYOUT: &'static Layout;
}

/// Defines the uniforms of a shader: `struct Name { /// doc \n field: type, .. }`.
macro_rules! uniforms {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[doc = $doc:literal])* $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name {
            $($(#[doc = $doc])* pub $field: $type),*
        }

        impl $crate::gpu::uniforms::Uniforms for $name {
            const LAYOUT: &'static $crate::gpu::uniforms::Layout =
                &$crate::gpu::uniforms::Layout {
                    name: stringify!($name),
                    size: size_of::<$name>().next_multiple_of($crate::gpu::uniforms::alignment(&[
                        $(<$type as $crate::gpu::uniforms::Field>::TYPE),*
                    ])),
                    fields: &[$($crate::gpu::uniforms::FieldLayout {
                        name: stringify!($field),
                        field_type: <$type as $crate::gpu::uniforms::Field>::TYPE,
                        offset: std::mem::offset_of!($name, $field),
                        doc: &[$($doc),*],
                    }),*],
                };
        }
    };
}

pub(crate) use uniforms;

#[cfg(test)]
mod tests {
    use super::*;

    uniforms! {
        /// Of no shader.
        struct Example {
            /// Rows.
            rows: u32,
            /// Added to the variance.
            eps: f32,
            /// Not used.
            unused: u32,
            padding: u32,
            /// Height, width, first cell, 0.
            levels: [[u32; 4]; 3],
        }
    }

    #[test]
    fn one_definition_gives_struct_and_wgsl() {
        let wgsl = "struct Uniforms {\n    // Rows.\n    rows: u32,\n    // Added to the variance.\n    \
                    eps: f32,\n    // Not used.\n    unused: u32,\n    padding: u32,\n    \
                    // Height, width, first cell, 0.\n    levels: array<vec4<u32>, 3>,\n}\n";
        assert_eq!(Example::LAYOUT.wgsl(), wgsl);
        assert_eq!(
            (Example::LAYOUT.name, Example::LAYOUT.size),
            ("Example", 64)
        );
        let offsets = Example::LAYOUT.fields.iter().map(|field| field.offset);
        assert_eq!(offsets.collect::<Vec<_>>(), [0, 4, 8, 12, 16]);
    }
}

//! Every shader is valid WGSL in each form in which it is compiled; this needs no GPU.

use std::collections::BTreeSet;
use std::path::Path;

use chatrex::gpu::shader::{Dialect, SHARED};
use chatrex::gpu::shaders;
use chatrex::gpu::uniforms::{FieldLayout, FieldType, Layout};

fn validate(text: &str) -> Result<naga::Module, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let mut validator = naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        // The capabilities of every WebGPU device (`unpack2x16float` is part of the language), and
        // subgroups, which are used where a device has them.
        naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32 | naga::valid::Capabilities::SUBGROUP,
    );
    validator
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    Ok(module)
}

/// The texts of a shader that are compiled somewhere.
const TEXTS: [(Dialect, bool); 4] = [
    (Dialect::Native, false),
    (Dialect::Native, true),
    (Dialect::Browser, false),
    (Dialect::Browser, true),
];

/// naga does not know the directive, though it knows subgroup operations.
fn without_directive(text: &str) -> &str {
    text.strip_prefix("enable subgroups;\n").unwrap_or(text)
}

/// Every expression of every function.
fn expressions(
    module: &naga::Module,
) -> impl Iterator<Item = (&naga::Function, &naga::Expression)> {
    let entry_points = module.entry_points.iter().map(|entry| &entry.function);
    let functions = module.functions.iter().map(|(_, function)| function);
    functions.chain(entry_points).flat_map(|function| {
        let expressions = function.expressions.iter();
        expressions.map(move |(_, expression)| (function, expression))
    })
}

#[test]
fn every_shader_is_valid_and_uses_its_bindings() {
    for shader in shaders() {
        for (dialect, subgroups) in TEXTS {
            let text = shader.resolve(dialect, subgroups);
            let module = validate(without_directive(&text)).unwrap_or_else(|e| {
                panic!(
                    "{} for {dialect:?}, subgroups {subgroups}: {e}",
                    shader.name
                )
            });
            assert!(
                module.entry_points.iter().any(|entry| entry.name == "main"),
                "{}: no entry point `main`",
                shader.name
            );
            let used: BTreeSet<_> = expressions(&module)
                .filter_map(|(_, expression)| match expression {
                    naga::Expression::GlobalVariable(variable) => Some(*variable),
                    _ => None,
                })
                .collect();
            for (handle, variable) in module.global_variables.iter() {
                assert!(
                    variable.binding.is_none() || used.contains(&handle),
                    "{}: binding {:?} is never used, so it is missing from the layout",
                    shader.name,
                    variable.name
                );
            }
        }
    }
}

/// Checks the struct `Uniforms` of a module against its Rust struct: offsets, size, every field used.
fn check_uniforms(module: &naga::Module, layout: &Layout) -> Result<(), String> {
    let uniforms = module
        .types
        .iter()
        .find(|(_, ty)| ty.name.as_deref() == Some("Uniforms"))
        .ok_or("no struct Uniforms")?;
    let naga::TypeInner::Struct { members, span } = &uniforms.1.inner else {
        return Err("Uniforms is not a struct".to_owned());
    };
    let wgsl: Vec<_> = members
        .iter()
        .map(|member| (member.name.as_deref().unwrap_or(""), member.offset as usize))
        .collect();
    let rust: Vec<_> = layout
        .fields
        .iter()
        .map(|field| (field.name, field.offset))
        .collect();
    if (&wgsl, *span as usize) != (&rust, layout.size) {
        let size = layout.size;
        return Err(format!(
            "WGSL {wgsl:?}, {span} bytes; Rust {rust:?}, {size} bytes"
        ));
    }
    let used: BTreeSet<usize> = expressions(module)
        .filter_map(|(function, expression)| {
            let naga::Expression::AccessIndex { base, index } = *expression else {
                return None;
            };
            let naga::Expression::GlobalVariable(variable) = function.expressions[base] else {
                return None;
            };
            let ty = module.global_variables[variable].ty;
            (ty == uniforms.0).then_some(index as usize)
        })
        .collect();
    match (0..members.len()).find(|index| !used.contains(index)) {
        Some(index) => Err(format!("the field {} is never used", wgsl[index].0)),
        None => Ok(()),
    }
}

#[test]
fn uniforms_are_the_same_in_rust_and_wgsl() {
    for shader in shaders() {
        for (dialect, subgroups) in TEXTS {
            let text = shader.resolve(dialect, subgroups);
            let module = validate(without_directive(&text)).expect("valid, see the test above");
            check_uniforms(&module, shader.uniforms)
                .unwrap_or_else(|e| panic!("{}: {e}", shader.name));
        }
    }
}

#[test]
fn different_uniforms_are_noticed() {
    const LAYOUT: Layout = Layout {
        name: "Example",
        size: 8,
        fields: &[
            FieldLayout {
                name: "a",
                field_type: FieldType::U32,
                offset: 0,
                doc: &[],
            },
            FieldLayout {
                name: "b",
                field_type: FieldType::F32,
                offset: 4,
                doc: &[],
            },
        ],
    };
    let check = |fields: &str, body: &str| {
        let text = format!(
            "struct Uniforms {{ {fields} }}\n\
             @group(0) @binding(0) var<uniform> u: Uniforms;\n\
             @compute @workgroup_size(1) fn main() {{ {body} }}"
        );
        check_uniforms(&validate(&text).expect("valid"), &LAYOUT)
    };
    let both = "let a = u.a; let b = u.b;";
    assert_eq!(check("a: u32, b: f32", both), Ok(()));
    for (fields, body) in [
        ("a: u32, b: f32", "let a = u.a;"),
        ("b: f32, a: u32", both),
        ("a: u32, @align(16) b: f32", both),
        (
            "a: u32, b: f32, c: u32",
            "let a = u.a; let b = u.b; let c = u.c;",
        ),
    ] {
        assert!(check(fields, body).is_err(), "{fields}: {body}");
    }
}

/// Uniforms are typed, and what Rust fills in is declared in the prelude: an editor can parse each file.
#[test]
fn no_file_has_placeholders_or_untyped_uniforms() {
    for folder in ["shaders", "shaders/shared"] {
        for name in files_of(folder) {
            let path = format!("{folder}/{name}.wgsl");
            let text = std::fs::read_to_string(&path).expect("a readable file");
            for word in ["$", "sizes["] {
                assert!(!text.contains(word), "{path}: {word}");
            }
        }
    }
}

/// Words that WGSL reserves: browsers refuse them as names, naga accepts them.
const RESERVED: &str = "NULL Self abstract active alignas alignof as asm async attribute auto await become cast catch \
    class co_await co_return co_yield coherent column_major common compile concept const_cast consteval \
    constexpr constinit crate debugger decltype delete demote do dynamic_cast enum explicit export extends \
    extern external filter final finally friend from fxgroup get goto groupshared highp impl implements \
    import inline instanceof interface layout lowp macro match mediump meta mod module move mut mutable \
    namespace new nil noexcept noinline nointerpolation noncoherent noperspective null nullptr of operator \
    package packoffset partition pass patch pixelfragment precise precision premerge priv protected pub \
    public readonly ref regardless register reinterpret_cast require resource restrict self set shared \
    sizeof smooth snorm static static_assert static_cast std subroutine super target template this \
    thread_local throw trait try type typedef typeid typename typeof union unless unorm unsafe unsized use \
    using varying virtual volatile wgsl where with writeonly yield";

#[test]
fn no_name_is_a_reserved_word() {
    let reserved: BTreeSet<&str> = RESERVED.split_whitespace().collect();
    for shader in shaders() {
        let text = shader.resolve(Dialect::Browser, false);
        for line in text.lines() {
            let code = line.split("//").next().unwrap_or_default();
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            let found = words.find(|word| reserved.contains(word));
            assert_eq!(found, None, "{}: {line}", shader.name);
        }
    }
}

#[test]
fn every_file_is_registered() {
    let known: BTreeSet<String> = shaders().map(|s| s.name.to_owned()).collect();
    assert_eq!(files_of("shaders"), known, "shaders/ and gpu::KERNELS");
    let known = SHARED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        files_of("shaders/shared"),
        known,
        "shaders/shared/ and shader::SHARED"
    );
}

fn files_of(folder: &str) -> BTreeSet<String> {
    std::fs::read_dir(Path::new(folder))
        .expect("the folder is there")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "wgsl"))
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

#[test]
fn an_invalid_shader_is_noticed() {
    assert!(validate("@compute @workgroup_size(1) fn main() { let x: f32 = 1u; }").is_err());
    assert!(validate("fn main( {").is_err());
}

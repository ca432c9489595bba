//! Every shader is valid WGSL in the form in which it is compiled, on machines without a GPU too.

use std::collections::BTreeSet;
use std::path::Path;

use chatrex::gpu::shader::{Dialect, SHARED};
use chatrex::gpu::shaders;

fn validate(text: &str) -> Result<naga::Module, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let mut validator = naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        // What every WebGPU device has (`unpack2x16float` is part of the language), and subgroups,
        // which are used where a device has them.
        naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32 | naga::valid::Capabilities::SUBGROUP,
    );
    validator
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    Ok(module)
}

#[test]
fn every_shader_is_valid_and_uses_its_bindings() {
    for shader in shaders() {
        for (dialect, subgroups) in [
            (Dialect::Native, false),
            (Dialect::Native, true),
            (Dialect::Browser, false),
        ] {
            let text = shader.resolve(dialect, subgroups);
            assert!(
                !text.contains('$'),
                "{}: a $NAME nobody gives a value",
                shader.name
            );
            let module = validate(&text).unwrap_or_else(|e| {
                panic!(
                    "{} for {dialect:?}, subgroups {subgroups}: {e}",
                    shader.name
                )
            });
            let main = module
                .entry_points
                .iter()
                .find(|entry| entry.name == "main")
                .unwrap_or_else(|| panic!("{}: no entry point `main`", shader.name));
            let functions = module.functions.iter().map(|(_, function)| function);
            let used: BTreeSet<_> = functions
                .chain([&main.function])
                .flat_map(|function| function.expressions.iter())
                .filter_map(|(_, expression)| match expression {
                    naga::Expression::GlobalVariable(variable) => Some(*variable),
                    _ => None,
                })
                .collect();
            for (handle, variable) in module.global_variables.iter() {
                assert!(
                    variable.binding.is_none() || used.contains(&handle),
                    "{}: binding {:?} is never used, so it has no place in the layout",
                    shader.name,
                    variable.name
                );
            }
        }
    }
}

/// Words that WGSL keeps for later versions and browsers refuse as names; naga takes them.
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
fn every_file_is_known_to_the_program() {
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

//! Compile errors of shaders. A device compiles a shader at its first launch. Natively the error shows in
//! the launch's outputs, in a browser in an error scope that resolves later.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use burn::tensor::wgpu::wgpu::{
    CompilationMessageType, ComputePipelineDescriptor, Device, ErrorFilter, ShaderModuleDescriptor,
    ShaderSource,
};
use cubecl::prelude::Client;
use cubecl::server::Handle;

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::gpu::device::opened;

/// Resolves to the error of a launch, or to nothing.
type LaunchError = Pin<Box<dyn Future<Output = Option<String>>>>;

/// The first launch of a shader.
struct FirstLaunch {
    name: &'static str,
    text: Arc<str>,
    error: LaunchError,
}

thread_local! {
    static FIRST_LAUNCHES: RefCell<Vec<FirstLaunch>> = RefCell::default();
}

/// Launches the shader `name` for the first time by `run` and records its error; `text` is what is compiled.
pub(super) fn watch(
    name: &'static str,
    text: Arc<str>,
    run: impl FnOnce(),
    client: &Client,
    outputs: &[&Handle],
) {
    let error = launch_error(run, client, outputs);
    let first = FirstLaunch { name, text, error };
    FIRST_LAUNCHES.with_borrow_mut(|all| all.push(first));
}

#[cfg(not(target_family = "wasm"))]
fn launch_error(launch: impl FnOnce(), client: &Client, outputs: &[&Handle]) -> LaunchError {
    launch();
    let error = client.check(outputs.iter().copied()).err();
    Box::pin(std::future::ready(error.map(|error| error.to_string())))
}

#[cfg(target_family = "wasm")]
fn launch_error(launch: impl FnOnce(), _: &Client, _: &[&Handle]) -> LaunchError {
    let scope = opened().map(|(device, _)| device.push_error_scope(ErrorFilter::Validation));
    launch();
    let error = scope.map(|scope| scope.pop());
    Box::pin(async move { Some(error?.await?.to_string()) })
}

/// Waits for the first launches of shaders by this thread since the last call. Returns a fault that names
/// the first shader that the device does not compile.
pub async fn take_compile_error() -> Option<Fault> {
    for FirstLaunch { name, text, error } in FIRST_LAUNCHES.take() {
        if let Some(error) = error.await {
            let (device, adapter) = opened()?;
            let message = compiler_message(device, &text).await.unwrap_or(error);
            return Some(
                Fault::new(
                    FaultKind::Device,
                    format!("kernel {name}"),
                    format!("does not compile on {adapter}: {}", first_lines(&message)),
                    "Update the browser or the GPU driver, or use another device",
                )
                .code(ErrorCode::ShaderRejected),
            );
        }
    }
    None
}

/// The compiler's message about `text`; none if it compiles.
async fn compiler_message(device: &Device, text: &str) -> Option<String> {
    let scope = device.push_error_scope(ErrorFilter::Validation);
    let module = device.create_shader_module(ShaderModuleDescriptor {
        label: None,
        source: ShaderSource::Wgsl(text.into()),
    });
    let invalid = scope.pop();
    // In a browser wgpu 30 panics on messages with offsets that it cannot map; the scope has the message.
    let messages = if cfg!(target_family = "wasm") {
        Vec::new()
    } else {
        module.get_compilation_info().await.messages
    };
    let error = (messages.iter()).find(|m| m.message_type == CompilationMessageType::Error);
    if let Some(error) = error {
        let line = error.location.map_or(0, |location| location.line_number);
        return Some(format!("line {line}: {}", error.message));
    }
    if let Some(error) = invalid.await {
        return Some(with_line(&error.to_string()));
    }
    let scope = device.push_error_scope(ErrorFilter::Validation);
    let inner = device.push_error_scope(ErrorFilter::Internal);
    let _ = device.create_compute_pipeline(&ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let (internal, invalid) = (inner.pop(), scope.pop());
    let invalid = invalid.await;
    Some(internal.await.or(invalid)?.to_string())
}

/// A browser's message `:LINE:COLUMN error: TEXT` in this program's form, `line LINE: TEXT`.
fn with_line(message: &str) -> String {
    let located = message.split_once(" error: ").and_then(|(before, text)| {
        let line: u32 = before.rsplit(':').nth(1)?.parse().ok()?;
        Some(format!("line {line}: {text}"))
    });
    located.unwrap_or_else(|| message.to_owned())
}

/// The first lines of a message, joined.
fn first_lines(message: &str) -> String {
    const LINES: usize = 3;
    let lines = message.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.take(LINES).collect::<Vec<_>>().join(" ")
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::gpu::buffer::{alloc, to_buffer};
    use crate::gpu::device::adapter_for_test;
    use crate::gpu::launch::launch;
    use crate::gpu::shader::Shader;
    use crate::gpu::uniforms::{Uniforms as _, uniforms};

    uniforms! {
        /// Of the shaders below.
        struct IndexUniforms {
            /// Where y is written.
            index: u32,
        }
    }

    const fn shader(name: &'static str, text: &'static str) -> Shader {
        Shader {
            name,
            text,
            uniforms: IndexUniforms::LAYOUT,
            constants: &[],
            imports: &[],
        }
    }

    fn fault_of(shader: &Shader) -> Option<Fault> {
        let device = adapter_for_test(shader.name)?;
        let x = to_buffer("test", Tensor::<1>::zeros([4], &device));
        let out = alloc("test", &x.client, 4);
        launch(
            shader,
            &x.client,
            1,
            &[&x.handle],
            &[&out],
            &IndexUniforms { index: 0 },
        );
        pollster::block_on(take_compile_error())
    }

    /// A shader with a workgroup size and a body.
    macro_rules! with_body {
        ($size:literal, $body:literal) => {
            concat!(
                "@group(0) @binding(0) var<storage, read_write> x: array<f32>;\n",
                "@group(0) @binding(1) var<storage, read_write> y: array<f32>;\n",
                "@group(0) @binding(2) var<uniform> u: Uniforms;\n",
                "@compute @workgroup_size(",
                $size,
                ") fn main() {\n",
                $body,
                "\n}\n"
            )
        };
    }

    #[test]
    fn a_shader_that_does_not_compile_is_named() {
        const GOOD: Shader = shader("good", with_body!("1", "y[u.index] = x[0];"));
        const WRONG: Shader = shader("wrong", with_body!("1", "y[u.index] = x[0] + 1u;"));
        // A larger workgroup than any device supports.
        const LARGE: Shader = shader("large", with_body!("65536, 64", "y[u.index] = x[0];"));
        if adapter_for_test("a_shader_that_does_not_compile_is_named").is_none() {
            return;
        }
        assert_eq!(fault_of(&GOOD), None);
        for wrong in [&WRONG, &LARGE] {
            let fault = fault_of(wrong).expect("a compile error");
            println!("{fault}");
            let (_, adapter) = opened().expect("opened above");
            assert_eq!(fault.place, format!("kernel {}", wrong.name));
            let start = format!("does not compile on {adapter}: ");
            assert!(fault.what.starts_with(&start), "{fault}");
            assert!(fault.what.len() > start.len() + 10, "{fault}");
        }
        assert_eq!(fault_of(&GOOD), None);
    }

    #[test]
    fn the_line_of_a_browsers_message_is_found() {
        let message = "Validation Error\n\nError while parsing WGSL: :51:7 error: no 'f16': here";
        assert_eq!(with_line(message), "line 51: no 'f16': here");
        for other in ["", "an error: of another kind", "at 5: error: what"] {
            assert_eq!(with_line(other), other);
        }
    }

    #[test]
    fn messages_become_one_line() {
        assert_eq!(first_lines("a\n\n  b: \n c\nd"), "a b: c");
    }
}

//! Shaders that a device does not compile. Whether it does shows at a shader's first launch: natively
//! through the launch's outputs, in a browser through an error scope, whose answer comes later.

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

use super::launch::Compiled;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::gpu::device::opened;

/// What the device says of a launch: nothing, or what is wrong.
type Verdict = Pin<Box<dyn Future<Output = Option<String>>>>;

/// A shader that was launched for the first time.
struct Watched {
    name: &'static str,
    text: Arc<str>,
    verdict: Verdict,
}

thread_local! {
    static WATCHED: RefCell<Vec<Watched>> = RefCell::default();
}

/// Launches a shader for the first time by `run`, and notes what the device says to it.
pub(super) fn watch(
    name: &'static str,
    compiled: Compiled,
    run: impl FnOnce(Compiled),
    client: &Client,
    outputs: &[&Handle],
) {
    let text = compiled.text.clone();
    let verdict = judged(|| run(compiled), client, outputs);
    let watched = Watched {
        name,
        text,
        verdict,
    };
    WATCHED.with_borrow_mut(|all| all.push(watched));
}

#[cfg(not(target_family = "wasm"))]
fn judged(launch: impl FnOnce(), client: &Client, outputs: &[&Handle]) -> Verdict {
    launch();
    let wrong = client.check(outputs.iter().copied()).err();
    Box::pin(std::future::ready(wrong.map(|error| error.to_string())))
}

#[cfg(target_family = "wasm")]
fn judged(launch: impl FnOnce(), _: &Client, _: &[&Handle]) -> Verdict {
    let scope = opened().map(|(device, _)| device.push_error_scope(ErrorFilter::Validation));
    launch();
    let wrong = scope.map(|scope| scope.pop());
    Box::pin(async move { Some(wrong?.await?.to_string()) })
}

/// Waits for the verdicts on shaders that this thread launched for the first time since it asked
/// last: a fault with the name of the first that its device does not compile.
pub async fn take_compile_error() -> Option<Fault> {
    for Watched {
        name,
        text,
        verdict,
    } in WATCHED.take()
    {
        if let Some(wrong) = verdict.await {
            let (device, adapter) = opened()?;
            let says = complaint(device, &text).await.unwrap_or(wrong);
            return Some(
                Fault::new(
                    FaultKind::Device,
                    format!("kernel {name}"),
                    format!("does not compile on {adapter}: {}", first_lines(&says)),
                    "Update the browser or the graphics driver, or use another device",
                )
                .code(ErrorCode::ShaderRejected),
            );
        }
    }
    None
}

/// What the compiler says of `text`; nothing where it compiles after all.
async fn complaint(device: &Device, text: &str) -> Option<String> {
    let scope = device.push_error_scope(ErrorFilter::Validation);
    let module = device.create_shader_module(ShaderModuleDescriptor {
        label: None,
        source: ShaderSource::Wgsl(text.into()),
    });
    let refused = scope.pop();
    // In a browser wgpu 30 panics over messages whose offsets it cannot place; the scope tells there.
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
    if let Some(refused) = refused.await {
        return Some(with_line(&refused.to_string()));
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
    let (internal, refused) = (inner.pop(), scope.pop());
    let refused = refused.await;
    Some(internal.await.or(refused)?.to_string())
}

/// A browser's message about a shader, `:LINE:COLUMN error: WORDS`, as this program puts it.
fn with_line(message: &str) -> String {
    let pointed = message.split_once(" error: ").and_then(|(before, words)| {
        let line: u32 = before.rsplit(':').nth(1)?.parse().ok()?;
        Some(format!("line {line}: {words}"))
    });
    pointed.unwrap_or_else(|| message.to_owned())
}

/// The beginning of a message in one line.
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

    /// A shader of one invocation or more.
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
        // More invocations than any device has.
        const LARGE: Shader = shader("large", with_body!("65536, 64", "y[u.index] = x[0];"));
        if adapter_for_test("a_shader_that_does_not_compile_is_named").is_none() {
            return;
        }
        assert_eq!(fault_of(&GOOD), None);
        for wrong in [&WRONG, &LARGE] {
            let fault = fault_of(wrong).expect("it does not compile");
            println!("{fault}");
            let (_, adapter) = opened().expect("opened above");
            assert_eq!(fault.place, format!("kernel {}", wrong.name));
            let says = format!("does not compile on {adapter}: ");
            assert!(fault.what.starts_with(&says), "{fault}");
            assert!(fault.what.len() > says.len() + 10, "{fault}");
        }
        assert_eq!(fault_of(&GOOD), None);
    }

    #[test]
    fn a_browsers_message_tells_the_line() {
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

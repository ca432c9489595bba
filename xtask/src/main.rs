//! Sets up, builds, serves and tests the project: `cargo xtask serve | test | models | dist | wheel | bench | pack`.

mod bench;
mod bundle;
mod checks;
mod compress;
mod cpu_rivals;
mod files;
mod js_package;
mod lint;
mod models;
mod pack;
mod paths;
mod process;
mod serve;
mod setup;
mod site;
mod test;
mod times;
mod wheel;

use std::path::PathBuf;
use std::process::ExitCode;

use bench::{Bench, Rivals};
use lexopt::prelude::*;
use pack::Pack;
use wheel::Wheel;

const USAGE: &str = "\
cargo xtask serve [--port N] [--release]   build the page and serve it at http://localhost:N (8080);
                                           always a release build, with or without the flag
cargo xtask test [--only STEP]...          run every check; steps: native web browser python fmt clippy;
                                           browser/NAME is one file of tests/browser
cargo xtask models small                   fetch SmolLM2 with pip, merge the adapter of small into it; serve and
                                           dist then offer it
cargo xtask manual NAME FOLDER             run tests/browser/NAME.mjs (eval, examine, large) on a model folder
cargo xtask bench [--model DIR | --like chatrex-7b|rexseek-3b|nano [--layers N] [--depth N]
                  [--quant q4|q8|f16|f32]] [--cache f32|f16] [--boxes N] [--repeats N] [--seconds S]
                  [--only kernels|upn|towers|decoder]... [--json FILE|-] [--gpu]
                                           the rows of `chatrex bench` in a headless browser; --gpu
                                           uses the GPU of this machine, not the software adapter
cargo xtask bench-rivals [--only LAYER]... [--cases NAME]... [--repeats N] [--json FILE] [--gpu]
                  [--without FEATURE]...
                                           compare layers with onnxruntime-web in an interleaved run:
                                           d896, d2048, d4096 (language models), clip-l,
                                           convnext-192 (384, 768, 1536); NAME is a prefix of case
                                           names, e.g. decode or \"prefill 16\"; FEATURE is a WebGPU
                                           feature to hide from onnxruntime
cargo xtask bench-rivals --cpu [--only LAYER|pictures|convert|upn]... [--repeats N] [--json FILE] [--torch]
                                           compare layers natively on the CPU, on one thread and on two, with
                                           llama.cpp and onnxruntime in an interleaved run; resizing with Pillow,
                                           conversion and loading with copying and hashing (FILE.programs);
                                           --torch installs PyTorch (5.5 GB) and compares vision layers and UPN
cargo xtask pack --out FILE.tar.xz [--only LAYER]... [--python 3.N]
                                           an archive that compares layers with onnxruntime and
                                           llama.cpp on a Linux machine without network: unpack it
                                           and start ./run.sh
cargo xtask dist [--out DIR] [--js DIR]    write the static site (--out), the JavaScript module as an
                                           npm package (--js), or both. The site gets a .br and a .gz copy
                                           beside every file that they make smaller, for hosts that send
                                           them; prints the sizes of page and engine and checks their limits
cargo xtask wheel [--out DIR] [--release] [--test]
                                           the Python package as a wheel, for this machine with the profile of the
                                           tests, with --release for users; --test installs it in a new virtual
                                           environment and runs python/tests there

Missing tools are installed first. Environment:
  CHATREX_TOOLS     where Python packages are kept
  CARGO_TARGET_DIR  where builds are kept (both default to the user's cache, outside the repository)
  CHATREX_BROWSER   the Chromium for the browser tests";

enum Command {
    Serve {
        port: u16,
    },
    Test {
        only: Vec<String>,
    },
    Manual {
        name: String,
        folder: PathBuf,
    },
    Models {
        name: String,
    },
    Dist {
        out: Option<PathBuf>,
        js: Option<PathBuf>,
    },
    Bench(Bench),
    Rivals(Rivals),
    Pack(Pack),
    Wheel(Wheel),
    Help,
}

fn main() -> ExitCode {
    if let Some(code) = lint::driver() {
        return code;
    }
    let command = match parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("cargo xtask: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Serve { port } => serve::command(port),
        Command::Test { only } => test::command(&only),
        Command::Manual { name, folder } => test::manual(&name, &folder),
        Command::Models { name } => models::command(&name),
        Command::Dist { out, js } => site::dist(out.as_deref(), js.as_deref()),
        Command::Bench(options) => bench::bench(&options),
        Command::Rivals(options) if options.cpu => cpu_rivals::rivals(&options),
        Command::Rivals(options) => bench::rivals(&options),
        Command::Pack(options) => pack::pack(&options),
        Command::Wheel(options) => wheel::command(&options),
        Command::Help => {
            println!("{USAGE}");
            Ok(true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let Some(name) = arguments.next()? else {
        return Err("name a command".into());
    };
    match name {
        Value(name) if name == "serve" => {
            let mut port = 8080;
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("port") => port = arguments.value()?.parse()?,
                    Long("release") => {}
                    other => return Err(other.unexpected()),
                }
            }
            Ok(Command::Serve { port })
        }
        Value(name) if name == "test" => {
            let mut only = Vec::new();
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("only") => only.push(arguments.value()?.string()?),
                    other => return Err(other.unexpected()),
                }
            }
            Ok(Command::Test { only })
        }
        Value(name) if name == "manual" => {
            let (name, folder) = (arguments.value()?.string()?, arguments.value()?);
            let folder = PathBuf::from(folder);
            Ok(Command::Manual { name, folder })
        }
        Value(name) if name == "models" => Ok(Command::Models {
            name: arguments.value()?.string()?,
        }),
        Value(name) if name == "dist" => {
            let (mut out, mut js) = (None, None);
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("out") => out = Some(PathBuf::from(arguments.value()?)),
                    Long("js") => js = Some(PathBuf::from(arguments.value()?)),
                    other => return Err(other.unexpected()),
                }
            }
            if out.is_none() && js.is_none() {
                return Err("dist needs --out DIR or --js DIR".into());
            }
            Ok(Command::Dist { out, js })
        }
        Value(name) if name == "bench" => bench_options(arguments).map(Command::Bench),
        Value(name) if name == "bench-rivals" => {
            let mut options = Rivals::default();
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("only") => options.shapes.push(arguments.value()?.string()?),
                    Long("cases") => options.cases.push(arguments.value()?.string()?),
                    Long("repeats") => options.repeats = arguments.value()?.parse()?,
                    Long("without") => options.without.push(arguments.value()?.string()?),
                    Long("json") => options.json = Some(arguments.value()?.string()?),
                    Long("gpu") => options.gpu = true,
                    Long("cpu") => options.cpu = true,
                    Long("torch") => options.torch = true,
                    other => return Err(other.unexpected()),
                }
            }
            Ok(Command::Rivals(options))
        }
        Value(name) if name == "pack" => {
            let mut options = Pack::default();
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("out") => options.out = PathBuf::from(arguments.value()?),
                    Long("only") => options.shapes.push(arguments.value()?.string()?),
                    Long("python") => {
                        let version = arguments.value()?.string()?;
                        if !pack::is_version(&version) {
                            return Err("--python takes a version such as 3.12".into());
                        }
                        options.python = Some(version);
                    }
                    other => return Err(other.unexpected()),
                }
            }
            if options.out.as_os_str().is_empty() {
                return Err("pack needs --out FILE.tar.xz".into());
            }
            Ok(Command::Pack(options))
        }
        Value(name) if name == "wheel" => {
            let mut options = Wheel::default();
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("out") => options.out = Some(PathBuf::from(arguments.value()?)),
                    Long("release") => options.release = true,
                    Long("test") => options.test = true,
                    other => return Err(other.unexpected()),
                }
            }
            Ok(Command::Wheel(options))
        }
        Value(name) if name == "help" => Ok(Command::Help),
        Long("help") | Short('h') => Ok(Command::Help),
        other => Err(other.unexpected()),
    }
}

fn bench_options(mut arguments: lexopt::Parser) -> Result<Bench, lexopt::Error> {
    let mut options = Bench::default();
    let mut only: Vec<String> = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long(name @ ("like" | "quant" | "cache")) => {
                let name = name.to_owned();
                let value = arguments.value()?.string()?;
                options.plan.insert(name, value.into());
            }
            Long(name @ ("layers" | "depth" | "boxes" | "repeats")) => {
                let name = name.to_owned();
                let value: u32 = arguments.value()?.parse()?;
                options.plan.insert(name, value.into());
            }
            Long("seconds") => {
                let value: f64 = arguments.value()?.parse()?;
                options.plan.insert("seconds".into(), value.into());
            }
            Long("only") => only.push(arguments.value()?.string()?),
            Long("model") => options.model = Some(arguments.value()?.into()),
            Long("json") => options.json = Some(arguments.value()?.string()?),
            Long("gpu") => options.gpu = true,
            other => return Err(other.unexpected()),
        }
    }
    options.plan.insert("only".into(), only.into());
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parsed(line: &str) -> Result<Command, lexopt::Error> {
        parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn commands_and_their_flags() {
        assert!(matches!(
            parsed("serve --port 90 --release"),
            Ok(Command::Serve { port: 90 })
        ));
        assert!(
            matches!(parsed("test --only web --only browser"), Ok(Command::Test { only }) if only == ["web", "browser"])
        );
        assert!(matches!(parsed("models small"), Ok(Command::Models { name }) if name == "small"));
        assert!(
            matches!(parsed("dist --out site"), Ok(Command::Dist { out: Some(out), js: None }) if out == Path::new("site"))
        );
        assert!(
            matches!(parsed("wheel --out w --test"), Ok(Command::Wheel(Wheel { out: Some(out), release: false, test: true })) if out == Path::new("w"))
        );
        assert!(
            matches!(parsed("dist --js module"), Ok(Command::Dist { out: None, js: Some(js) }) if js == Path::new("module"))
        );
    }

    #[test]
    fn benchmark_options_become_a_plan() {
        let line = "bench --like rexseek-3b --layers 2 --only kernels --seconds 2.5 --json - --gpu";
        let Ok(Command::Bench(options)) = parsed(line) else {
            panic!("{line}");
        };
        let plan = serde_json::json!(
            {"like": "rexseek-3b", "layers": 2, "only": ["kernels"], "seconds": 2.5});
        assert_eq!(serde_json::Value::Object(options.plan), plan);
        assert_eq!((options.json.as_deref(), options.gpu), (Some("-"), true));
        let line = "bench-rivals --only d896 --cases decode --repeats 3";
        let Ok(Command::Rivals(options)) = parsed(line) else {
            panic!("{line}");
        };
        assert_eq!(
            (&*options.shapes[0], &*options.cases[0]),
            ("d896", "decode")
        );
        assert_eq!(
            (options.repeats, options.gpu, options.cpu),
            (3, false, false)
        );
        let line = "bench-rivals --cpu --only d2048";
        assert!(matches!(parsed(line), Ok(Command::Rivals(options)) if options.cpu));
        let Ok(Command::Pack(options)) = parsed("pack --out a.tar.xz --only d896 --python 3.12")
        else {
            panic!("pack");
        };
        assert_eq!(options.out, PathBuf::from("a.tar.xz"));
        let python = options.python.as_deref();
        assert_eq!((&*options.shapes[0], python), ("d896", Some("3.12")));
    }

    #[test]
    fn other_commands_and_flags_are_errors() {
        for line in [
            "",
            "fly",
            "dist",
            "models",
            "serve --port many",
            "test --out x",
            "bench --layers x",
            "pack",
            "pack --out a.tar.xz --python three",
        ] {
            assert!(parsed(line).is_err(), "{line:?}");
        }
    }
}

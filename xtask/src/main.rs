//! Sets up, builds, serves and tests the project: `cargo xtask serve | test | dist | bench | pack`.

mod bench;
mod pack;
mod place;
mod process;
mod serve;
mod setup;
mod site;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use bench::{Bench, Rivals};
use lexopt::prelude::*;
use pack::Pack;

const USAGE: &str = "\
cargo xtask serve [--port N] [--release]   build the page and serve it at http://localhost:N (8080);
                                           it is a release build with or without the flag
cargo xtask test [--only STEP]...          run every check; steps: fmt clippy native web browser
cargo xtask manual NAME FOLDER             run tests/browser/NAME.mjs (eval, examine, large) on a model folder
cargo xtask bench [--model DIR | --like chatrex-7b|rexseek-3b|nano [--layers N] [--depth N]
                  [--quant q4|q8|f16|f32]] [--cache f32|f16] [--boxes N] [--repeats N] [--seconds S]
                  [--only kernels|upn|towers|decoder]... [--json FILE|-] [--gpu]
                                           the rows of `chatrex bench` in a headless browser; --gpu
                                           takes this machine's card instead of software
cargo xtask bench-rivals [--only LAYER]... [--cases NAME]... [--repeats N] [--json FILE] [--gpu]
                  [--without FEATURE]...
                                           layers beside onnxruntime-web, in turns: d896, d2048, d4096
                                           of a language model, clip-l, convnext-192 (384, 768, 1536);
                                           NAME begins the names of cases, e.g. decode or
                                           \"prefill 16\"; FEATURE is one of WebGPU's that onnxruntime
                                           is not told of
cargo xtask pack --out FILE.tar.xz [--only LAYER]... [--python 3.N]
                                           all that measures layers beside onnxruntime and llama.cpp
                                           on a Linux machine without network: unpack, ./run.sh
cargo xtask dist --out DIR                 write the static folder any host can serve

What a command needs and this machine lacks is set up first. Environment:
  CHATREX_TOOLS     where Trunk and wasm-bindgen are kept
  CARGO_TARGET_DIR  where builds are kept (both default to the user's cache, outside the clone)
  CHATREX_BROWSER   the Chromium to test with";

enum Command {
    Serve { port: u16 },
    Test { only: Vec<String> },
    Manual { name: String, folder: PathBuf },
    Dist { out: PathBuf },
    Bench(Bench),
    Rivals(Rivals),
    Pack(Pack),
    Help,
}

fn main() -> ExitCode {
    let command = match parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("cargo xtask: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Serve { port } => serve::command(port),
        Command::Test { only } => test::command(&only),
        Command::Manual { name, folder } => test::manual(&name, &folder),
        Command::Dist { out } => site::dist(&out),
        Command::Bench(asked) => bench::bench(&asked),
        Command::Rivals(asked) => bench::rivals(&asked),
        Command::Pack(asked) => pack::pack(&asked),
        Command::Help => {
            println!("{USAGE}");
            Ok(true)
        }
    };
    match done {
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
        Value(name) if name == "dist" => {
            let mut out = None;
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("out") => out = Some(PathBuf::from(arguments.value()?)),
                    other => return Err(other.unexpected()),
                }
            }
            out.map(|out| Command::Dist { out })
                .ok_or_else(|| "dist needs --out DIR".into())
        }
        Value(name) if name == "bench" => bench_options(arguments).map(Command::Bench),
        Value(name) if name == "bench-rivals" => {
            let mut asked = Rivals::default();
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("only") => asked.shapes.push(arguments.value()?.string()?),
                    Long("cases") => asked.cases.push(arguments.value()?.string()?),
                    Long("repeats") => asked.repeats = arguments.value()?.parse()?,
                    Long("without") => asked.without.push(arguments.value()?.string()?),
                    Long("json") => asked.json = Some(arguments.value()?.string()?),
                    Long("gpu") => asked.gpu = true,
                    other => return Err(other.unexpected()),
                }
            }
            Ok(Command::Rivals(asked))
        }
        Value(name) if name == "pack" => {
            let mut asked = Pack::default();
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("out") => asked.out = PathBuf::from(arguments.value()?),
                    Long("only") => asked.shapes.push(arguments.value()?.string()?),
                    Long("python") => {
                        let version = arguments.value()?.string()?;
                        if !pack::is_version(&version) {
                            return Err("--python takes a version such as 3.12".into());
                        }
                        asked.python = Some(version);
                    }
                    other => return Err(other.unexpected()),
                }
            }
            if asked.out.as_os_str().is_empty() {
                return Err("pack needs --out FILE.tar.xz".into());
            }
            Ok(Command::Pack(asked))
        }
        Value(name) if name == "help" => Ok(Command::Help),
        Long("help") | Short('h') => Ok(Command::Help),
        other => Err(other.unexpected()),
    }
}

fn bench_options(mut arguments: lexopt::Parser) -> Result<Bench, lexopt::Error> {
    let mut asked = Bench::default();
    let mut only: Vec<String> = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long(name @ ("like" | "quant" | "cache")) => {
                let name = name.to_owned();
                let value = arguments.value()?.string()?;
                asked.plan.insert(name, value.into());
            }
            Long(name @ ("layers" | "depth" | "boxes" | "repeats")) => {
                let name = name.to_owned();
                let value: u32 = arguments.value()?.parse()?;
                asked.plan.insert(name, value.into());
            }
            Long("seconds") => {
                let value: f64 = arguments.value()?.parse()?;
                asked.plan.insert("seconds".into(), value.into());
            }
            Long("only") => only.push(arguments.value()?.string()?),
            Long("model") => asked.model = Some(arguments.value()?.into()),
            Long("json") => asked.json = Some(arguments.value()?.string()?),
            Long("gpu") => asked.gpu = true,
            other => return Err(other.unexpected()),
        }
    }
    asked.plan.insert("only".into(), only.into());
    Ok(asked)
}

#[cfg(test)]
mod tests {
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
        assert!(matches!(
            parsed("dist --out site"),
            Ok(Command::Dist { .. })
        ));
    }

    #[test]
    fn measurements_take_what_the_engine_takes() {
        let line = "bench --like rexseek-3b --layers 2 --only kernels --seconds 2.5 --json - --gpu";
        let Ok(Command::Bench(asked)) = parsed(line) else {
            panic!("{line}");
        };
        let plan = serde_json::json!(
            {"like": "rexseek-3b", "layers": 2, "only": ["kernels"], "seconds": 2.5});
        assert_eq!(serde_json::Value::Object(asked.plan), plan);
        assert_eq!((asked.json.as_deref(), asked.gpu), (Some("-"), true));
        let line = "bench-rivals --only d896 --cases decode --repeats 3";
        let Ok(Command::Rivals(asked)) = parsed(line) else {
            panic!("{line}");
        };
        assert_eq!((&*asked.shapes[0], &*asked.cases[0]), ("d896", "decode"));
        assert_eq!((asked.repeats, asked.gpu), (3, false));
        let Ok(Command::Pack(asked)) = parsed("pack --out a.tar.xz --only d896 --python 3.12")
        else {
            panic!("pack");
        };
        assert_eq!(asked.out, PathBuf::from("a.tar.xz"));
        let python = asked.python.as_deref();
        assert_eq!((&*asked.shapes[0], python), ("d896", Some("3.12")));
    }

    #[test]
    fn what_is_not_a_command_is_refused() {
        for line in [
            "",
            "fly",
            "dist",
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

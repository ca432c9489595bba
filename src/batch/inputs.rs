//! The list of pictures of a batch: a folder, a pattern, a text file of paths, or a COCO file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::pattern::{Pattern, is_pattern};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::weights::manifest::hex;

/// Endings of the files that are taken from a folder, in lower case.
const ENDINGS: [&str; 4] = ["jpeg", "jpg", "png", "webp"];

/// Folders below one another at most.
const MAX_DEPTH: usize = 64;

/// A picture of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its name in results: the path below [`Pictures::root`] with `/`, or the path as it was listed.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its id in COCO files: that of the COCO file it comes from, else its place in the list from 1.
    pub id: Value,
}

/// The pictures of a batch, in order, each name once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pictures {
    /// The pictures.
    pub all: Vec<Picture>,
    /// The folder that relative names belong to.
    pub root: PathBuf,
    /// Names that were listed more than once.
    pub repeated: usize,
    /// Ids and names of the categories of a COCO file.
    pub categories: Vec<(Value, String)>,
}

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    #[serde(default)]
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: Value,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: Value,
    name: String,
}

impl Pictures {
    /// Reads the list that `source` names: a folder (recursively, pictures by their endings, hidden files left
    /// out), a pattern, a COCO file (`.json`), a picture, or a text file with a path per line. Relative paths
    /// of files are below `root`, without it below the folder of the file. `skip` are folders of results, which
    /// are not searched.
    ///
    /// # Errors
    /// The source does not exist, cannot be read, or has no pictures.
    pub fn list(source: &str, root: Option<&Path>, skip: &[&Path]) -> Result<Self, Fault> {
        let path = Path::new(source);
        let skip: Vec<PathBuf> = skip.iter().filter_map(|p| p.canonicalize().ok()).collect();
        let pictures = if path.is_dir() {
            Self::of_names(path, files_below(path, &skip)?.iter().map(PathBuf::as_path))?
        } else if path.is_file() {
            let folder = path.parent().unwrap_or(Path::new(""));
            let root = root.unwrap_or(folder);
            match ending(path).as_deref() {
                Some("json") => Self::of_coco(path, root)?,
                Some(ending) if ENDINGS.contains(&ending) => {
                    Self::of_names(folder, path.file_name().map(Path::new).into_iter())?
                }
                _ => Self::of_lines(path, root)?,
            }
        } else if is_pattern(source) {
            let (base, pattern) = Pattern::split(source);
            let found = match base.is_dir() {
                true => files_below(&base, &skip)?,
                false => Vec::new(),
            };
            let found = found.iter().filter(|path| pattern.matches(path));
            Self::of_names(&base, found.map(PathBuf::as_path))?
        } else {
            return Err(refused(source, "does not exist").code(ErrorCode::NotFound));
        };
        match pictures.all.is_empty() {
            true => Err(refused(source, "has no JPEG, PNG or WebP pictures")),
            false => Ok(pictures),
        }
    }

    /// Pictures by their paths below `root`.
    ///
    /// # Errors
    /// Two paths have one name, which happens if they are not UTF-8.
    pub fn of_names<'a>(root: &Path, names: impl Iterator<Item = &'a Path>) -> Result<Self, Fault> {
        let mut pictures = Self {
            root: root.to_owned(),
            ..Self::default()
        };
        let mut places = HashMap::new();
        for path in names {
            pictures.add(&mut places, name_of(path), path, None)?;
        }
        Ok(pictures)
    }

    fn of_lines(file: &Path, root: &Path) -> Result<Self, Fault> {
        let text = read_text(file)?;
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self::of_names(root, lines.map(Path::new))
    }

    fn of_coco(file: &Path, root: &Path) -> Result<Self, Fault> {
        let place = file.display().to_string();
        let fault = |what: String| refused(&place, &what).code(ErrorCode::Corrupt);
        let coco: CocoFile = serde_json::from_str(&read_text(file)?)
            .map_err(|error| fault(format!("is no COCO file: {error}")))?;
        let mut pictures = Self {
            root: root.to_owned(),
            categories: coco
                .categories
                .into_iter()
                .map(|category| (category.id, category.name))
                .collect(),
            ..Self::default()
        };
        let mut places = HashMap::new();
        let mut ids = HashMap::new();
        for CocoImage { id, file_name } in coco.images {
            let path = Path::new(&file_name);
            let is_inside = path.components().all(|c| matches!(c, Component::Normal(_)));
            if !is_inside || file_name.is_empty() {
                let what = format!("names the picture `{file_name}`, which is not inside a folder");
                return Err(fault(what));
            }
            if !id.is_u64() && !id.is_i64() && !id.is_string() {
                return Err(fault(format!("gives {file_name} the id {id}")));
            }
            if let Some(other) = ids.insert(id.to_string(), file_name.clone()) {
                return Err(fault(format!(
                    "gives {other} and {file_name} the same id {id}"
                )));
            }
            pictures.add(&mut places, name_of(path), path, Some(id))?;
        }
        Ok(pictures)
    }

    /// Adds a picture unless its name is there.
    fn add(
        &mut self,
        places: &mut HashMap<String, PathBuf>,
        name: String,
        path: &Path,
        id: Option<Value>,
    ) -> Result<(), Fault> {
        match places.get(&name) {
            Some(known) if known == path => {
                self.repeated += 1;
                return Ok(());
            }
            Some(_) => {
                let what = "is the name of two files, because it is not UTF-8";
                return Err(refused(&name, what));
            }
            None => {}
        }
        places.insert(name.clone(), path.to_owned());
        let next = self.all.len() as u64 + 1;
        self.all.push(Picture {
            name,
            path: self.root.join(path),
            id: id.unwrap_or_else(|| next.into()),
        });
        Ok(())
    }

    /// SHA-256 of names and ids, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for picture in &self.all {
            hash.update(picture.name.as_bytes());
            hash.update([0]);
            hash.update(picture.id.to_string().as_bytes());
            hash.update([0]);
        }
        hex(&hash.finalize())
    }
}

/// Reads a text file.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Fault> {
    let bytes = fs::read(path).map_err(|error| Fault::file(path, error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refused(
            &path.display().to_string(),
            &format!("is not UTF-8 text from byte {at} on"),
        )
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

fn refused(place: &str, what: &str) -> Fault {
    Fault::new(
        FaultKind::File,
        place,
        what,
        "Name a folder, a pattern, a text file with a path per line, or a COCO file with --images",
    )
    .code(ErrorCode::InvalidInput)
}

fn ending(path: &Path) -> Option<String> {
    let ending = path.extension()?.to_str()?;
    Some(ending.to_ascii_lowercase())
}

/// The path with `/` between its names.
fn name_of(path: &Path) -> String {
    let names = path.components().map(|component| match component {
        Component::RootDir => "".into(),
        other => other.as_os_str().to_string_lossy(),
    });
    let names: Vec<_> = names.collect();
    match &names[..] {
        [only] if only.is_empty() => "/".into(),
        _ => names.join("/"),
    }
}

/// The pictures below `root` as relative paths, sorted by their names.
fn files_below(root: &Path, skip: &[PathBuf]) -> Result<Vec<PathBuf>, Fault> {
    let mut found = Vec::new();
    let mut above = Vec::new();
    search(root, Path::new(""), skip, &mut above, &mut found)?;
    found.sort();
    Ok(found)
}

/// Appends the pictures in `root/below`. `above` are the folders around it, so that links cannot lead in circles.
fn search(
    root: &Path,
    below: &Path,
    skip: &[PathBuf],
    above: &mut Vec<PathBuf>,
    found: &mut Vec<PathBuf>,
) -> Result<(), Fault> {
    let folder = root.join(below);
    let real = folder
        .canonicalize()
        .map_err(|error| Fault::file(&folder, error))?;
    if above.contains(&real) || skip.contains(&real) || above.len() > MAX_DEPTH {
        return Ok(());
    }
    above.push(real);
    let entries = fs::read_dir(&folder).map_err(|error| Fault::file(&folder, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Fault::file(&folder, error))?;
        let name = entry.file_name();
        if is_hidden(&name) {
            continue;
        }
        let path = below.join(&name);
        // A link without a target is no folder; its picture fails when it is read.
        match fs::metadata(root.join(&path)) {
            Ok(data) if data.is_dir() => search(root, &path, skip, above, found)?,
            _ if ending(&path).is_some_and(|ending| ENDINGS.contains(&ending.as_str())) => {
                found.push(path);
            }
            _ => {}
        }
    }
    above.pop();
    Ok(())
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pictures: &Pictures) -> Vec<&str> {
        pictures.all.iter().map(|p| p.name.as_str()).collect()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in [
            "b.png",
            "a.JPG",
            "sub/c.webp",
            "sub/deep/d.jpeg",
            "out/e.png",
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, name).expect("a file");
        }
        for name in ["notes.txt", ".hidden.png", "sub/._c.webp"] {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        folder
    }

    fn text(path: &Path) -> &str {
        path.to_str().expect("UTF-8")
    }

    #[test]
    fn a_folder_is_searched_in_the_order_of_names() {
        let folder = folder();
        let out = folder.path().join("out");
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), folder.path().join("sub/loop")).expect("a link");
        let found = Pictures::list(text(folder.path()), None, &[&out]).expect("pictures");
        let expected = ["a.JPG", "b.png", "sub/c.webp", "sub/deep/d.jpeg"];
        assert_eq!(names(&found), expected);
        assert_eq!(found.all[2].path, folder.path().join("sub/c.webp"));
        assert_eq!(found.all[2].id, 3);
        let again = Pictures::list(text(folder.path()), None, &[&out]).expect("pictures");
        assert_eq!(found.digest(), again.digest());
        let more = Pictures::list(text(folder.path()), None, &[]).expect("pictures");
        assert_eq!(more.all.len(), 5);
        assert_ne!(found.digest(), more.digest());
    }

    #[test]
    fn patterns_lists_and_single_pictures() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let list = |source: &str| Pictures::list(source, None, &[]);
        assert_eq!(names(&list(&path("*.png")).expect("one")), ["b.png"]);
        let deep = list(&path("**/*.*p*g")).expect("pictures");
        assert_eq!(names(&deep), ["b.png", "out/e.png", "sub/deep/d.jpeg"]);
        assert_eq!(names(&list(&path("b.png")).expect("one")), ["b.png"]);
        fs::write(
            path("list.txt"),
            "\u{feff}b.png\r\n\n# no\nmissing.png\nb.png\n",
        )
        .expect("text");
        let lines = list(&path("list.txt")).expect("two");
        assert_eq!(names(&lines), ["b.png", "missing.png"]);
        assert_eq!(lines.repeated, 1);
        let elsewhere = Pictures::list(&path("list.txt"), Some(Path::new("/data")), &[]);
        assert_eq!(
            elsewhere.expect("two").all[0].path,
            Path::new("/data/b.png")
        );
        for bad in [path("missing"), path("*.gif"), path("none/*.png")] {
            assert!(list(&bad).is_err(), "{bad}");
        }
        fs::write(path("bad.txt"), [b'a', 0xff]).expect("bytes");
        let fault = list(&path("bad.txt")).expect_err("no text");
        assert!(fault.what.contains("byte 1"), "{fault}");
    }

    #[test]
    fn a_coco_file_gives_ids_and_categories() {
        let folder = folder();
        let file = folder.path().join("set.json");
        let write = |json: &str| fs::write(&file, json).expect("a file");
        write(
            r#"{"images": [{"id": 70, "file_name": "sub/c.webp", "width": 9}, {"id": "x", "file_name": "b.png"}],
                "annotations": [{"anything": 1}], "categories": [{"id": 4, "name": "dog"}]}"#,
        );
        let found = Pictures::list(text(&file), None, &[]).expect("pictures");
        assert_eq!(names(&found), ["sub/c.webp", "b.png"]);
        assert_eq!(
            (&found.all[0].id, &found.all[1].id),
            (&70.into(), &"x".into())
        );
        assert_eq!(found.categories, [(4.into(), "dog".to_owned())]);
        for (json, what) in [
            ("{", "is no COCO file"),
            (
                r#"{"images": [{"id": 1, "file_name": "../a.png"}]}"#,
                "not inside",
            ),
            (
                r#"{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}"#,
                "same id 1",
            ),
            (
                r#"{"images": [{"id": null, "file_name": "a"}]}"#,
                "the id null",
            ),
            (r#"{"images": []}"#, "has no"),
        ] {
            write(json);
            let fault = Pictures::list(text(&file), None, &[]).expect_err(json);
            assert!(fault.what.contains(what), "{fault}");
        }
    }
}

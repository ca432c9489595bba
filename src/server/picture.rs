//! Pictures in requests: data URLs, and files of Label Studio below a folder. Nothing is fetched.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use axum::http::StatusCode;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use crate::image::decode;

/// Padding may be absent.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A picture file whose header is that of a picture within the limit of pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its hash.
    pub sha256: [u8; 32],
}

impl Picture {
    /// The picture in `bytes`, which came in the field `param`.
    ///
    /// # Errors
    /// Not a JPEG, PNG or WebP picture, or too large.
    pub fn new(bytes: Vec<u8>, param: &str) -> Result<Self, Problem> {
        decode::check(&bytes).map_err(|fault| Problem {
            param: Some(param.to_owned()),
            ..Problem::from(fault)
        })?;
        let sha256 = Sha256::digest(&bytes).into();
        Ok(Self { bytes, sha256 })
    }

    /// The picture of a data URL in base64.
    ///
    /// # Errors
    /// Another URL, damaged base64, or no picture.
    pub fn from_url(url: &str, param: &str) -> Result<Self, Problem> {
        let is_data = url
            .get(..5)
            .is_some_and(|s| s.eq_ignore_ascii_case("data:"));
        if !is_data {
            let message = format!(
                "{param}: pictures are not fetched from addresses. Send the picture as a data URL, \
                 data:image/jpeg;base64,..."
            );
            return Err(Problem::field(param, message).code("remote_url_refused"));
        }
        let (head, data) = url[5..].split_once(',').unwrap_or_default();
        let is_base64 = head
            .rsplit(';')
            .next()
            .is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
        let fault = |what: &str| {
            let message = format!("{param}: {what}. Send data:image/jpeg;base64,...");
            Err(Problem::field(param, message).code("invalid_image"))
        };
        if !is_base64 {
            return fault("the data URL is not in base64");
        }
        match BASE64.decode(data.trim()) {
            Ok(bytes) => Self::new(bytes, param),
            Err(error) => fault(&format!("the base64 of the data URL is damaged ({error})")),
        }
    }

    /// The picture of a task of Label Studio: a data URL, `/data/local-files/?d=PATH` for PATH below `root`, or
    /// `/data/upload/PATH` for `upload/PATH` below `root`. A file has at most `limit` bytes.
    ///
    /// # Errors
    /// Another address, a path that leaves `root`, a file that cannot be read or that is no picture.
    pub fn from_task(
        url: &str,
        root: Option<&Path>,
        limit: u64,
        param: &str,
    ) -> Result<Self, Problem> {
        let Some(relative) = local_path(url) else {
            return Self::from_url(url, param);
        };
        let Some(root) = root else {
            let message = format!(
                "{param}: {url} is a file of Label Studio. Start the server with --label-studio-root DIR"
            );
            return Err(Problem::field(param, message).code("no_root"));
        };
        let bytes = read_below(root, &relative, limit).map_err(|what| {
            Problem::field(param, format!("{param}: {relative}: {what}")).code("file_refused")
        })?;
        Self::new(bytes, param)
    }
}

/// The path of a file that Label Studio serves; `None` for other addresses.
fn local_path(url: &str) -> Option<String> {
    if let Some(query) = url.strip_prefix("/data/local-files/?") {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let (_, path) = pairs.find(|(key, _)| key == "d")?;
        return Some(path.into_owned());
    }
    let path = url.strip_prefix("/data/upload/")?;
    // As a value of a form, but `+` stands for itself.
    let form = format!("d={}", path.replace('+', "%2B").replace('&', "%26"));
    let mut pairs = form_urlencoded::parse(form.as_bytes());
    pairs.next().map(|(_, path)| format!("upload/{path}"))
}

/// The bytes of a regular file below `root`, links resolved.
fn read_below(root: &Path, relative: &str, limit: u64) -> Result<Vec<u8>, String> {
    let path = Path::new(relative);
    let stays = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !stays || relative.is_empty() || relative.contains('\\') || relative.contains('\0') {
        return Err("leaves the folder of --label-studio-root".into());
    }
    let unreadable = |error: std::io::Error| format!("cannot be read ({error})");
    let root = root.canonicalize().map_err(unreadable)?;
    let path: PathBuf = root.join(path).canonicalize().map_err(unreadable)?;
    if !path.starts_with(&root) {
        return Err("leaves the folder of --label-studio-root".into());
    }
    let known = path.metadata().map_err(unreadable)?;
    if !known.is_file() {
        return Err("is no file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(unreadable)?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    match bytes.len() as u64 > limit {
        true => Err(format!("has more than {limit} bytes")),
        false => Ok(bytes),
    }
}

/// Checks the folder of Label Studio's files.
///
/// # Errors
/// It is no folder.
pub fn check_root(root: &Path) -> Result<(), crate::error::Fault> {
    use crate::error::{ErrorCode, Fault, FaultKind};
    if root.is_dir() {
        return Ok(());
    }
    let advice = "Name the folder with Label Studio's local files and its folder upload";
    let place = root.display().to_string();
    Err(Fault::new(FaultKind::File, place, "is no folder", advice).code(ErrorCode::NotFound))
}

/// A body that is a picture itself.
///
/// # Errors
/// The type is no picture, or the bytes are not.
pub fn body(bytes: Vec<u8>) -> Result<Picture, Problem> {
    Picture::new(bytes, "body").map_err(|problem| Problem {
        status: StatusCode::BAD_REQUEST,
        ..problem
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENE: &str = "web/static/samples/scene.png";

    fn scene() -> Vec<u8> {
        std::fs::read(SCENE).expect("the sample")
    }

    #[test]
    fn data_urls_are_read_and_addresses_refused() {
        let bytes = scene();
        let text = BASE64.encode(&bytes);
        for url in [
            format!("data:image/png;base64,{text}"),
            format!(
                "DATA:image/png;charset=x;BASE64,{}\n",
                text.trim_end_matches('=')
            ),
        ] {
            let picture = Picture::from_url(&url, "url").expect("a picture");
            assert_eq!(picture.bytes, bytes);
        }
        for (url, code) in [
            ("http://127.0.0.1/a.png", "remote_url_refused"),
            ("https://example.org/a.png", "remote_url_refused"),
            ("file:///etc/passwd", "remote_url_refused"),
            ("", "remote_url_refused"),
            ("dat\u{e4}:image/png;base64,", "remote_url_refused"),
            ("data:image/png,abc", "invalid_image"),
            ("data:image/png;base64", "invalid_image"),
            ("data:image/png;base64,a*b", "invalid_image"),
            ("data:image/png;base64,aGVsbG8=", "invalid_image"),
        ] {
            let problem = Picture::from_url(url, "url").expect_err(url);
            assert_eq!(
                (problem.code, problem.status.as_u16()),
                (code, 400),
                "{url}"
            );
            assert_eq!(problem.param.as_deref(), Some("url"));
        }
    }

    #[test]
    fn files_of_label_studio_are_read_below_its_folder_only() {
        let outer = tempfile::tempdir().expect("a folder");
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("upload/3")).expect("a folder");
        std::fs::create_dir_all(root.join("a b")).expect("a folder");
        std::fs::write(outer.path().join("secret.png"), scene()).expect("a file");
        std::fs::write(root.join("upload/3/x+y.png"), scene()).expect("a file");
        std::fs::write(root.join("a b/c.png"), scene()).expect("a file");
        std::fs::write(root.join("text.png"), "no picture").expect("a file");
        let read = |url: &str, limit| Picture::from_task(url, Some(&root), limit, "image");
        for url in ["/data/upload/3/x+y.png", "/data/local-files/?d=a%20b/c.png"] {
            assert_eq!(read(url, 1 << 20).expect(url).bytes, scene());
        }
        let refused = |url: &str| read(url, 1 << 20).expect_err(url);
        for url in [
            "/data/local-files/?d=../secret.png",
            "/data/local-files/?d=%2e%2e%2fsecret.png",
            "/data/local-files/?d=/etc/passwd",
            "/data/local-files/?d=a%20b/../../secret.png",
            "/data/upload/../../secret.png",
            "/data/upload/%2e%2e/%2e%2e/secret.png",
            "/data/upload/..%5c..%5csecret.png",
            "/data/local-files/?d=",
            "/data/local-files/?d=a%20b",
            "/data/local-files/?d=none.png",
            "/data/local-files/?d=a%00b",
        ] {
            assert_eq!(refused(url).code, "file_refused", "{url}");
        }
        assert_eq!(
            refused("/data/local-files/?d=text.png").code,
            "invalid_image"
        );
        let short = read("/data/local-files/?d=a%20b/c.png", 10).expect_err("larger");
        assert!(
            short.message.contains("more than 10 bytes"),
            "{}",
            short.message
        );
        assert_eq!(refused("/data/other/a.png").code, "remote_url_refused");
        let none = Picture::from_task("/data/upload/a.png", None, 9, "image");
        assert_eq!(none.expect_err("no root").code, "no_root");
        #[cfg(unix)]
        {
            let link = root.join("link.png");
            std::os::unix::fs::symlink(outer.path().join("secret.png"), link).expect("a link");
            assert_eq!(
                refused("/data/local-files/?d=link.png").code,
                "file_refused"
            );
        }
    }
}

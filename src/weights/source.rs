//! Where the files of a model are read from.

use std::future::Future;
use std::pin::Pin;

use crate::fault::Fault;

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Reads the files of one model folder, by plain name.
pub trait ByteSource {
    /// The folder or base address, for messages.
    fn place(&self) -> String;

    /// The whole file `name`; `arrived` is told the bytes read so far.
    fn read<'a>(
        &'a self,
        name: &'a str,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, Fault>>;
}

/// A folder on disk.
#[cfg(feature = "native")]
pub struct Folder(pub std::path::PathBuf);

#[cfg(feature = "native")]
impl ByteSource for Folder {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn read<'a>(
        &'a self,
        name: &'a str,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let path = self.0.join(name);
            let bytes = std::fs::read(&path).map_err(|error| {
                Fault::model(
                    path.display().to_string(),
                    format!("cannot be read ({error})"),
                )
            })?;
            arrived(bytes.len() as u64);
            Ok(bytes)
        })
    }
}

/// Files compiled into the program.
pub struct Embedded {
    /// Name for messages.
    pub name: &'static str,
    /// File names and contents.
    pub files: &'static [(&'static str, &'static [u8])],
}

impl ByteSource for Embedded {
    fn place(&self) -> String {
        self.name.to_string()
    }

    fn read<'a>(
        &'a self,
        name: &'a str,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let found = self.files.iter().find(|(file, _)| *file == name);
            let bytes = found
                .ok_or_else(|| Fault::model(name, format!("is not part of {}", self.name)))?
                .1;
            arrived(bytes.len() as u64);
            Ok(bytes.to_vec())
        })
    }
}

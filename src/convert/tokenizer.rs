//! stand-in
use crate::fault::Fault;
use std::path::Path;
/// x
pub struct TokenizerFile {
    /// x
    pub json: Vec<u8>,
    /// x
    pub bos: Option<String>,
    /// x
    pub eos: Option<String>,
}
/// x
pub fn read(dir: &Path) -> Result<TokenizerFile, Fault> {
    let p = dir.join("tokenizer.json");
    Ok(TokenizerFile {
        json: std::fs::read(&p).map_err(|e| Fault::file(&p, e))?,
        bos: None,
        eos: None,
    })
}

//! What can be taken out of the page and brought back, as pure functions: boxes in the formats of other
//! programs, the conversation as JSON, Markdown or a page of its own, and the plan of an annotated
//! picture. Coordinates are pixels of the original picture unless a format says otherwise.

pub mod annotated;
pub mod archive;
pub mod box_2d;
pub mod coco;
pub mod csv;
pub mod foreign;
pub mod format;
pub mod html;
pub mod import;
pub mod label_studio;
pub mod lossless;
pub mod markdown;
pub mod marked;
#[cfg(test)]
pub(in crate::chat) mod test_sheet;
pub mod voc;
pub mod words;
pub mod yolo;

//! The kinds of file that the page writes.

use super::marked::stem;

/// A kind of file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The picture with its boxes drawn in.
    #[default]
    Annotated,
    /// The picture with boxes covered.
    Redacted,
    /// The conversation as a page of its own.
    Page,
    /// The conversation as JSON.
    Document,
    /// The conversation as Markdown.
    Markdown,
    /// COCO JSON.
    Coco,
    /// YOLO, a zip archive.
    Yolo,
    /// Pascal VOC XML.
    Voc,
    /// CSV.
    Csv,
    /// Labelled JSON with `box_2d`.
    Box2d,
    /// Label Studio JSON.
    LabelStudio,
}

impl Format {
    /// All, pictures first, then conversations, then boxes.
    pub const ALL: [Self; 11] = [
        Self::Annotated,
        Self::Redacted,
        Self::Page,
        Self::Document,
        Self::Markdown,
        Self::Coco,
        Self::Yolo,
        Self::Voc,
        Self::Csv,
        Self::Box2d,
        Self::LabelStudio,
    ];

    /// Its short name in the page's attributes.
    pub fn key(self) -> &'static str {
        match self {
            Self::Annotated => "annotated",
            Self::Redacted => "redacted",
            Self::Page => "page",
            Self::Document => "document",
            Self::Markdown => "markdown",
            Self::Coco => "coco",
            Self::Yolo => "yolo",
            Self::Voc => "voc",
            Self::Csv => "csv",
            Self::Box2d => "box-2d",
            Self::LabelStudio => "label-studio",
        }
    }

    /// The format with a short name.
    pub fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.key() == key)
    }

    /// The name of the file for a picture called `picture`.
    pub fn file_name(self, picture: &str) -> String {
        let ending = match self {
            Self::Annotated => "boxes.png",
            Self::Redacted => "redacted.png",
            Self::Page => "chatrex.html",
            Self::Document => "chatrex.json",
            Self::Markdown => "md",
            Self::Coco => "coco.json",
            Self::Yolo => "yolo.zip",
            Self::Voc => "xml",
            Self::Csv => "csv",
            Self::Box2d => "box_2d.json",
            Self::LabelStudio => "label-studio.json",
        };
        format!("{}.{ending}", stem(picture))
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Annotated | Self::Redacted => "image/png",
            Self::Page => "text/html",
            Self::Document | Self::Coco | Self::Box2d | Self::LabelStudio => "application/json",
            Self::Markdown => "text/markdown",
            Self::Yolo => "application/zip",
            Self::Voc => "application/xml",
            Self::Csv => "text/csv",
        }
    }

    /// Whether only some of the boxes can be chosen.
    pub fn has_scope(self) -> bool {
        !matches!(self, Self::Page | Self::Document | Self::Markdown)
    }

    /// Whether every box needs a label.
    pub fn needs_labels(self) -> bool {
        matches!(
            self,
            Self::Coco | Self::Yolo | Self::Voc | Self::Box2d | Self::LabelStudio
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_key_and_a_file_name_of_its_own() {
        for format in Format::ALL {
            assert_eq!(Format::of_key(format.key()), Some(format));
            let same = |other: &&Format| other.file_name("a/b.jpg") == format.file_name("a/b.jpg");
            assert_eq!(Format::ALL.iter().filter(same).count(), 1, "{format:?}");
            assert!(format.file_name("a/b.jpg").starts_with("b."));
        }
        assert_eq!(Format::of_key("gif"), None);
    }
}

//! What comes in from outside: pasted and dropped things, and other hosts.

/// Whether a paste opens a picture: text goes into the text box that has the focus, even where a picture
/// of it lies beside it on the clipboard, as spreadsheets put it there.
pub fn paste_opens(has_picture: bool, has_text: bool, in_text_box: bool) -> bool {
    has_picture && !(has_text && in_text_box)
}

/// What a drag over the page carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dragged {
    /// Files, or a picture whose bytes come along.
    Files,
    /// The address of something in another page.
    Address,
    /// Text for the text box; the browser inserts it.
    Text,
    /// Something else.
    Nothing,
}

impl Dragged {
    /// By the types of the drag; `in_text_box` is true over a text box.
    pub fn of<'a>(types: impl IntoIterator<Item = &'a str>, in_text_box: bool) -> Self {
        let mut found = Self::Nothing;
        for kind in types {
            found = match kind {
                "Files" => return Self::Files,
                "text/uri-list" | "text/html" | "text/x-moz-url" => Self::Address,
                "text/plain" if found == Self::Nothing && in_text_box => Self::Text,
                _ => found,
            };
        }
        match found {
            // A sentence of another page comes as HTML too, but without an address.
            Self::Address if in_text_box => Self::Text,
            found => found,
        }
    }
}

/// The first address of a `text/uri-list`.
pub fn first_address(list: &str) -> Option<&str> {
    let mut lines = list.lines().map(str::trim);
    lines.find(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether the page's content security policy lets it fetch from other hosts; no policy does.
pub fn reaches_other_hosts(policy: Option<&str>) -> bool {
    let Some(policy) = policy else {
        return true;
    };
    let sources = |name: &str| {
        policy.split(';').find_map(|directive| {
            let mut words = directive.split_whitespace();
            (words.next()?.eq_ignore_ascii_case(name)).then(|| words.collect::<Vec<_>>())
        })
    };
    match sources("connect-src").or_else(|| sources("default-src")) {
        None => true,
        Some(sources) => sources
            .iter()
            .any(|source| ["*", "https:", "http:"].contains(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wins_in_the_text_box_only() {
        for (picture, text, in_text_box, expected) in [
            (true, false, true, true),
            (true, true, true, false),
            (true, true, false, true),
            (true, false, false, true),
            (false, true, true, false),
            (false, true, false, false),
        ] {
            let opens = paste_opens(picture, text, in_text_box);
            assert_eq!(opens, expected, "{picture} {text} {in_text_box}");
        }
    }

    #[test]
    fn drags_are_told_apart() {
        let cases: [(&[&str], bool, Dragged); 8] = [
            (&["Files"], true, Dragged::Files),
            (
                &["text/html", "text/uri-list", "Files"],
                false,
                Dragged::Files,
            ),
            (&["text/uri-list", "text/html"], false, Dragged::Address),
            (&["text/plain"], true, Dragged::Text),
            (&["text/plain"], false, Dragged::Nothing),
            (&["text/plain", "text/html"], true, Dragged::Text),
            (&["text/plain", "text/html"], false, Dragged::Address),
            (&[], false, Dragged::Nothing),
        ];
        for (types, in_text_box, expected) in cases {
            let found = Dragged::of(types.iter().copied(), in_text_box);
            assert_eq!(found, expected, "{types:?} {in_text_box}");
        }
        let list = "# a comment\r\nhttps://a.example/b.png\r\nhttps://c";
        assert_eq!(first_address(list), Some("https://a.example/b.png"));
        assert_eq!(first_address("#\n\n"), None);
    }

    #[test]
    fn the_policy_decides_about_other_hosts() {
        for (policy, expected) in [
            (None, true),
            (Some("default-src 'none'; connect-src 'self' blob:"), false),
            (Some("default-src 'self'"), false),
            (Some("default-src 'none'; Connect-Src 'self' https:"), true),
            (Some("connect-src *"), true),
            (Some("connect-src 'self' https://models.example"), false),
            (Some("img-src 'self'"), true),
        ] {
            assert_eq!(reaches_other_hosts(policy), expected, "{policy:?}");
        }
    }
}

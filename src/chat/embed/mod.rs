//! The page in a frame of another page, its host: who may be one, and what the two tell each other.
//!
//! Rules. Messages of other origins are ignored. A message that cannot be read gets an error in reply and
//! changes nothing. Boxes, answers and the selection are told to the host, the picture only on request.

pub mod host;
pub mod message;
pub mod question;

use serde::Deserialize;

/// What the address of the page asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `embed=1`: the compact page for a frame.
    pub is_embedded: bool,
    /// `readonly=1`: only the host opens pictures and asks.
    pub readonly: bool,
    /// `settings=1`: the bar with models and settings is shown.
    pub has_settings: bool,
    /// `history=1`: conversations and settings are kept as in the page itself.
    pub keeps_history: bool,
}

impl Options {
    /// Reads the address of the page. Without `embed=1` the other options mean nothing.
    pub fn of_address(address: &str) -> Self {
        let (address, _) = address.split_once('#').unwrap_or((address, ""));
        let (_, query) = address.split_once('?').unwrap_or((address, ""));
        let is_on = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.any(|(key, value)| key == name && value == "1")
        };
        if !is_on("embed") {
            return Self::default();
        }
        Self {
            is_embedded: true,
            readonly: is_on("readonly"),
            has_settings: is_on("settings"),
            keeps_history: is_on("history"),
        }
    }

    /// Whether nothing outlives the visit.
    pub fn forgets(self) -> bool {
        self.is_embedded && !self.keeps_history
    }

    /// What the style sheet reads from the root element, as words.
    pub fn words(self) -> Option<String> {
        let words = [("readonly", self.readonly), ("settings", self.has_settings)];
        let words = words.iter().filter(|(_, is_on)| *is_on);
        let words: Vec<_> = ["frame"]
            .into_iter()
            .chain(words.map(|(word, _)| *word))
            .collect();
        self.is_embedded.then(|| words.join(" "))
    }
}

/// The origins whose pages may be the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Reads `embed.json`, `{"hosts": ["https://a.example"]}`. The own origin is always a host; a file that
    /// is missing or cannot be read allows no other.
    pub fn read(json: Option<&str>, own: &str) -> Self {
        #[derive(Default, Deserialize)]
        struct File {
            hosts: Vec<String>,
        }
        let file: File = json
            .and_then(|j| serde_json::from_str(j).ok())
            .unwrap_or_default();
        let mut hosts = file.hosts;
        hosts.push(own.to_owned());
        let origin = |host: &String| host.trim().trim_end_matches('/').to_lowercase();
        Self(hosts.iter().map(origin).collect())
    }

    /// Whether a page of `origin` may be the host. Pages without an origin, such as sandboxed ones, may not.
    pub fn allow(&self, origin: &str) -> bool {
        let is_origin = origin.contains("://") && !origin.ends_with("://");
        is_origin && self.0.iter().any(|host| *host == origin.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_mean_nothing_outside_a_frame() {
        let frame = Options {
            is_embedded: true,
            ..Options::default()
        };
        for (address, expected, words) in [
            ("https://a/", Options::default(), None),
            ("https://a/?readonly=1&settings=1", Options::default(), None),
            ("https://a/?embed=0", Options::default(), None),
            ("https://a/#embed=1", Options::default(), None),
            ("https://a/?embed=1", frame, Some("frame")),
            (
                "https://a/?model=nano&embed=1&readonly=1#x",
                Options {
                    readonly: true,
                    ..frame
                },
                Some("frame readonly"),
            ),
            (
                "https://a/?settings=1&embed=1&history=1",
                Options {
                    has_settings: true,
                    keeps_history: true,
                    ..frame
                },
                Some("frame settings"),
            ),
        ] {
            let options = Options::of_address(address);
            assert_eq!(options, expected, "{address}");
            assert_eq!(options.words().as_deref(), words, "{address}");
            let forgets = options.is_embedded && !options.keeps_history;
            assert_eq!(options.forgets(), forgets, "{address}");
        }
    }

    #[test]
    fn only_the_own_origin_and_listed_ones_are_hosts() {
        let list = r#"{"hosts": ["https://Host.example/", "http://localhost:90"]}"#;
        for (json, origin, expected) in [
            (Some(list), "https://host.example", true),
            (Some(list), "http://localhost:90", true),
            (Some(list), "http://localhost:91", false),
            (Some(list), "https://host.example.evil", false),
            (Some(list), "https://own.example", true),
            (None, "https://own.example", true),
            (None, "https://host.example", false),
            (Some("{"), "https://host.example", false),
            (Some(r#"{"hosts": ["*", "null", ""]}"#), "null", false),
            (Some(r#"{"hosts": ["*"]}"#), "https://host.example", false),
            (Some(list), "", false),
        ] {
            let hosts = Hosts::read(json, "https://own.example");
            assert_eq!(hosts.allow(origin), expected, "{json:?} {origin}");
        }
    }
}

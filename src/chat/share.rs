//! A link that carries settings and a question, never a picture or a chat. It stands in the fragment of the
//! address, which browsers do not send to the host.

use crate::chat::candidates::Filter;
use crate::chat::question::QuestionKind;
use crate::generate::sampling::Sampling;
use crate::protocol::Granularity;

/// Most characters of a question that a link brings.
const MAX_PROMPT: usize = 4_000;

/// What a link carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared {
    /// The kind of question.
    pub kind: QuestionKind,
    /// The words in the text box.
    pub prompt: String,
    /// The granularity.
    pub granularity: Option<Granularity>,
    /// The thresholds, if the user moved them.
    pub filter: Option<Filter>,
    /// How tokens are sampled.
    pub sampling: Option<Sampling>,
}

impl Shared {
    /// The link to the page at `address` with the built-in model `model`.
    pub fn link(&self, address: &str, model: Option<&str>) -> String {
        let page = address.split(['?', '#']).next().unwrap_or_default();
        let model = model
            .map(|model| format!("?model={model}"))
            .unwrap_or_default();
        let mut fields = form_urlencoded::Serializer::new(String::new());
        fields.append_pair("kind", self.kind.key());
        fields.append_pair("prompt", self.prompt.trim());
        if let Some(granularity) = self.granularity {
            fields.append_pair("granularity", name(granularity));
        }
        if let Some(filter) = self.filter {
            fields.append_pair("score", &filter.score.to_string());
            fields.append_pair("nms", &filter.nms.to_string());
            if let Some(first) = filter.first_of_kind {
                fields.append_pair("first", &first.to_string());
            }
        }
        if let Some(sampling) = self.sampling.filter(|s| *s != Sampling::default()) {
            fields.append_pair("temperature", &sampling.temperature.to_string());
            fields.append_pair("top_k", &sampling.top_k.to_string());
            fields.append_pair("top_p", &sampling.top_p.to_string());
            fields.append_pair("grammar", &sampling.grammar.to_string());
        }
        format!("{page}{model}#{}", fields.finish())
    }

    /// Reads the address of the page; `None` where its fragment is no such link. A value that cannot be used
    /// is left out.
    pub fn read(address: &str) -> Option<Self> {
        let (_, fragment) = address.split_once('#')?;
        let fields: Vec<_> = form_urlencoded::parse(fragment.as_bytes()).collect();
        let value = |key: &str| {
            let mut found = fields.iter().filter(|(name, _)| name == key);
            found.next().map(|(_, value)| value.as_ref())
        };
        let prompt: String = value("prompt")?.chars().take(MAX_PROMPT).collect();
        let filter = || {
            let filter = Filter {
                score: value("score")?.parse().ok()?,
                nms: value("nms")?.parse().ok()?,
                first_of_kind: value("first").and_then(|first| first.parse().ok()),
            };
            filter.is_in_range().then_some(filter)
        };
        let sampling = || {
            let sampling = Sampling {
                temperature: value("temperature")?.parse().ok()?,
                top_k: value("top_k")?.parse().ok()?,
                top_p: value("top_p")?.parse().ok()?,
                grammar: value("grammar")?.parse().ok()?,
                ..Sampling::default()
            };
            sampling.check().is_ok().then_some(sampling)
        };
        let granularities = [Granularity::Fine, Granularity::Coarse];
        let granularity = granularities
            .into_iter()
            .find(|g| value("granularity") == Some(name(*g)));
        Some(Self {
            kind: value("kind")
                .and_then(QuestionKind::of_key)
                .unwrap_or_default(),
            prompt,
            granularity,
            filter: filter(),
            sampling: sampling(),
        })
    }
}

fn name(granularity: Granularity) -> &'static str {
    match granularity {
        Granularity::Fine => "fine",
        Granularity::Coarse => "coarse",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let plain = Shared {
            kind: QuestionKind::Find,
            prompt: "dog; \"cat\" & <b>#3</b> 狗 100%+".into(),
            ..Shared::default()
        };
        let full = Shared {
            granularity: Some(Granularity::Fine),
            filter: Some(Filter {
                score: 0.25,
                nms: 0.7,
                first_of_kind: Some(0.1),
            }),
            sampling: Some(Sampling {
                temperature: 0.5,
                grammar: false,
                ..Sampling::default()
            }),
            ..plain.clone()
        };
        for shared in [plain, full, Shared::default()] {
            let link = shared.link("https://a.example/x/?model=nano&y#old", Some("mini"));
            assert!(
                link.starts_with("https://a.example/x/?model=mini#kind="),
                "{link}"
            );
            assert_eq!(Shared::read(&link), Some(shared));
        }
        let stored = Shared::default().link("https://a.example/", None);
        assert!(stored.starts_with("https://a.example/#"), "{stored}");
    }

    #[test]
    fn other_fragments_are_no_links_and_bad_values_are_left_out() {
        for address in [
            "https://a/",
            "https://a/#picture",
            "https://a/#question",
            "https://a/?prompt=x",
        ] {
            assert_eq!(Shared::read(address), None, "{address}");
        }
        let read =
            |fragment: &str| Shared::read(&format!("https://a/#{fragment}")).expect("a link");
        let bare = Shared {
            prompt: "x".into(),
            ..Shared::default()
        };
        for fragment in [
            "prompt=x",
            "prompt=x&kind=sing&granularity=none&score=9&nms=1",
            "prompt=x&score=.5",
            "prompt=x&temperature=hot&top_k=1&top_p=1&grammar=true",
            "prompt=x&temperature=-3&top_k=1&top_p=1&grammar=true",
        ] {
            assert_eq!(read(fragment), bare, "{fragment}");
        }
        let long = read(&format!("prompt={}", "x".repeat(9_000)));
        assert_eq!(long.prompt.len(), MAX_PROMPT);
    }
}

//! What the page requested since it was loaded, from the browser's own records: every request by its
//! host, requests that the content security policy refused, and the bytes of bodies that were sent.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What `web/static/network.js` recorded in the page and its worker.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Requests, in the order in which they ended.
    pub requests: Vec<Entry>,
    /// What the content security policy refused.
    pub refused: Vec<Violation>,
    /// Bodies of requests and messages, by the functions that send.
    pub sent: Vec<Sent>,
    /// Whether the worker reports too.
    pub worker: bool,
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Entry {
    /// Its address.
    pub url: String,
    /// Bytes that were received; 0 where they came from a cache or the host does not tell.
    #[serde(default)]
    pub bytes: u64,
    /// How often it was requested.
    #[serde(default = "once")]
    pub count: usize,
}

fn once() -> usize {
    1
}

/// A refused request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Violation {
    /// Address or origin, as far as the browser tells.
    pub url: String,
    /// The directive that refused it.
    #[serde(default)]
    pub directive: String,
}

/// A body that was handed to the browser.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Sent {
    /// Where it went.
    pub url: String,
    /// Its bytes.
    #[serde(default)]
    pub bytes: u64,
    /// How many bodies have a length that only their reader knows.
    #[serde(default)]
    pub unmeasured: usize,
}

/// The requests to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name with the port.
    pub name: String,
    /// Whether the page comes from it.
    pub is_own: bool,
    /// Requests that ended.
    pub requests: usize,
    /// Bytes received.
    pub received: u64,
    /// Bytes of bodies sent.
    pub sent: u64,
    /// Requests that were refused before anything was sent.
    pub refused: usize,
}

impl Report {
    /// Reads a report; what cannot be read counts as empty.
    pub fn read(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }

    /// The hosts, that of the page first; `own` is the page's address. Data and blobs in memory have no host.
    pub fn hosts(&self, own: &str) -> Vec<Host> {
        let own = host(own).unwrap_or_default();
        let mut hosts: BTreeMap<(bool, String), Host> = BTreeMap::new();
        let mut at = |url: &str, count: &dyn Fn(&mut Host)| {
            let Some(name) = host(url) else {
                return;
            };
            let is_own = name == own;
            let row = hosts
                .entry((!is_own, name.clone()))
                .or_insert_with(|| Host {
                    name,
                    is_own,
                    ..Host::default()
                });
            count(row);
        };
        at(&format!("https://{own}"), &|_| {});
        for entry in &self.requests {
            at(&entry.url, &|row| {
                row.requests += entry.count;
                row.received += entry.bytes;
            });
        }
        for sent in &self.sent {
            at(&sent.url, &|row| row.sent += sent.bytes);
        }
        for violation in &self.refused {
            at(&violation.url, &|row| row.refused += 1);
        }
        // A refused request is also listed among the requests, without a byte.
        for row in hosts
            .values_mut()
            .filter(|row| !row.is_own && row.received == 0)
        {
            row.requests = row.requests.saturating_sub(row.refused);
        }
        hosts.into_values().collect()
    }

    /// Bytes of bodies that were sent to any host, and how many bodies more have an unknown length.
    pub fn sent(&self) -> (u64, usize) {
        let bytes = self.sent.iter().map(|sent| sent.bytes).sum();
        (bytes, self.sent.iter().map(|sent| sent.unmeasured).sum())
    }
}

/// Host and port of an address; none for data and blobs in memory and for words such as `inline`.
fn host(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let is_network = ["http", "https", "ws", "wss"].contains(&scheme);
    let name = rest.split(['/', '?', '#']).next()?;
    let name = name.rsplit('@').next()?;
    (is_network && !name.is_empty()).then(|| name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_host_and_memory_has_none() {
        let report = Report::read(
            r#"{"worker": true,
            "requests": [{"url": "http://here:80/a.js", "bytes": 10}, {"url": "http://here:80/b?x", "bytes": 5, "count": 4},
                {"url": "blob:http://here:80/123"}, {"url": "data:image/png;base64,"},
                {"url": "https://Models.example/m", "bytes": 7}, {"url": "https://evil.example/x"}],
            "refused": [{"url": "https://evil.example/x", "directive": "connect-src"}, {"url": "inline"}],
            "sent": [{"url": "http://here:80/a", "bytes": 3, "unmeasured": 1}]}"#,
        );
        let host = |name: &str, is_own, requests, received, sent, refused| Host {
            name: name.into(),
            is_own,
            requests,
            received,
            sent,
            refused,
        };
        let expected = [
            host("here:80", true, 5, 15, 3, 0),
            host("evil.example", false, 0, 0, 0, 1),
            host("models.example", false, 1, 7, 0, 0),
        ];
        assert_eq!(report.hosts("http://here:80/index.html#x"), expected);
        assert_eq!(report.sent(), (3, 1));
    }

    #[test]
    fn a_report_that_cannot_be_read_is_empty() {
        for json in ["", "[]", r#"{"requests": 7}"#] {
            assert_eq!(Report::read(json), Report::default(), "{json}");
        }
        let hosts = Report::default().hosts("http://here/");
        assert_eq!(hosts.len(), 1);
        assert!(hosts[0].is_own && hosts[0].requests == 0);
    }
}

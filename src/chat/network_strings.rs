//! The texts about the network activity of the page, and about sharing.

use crate::chat::network::Report;
use crate::chat::strings::size;

/// The list of requests.
pub const NETWORK: &str = "Network activity of this page";
/// What is counted in it.
pub const NETWORK_COUNTED: &str = "Counted since this page was loaded, by the browser's own records: every request of the page and of its model's worker, the requests that the content security policy refused, and the bodies handed to the functions that send. Not counted: addresses and headers of the requests, and the service worker, which stores the files of this site for use without a network.";
/// Heading of the hosts.
pub const HOST: &str = "Host";
/// Heading of the numbers of requests.
pub const REQUESTS: &str = "Requests";
/// Heading of the bytes received.
pub const RECEIVED: &str = "Received";
/// Heading of the bytes sent.
pub const SENT: &str = "Sent";
/// Heading of the refused requests.
pub const BLOCKED: &str = "Blocked";
/// Mark of the host that the page comes from.
pub const THIS_SITE: &str = "this site";
/// Button that copies the list.
pub const COPY_REPORT: &str = "Copy";
/// After that.
pub const COPIED: &str = "Copied";
/// Where the browser refuses it.
pub const NOT_COPIED: &str = "The browser does not allow it";
/// Where the worker has not reported yet.
pub const NO_WORKER: &str = "The model's worker has not reported yet.";

/// Sharing.
pub const SHARE: &str = "Share";
/// What a link carries.
pub const LINK_NOTE: &str =
    "A link carries the question and the settings, never the picture or the chat.";
/// Button that copies a link.
pub const COPY_LINK: &str = "Copy link";
/// Button that shares the conversation file by the system.
pub const SHARE_FILE: &str = "Share the conversation…";
/// What that shares.
pub const FILE_NOTE: &str =
    "The conversation as one file, with its picture, goes to the program that you choose next.";
/// A share that brought nothing.
pub const NOTHING_SHARED: &str = "No picture came with it.";

/// The sentence above the list.
pub fn sent(report: &Report) -> String {
    match report.sent() {
        (bytes, 0) => format!("{} left this page.", self::bytes(bytes)),
        (bytes, 1) => format!(
            "{} and 1 body of unknown length left this page.",
            self::bytes(bytes)
        ),
        (bytes, many) => format!(
            "{} and {many} bodies of unknown length left this page.",
            self::bytes(bytes)
        ),
    }
}

/// A number of bytes, small ones exactly.
pub fn bytes(count: u64) -> String {
    match count {
        1 => "1 byte".to_owned(),
        0..1_000 => format!("{count} bytes"),
        _ => size(count),
    }
}

/// The list as text.
pub fn report(report: &Report, own: &str) -> String {
    let mut text = format!("{NETWORK}\n{}\n", sent(report));
    for host in report.hosts(own) {
        let mark = if host.is_own { " (this site)" } else { "" };
        text.push_str(&format!(
            "{}{mark}: requests {}, received {} bytes, sent {} bytes, blocked {}\n",
            host.name, host.requests, host.received, host.sent, host.refused
        ));
    }
    text.push_str(NETWORK_COUNTED);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_counted_is_claimed() {
        let read = |sent: &str| Report::read(&format!(r#"{{"sent": [{sent}]}}"#));
        for (entries, expected) in [
            ("", "0 bytes left this page."),
            (
                r#"{"url": "http://a/", "unmeasured": 1}"#,
                "0 bytes and 1 body of unknown length left this page.",
            ),
            (
                r#"{"url": "http://a/", "unmeasured": 2}"#,
                "0 bytes and 2 bodies of unknown length left this page.",
            ),
        ] {
            assert_eq!(sent(&read(entries)), expected, "{entries}");
        }
        let some = sent(&read(r#"{"url": "http://a/", "bytes": 7}"#));
        assert!(
            some.contains('7') && some.ends_with(" left this page."),
            "{some}"
        );
        let text = report(&read(r#"{"url": "https://b/", "bytes": 7}"#), "http://a/");
        assert!(text.contains("a (this site): requests 0"), "{text}");
        assert!(
            text.contains("b: requests 0, received 0 bytes, sent 7 bytes"),
            "{text}"
        );
    }
}

//! The texts about the network activity of the page, and about sharing.

use crate::chat::network::Report;
use crate::chat::strings::size;
use crate::chat::words::{Word, say, text};

/// The list of requests.
pub const NETWORK: Word = || text("Network activity of this page", "本页面的网络活动");
/// What is counted in it.
pub const NETWORK_COUNTED: Word = || {
    text(
        "Counted since this page was loaded, by the browser's own records: every request of the page and of its model's worker, the requests that the content security policy refused, and the bodies handed to the functions that send. Not counted: addresses and headers of the requests, and the service worker, which stores the files of this site for use without a network.",
        "自页面加载起，根据浏览器自己的记录统计：页面及其模型工作线程的每个请求、被内容安全策略拒绝的请求，以及交给发送函数的内容。不统计：请求的地址和标头，以及为离线使用而存储本站文件的 Service Worker。",
    )
};
/// Heading of the hosts.
pub const HOST: Word = || text("Host", "主机");
/// Heading of the numbers of requests.
pub const REQUESTS: Word = || text("Requests", "请求");
/// Heading of the bytes received.
pub const RECEIVED: Word = || text("Received", "接收");
/// Heading of the bytes sent.
pub const SENT: Word = || text("Sent", "发送");
/// Heading of the refused requests.
pub const BLOCKED: Word = || text("Blocked", "拦截");
/// Mark of the host that the page comes from.
pub const THIS_SITE: Word = || text("this site", "本站");
/// Button that copies the list.
pub const COPY_REPORT: Word = || text("Copy", "复制");
/// After that.
pub const COPIED: Word = || text("Copied", "已复制");
/// Where the browser refuses it.
pub const NOT_COPIED: Word = || text("The browser does not allow it", "浏览器不允许");
/// Where the worker has not reported yet.
pub const NO_WORKER: Word = || {
    text(
        "The model's worker has not reported yet.",
        "模型的工作线程尚未报告。",
    )
};

/// Sharing.
pub const SHARE: Word = || text("Share", "分享");
/// What a link carries.
pub const LINK_NOTE: Word = || {
    text(
        "A link carries the question and the settings, never the picture or the chat.",
        "链接只包含问题和设置，绝不包含图片或对话。",
    )
};
/// Button that copies a link.
pub const COPY_LINK: Word = || text("Copy link", "复制链接");
/// Button that shares the conversation file by the system.
pub const SHARE_FILE: Word = || text("Share the conversation…", "分享对话…");
/// What that shares.
pub const FILE_NOTE: Word = || {
    text(
        "The conversation as one file, with its picture, goes to the program that you choose next.",
        "对话会连同图片作为一个文件，交给你接下来选择的程序。",
    )
};
/// A share that brought nothing.
pub const NOTHING_SHARED: Word = || text("No picture came with it.", "其中没有附带图片。");

/// The sentence above the list.
pub fn sent(report: &Report) -> String {
    match report.sent() {
        (bytes, 0) => say!(
            "{} left this page.",
            "有 {} 离开了本页面。",
            self::bytes(bytes)
        ),
        (bytes, 1) => say!(
            "{} and 1 body of unknown length left this page.",
            "有 {} 和 1 份长度未知的内容离开了本页面。",
            self::bytes(bytes)
        ),
        (bytes, many) => say!(
            "{} and {many} bodies of unknown length left this page.",
            "有 {} 和 {many} 份长度未知的内容离开了本页面。",
            self::bytes(bytes)
        ),
    }
}

/// A number of bytes, small ones exactly.
pub fn bytes(count: u64) -> String {
    match count {
        1 => text("1 byte", "1 字节").to_owned(),
        0..1_000 => say!("{count} bytes", "{count} 字节"),
        _ => size(count),
    }
}

/// The list as text.
pub fn report(report: &Report, own: &str) -> String {
    let mut list = format!("{}\n{}\n", NETWORK(), sent(report));
    for host in report.hosts(own) {
        let mark = if host.is_own {
            text(" (this site)", "（本站）")
        } else {
            ""
        };
        list.push_str(&say!(
            "{}{mark}: requests {}, received {} bytes, sent {} bytes, blocked {}\n",
            "{}{mark}：请求 {}，接收 {} 字节，发送 {} 字节，拦截 {}\n",
            host.name,
            host.requests,
            host.received,
            host.sent,
            host.refused
        ));
    }
    list.push_str(NETWORK_COUNTED());
    list.push('\n');
    list
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

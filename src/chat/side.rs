//! The column beside the picture: two tabs, and a mark for an answer that arrived while the other one
//! was open.

/// A tab of the column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Questions and answers.
    #[default]
    Chat,
    /// The boxes as a list, and their filters.
    Objects,
}

impl Tab {
    /// All tabs in their order.
    pub const ALL: [Self; 2] = [Self::Chat, Self::Objects];

    /// Its name in identifiers.
    pub fn key(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Objects => "objects",
        }
    }

    /// The tab to which a key leads from this one; `None` for other keys.
    pub fn by_key(self, key: &str) -> Option<Self> {
        let now = Self::ALL.iter().position(|&tab| tab == self)?;
        let count = Self::ALL.len();
        let next = match key {
            "ArrowRight" | "ArrowDown" => (now + 1) % count,
            "ArrowLeft" | "ArrowUp" => (now + count - 1) % count,
            "Home" => 0,
            "End" => count - 1,
            _ => return None,
        };
        Some(Self::ALL[next])
    }
}

/// The open tab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    open: Tab,
    has_news: bool,
}

impl Side {
    /// The open tab.
    pub fn open(self) -> Tab {
        self.open
    }

    /// Whether an answer arrived that the user has not seen.
    pub fn has_news(self) -> bool {
        self.has_news
    }

    /// The user, or something that the user did, opens a tab.
    pub fn choose(&mut self, tab: Tab) {
        self.open = tab;
        self.has_news &= tab != Tab::Chat;
    }

    /// An answer is complete.
    pub fn answered(&mut self) {
        self.has_news = self.open != Tab::Chat;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrow_keys_go_around_and_other_keys_do_nothing() {
        let cases = [
            (Tab::Chat, "ArrowRight", Some(Tab::Objects)),
            (Tab::Objects, "ArrowRight", Some(Tab::Chat)),
            (Tab::Chat, "ArrowLeft", Some(Tab::Objects)),
            (Tab::Objects, "ArrowLeft", Some(Tab::Chat)),
            (Tab::Objects, "Home", Some(Tab::Chat)),
            (Tab::Chat, "End", Some(Tab::Objects)),
            (Tab::Chat, "Enter", None),
        ];
        for (tab, key, expected) in cases {
            assert_eq!(tab.by_key(key), expected, "{tab:?} {key}");
        }
    }

    #[test]
    fn an_unseen_answer_is_marked_until_the_chat_is_opened() {
        let mut side = Side::default();
        side.answered();
        assert!(!side.has_news(), "the chat is open");
        side.choose(Tab::Objects);
        assert!(!side.has_news());
        side.answered();
        assert!(side.has_news());
        side.choose(Tab::Objects);
        assert!(side.has_news());
        side.choose(Tab::Chat);
        assert!(!side.has_news());
    }
}

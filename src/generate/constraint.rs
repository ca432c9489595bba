//! Constrained decoding: which tokens may follow, so that every list of boxes is closed and names
//! boxes of the prompt only (`docs/reference/chatrex.md`, section 9.1). `<objects>` is followed by one
//! or more index tokens and `</objects>`.

/// What a token is to the grammar. Kernels use the same numbers; see [`token_flags`].
///
/// [`token_flags`]: super::sampling::token_flags
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TokenKind {
    /// Any other token.
    Text = 0,
    /// The index of a box of the prompt.
    Index = 1,
    /// Never allowed: the index of no box, and `<objects>` in an answer without boxes.
    Forbidden = 2,
    /// `<objects>`.
    Open = 3,
    /// `</objects>`.
    Close = 4,
}

/// The state of an answer. Kernels use the same numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum GrammarState {
    /// Outside lists of boxes.
    #[default]
    Text = 0,
    /// After `<objects>`: an index must follow.
    First = 1,
    /// After an index in a list: another index or `</objects>` must follow.
    More = 2,
}

impl GrammarState {
    /// Whether a token of `kind` may follow.
    pub fn allows(self, kind: TokenKind) -> bool {
        match self {
            Self::Text => {
                matches!(kind, TokenKind::Text | TokenKind::Index | TokenKind::Open)
            }
            Self::First => kind == TokenKind::Index,
            Self::More => matches!(kind, TokenKind::Index | TokenKind::Close),
        }
    }

    /// The state after a token of `kind`.
    #[must_use]
    pub fn after(self, kind: TokenKind) -> Self {
        match (self, kind) {
            (_, TokenKind::Open) => Self::First,
            (Self::Text, _) | (_, TokenKind::Close) => Self::Text,
            (Self::First | Self::More, _) => Self::More,
        }
    }
}

/// The tokens of the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar {
    /// `<objects>`.
    pub open: u32,
    /// `</objects>`.
    pub close: u32,
    /// `<obj0>`, `<obj1>`, ...
    pub indices: Vec<u32>,
    /// How many of them name a box of the prompt.
    pub boxes: usize,
}

impl Grammar {
    /// The kind of every token other than [`TokenKind::Text`].
    pub fn kinds(&self) -> impl Iterator<Item = (u32, TokenKind)> {
        let indices = self.indices.iter().enumerate().map(|(index, &id)| {
            let kind = if index < self.boxes {
                TokenKind::Index
            } else {
                TokenKind::Forbidden
            };
            (id, kind)
        });
        let open = if self.boxes.min(self.indices.len()) > 0 {
            TokenKind::Open
        } else {
            TokenKind::Forbidden
        };
        indices.chain([(self.open, open), (self.close, TokenKind::Close)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_boxes_of_the_prompt_and_is_closed() {
        let grammar = Grammar {
            open: 1,
            close: 2,
            indices: vec![10, 11, 12],
            boxes: 2,
        };
        let kind = |id| {
            let found = grammar.kinds().find(|(token, _)| *token == id);
            found.map_or(TokenKind::Text, |(_, kind)| kind)
        };
        let allowed = |state: GrammarState| {
            let ids = [0, 1, 2, 10, 11, 12];
            ids.into_iter()
                .filter(move |&id| state.allows(kind(id)))
                .collect::<Vec<u32>>()
        };
        let mut state = GrammarState::default();
        for (id, next) in [
            (0, vec![0, 1, 10, 11]),
            (11, vec![0, 1, 10, 11]),
            (1, vec![10, 11]),
            (10, vec![2, 10, 11]),
            (11, vec![2, 10, 11]),
            (2, vec![0, 1, 10, 11]),
        ] {
            assert!(state.allows(kind(id)));
            state = state.after(kind(id));
            assert_eq!(allowed(state), next, "after {id}");
        }
    }

    #[test]
    fn without_boxes_no_list_can_start() {
        let grammar = Grammar {
            open: 1,
            close: 2,
            indices: vec![10],
            boxes: 0,
        };
        let kinds: Vec<_> = grammar.kinds().collect();
        assert_eq!(
            kinds,
            [
                (10, TokenKind::Forbidden),
                (1, TokenKind::Forbidden),
                (2, TokenKind::Close)
            ]
        );
    }
}

//! Which tokens an answer may go on with, so that every index in it names a box that there is
//! (`chatrex.md` 9.1): `<objects>` is followed by one index or more and `</objects>`.

/// What a token is to the grammar. A mark of a token is its kind times two, plus one where the answer
/// has the token already; kernels read the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Anything else.
    Word = 0,
    /// The index of a box that there is.
    Index = 1,
    /// What never comes: the index of no box, and `<objects>` where there are no boxes.
    Never = 2,
    /// `<objects>`.
    Open = 3,
    /// `</objects>`.
    Close = 4,
}

/// Where an answer stands; kernels know the same numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// Among words.
    #[default]
    Words = 0,
    /// After `<objects>`: an index must come.
    First = 1,
    /// After an index in a list: another one, or `</objects>`.
    More = 2,
}

impl Place {
    /// Whether a token of `kind` may come here.
    pub fn allows(self, kind: Kind) -> bool {
        match self {
            Self::Words => matches!(kind, Kind::Word | Kind::Index | Kind::Open),
            Self::First => kind == Kind::Index,
            Self::More => matches!(kind, Kind::Index | Kind::Close),
        }
    }

    /// The place after a token of `kind`.
    #[must_use]
    pub fn after(self, kind: Kind) -> Self {
        match (self, kind) {
            (_, Kind::Open) => Self::First,
            (Self::Words, _) | (_, Kind::Close) => Self::Words,
            (Self::First | Self::More, _) => Self::More,
        }
    }
}

/// The tokens that the grammar is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar {
    /// `<objects>`.
    pub open: u32,
    /// `</objects>`.
    pub close: u32,
    /// `<obj0>`, `<obj1>`, ...
    pub indices: Vec<u32>,
    /// How many of them name a box.
    pub boxes: usize,
}

impl Grammar {
    /// The kind of every token that is no [`Kind::Word`].
    pub fn kinds(&self) -> impl Iterator<Item = (u32, Kind)> {
        let indices = self.indices.iter().enumerate().map(|(index, &id)| {
            let kind = if index < self.boxes {
                Kind::Index
            } else {
                Kind::Never
            };
            (id, kind)
        });
        let open = if self.boxes.min(self.indices.len()) > 0 {
            Kind::Open
        } else {
            Kind::Never
        };
        indices.chain([(self.open, open), (self.close, Kind::Close)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_boxes_that_there_are_and_is_closed() {
        let grammar = Grammar {
            open: 1,
            close: 2,
            indices: vec![10, 11, 12],
            boxes: 2,
        };
        let kind = |id| {
            let found = grammar.kinds().find(|(token, _)| *token == id);
            found.map_or(Kind::Word, |(_, kind)| kind)
        };
        let allowed = |place: Place| {
            let ids = [0, 1, 2, 10, 11, 12];
            ids.into_iter()
                .filter(move |&id| place.allows(kind(id)))
                .collect::<Vec<u32>>()
        };
        let mut place = Place::default();
        for (id, next) in [
            (0, vec![0, 1, 10, 11]),
            (11, vec![0, 1, 10, 11]),
            (1, vec![10, 11]),
            (10, vec![2, 10, 11]),
            (11, vec![2, 10, 11]),
            (2, vec![0, 1, 10, 11]),
        ] {
            assert!(place.allows(kind(id)));
            place = place.after(kind(id));
            assert_eq!(allowed(place), next, "after {id}");
        }
    }

    #[test]
    fn without_boxes_no_list_begins() {
        let grammar = Grammar {
            open: 1,
            close: 2,
            indices: vec![10],
            boxes: 0,
        };
        let kinds: Vec<_> = grammar.kinds().collect();
        assert_eq!(
            kinds,
            [(10, Kind::Never), (1, Kind::Never), (2, Kind::Close)]
        );
    }
}

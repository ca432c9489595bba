//! The part of a batch that one of several processes does.

use std::fmt::{self, Display};
use std::str::FromStr;

/// Part I of N: the pictures at the places I - 1, I - 1 + N, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

/// Parts at most.
const MAX: usize = 100_000;

impl Shard {
    /// Whether the picture at `place` (from 0) belongs to it.
    pub fn has(self, place: usize) -> bool {
        place % self.count == self.index - 1
    }

    /// What the names of its files have before their ending.
    pub fn suffix(self) -> String {
        format!("-{}-of-{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            let (index, count) = (index.parse().ok()?, count.parse().ok()?);
            Some(Self { index, count })
        });
        numbers
            .filter(|shard| (1..=MAX).contains(&shard.count))
            .filter(|shard| (1..=shard.count).contains(&shard.index))
            .ok_or_else(|| "expected I/N with I from 1 to N, for example 2/8".into())
    }
}

impl Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_is_in_one_shard() {
        let shards: Vec<Shard> = ["1/3", "2/3", "3/3"].map(|s| s.parse().expect(s)).into();
        for place in 0..10 {
            let owners = shards.iter().filter(|shard| shard.has(place)).count();
            assert_eq!(owners, 1, "{place}");
        }
        assert_eq!(
            (shards[1].to_string(), shards[1].suffix()),
            ("2/3".into(), "-2-of-3".into())
        );
        for bad in [
            "",
            "1",
            "0/3",
            "4/3",
            "1/0",
            "a/b",
            "1/3/4",
            "1/999999999999999999999",
        ] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}

//! The list of boxes: its order, ranges of rows, and the distribution of the scores.

use crate::chat::candidates::{BoxId, Candidate, Candidates};

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortKey {
    /// The number, from the first.
    #[default]
    Number,
    /// The label, by the alphabet.
    Name,
    /// The score, from the best; boxes of the user come last.
    Score,
    /// The area, from the largest.
    Area,
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// What the rows are sorted by.
    pub key: SortKey,
    /// Whether the order of the key is turned round.
    pub is_reversed: bool,
}

impl Sort {
    /// Sorted by `key`; a second time turns the order round.
    #[must_use]
    pub fn by(self, key: SortKey) -> Self {
        Self {
            key,
            is_reversed: self.key == key && !self.is_reversed,
        }
    }

    /// The numbers of the boxes in this order; `name` is the label of a box as shown.
    pub fn order(self, boxes: &Candidates, name: impl Fn(&Candidate) -> String) -> Vec<u32> {
        let area = |b: &Candidate| b.bbox.area().abs();
        let score = |b: &Candidate| b.score.unwrap_or(-1.0);
        let mut rows: Vec<_> = (boxes.boxes.iter().enumerate())
            .map(|(number, candidate)| (number as u32, candidate, name(candidate).to_lowercase()))
            .collect();
        rows.sort_by(|(_, a, a_name), (_, b, b_name)| match self.key {
            SortKey::Number => std::cmp::Ordering::Equal,
            SortKey::Name => (a_name.is_empty(), a_name).cmp(&(b_name.is_empty(), b_name)),
            SortKey::Score => score(b).total_cmp(&score(a)),
            SortKey::Area => area(b).total_cmp(&area(a)),
        });
        let numbers = rows.into_iter().map(|(number, ..)| number);
        if self.is_reversed {
            numbers.rev().collect()
        } else {
            numbers.collect()
        }
    }
}

/// The rows from `from` to `to` in either direction; only `to` where `from` is not among them.
pub fn range(rows: &[BoxId], from: Option<BoxId>, to: BoxId) -> Vec<BoxId> {
    let place = |id: BoxId| rows.iter().position(|&row| row == id);
    match (from.and_then(place), place(to)) {
        (Some(a), Some(b)) => rows[a.min(b)..=a.max(b)].to_vec(),
        _ => vec![to],
    }
}

/// How many scores lie in each of `bins` equal parts of 0 to 1.
pub fn histogram(scores: impl IntoIterator<Item = f32>, bins: usize) -> Vec<u32> {
    let mut counts = vec![0; bins];
    for score in scores {
        if !score.is_nan() && bins > 0 {
            let bin = (score.clamp(0.0, 1.0) * bins as f32) as usize;
            counts[bin.min(bins - 1)] += 1;
        }
    }
    counts
}

/// Heights of the bars of a histogram, 0 to 1 of the highest: square roots, so that few boxes of a high
/// score are seen beside many of a low one.
pub fn bar_heights(counts: &[u32]) -> Vec<f32> {
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f32;
    let height = |&count: &u32| (count as f32 / most).sqrt();
    counts.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Granularity;

    fn found(rank: u32) -> BoxId {
        BoxId::Found(Granularity::Coarse, rank)
    }

    fn boxes() -> Candidates {
        let candidate = |id, side: f32, score, label: Option<&str>| Candidate {
            id,
            bbox: [0., 0., side, side].into(),
            score,
            label: label.map(str::to_owned),
        };
        Candidates {
            boxes: vec![
                candidate(found(0), 5., Some(0.9), Some("dog")),
                candidate(found(1), 9., Some(0.7), None),
                candidate(found(2), 7., Some(0.5), Some("Cat")),
                candidate(BoxId::Own(0), 8., None, None),
            ],
            left_out: 0,
        }
    }

    #[test]
    fn rows_are_sorted_by_each_key_and_turned_round_by_a_second_click() {
        let name = |b: &Candidate| b.label.clone().unwrap_or_default();
        let cases = [
            (SortKey::Number, [0, 1, 2, 3], [3, 2, 1, 0]),
            (SortKey::Name, [2, 0, 1, 3], [3, 1, 0, 2]),
            (SortKey::Score, [0, 1, 2, 3], [3, 2, 1, 0]),
            (SortKey::Area, [1, 3, 2, 0], [0, 2, 3, 1]),
        ];
        for (key, once, twice) in cases {
            let sort = Sort {
                key: SortKey::Score,
                is_reversed: true,
            };
            let sort = sort.by(key);
            assert_eq!(sort.order(&boxes(), name), once, "{key:?}");
            assert_eq!(sort.by(key).order(&boxes(), name), twice, "{key:?}");
            assert_eq!(sort.by(key).by(key), sort);
        }
    }

    #[test]
    fn a_range_goes_in_both_directions() {
        let rows = [found(2), found(0), BoxId::Own(1), found(1)];
        let cases = [
            (Some(found(0)), found(1), rows[1..].to_vec()),
            (Some(found(1)), found(2), rows.to_vec()),
            (Some(found(9)), found(0), vec![found(0)]),
            (None, found(0), vec![found(0)]),
        ];
        for (from, to, expected) in cases {
            assert_eq!(range(&rows, from, to), expected, "{from:?} {to:?}");
        }
    }

    #[test]
    fn scores_are_counted_in_equal_parts() {
        let scores = [0.0, 0.24, 0.25, 0.5, 0.99, 1.0, 7.0, -1.0, f32::NAN];
        assert_eq!(histogram(scores, 4), [3, 1, 1, 3]);
        assert_eq!(histogram(scores, 0), Vec::<u32>::new());
        assert_eq!(bar_heights(&[0, 4, 16]), [0.0, 0.5, 1.0]);
        assert_eq!(bar_heights(&[0, 0]), [0.0, 0.0]);
    }
}

//! The stickers: twenty-six kinds of thing, their words, their pictures and the colours they can
//! be dyed.
//!
//! The pictures are Noto Color Emoji (`assets/stickers/LICENSE`), made by `assets/stickers/make.py`
//! in the order of [`Kind::all`].

use std::sync::OnceLock;

use serde::{Serialize, Serializer};

/// Side of an atlas cell in pixels; the longer side of every sticker.
const CELL: usize = 96;
/// Cells in a row of the atlas.
const COLUMNS: usize = 8;
/// Halvings kept of each sticker: 96, 48 and 24 pixels.
const LEVELS: usize = 3;

/// A kind of sticker, by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(u8);

/// What a [`Kind`] means.
struct Entry {
    word: &'static str,
    plural: &'static str,
    group: &'static str,
    /// Colours the sticker has by nature, in which it is therefore never dyed.
    natural: &'static [Tint],
}

const fn entry(
    word: &'static str,
    plural: &'static str,
    group: &'static str,
    natural: &'static [Tint],
) -> Entry {
    Entry {
        word,
        plural,
        group,
        natural,
    }
}

static TABLE: [Entry; 26] = {
    use Tint::{Blue, Green, Purple, Red, Yellow};
    [
        entry("dog", "dogs", "animal", &[]),
        entry("cat", "cats", "animal", &[Yellow]),
        entry("elephant", "elephants", "animal", &[]),
        entry("butterfly", "butterflies", "animal", &[]),
        entry("penguin", "penguins", "animal", &[]),
        entry("fish", "fishes", "animal", &[Blue]),
        entry("apple", "apples", "food", &[Red]),
        entry("banana", "bananas", "food", &[Yellow]),
        entry("pizza", "pizzas", "food", &[Yellow]),
        entry("carrot", "carrots", "food", &[]),
        entry("donut", "donuts", "food", &[]),
        entry("car", "cars", "vehicle", &[Red]),
        entry("bicycle", "bicycles", "vehicle", &[Blue]),
        entry("boat", "boats", "vehicle", &[Red]),
        entry("rocket", "rockets", "vehicle", &[]),
        entry("plane", "planes", "vehicle", &[Blue]),
        entry("train", "trains", "vehicle", &[]),
        entry("umbrella", "umbrellas", "thing", &[Blue, Purple]),
        entry("guitar", "guitars", "thing", &[Red]),
        entry("clock", "clocks", "thing", &[Red]),
        entry("camera", "cameras", "thing", &[]),
        entry("house", "houses", "thing", &[]),
        entry("tree", "trees", "plant", &[Green]),
        entry("cactus", "cactuses", "plant", &[Green]),
        entry("flower", "flowers", "plant", &[Yellow]),
        entry("mushroom", "mushrooms", "plant", &[Red]),
    ]
};

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = TABLE.len();

    /// Every kind, in the order of the table, which is also the order in which answers list them.
    pub fn all() -> impl Iterator<Item = Kind> {
        (0..Self::COUNT).map(|i| Kind(i as u8))
    }

    /// The kind numbered `index`; panics from [`Kind::COUNT`] on.
    pub fn at(index: usize) -> Self {
        assert!(index < Self::COUNT, "no kind has number {index}");
        Kind(index as u8)
    }

    /// Place in the table, a class number for training.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The word for one.
    pub fn word(self) -> &'static str {
        TABLE[self.index()].word
    }

    /// The word for several.
    pub fn plural(self) -> &'static str {
        TABLE[self.index()].plural
    }

    /// `animal`, `food`, `vehicle`, `thing` or `plant`.
    pub fn group(self) -> &'static str {
        TABLE[self.index()].group
    }

    /// Whether this kind is ever dyed in `tint`; not in a colour it has by nature.
    pub fn takes(self, tint: Tint) -> bool {
        !TABLE[self.index()].natural.contains(&tint)
    }

    /// The kind that `word` means, singular or plural.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::all().find(|k| k.word() == word || k.plural() == word)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.word())
    }
}

/// A colour that a sticker can be dyed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tint {
    /// Red.
    Red,
    /// Blue.
    Blue,
    /// Green.
    Green,
    /// Yellow.
    Yellow,
    /// Purple.
    Purple,
}

impl Tint {
    /// Every tint.
    pub const ALL: [Tint; 5] = [
        Tint::Red,
        Tint::Blue,
        Tint::Green,
        Tint::Yellow,
        Tint::Purple,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Tint::Red => "red",
            Tint::Blue => "blue",
            Tint::Green => "green",
            Tint::Yellow => "yellow",
            Tint::Purple => "purple",
        }
    }

    /// Place in [`Tint::ALL`], a class number for training.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Red, green and blue of the full colour, 0 to 1.
    fn colour(self) -> [f32; 3] {
        match self {
            Tint::Red => [0.90, 0.10, 0.12],
            Tint::Blue => [0.10, 0.32, 0.95],
            Tint::Green => [0.08, 0.68, 0.20],
            Tint::Yellow => [0.98, 0.85, 0.08],
            Tint::Purple => [0.58, 0.16, 0.80],
        }
    }

    /// The dyed form of an opaque colour, each channel 0 to 1: its lightness on a ramp from a dark
    /// to the full to a pale shade of the tint.
    pub(super) fn dye(self, rgb: [f32; 3]) -> [f32; 3] {
        let light = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        let full = self.colour();
        full.map(|c| {
            if light < 0.6 {
                c * (0.35 + 0.65 * light / 0.6)
            } else {
                c + (1.0 - c) * 0.55 * (light - 0.6) / 0.4
            }
        })
    }
}

/// A sticker's picture at one size: red, green, blue times alpha, and alpha.
pub(super) struct Level {
    /// Columns and rows.
    pub(super) side: usize,
    /// `(side + 2) * (side + 2)`: a clear pixel all around.
    texels: Vec<[f32; 4]>,
}

impl Level {
    /// Colour at `(u, v)` in pixels of this level, pixel centres at halves, bilinear; clear
    /// outside.
    pub(super) fn sample(&self, u: f32, v: f32) -> [f32; 4] {
        // A clear border of one pixel lies around the texels.
        let (u, v) = (u + 0.5, v + 0.5);
        let (last, side) = (self.side as f32 + 1.0, self.side + 2);
        if !(u >= 0.0 && v >= 0.0 && u < last && v < last) {
            return [0.0; 4];
        }
        let (left, top) = (u as usize, v as usize);
        let (fu, fv) = (u - left as f32, v - top as f32);
        let upper = &self.texels[top * side + left..][..2];
        let lower = &self.texels[(top + 1) * side + left..][..2];
        std::array::from_fn(|c| {
            let above = upper[0][c] * (1.0 - fu) + upper[1][c] * fu;
            let below = lower[0][c] * (1.0 - fu) + lower[1][c] * fu;
            above * (1.0 - fv) + below * fv
        })
    }

    /// `side * side` texels from their place.
    fn from_fn(side: usize, texel: impl Fn(usize, usize) -> [f32; 4]) -> Self {
        let full = side + 2;
        let mut texels = vec![[0.0; 4]; full * full];
        for y in 0..side {
            for x in 0..side {
                texels[(y + 1) * full + x + 1] = texel(x, y);
            }
        }
        Self { side, texels }
    }

    fn at(&self, x: usize, y: usize) -> [f32; 4] {
        self.texels[(y + 1) * (self.side + 2) + x + 1]
    }

    /// The next level: every two by two pixels averaged.
    fn halved(&self) -> Level {
        Level::from_fn(self.side / 2, |x, y| {
            let (x, y) = (2 * x, 2 * y);
            let four = [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)];
            std::array::from_fn(|c| four.iter().map(|&(x, y)| self.at(x, y)[c]).sum::<f32>() / 4.0)
        })
    }
}

/// A sticker's picture at all its sizes.
pub(super) struct Sticker {
    /// From 96 pixels down.
    levels: Vec<Level>,
    /// Width and height of the visible extent in pixels of the first level; the longer is 96.
    pub(super) extent: [f32; 2],
}

impl Sticker {
    /// The level whose size is nearest above `longer` pixels on screen.
    pub(super) fn level(&self, longer: f32) -> &Level {
        let enough = |l: &&Level| l.side as f32 >= longer * 0.8;
        self.levels
            .iter()
            .rev()
            .find(enough)
            .unwrap_or(&self.levels[0])
    }
}

/// The picture of `kind`, decoded once.
pub(super) fn sticker(kind: Kind) -> &'static Sticker {
    static ALL: OnceLock<Vec<Sticker>> = OnceLock::new();
    &ALL.get_or_init(decode)[kind.index()]
}

fn decode() -> Vec<Sticker> {
    let bytes = include_bytes!("../../assets/stickers/atlas.png");
    let atlas = ::image::load_from_memory(bytes)
        .expect("the atlas is compiled in")
        .to_rgba8();
    (0..Kind::COUNT)
        .map(|kind| {
            let corner = [kind % COLUMNS * CELL, kind / COLUMNS * CELL];
            let first = Level::from_fn(CELL, |x, y| {
                let (x, y) = (corner[0] + x, corner[1] + y);
                let [r, g, b, a] = atlas.get_pixel(x as u32, y as u32).0.map(f32::from);
                let alpha = a / 255.0;
                let [r, g, b] = [r, g, b].map(|c| c / 255.0 * alpha);
                [r, g, b, alpha]
            });
            let visible = |i: &usize| first.at(i % CELL, i / CELL)[3] >= 0.5;
            let span = |of: fn(usize) -> usize| {
                let seen = || (0..CELL * CELL).filter(visible).map(of);
                (seen().max().unwrap_or(0) + 1 - seen().min().unwrap_or(0)) as f32
            };
            let extent = [span(|i| i % CELL), span(|i| i / CELL)];
            let mut levels = vec![first];
            while levels.len() < LEVELS {
                levels.push(levels[levels.len() - 1].halved());
            }
            Sticker { levels, extent }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_and_groups_are_many() {
        let mut words: Vec<_> = Kind::all().flat_map(|k| [k.word(), k.plural()]).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 2 * Kind::COUNT);
        let groups: std::collections::HashSet<_> = Kind::all().map(Kind::group).collect();
        assert!(groups.len() >= 4);
        assert_eq!(Kind::from_word("butterflies"), Kind::from_word("butterfly"));
    }

    #[test]
    fn every_sticker_fills_its_cell() {
        for kind in Kind::all() {
            let [w, h] = sticker(kind).extent;
            assert!(w.max(h) >= 94.0, "{}: {w} x {h}", kind.word());
            assert!(w.min(h) >= 30.0, "{}: {w} x {h}", kind.word());
        }
    }

    #[test]
    fn a_dyed_grey_has_the_hue_of_its_tint() {
        for light in [0.05, 0.5, 0.95] {
            let [r, g, b] = Tint::Red.dye([light; 3]);
            assert!(r > 1.5 * g && r > 1.5 * b, "{light}: {r} {g} {b}");
            let [r, g, b] = Tint::Blue.dye([light; 3]);
            assert!(b > r && b > g, "{light}: {r} {g} {b}");
        }
    }
}

//! The stickers: 26 categories with their names and images, and the colours they can be tinted in.
//!
//! The images are Noto Color Emoji (`assets/stickers/LICENSE`). `assets/stickers/make.py` writes them
//! into an atlas in the order of [`Category::all`].

use std::sync::OnceLock;

use serde::{Serialize, Serializer};

/// Side of an atlas cell in pixels, and the longer side of every sticker.
const CELL_SIDE: usize = 96;
/// Cells per row of the atlas.
const ATLAS_COLUMNS: usize = 8;
/// Mip levels of a sticker: 96, 48 and 24 pixels.
const MIP_LEVELS: usize = 3;

/// The category of a sticker, an index into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Category(u8);

/// Names of a [`Category`] and its colours.
struct CategoryInfo {
    word: &'static str,
    plural: &'static str,
    supercategory: &'static str,
    /// Colours of the untinted sticker; it is never tinted in these.
    natural: &'static [Tint],
}

const fn entry(
    word: &'static str,
    plural: &'static str,
    supercategory: &'static str,
    natural: &'static [Tint],
) -> CategoryInfo {
    CategoryInfo {
        word,
        plural,
        supercategory,
        natural,
    }
}

static TABLE: [CategoryInfo; 26] = {
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

impl Category {
    /// Number of categories.
    pub const COUNT: usize = TABLE.len();

    /// Every category in the order of the table. Answers list categories in this order.
    pub fn all() -> impl Iterator<Item = Category> {
        (0..Self::COUNT).map(|i| Category(i as u8))
    }

    /// The category with class index `index`.
    ///
    /// # Panics
    /// `index` is not below [`Category::COUNT`].
    pub fn at(index: usize) -> Self {
        assert!(index < Self::COUNT, "no category has index {index}");
        Category(index as u8)
    }

    /// Index in the table; the class index in training.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The singular.
    pub fn word(self) -> &'static str {
        TABLE[self.index()].word
    }

    /// The plural.
    pub fn plural(self) -> &'static str {
        TABLE[self.index()].plural
    }

    /// `animal`, `food`, `vehicle`, `thing` or `plant`: the supercategory of COCO.
    pub fn supercategory(self) -> &'static str {
        TABLE[self.index()].supercategory
    }

    /// Whether this category can be tinted in `tint`; false for its natural colours.
    pub fn accepts(self, tint: Tint) -> bool {
        !TABLE[self.index()].natural.contains(&tint)
    }

    /// The category named by `word`, singular or plural.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::all().find(|k| k.word() == word || k.plural() == word)
    }
}

impl Serialize for Category {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.word())
    }
}

/// A colour that a sticker can be tinted in.
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

    /// The colour word.
    pub fn word(self) -> &'static str {
        match self {
            Tint::Red => "red",
            Tint::Blue => "blue",
            Tint::Green => "green",
            Tint::Yellow => "yellow",
            Tint::Purple => "purple",
        }
    }

    /// Index in [`Tint::ALL`]; the class index in training.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The saturated colour as red, green and blue, 0 to 1.
    fn rgb(self) -> [f32; 3] {
        match self {
            Tint::Red => [0.90, 0.10, 0.12],
            Tint::Blue => [0.10, 0.32, 0.95],
            Tint::Green => [0.08, 0.68, 0.20],
            Tint::Yellow => [0.98, 0.85, 0.08],
            Tint::Purple => [0.58, 0.16, 0.80],
        }
    }

    /// Tints an opaque colour, channels 0 to 1: its luma selects a shade between dark, saturated and
    /// pale.
    pub(super) fn apply(self, rgb: [f32; 3]) -> [f32; 3] {
        let light = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        let full = self.rgb();
        full.map(|c| {
            if light < 0.6 {
                c * (0.35 + 0.65 * light / 0.6)
            } else {
                c + (1.0 - c) * 0.55 * (light - 0.6) / 0.4
            }
        })
    }
}

/// One mip level of a sticker, RGBA with premultiplied alpha.
pub(super) struct MipLevel {
    /// Width and height in pixels.
    pub(super) side: usize,
    /// `(side + 2) * (side + 2)` texels: a transparent border of one pixel.
    texels: Vec<[f32; 4]>,
}

impl MipLevel {
    /// Bilinear sample at `(u, v)` in pixels of this level, pixel centres at halves; transparent
    /// outside.
    pub(super) fn sample(&self, u: f32, v: f32) -> [f32; 4] {
        // The border shifts texels by one.
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

    /// A level of `side * side` texels, given by `texel(x, y)`.
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

    /// The next level: the mean of every 2 x 2 pixels.
    fn downsampled(&self) -> MipLevel {
        MipLevel::from_fn(self.side / 2, |x, y| {
            let (x, y) = (2 * x, 2 * y);
            let four = [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)];
            std::array::from_fn(|c| four.iter().map(|&(x, y)| self.at(x, y)[c]).sum::<f32>() / 4.0)
        })
    }
}

/// The mip levels of a sticker.
pub(super) struct Sticker {
    /// From 96 pixels down.
    mips: Vec<MipLevel>,
    /// Width and height of the visible part in pixels of the first level; the longer is 96.
    pub(super) extent: [f32; 2],
}

impl Sticker {
    /// The smallest level that is sufficient for a longer side of `longer` pixels.
    pub(super) fn level(&self, longer: f32) -> &MipLevel {
        let enough = |l: &&MipLevel| l.side as f32 >= longer * 0.8;
        self.mips.iter().rev().find(enough).unwrap_or(&self.mips[0])
    }
}

/// The sticker of `category`; the atlas is decoded once.
pub(super) fn sticker(category: Category) -> &'static Sticker {
    static ALL: OnceLock<Vec<Sticker>> = OnceLock::new();
    &ALL.get_or_init(decode)[category.index()]
}

fn decode() -> Vec<Sticker> {
    let bytes = include_bytes!("../../assets/stickers/atlas.png");
    let atlas = ::image::load_from_memory(bytes)
        .expect("the embedded atlas decodes")
        .to_rgba8();
    (0..Category::COUNT)
        .map(|category| {
            let corner = [
                category % ATLAS_COLUMNS * CELL_SIDE,
                category / ATLAS_COLUMNS * CELL_SIDE,
            ];
            let first = MipLevel::from_fn(CELL_SIDE, |x, y| {
                let (x, y) = (corner[0] + x, corner[1] + y);
                let [r, g, b, a] = atlas.get_pixel(x as u32, y as u32).0.map(f32::from);
                let alpha = a / 255.0;
                let [r, g, b] = [r, g, b].map(|c| c / 255.0 * alpha);
                [r, g, b, alpha]
            });
            let visible = |i: &usize| first.at(i % CELL_SIDE, i / CELL_SIDE)[3] >= 0.5;
            let span = |of: fn(usize) -> usize| {
                let seen = || (0..CELL_SIDE * CELL_SIDE).filter(visible).map(of);
                (seen().max().unwrap_or(0) + 1 - seen().min().unwrap_or(0)) as f32
            };
            let extent = [span(|i| i % CELL_SIDE), span(|i| i / CELL_SIDE)];
            let mut mips = vec![first];
            while mips.len() < MIP_LEVELS {
                mips.push(mips[mips.len() - 1].downsampled());
            }
            Sticker { mips, extent }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_and_there_are_several_supercategories() {
        let mut words: Vec<_> = Category::all()
            .flat_map(|k| [k.word(), k.plural()])
            .collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 2 * Category::COUNT);
        let groups: std::collections::HashSet<_> =
            Category::all().map(Category::supercategory).collect();
        assert!(groups.len() >= 4);
        assert_eq!(
            Category::from_word("butterflies"),
            Category::from_word("butterfly")
        );
    }

    #[test]
    fn every_sticker_fills_its_cell() {
        for category in Category::all() {
            let [w, h] = sticker(category).extent;
            assert!(w.max(h) >= 94.0, "{}: {w} x {h}", category.word());
            assert!(w.min(h) >= 30.0, "{}: {w} x {h}", category.word());
        }
    }

    #[test]
    fn a_tinted_grey_has_the_hue_of_its_tint() {
        for light in [0.05, 0.5, 0.95] {
            let [r, g, b] = Tint::Red.apply([light; 3]);
            assert!(r > 1.5 * g && r > 1.5 * b, "{light}: {r} {g} {b}");
            let [r, g, b] = Tint::Blue.apply([light; 3]);
            assert!(b > r && b > g, "{light}: {r} {g} {b}");
        }
    }
}

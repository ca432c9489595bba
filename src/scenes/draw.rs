//! Generation of a scene: background, choice of stickers, sizes, layout and compositing.

use std::ops::RangeInclusive;

use super::Split;
use super::background::{Canvas, background};
use super::rng::Rng;
use super::stickers::{Category, Tint, sticker};
use crate::geometry::BoxXyxy;
use crate::image::Pixels;

/// Range of the width and of the height of an image in pixels.
const SIDES: RangeInclusive<usize> = 192..=320;
/// Fraction of a sticker's pixels that later stickers must leave visible.
const MIN_VISIBLE: f32 = 0.75;
/// Upper limit of the IoU of two boxes.
const MAX_IOU: f32 = 0.2;

/// A synthetic image with its ground truth.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The seed it is drawn from.
    pub seed: u64,
    /// The image.
    pub pixels: Pixels,
    /// The stickers in drawing order: later ones cover earlier ones.
    pub objects: Vec<Object>,
}

/// A sticker of a scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Its category.
    pub category: Category,
    /// Its tint; `None` for the natural colours, which texts never name.
    pub tint: Option<Tint>,
    /// Bounding box of the visible pixels, in pixels of the image: integers, right and bottom edge
    /// exclusive.
    pub bbox: BoxXyxy,
}

impl Object {
    /// The category word, preceded by the colour if it is tinted: `red car`.
    pub fn name(&self) -> String {
        named(self.category.word(), self.tint)
    }
}

/// `word`, preceded by the colour if there is one.
pub(super) fn named(word: &str, tint: Option<Tint>) -> String {
    tint.map_or_else(|| word.to_owned(), |t| format!("{} {word}", t.word()))
}

/// Size class of a sticker relative to its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Longer side below a fifth of the image's shorter side.
    Small,
    /// In between; texts have no word for it.
    Medium,
    /// Longer side above a third of the image's shorter side.
    Big,
}

impl Scene {
    /// Draws the scene of `seed` with 1 to 12 stickers.
    pub fn draw(seed: u64) -> Self {
        Self::draw_with(seed, 1..=12)
    }

    /// Draws the scene of `seed` with a number of stickers within `count`, from 1 to 12, or fewer
    /// if they do not fit. The scene depends on `count`.
    pub fn draw_with(seed: u64, count: RangeInclusive<usize>) -> Self {
        let split = Split::of(seed);
        let mut rng = Rng::new(seed, 0);
        let side = |rng: &mut Rng| SIDES.start() + rng.below(SIDES.end() - SIDES.start() + 1);
        let (width, height) = (side(&mut rng), side(&mut rng));
        let canvas = background(width, height, split, &mut rng);
        let least = (*count.start()).clamp(1, 12);
        let most = (*count.end()).clamp(least, 12);
        let n = least + rng.below(most - least + 1);
        let stickers = choose_stickers(n, &mut rng);
        let centres = layout(n, split, &mut rng);
        let mut composition = Composition::new(canvas);
        let mut objects = Vec::with_capacity(n);
        let shorter = width.min(height) as f32;
        for ((category, tint), preferred) in stickers.into_iter().zip(centres) {
            let mut longer = shorter * share(n, &mut rng);
            for attempt in 0..16 {
                let placed = PlacedSticker::new(
                    category,
                    tint,
                    longer,
                    preferred,
                    attempt,
                    &composition,
                    &mut rng,
                );
                if composition.try_draw(&placed) {
                    objects.push((category, tint));
                    break;
                }
                longer = (longer * 0.93).max(shorter * 0.15);
            }
        }
        let boxes: Vec<BoxXyxy> = composition.drawn.iter().map(DrawnSticker::bbox).collect();
        Self {
            seed,
            pixels: composition.pixels(),
            objects: objects
                .into_iter()
                .zip(boxes)
                .map(|((category, tint), bbox)| Object {
                    category,
                    tint,
                    bbox,
                })
                .collect(),
        }
    }

    /// Size class of object `object`, by its box.
    pub fn size(&self, object: usize) -> Size {
        match self.relative(object) {
            r if r < 0.2 => Size::Small,
            r if r > 1.0 / 3.0 => Size::Big,
            _ => Size::Medium,
        }
    }

    /// Longer side of the object's box over the image's shorter side.
    pub(super) fn relative(&self, object: usize) -> f32 {
        let b = self.objects[object].bbox;
        let shorter = self.pixels.width.min(self.pixels.height) as f32;
        (b.x2 - b.x1).max(b.y2 - b.y1) / shorter
    }

    /// The categories in the image, in the order of the table.
    pub fn categories(&self) -> Vec<Category> {
        let mut categories: Vec<Category> = self.objects.iter().map(|o| o.category).collect();
        categories.sort_unstable();
        categories.dedup();
        categories
    }
}

/// Chooses categories and tints: a few categories with repeats, about half of the stickers tinted.
fn choose_stickers(n: usize, rng: &mut Rng) -> Vec<(Category, Option<Tint>)> {
    let categories = 1 + rng.below(n.min(5));
    let mut pool: Vec<Category> = Category::all().collect();
    rng.shuffle(&mut pool);
    pool.truncate(categories);
    let dominant = rng.chance(40);
    let tints: Vec<Option<Tint>> = pool.iter().map(|&category| tint(category, rng)).collect();
    let fixed_tint: Vec<bool> = pool.iter().map(|_| rng.chance(40)).collect();
    let mut chosen: Vec<_> = (0..n)
        .map(|i| {
            let of = match i {
                i if i < categories => i,
                _ if dominant && rng.chance(70) => 0,
                _ => rng.below(categories),
            };
            let tint = if fixed_tint[of] {
                tints[of]
            } else {
                tint(pool[of], rng)
            };
            (pool[of], tint)
        })
        .collect();
    let mut counts = [0; Category::COUNT];
    chosen.retain(|(category, _)| {
        counts[category.index()] += 1;
        counts[category.index()] <= 8
    });
    rng.shuffle(&mut chosen);
    chosen
}

fn tint(category: Category, rng: &mut Rng) -> Option<Tint> {
    let tint = *rng.pick(&Tint::ALL);
    (rng.chance(55) && category.accepts(tint)).then_some(tint)
}

/// Longer side of a sticker over the image's shorter side: 0.16 to 0.45, nearly log-uniform; the
/// upper limit falls with the number `n` of stickers.
fn share(n: usize, rng: &mut Rng) -> f32 {
    let most = (0.45 * (3.0 / n as f32).sqrt()).clamp(0.24, 0.45);
    let root = 1.0 + rng.unit() * ((most / 0.16).sqrt() - 1.0);
    0.16 * root * root
}

/// Preferred centres of the stickers as fractions of width and height.
fn layout(n: usize, split: Split, rng: &mut Rng) -> Vec<[f32; 2]> {
    let even = |i: usize| (i as f32 + 0.5) / n as f32;
    let anywhere = |rng: &mut Rng| [rng.unit(), rng.unit()];
    let shape = rng.below(3);
    let mut centres: Vec<[f32; 2]> = match (split, shape) {
        (Split::Test, 0) => {
            let rising = rng.chance(50);
            let along = |i| [even(i), if rising { 1.0 - even(i) } else { even(i) }];
            (0..n).map(along).collect()
        }
        (Split::Test, 1) => {
            let up = rng.chance(50);
            let deep = rng.between(0.5, 0.9);
            let bow = |i| {
                let t = 2.0 * even(i) - 1.0;
                let y = 0.5 + deep * (0.5 - t * t);
                [even(i), if up { 1.0 - y } else { y }]
            };
            (0..n).map(bow).collect()
        }
        (Split::Test, _) => {
            let centre = [rng.between(0.3, 0.7), rng.between(0.3, 0.7)];
            let close = |rng: &mut Rng| centre.map(|c| c + rng.between(-0.36, 0.36));
            (0..n).map(|_| close(rng)).collect()
        }
        (_, 0) => {
            let columns = (1..=n).find(|c| c * c >= n).unwrap_or(1);
            let rows = n.div_ceil(columns);
            let cell = |i: usize| {
                let (column, row) = (i % columns, i / columns);
                [
                    (column as f32 + 0.5) / columns as f32,
                    (row as f32 + 0.5) / rows as f32,
                ]
            };
            (0..n).map(cell).collect()
        }
        _ => (0..n).map(|_| anywhere(rng)).collect(),
    };
    rng.shuffle(&mut centres);
    centres
}

/// A sticker with its position, scale and rotation.
struct PlacedSticker {
    category: Category,
    tint: Option<Tint>,
    /// Image pixels per pixel of the first mip level.
    scale: f32,
    centre: [f32; 2],
    /// Half of the width and height of the rotated sticker, in image pixels.
    half_size: [f32; 2],
    /// Cosine and sine of the rotation angle.
    rotation: [f32; 2],
    mirrored: bool,
}

impl PlacedSticker {
    fn new(
        category: Category,
        tint: Option<Tint>,
        longer: f32,
        preferred: [f32; 2],
        attempt: usize,
        composition: &Composition,
        rng: &mut Rng,
    ) -> Self {
        // Tangent of half the angle, up to tan(12.5°): rotations up to 25° without trigonometric
        // functions, whose last bits differ between machines.
        let t = rng.between(-0.2217, 0.2217);
        let rotation = [(1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)];
        let scale = longer / 96.0;
        let [w, h] = sticker(category).extent;
        let half_size = [
            scale * 0.5 * (w * rotation[0] + h * rotation[1].abs()),
            scale * 0.5 * (h * rotation[0] + w * rotation[1].abs()),
        ];
        let overhang = if rng.chance(12) { 0.6 } else { 1.0 };
        let jitter = 0.04 + 0.05 * attempt as f32;
        let sides = [
            composition.canvas.width as f32,
            composition.canvas.height as f32,
        ];
        let centre = std::array::from_fn(|axis| {
            let wanted = preferred[axis] + rng.between(-jitter, jitter);
            let least = half_size[axis] * overhang + 1.0;
            (wanted * sides[axis]).clamp(least, sides[axis] - least)
        });
        Self {
            category,
            tint,
            scale,
            centre,
            half_size,
            rotation,
            mirrored: rng.chance(30),
        }
    }

    /// The pixels of `canvas` that it covers: index, colour (0 to 255, premultiplied), alpha.
    fn coverage(&self, canvas: &Canvas) -> Vec<(usize, [f32; 3], f32)> {
        let sticker = sticker(self.category);
        let level = sticker.level(self.scale * 96.0);
        let shrink = level.side as f32 / 96.0;
        let [cos, sin] = self.rotation;
        let range = |axis: usize, end: usize| {
            let half_size = self.half_size[axis] + 2.0;
            let low = (self.centre[axis] - half_size).max(0.0) as usize;
            low..((self.centre[axis] + half_size).max(0.0) as usize).min(end)
        };
        let mut coverage = Vec::new();
        for y in range(1, canvas.height) {
            for x in range(0, canvas.width) {
                let dx = (x as f32 + 0.5 - self.centre[0]) / self.scale;
                let dy = (y as f32 + 0.5 - self.centre[1]) / self.scale;
                let (mut u, v) = (cos * dx + sin * dy, cos * dy - sin * dx);
                if self.mirrored {
                    u = -u;
                }
                if u.abs() > 49.0 || v.abs() > 49.0 {
                    continue;
                }
                let [r, g, b, a] = level.sample((u + 48.0) * shrink, (v + 48.0) * shrink);
                if a < 0.02 {
                    continue;
                }
                let mut rgb = [r / a, g / a, b / a];
                if let Some(tint) = self.tint {
                    rgb = tint.apply(rgb);
                }
                coverage.push((y * canvas.width + x, rgb.map(|c| c * a * 255.0), a));
            }
        }
        coverage
    }
}

/// The canvas and the sticker that each pixel belongs to.
struct Composition {
    canvas: Canvas,
    /// Per pixel: index of the sticker plus one, 0 for the background.
    owner: Vec<u8>,
    drawn: Vec<DrawnSticker>,
}

/// Visibility and extent of a sticker that was drawn.
#[derive(Clone, Copy)]
struct DrawnSticker {
    /// Pixels it had when it was drawn.
    pixels: usize,
    /// Pixels still visible.
    visible: usize,
    /// Extent of the visible pixels: left, top, right, bottom; the last two are exclusive.
    extent: [usize; 4],
}

impl DrawnSticker {
    fn bbox(&self) -> BoxXyxy {
        BoxXyxy::from(self.extent.map(|v| v as f32))
    }
}

impl Composition {
    fn new(canvas: Canvas) -> Self {
        let owner = vec![0; canvas.width * canvas.height];
        Self {
            canvas,
            owner,
            drawn: Vec::new(),
        }
    }

    /// Draws a sticker unless it would cover another one or overlap its box too much. Returns
    /// whether it was drawn.
    fn try_draw(&mut self, placed: &PlacedSticker) -> bool {
        let coverage = placed.coverage(&self.canvas);
        let solid: Vec<usize> = coverage
            .iter()
            .filter(|t| t.2 >= 0.5)
            .map(|t| t.0)
            .collect();
        let mut after = self.drawn.clone();
        for &at in &solid {
            if self.owner[at] > 0 {
                after[usize::from(self.owner[at]) - 1].visible -= 1;
            }
        }
        let hidden = |s: &DrawnSticker| (s.visible as f32) < MIN_VISIBLE * s.pixels as f32;
        if solid.len() < 80 || after.iter().any(hidden) {
            return false;
        }
        let number = after.len() as u8 + 1;
        let under: Vec<u8> = solid.iter().map(|&at| self.owner[at]).collect();
        solid.iter().for_each(|&at| self.owner[at] = number);
        after.push(DrawnSticker {
            pixels: solid.len(),
            visible: solid.len(),
            extent: [0, 0, self.canvas.width, self.canvas.height],
        });
        for (i, sticker) in after.iter_mut().enumerate() {
            let before = self.drawn.get(i);
            if before.is_none_or(|before| before.visible != sticker.visible) {
                sticker.extent =
                    extent(&self.owner, self.canvas.width, i as u8 + 1, sticker.extent);
            }
        }
        let overlaps = |(i, a): (usize, &DrawnSticker)| {
            let a = a.bbox();
            after[..i].iter().any(|b| a.iou(&b.bbox()) >= MAX_IOU)
        };
        if after.iter().enumerate().any(overlaps) {
            solid
                .iter()
                .zip(under)
                .for_each(|(&at, was)| self.owner[at] = was);
            return false;
        }
        self.drawn = after;
        for (at, rgb, a) in coverage {
            for (c, value) in rgb.into_iter().enumerate() {
                let under = &mut self.canvas.rgb[at * 3 + c];
                *under = *under * (1.0 - a) + value;
            }
        }
        true
    }

    fn pixels(self) -> Pixels {
        Pixels {
            width: self.canvas.width as u32,
            height: self.canvas.height as u32,
            rgb: self
                .canvas
                .rgb
                .into_iter()
                .map(|v| (v + 0.5).clamp(0.0, 255.0) as u8)
                .collect(),
        }
    }
}

/// Extent of the pixels of sticker `number` inside `within`; `owner` has rows of `width` pixels.
fn extent(owner: &[u8], width: usize, number: u8, within: [usize; 4]) -> [usize; 4] {
    let mut e = [usize::MAX, usize::MAX, 0, 0];
    for y in within[1]..within[3] {
        let row = &owner[y * width + within[0]..y * width + within[2]];
        let first = row.iter().position(|&o| o == number);
        let last = row.iter().rposition(|&o| o == number);
        if let (Some(first), Some(last)) = (first, last) {
            let (left, right) = (within[0] + first, within[0] + last + 1);
            e = [e[0].min(left), e[1].min(y), e[2].max(right), y + 1];
        }
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_scene() {
        let (a, b) = (Scene::draw(7), Scene::draw(7));
        assert_eq!(a.pixels, b.pixels);
        assert_eq!(a.objects, b.objects);
        assert_ne!(a.pixels, Scene::draw(8).pixels);
    }

    #[test]
    fn boxes_are_inside_the_image_and_overlap_little() {
        let mut counts = [0; 13];
        let mut most = 0;
        for seed in (0..150).chain(900_000..900_150) {
            let scene = Scene::draw(seed);
            let (w, h) = (scene.pixels.width as f32, scene.pixels.height as f32);
            counts[scene.objects.len()] += 1;
            for (i, a) in scene.objects.iter().enumerate() {
                let b = a.bbox;
                assert!(0.0 <= b.x1 && b.x1 < b.x2 && b.x2 <= w, "{seed}: {b:?}");
                assert!(0.0 <= b.y1 && b.y1 < b.y2 && b.y2 <= h, "{seed}: {b:?}");
                assert!(a.tint.is_none_or(|t| a.category.accepts(t)));
                for other in &scene.objects[..i] {
                    assert!(b.iou(&other.bbox) < MAX_IOU, "{seed}");
                }
                let fixed_tint = scene
                    .objects
                    .iter()
                    .filter(|o| o.category == a.category)
                    .count();
                most = most.max(fixed_tint);
            }
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1..].iter().all(|&c| c > 0), "{counts:?}");
        assert!(most >= 7, "{most}");
    }

    /// With one sticker the box covers the pixels that differ from the background.
    #[test]
    fn boxes_are_tight() {
        for seed in 0..40 {
            let scene = Scene::draw_with(seed, 1..=1);
            let mut rng = Rng::new(seed, 0);
            let side = |rng: &mut Rng| 192 + rng.below(129);
            let (w, h) = (side(&mut rng), side(&mut rng));
            let bare = Composition::new(background(w, h, Split::Train, &mut rng)).pixels();
            let changed = |i: &usize| {
                (0..3).any(|c| bare.rgb[i * 3 + c].abs_diff(scene.pixels.rgb[i * 3 + c]) > 3)
            };
            let owner: Vec<u8> = (0..w * h).map(|i| u8::from(changed(&i))).collect();
            let seen = BoxXyxy::from(extent(&owner, w, 1, [0, 0, w, h]).map(|v| v as f32));
            let iou = seen.iou(&scene.objects[0].bbox);
            assert!(iou > 0.8, "{seed}: {iou} {seen:?} {:?}", scene.objects[0]);
        }
    }
}

//! One scene: which stickers, how large, where, on what; and the picture of it.

use std::ops::RangeInclusive;

use super::Split;
use super::backdrop::{Canvas, backdrop};
use super::rng::Rng;
use super::stickers::{Kind, Tint, sticker};
use crate::geometry::BoxXyxy;
use crate::image::Pixels;

/// Shorter and longer limit of a picture's sides in pixels.
const SIDES: RangeInclusive<usize> = 192..=320;
/// Share of a sticker's drawn pixels that must stay visible under later stickers.
const VISIBLE: f32 = 0.75;
/// Largest overlap of two boxes.
const MOST_IOU: f32 = 0.2;

/// A drawn picture and what is in it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What it was drawn from.
    pub seed: u64,
    /// The picture.
    pub pixels: Pixels,
    /// The stickers, in the order in which they were drawn: later ones lie on earlier ones.
    pub objects: Vec<Object>,
}

/// A sticker of a scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// The colour it is dyed in; none for its own colours, which no words name.
    pub tint: Option<Tint>,
    /// Visible extent in pixels of the picture: whole numbers, right and bottom edge excluded.
    pub bbox: BoxXyxy,
}

impl Object {
    /// The word for the kind, after the colour where there is one: `red car`.
    pub fn name(&self) -> String {
        named(self.kind.word(), self.tint)
    }
}

/// `word`, after the colour where there is one.
pub(super) fn named(word: &str, tint: Option<Tint>) -> String {
    tint.map_or_else(|| word.to_owned(), |t| format!("{} {word}", t.word()))
}

/// How large a sticker is beside its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Longer side below a fifth of the picture's shorter side.
    Small,
    /// In between; no word.
    Medium,
    /// Longer side above a third of the picture's shorter side.
    Big,
}

impl Scene {
    /// The scene of `seed`, of 1 to 12 stickers.
    pub fn draw(seed: u64) -> Self {
        Self::draw_with(seed, 1..=12)
    }

    /// The scene of `seed` with a number of stickers within `count`, from 1 to 12; fewer where
    /// there is no room. Another `count` gives another scene.
    pub fn draw_with(seed: u64, count: RangeInclusive<usize>) -> Self {
        let split = Split::of(seed);
        let mut rng = Rng::new(seed, 0);
        let side = |rng: &mut Rng| SIDES.start() + rng.below(SIDES.end() - SIDES.start() + 1);
        let (width, height) = (side(&mut rng), side(&mut rng));
        let canvas = backdrop(width, height, split, &mut rng);
        let least = (*count.start()).clamp(1, 12);
        let most = (*count.end()).clamp(least, 12);
        let n = least + rng.below(most - least + 1);
        let wanted = cast(n, &mut rng);
        let spots = layout(n, split, &mut rng);
        let mut table = Table::new(canvas);
        let mut objects = Vec::with_capacity(n);
        let shorter = width.min(height) as f32;
        for ((kind, tint), spot) in wanted.into_iter().zip(spots) {
            let mut longer = shorter * share(n, &mut rng);
            for attempt in 0..16 {
                let placed = Placed::new(kind, tint, longer, spot, attempt, &table, &mut rng);
                if table.lay(&placed) {
                    objects.push((kind, tint));
                    break;
                }
                longer = (longer * 0.93).max(shorter * 0.15);
            }
        }
        let boxes: Vec<BoxXyxy> = table.laid.iter().map(Laid::bbox).collect();
        Self {
            seed,
            pixels: table.pixels(),
            objects: objects
                .into_iter()
                .zip(boxes)
                .map(|((kind, tint), bbox)| Object { kind, tint, bbox })
                .collect(),
        }
    }

    /// How large the object numbered `object` is, by its box.
    pub fn size(&self, object: usize) -> Size {
        match self.relative(object) {
            r if r < 0.2 => Size::Small,
            r if r > 1.0 / 3.0 => Size::Big,
            _ => Size::Medium,
        }
    }

    /// Longer side of the object's box over the picture's shorter side.
    pub(super) fn relative(&self, object: usize) -> f32 {
        let b = self.objects[object].bbox;
        let shorter = self.pixels.width.min(self.pixels.height) as f32;
        (b.x2 - b.x1).max(b.y2 - b.y1) / shorter
    }

    /// The kinds in the picture, in the order of the table.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.objects.iter().map(|o| o.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// Which stickers: a few kinds with repeats, about half of them dyed.
fn cast(n: usize, rng: &mut Rng) -> Vec<(Kind, Option<Tint>)> {
    let kinds = 1 + rng.below(n.min(5));
    let mut pool: Vec<Kind> = Kind::all().collect();
    rng.shuffle(&mut pool);
    pool.truncate(kinds);
    let favourite = rng.chance(40);
    let common: Vec<Option<Tint>> = pool.iter().map(|&kind| tint(kind, rng)).collect();
    let alike: Vec<bool> = pool.iter().map(|_| rng.chance(40)).collect();
    let mut cast: Vec<_> = (0..n)
        .map(|i| {
            let of = match i {
                i if i < kinds => i,
                _ if favourite && rng.chance(70) => 0,
                _ => rng.below(kinds),
            };
            let tint = if alike[of] {
                common[of]
            } else {
                tint(pool[of], rng)
            };
            (pool[of], tint)
        })
        .collect();
    let mut kept = [0; Kind::COUNT];
    cast.retain(|(kind, _)| {
        kept[kind.index()] += 1;
        kept[kind.index()] <= 8
    });
    rng.shuffle(&mut cast);
    cast
}

fn tint(kind: Kind, rng: &mut Rng) -> Option<Tint> {
    let tint = *rng.pick(&Tint::ALL);
    (rng.chance(55) && kind.takes(tint)).then_some(tint)
}

/// Longer side of a sticker over the picture's shorter side: 0.16 to 0.45, nearly log-uniform,
/// with less room where there are many.
fn share(n: usize, rng: &mut Rng) -> f32 {
    let most = (0.45 * (3.0 / n as f32).sqrt()).clamp(0.24, 0.45);
    let root = 1.0 + rng.unit() * ((most / 0.16).sqrt() - 1.0);
    0.16 * root * root
}

/// Where the stickers would like to be: centres as shares of width and height.
fn layout(n: usize, split: Split, rng: &mut Rng) -> Vec<[f32; 2]> {
    let even = |i: usize| (i as f32 + 0.5) / n as f32;
    let anywhere = |rng: &mut Rng| [rng.unit(), rng.unit()];
    let shape = rng.below(3);
    let mut spots: Vec<[f32; 2]> = match (split, shape) {
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
    rng.shuffle(&mut spots);
    spots
}

/// A sticker at a place, ready to be drawn.
struct Placed {
    kind: Kind,
    tint: Option<Tint>,
    /// Screen pixels per pixel of the first level.
    scale: f32,
    centre: [f32; 2],
    /// Half of the width and height on screen.
    reach: [f32; 2],
    /// Cosine and sine of the turn.
    turn: [f32; 2],
    mirrored: bool,
}

impl Placed {
    fn new(
        kind: Kind,
        tint: Option<Tint>,
        longer: f32,
        spot: [f32; 2],
        attempt: usize,
        table: &Table,
        rng: &mut Rng,
    ) -> Self {
        // Half angle tangent up to tan(12.5°): turns up to 25° without trigonometric functions,
        // whose last bits differ between machines.
        let t = rng.between(-0.2217, 0.2217);
        let turn = [(1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)];
        let scale = longer / 96.0;
        let [w, h] = sticker(kind).extent;
        let reach = [
            scale * 0.5 * (w * turn[0] + h * turn[1].abs()),
            scale * 0.5 * (h * turn[0] + w * turn[1].abs()),
        ];
        let inside = if rng.chance(12) { 0.6 } else { 1.0 };
        let stray = 0.04 + 0.05 * attempt as f32;
        let sides = [table.canvas.width as f32, table.canvas.height as f32];
        let centre = std::array::from_fn(|axis| {
            let wish = spot[axis] + rng.between(-stray, stray);
            let least = reach[axis] * inside + 1.0;
            (wish * sides[axis]).clamp(least, sides[axis] - least)
        });
        Self {
            kind,
            tint,
            scale,
            centre,
            reach,
            turn,
            mirrored: rng.chance(30),
        }
    }

    /// Every pixel it touches on `canvas`: index, colour 0 to 255 times alpha, alpha.
    fn touched(&self, canvas: &Canvas) -> Vec<(usize, [f32; 3], f32)> {
        let picture = sticker(self.kind);
        let level = picture.level(self.scale * 96.0);
        let shrink = level.side as f32 / 96.0;
        let [cos, sin] = self.turn;
        let range = |axis: usize, end: usize| {
            let reach = self.reach[axis] + 2.0;
            let low = (self.centre[axis] - reach).max(0.0) as usize;
            low..((self.centre[axis] + reach).max(0.0) as usize).min(end)
        };
        let mut touched = Vec::new();
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
                    rgb = tint.dye(rgb);
                }
                touched.push((y * canvas.width + x, rgb.map(|c| c * a * 255.0), a));
            }
        }
        touched
    }
}

/// The canvas and which sticker each pixel belongs to.
struct Table {
    canvas: Canvas,
    /// Sticker number plus one, 0 for the background.
    owner: Vec<u8>,
    laid: Vec<Laid>,
}

/// A sticker on the table.
#[derive(Clone, Copy)]
struct Laid {
    /// Pixels it had when it was laid.
    drawn: usize,
    /// Pixels still visible.
    visible: usize,
    /// Extent of the visible pixels: left, top, right, bottom, the last two excluded.
    extent: [usize; 4],
}

impl Laid {
    fn bbox(&self) -> BoxXyxy {
        BoxXyxy::from(self.extent.map(|v| v as f32))
    }
}

impl Table {
    fn new(canvas: Canvas) -> Self {
        let owner = vec![0; canvas.width * canvas.height];
        Self {
            canvas,
            owner,
            laid: Vec::new(),
        }
    }

    /// Lays a sticker unless it would cover others too much or overlap a box too much; says
    /// whether it did.
    fn lay(&mut self, placed: &Placed) -> bool {
        let touched = placed.touched(&self.canvas);
        let solid: Vec<usize> = touched.iter().filter(|t| t.2 >= 0.5).map(|t| t.0).collect();
        let mut after = self.laid.clone();
        for &at in &solid {
            if self.owner[at] > 0 {
                after[usize::from(self.owner[at]) - 1].visible -= 1;
            }
        }
        let hidden = |l: &Laid| (l.visible as f32) < VISIBLE * l.drawn as f32;
        if solid.len() < 80 || after.iter().any(hidden) {
            return false;
        }
        let number = after.len() as u8 + 1;
        let under: Vec<u8> = solid.iter().map(|&at| self.owner[at]).collect();
        solid.iter().for_each(|&at| self.owner[at] = number);
        after.push(Laid {
            drawn: solid.len(),
            visible: solid.len(),
            extent: [0, 0, self.canvas.width, self.canvas.height],
        });
        for (i, laid) in after.iter_mut().enumerate() {
            let covered = self.laid.get(i).is_none_or(|l| l.visible != laid.visible);
            if covered {
                laid.extent = extent(&self.owner, self.canvas.width, i as u8 + 1, laid.extent);
            }
        }
        let clash = |(i, a): (usize, &Laid)| {
            let a = a.bbox();
            after[..i].iter().any(|b| a.iou(&b.bbox()) >= MOST_IOU)
        };
        if after.iter().enumerate().any(clash) {
            solid
                .iter()
                .zip(under)
                .for_each(|(&at, was)| self.owner[at] = was);
            return false;
        }
        self.laid = after;
        for (at, rgb, a) in touched {
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

/// The extent of the pixels of `number` within a part of a picture `width` pixels wide.
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
    fn a_seed_is_a_scene() {
        let (a, b) = (Scene::draw(7), Scene::draw(7));
        assert_eq!(a.pixels, b.pixels);
        assert_eq!(a.objects, b.objects);
        assert_ne!(a.pixels, Scene::draw(8).pixels);
    }

    #[test]
    fn boxes_lie_inside_and_apart() {
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
                assert!(a.tint.is_none_or(|t| a.kind.takes(t)));
                for other in &scene.objects[..i] {
                    assert!(b.iou(&other.bbox) < MOST_IOU, "{seed}");
                }
                let alike = scene.objects.iter().filter(|o| o.kind == a.kind).count();
                most = most.max(alike);
            }
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1..].iter().all(|&c| c > 0), "{counts:?}");
        assert!(most >= 7, "{most}");
    }

    /// A sticker alone on its background: the box is where the picture differs from it.
    #[test]
    fn boxes_are_tight() {
        for seed in 0..40 {
            let scene = Scene::draw_with(seed, 1..=1);
            let mut rng = Rng::new(seed, 0);
            let side = |rng: &mut Rng| 192 + rng.below(129);
            let (w, h) = (side(&mut rng), side(&mut rng));
            let bare = Table::new(backdrop(w, h, Split::Train, &mut rng)).pixels();
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

//! Backgrounds of scenes: solid colours, gradients, noise, textures, stripes and crops of photographs
//! (`assets/photos/ORIGIN.md`).
//!
//! Test scenes have their own backgrounds: dots, checkerboards, radial gradients and other
//! photographs.

use std::sync::OnceLock;

use super::Split;
use super::rng::Rng;

/// An RGB image being drawn: `[height, width, 3]`, 0 to 255.
pub(super) struct Canvas {
    /// Width in pixels.
    pub(super) width: usize,
    /// Height in pixels.
    pub(super) height: usize,
    /// `height * width * 3` values.
    pub(super) rgb: Vec<f32>,
}

/// A canvas with a random background of `split`.
pub(super) fn background(width: usize, height: usize, split: Split, rng: &mut Rng) -> Canvas {
    let test = split == Split::Test;
    match (rng.below(10), test) {
        (0 | 1, false) => paint(width, height, solid(rng)),
        (2 | 3, false) => paint(width, height, linear_gradient(width, height, rng)),
        (4, false) => add_noise(paint(width, height, solid(rng)), rng),
        (5, false) => add_noise(texture(width, height, rng), rng),
        (6, false) => texture(width, height, rng),
        (7, false) => paint(width, height, stripes(rng)),
        (0 | 1, true) => paint(width, height, radial_gradient(width, height, rng)),
        (2 | 3, true) => paint(width, height, checkerboard(rng)),
        (4 | 5, true) => paint(width, height, dots(rng)),
        (6, true) => add_noise(
            paint(width, height, radial_gradient(width, height, rng)),
            rng,
        ),
        _ => photo(width, height, test, rng),
    }
}

fn paint(width: usize, height: usize, colour: impl Fn(f32, f32) -> [f32; 3]) -> Canvas {
    let mut rgb = vec![0.0; width * height * 3];
    for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&colour(x as f32, y as f32));
        }
    }
    Canvas { width, height, rgb }
}

/// A random colour, more often pale than saturated.
fn colour(rng: &mut Rng) -> [f32; 3] {
    let grey = rng.between(30.0, 245.0);
    let spread = if rng.chance(70) { 35.0 } else { 90.0 };
    std::array::from_fn(|_| (grey + rng.between(-spread, spread)).clamp(0.0, 255.0))
}

/// A random colour similar to `base`.
fn similar_colour(base: [f32; 3], rng: &mut Rng) -> [f32; 3] {
    let step = rng.between(15.0, 60.0) * if rng.chance(50) { 1.0 } else { -1.0 };
    base.map(|c| (c + step + rng.between(-10.0, 10.0)).clamp(0.0, 255.0))
}

fn lerp(a: [f32; 3], b: [f32; 3], t: f32) -> [f32; 3] {
    std::array::from_fn(|c| a[c] + (b[c] - a[c]) * t)
}

fn solid(rng: &mut Rng) -> impl Fn(f32, f32) -> [f32; 3] + use<> {
    let colour = colour(rng);
    move |_, _| colour
}

/// A gradient between two colours along a random direction.
fn linear_gradient(
    width: usize,
    height: usize,
    rng: &mut Rng,
) -> impl Fn(f32, f32) -> [f32; 3] + use<> {
    let (from, to) = (colour(rng), colour(rng));
    let (across, down) = (rng.between(-1.0, 1.0), rng.between(-1.0, 1.0));
    let scale = 0.5 / (across.abs() + down.abs()).max(0.1);
    let (w, h) = (width as f32, height as f32);
    move |x, y| {
        let t = (x / w - 0.5) * across + (y / h - 0.5) * down;
        lerp(from, to, (0.5 + 2.0 * scale * t).clamp(0.0, 1.0))
    }
}

fn stripes(rng: &mut Rng) -> impl Fn(f32, f32) -> [f32; 3] + use<> {
    let base = colour(rng);
    let other = similar_colour(base, rng);
    let period = rng.between(8.0, 40.0);
    let (across, down) = *rng.pick(&[(1.0, 0.0), (0.0, 1.0), (0.7, 0.7), (0.7, -0.7), (0.9, 0.4)]);
    move |x, y| {
        let t = ((x * across + y * down) / period).rem_euclid(1.0);
        lerp(
            base,
            other,
            ((0.25 - (t - 0.5).abs()) * period + 0.5).clamp(0.0, 1.0),
        )
    }
}

fn checkerboard(rng: &mut Rng) -> impl Fn(f32, f32) -> [f32; 3] + use<> {
    let base = colour(rng);
    let other = similar_colour(base, rng);
    let side = rng.between(10.0, 36.0);
    move |x, y| {
        let even = ((x / side) as u32 + (y / side) as u32).is_multiple_of(2);
        if even { base } else { other }
    }
}

fn dots(rng: &mut Rng) -> impl Fn(f32, f32) -> [f32; 3] + use<> {
    let base = colour(rng);
    let other = similar_colour(base, rng);
    let period = rng.between(14.0, 36.0);
    let radius = period * rng.between(0.2, 0.4);
    move |x, y| {
        let (u, v) = (x % period - period / 2.0, y % period - period / 2.0);
        lerp(
            other,
            base,
            ((u * u + v * v).sqrt() - radius + 0.5).clamp(0.0, 1.0),
        )
    }
}

/// A gradient from one colour at a random centre to another at the edge.
fn radial_gradient(
    width: usize,
    height: usize,
    rng: &mut Rng,
) -> impl Fn(f32, f32) -> [f32; 3] + use<> {
    let (from, to) = (colour(rng), colour(rng));
    let (w, h) = (width as f32, height as f32);
    let (cx, cy) = (w * rng.between(0.2, 0.8), h * rng.between(0.2, 0.8));
    move |x, y| {
        let d = ((x - cx) * (x - cx) + (y - cy) * (y - cy)).sqrt();
        lerp(from, to, (d / w.max(h)).min(1.0))
    }
}

/// Adds noise to every pixel.
fn add_noise(mut canvas: Canvas, rng: &mut Rng) -> Canvas {
    let strength = rng.between(0.05, 0.25);
    let mut noise = vec![0; canvas.rgb.len()];
    rng.fill(&mut noise);
    for (value, noise) in canvas.rgb.iter_mut().zip(noise) {
        *value = (*value + (f32::from(noise) - 127.5) * strength).clamp(0.0, 255.0);
    }
    canvas
}

/// Two colours blended by value noise of two scales.
fn texture(width: usize, height: usize, rng: &mut Rng) -> Canvas {
    let base = colour(rng);
    let other = if rng.chance(50) {
        similar_colour(base, rng)
    } else {
        colour(rng)
    };
    let large = ValueNoise::new(rng.between(40.0, 90.0), width, height, rng);
    let small = ValueNoise::new(rng.between(6.0, 20.0), width, height, rng);
    let share = rng.between(0.1, 0.5);
    paint(width, height, |x, y| {
        let t = large.at(x, y) * (1.0 - share) + small.at(x, y) * share;
        lerp(base, other, t)
    })
}

/// Value noise: random values on a coarse grid, interpolated smoothly.
struct ValueNoise {
    cell: f32,
    columns: usize,
    values: Vec<u8>,
}

impl ValueNoise {
    fn new(cell: f32, width: usize, height: usize, rng: &mut Rng) -> Self {
        let columns = (width as f32 / cell) as usize + 2;
        let rows = (height as f32 / cell) as usize + 2;
        let mut values = vec![0; columns * rows];
        rng.fill(&mut values);
        Self {
            cell,
            columns,
            values,
        }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let (u, v) = (x / self.cell, y / self.cell);
        let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
        let (fu, fv) = (smooth(u.fract()), smooth(v.fract()));
        let first = v as usize * self.columns + u as usize;
        let value = |i: usize| f32::from(self.values[i]) / 255.0;
        let upper = value(first) * (1.0 - fu) + value(first + 1) * fu;
        let below = first + self.columns;
        let lower = value(below) * (1.0 - fu) + value(below + 1) * fu;
        upper * (1.0 - fv) + lower * fv
    }
}

/// A photograph.
struct Photo {
    image: ::image::RgbImage,
    /// The photograph has no colour.
    grey: bool,
}

fn photos(test: bool) -> &'static [Photo] {
    static TRAIN: OnceLock<Vec<Photo>> = OnceLock::new();
    static TEST: OnceLock<Vec<Photo>> = OnceLock::new();
    let open = |bytes: &[u8], grey| Photo {
        image: ::image::load_from_memory(bytes)
            .expect("the embedded photographs decode")
            .to_rgb8(),
        grey,
    };
    macro_rules! photo {
        ($name:literal, $grey:literal) => {
            open(
                include_bytes!(concat!("../../assets/photos/", $name)),
                $grey,
            )
        };
    }
    if test {
        TEST.get_or_init(|| vec![photo!("gravel.webp", true), photo!("retina.webp", false)])
    } else {
        TRAIN.get_or_init(|| {
            vec![
                photo!("astronaut.webp", false),
                photo!("brick.webp", true),
                photo!("coffee.webp", false),
                photo!("grass.webp", true),
                photo!("hubble.webp", false),
            ]
        })
    }
}

/// A random crop of a photograph, mirrored half of the time; a grey one is coloured.
fn photo(width: usize, height: usize, test: bool, rng: &mut Rng) -> Canvas {
    let Photo { image, grey } = rng.pick(photos(test));
    let shade = if *grey {
        colour(rng).map(|c| 0.4 + c / 255.0)
    } else {
        [rng.between(0.6, 1.1); 3]
    };
    let (columns, rows) = (image.width() as f32, image.height() as f32);
    let (w, h) = (width as f32, height as f32);
    let largest = (columns / w).min(rows / h);
    let scale = largest * rng.between(0.5, 1.0);
    let left = rng.between(0.0, columns - w * scale);
    let top = rng.between(0.0, rows - h * scale);
    let mirrored = rng.chance(50);
    let data = image.as_raw();
    let stride = image.width() as usize;
    let (last_column, last_row) = (stride - 1, image.height() as usize - 1);
    paint(width, height, |x, y| {
        let x = if mirrored { w - 1.0 - x } else { x };
        let (u, v) = (left + x * scale, top + y * scale);
        let (x0, y0) = ((u as usize).min(last_column), (v as usize).min(last_row));
        let (x1, y1) = ((x0 + 1).min(last_column), (y0 + 1).min(last_row));
        let (fu, fv) = (u.fract(), v.fract());
        std::array::from_fn(|c| {
            let at = |x: usize, y: usize| f32::from(data[(y * stride + x) * 3 + c]);
            let upper = at(x0, y0) * (1.0 - fu) + at(x1, y0) * fu;
            let lower = at(x0, y1) * (1.0 - fu) + at(x1, y1) * fu;
            ((upper * (1.0 - fv) + lower * fv) * shade[c]).min(255.0)
        })
    })
}

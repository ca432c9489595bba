//! The vision networks of nano and mini on groups of pictures.

use std::path::Path;

use burn::tensor::Tensor;

use super::*;
use crate::engine::prepare::Prepared;
use crate::engine::together::MOST_TOGETHER;
use crate::gpu::device::adapter_for_test;
use crate::image::decode;
use crate::memory::Residency;
use crate::protocol::DevicePreference;

const QUESTION: &str = "Please detect cat in this image. Answer the question with grounded answer.";

/// The first `count` of pictures with two sizes of input, the second different from its neighbors.
fn pictures(count: usize) -> Vec<Pixels> {
    let scene = decode::open(Path::new("web/static/samples/scene.png")).expect("the sample");
    let cut = |x: usize, columns: usize, rows: usize| {
        let row = |y: usize| &scene.rgb[3 * (y * scene.width as usize + x)..][..3 * columns];
        let rgb: Vec<u8> = (0..rows).flat_map(row).copied().collect();
        Pixels::new(columns as u32, rows as u32, rgb).expect("a part of the sample")
    };
    let mut mirrored = scene.clone();
    let pixels = scene.rgb.as_chunks::<3>().0;
    for (row, out) in pixels
        .chunks_exact(scene.width as usize)
        .zip(mirrored.rgb.chunks_exact_mut(3 * scene.width as usize))
    {
        let reversed: Vec<u8> = row.iter().rev().flatten().copied().collect();
        out.copy_from_slice(&reversed);
    }
    let mut all = vec![
        scene.clone(),
        cut(60, 140, 280),
        mirrored,
        cut(0, 140, 280),
        scene,
    ];
    all.truncate(count);
    all
}

fn prepared(session: &mut Session, pictures: &[Pixels]) -> Vec<Prepared> {
    let recipe = session.engine().preparation().expect("a model is loaded");
    pictures
        .iter()
        .map(|pixels| recipe.prepare(pixels))
        .collect()
}

fn inputs<'a>(pictures: &'a [Pixels], prepared: &'a [Prepared]) -> Vec<Input<'a>> {
    let pairs = pictures.iter().zip(prepared);
    pairs
        .map(|(pixels, prepared)| Input { pixels, prepared })
        .collect()
}

/// The proposals for a picture and an answer about it.
fn looked(session: &mut Session, pixels: &Pixels) -> Result<(Vec<Proposal>, String), Fault> {
    let (found, _) = session.open_picture(pixels.clone(), Granularity::Coarse)?;
    let boxes: Vec<BoxXyxy> = found.iter().take(8).map(|found| found.bbox).collect();
    let answer = session.ask(QUESTION, &boxes, |_| ())?;
    Ok((found, answer.text))
}

/// The largest differences of boxes, in pixels, and of scores, in the order of the scores of `a`.
fn differences(a: &[Proposal], b: &[Proposal]) -> [f32; 2] {
    assert_eq!(a.len(), b.len());
    let nearest = |a: &Proposal| {
        let distance = |b: &Proposal| {
            let (a, b): ([f32; 4], [f32; 4]) = (a.bbox.into(), b.bbox.into());
            a.iter()
                .zip(b)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max)
        };
        let pairs = b.iter().map(|b| (distance(b), (a.score - b.score).abs()));
        pairs.min_by(|a, b| a.0.total_cmp(&b.0)).expect("proposals")
    };
    a.iter()
        .map(nearest)
        .fold([0.0; 2], |[boxes, scores], (bbox, score)| {
            [boxes.max(bbox), scores.max(score)]
        })
}

/// On the CPU everything is bit by bit that of single pictures, whatever the others are. The images that the engine gets
/// with a picture are not those of the picture, so that it would fail if it did not take what was encoded.
#[test]
fn groups_give_what_single_pictures_give() {
    for model in [Model::Nano, Model::Mini] {
        let mut session = Session::open(model.clone(), DevicePreference::Cpu).expect("a CPU");
        let all = pictures(5);
        let expected: Vec<_> = all
            .iter()
            .map(|pixels| looked(&mut session, pixels).expect("a look"))
            .collect();
        for count in [1, 2, 3, 5] {
            let prepared = prepared(&mut session, &all[..count]);
            let encoded = session
                .encode_together(&inputs(&all[..count], &prepared), Granularity::Coarse)
                .expect("a group");
            assert_eq!(encoded.len(), count);
            for ((encoded, mut prepared), (pixels, expected)) in encoded
                .into_iter()
                .zip(prepared)
                .zip(all.iter().zip(&expected))
            {
                for image in prepared.images_mut() {
                    image.values.fill(f32::NAN);
                }
                session.engine().prepare_next(prepared, encoded);
                let found = looked(&mut session, pixels).expect("a look");
                assert_eq!(found, *expected, "{model:?}, {count} pictures");
            }
        }
    }
}

/// Batches of several pictures differ from single pictures by rounding alone: products of matrices add up in another order
/// where there are more rows.
#[test]
fn batches_differ_from_single_pictures_by_rounding() {
    for model in [Model::Nano, Model::Mini] {
        let mut session = Session::open(model, DevicePreference::Cpu).expect("a CPU");
        let all = pictures(5);
        let prepared = prepared(&mut session, &all);
        let inputs = inputs(&all, &prepared);
        let mut run = |alone| {
            let engine = session.engine();
            let work = engine.encode_batches(&inputs, Granularity::Coarse, alone);
            pollster::block_on(work).expect("a group")
        };
        for (batched, alone) in run(false).into_iter().zip(run(true)) {
            let (a, b) = (batched.results(), alone.results());
            if let (Some(a), Some(b)) = (a.proposals, b.proposals) {
                let [boxes, scores] = differences(a, b);
                assert!(boxes < 0.01 && scores < 1e-4, "{boxes} {scores}");
            }
            if let (Some(a), Some(b)) = (a.predictions, b.predictions) {
                let pairs = a.scores.iter().zip(&b.scores);
                let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(error < 1e-5, "{error}");
            }
            let (Some(a), Some(b)) = (a.features, b.features) else {
                continue;
            };
            assert_eq!(
                (a.image.dims(), a.pyramid.len()),
                (b.image.dims(), b.pyramid.len())
            );
            let error = |a: Tensor<1>, b: Tensor<1>| -> f32 { (a - b).abs().max().into_scalar() };
            let [image, other] = [a, b].map(|x| x.image.clone().flatten(0, 2));
            let levels = a.pyramid.iter().zip(&b.pyramid);
            let levels = levels.map(|(a, b)| [a, b].map(|x| x.clone().flatten(0, 3)));
            for [a, b] in levels.chain([[image, other]]) {
                let error = error(a, b);
                assert!(error < 1e-3, "{error}");
            }
        }
    }
}

/// One batch per size on a GPU: the same answers, and boxes that differ by rounding.
#[test]
fn a_gpu_gives_the_answers_of_single_pictures() {
    let test = "a_gpu_gives_the_answers_of_single_pictures";
    if adapter_for_test(test).is_none() {
        return;
    }
    for model in [Model::Nano, Model::Mini] {
        let mut session = Session::open(model, DevicePreference::Wgpu).expect("a GPU");
        let all = pictures(3);
        let expected: Vec<_> = all
            .iter()
            .map(|pixels| looked(&mut session, pixels).expect("a look"))
            .collect();
        let prepared = prepared(&mut session, &all);
        let encoded = session
            .encode_together(&inputs(&all, &prepared), Granularity::Coarse)
            .expect("a group");
        for ((encoded, prepared), (pixels, (found, text))) in encoded
            .into_iter()
            .zip(prepared)
            .zip(all.iter().zip(expected))
        {
            session.engine().prepare_next(prepared, encoded);
            let (other, other_text) = looked(&mut session, pixels).expect("a look");
            let [boxes, scores] = differences(&found, &other);
            assert!(boxes < 0.1 && scores < 1e-3, "{boxes} {scores}");
            assert_eq!(text, other_text);
        }
    }
}

/// A group with a picture that the networks fail on fails as a whole; alone, the others do not.
#[test]
fn a_fault_of_a_group_is_that_of_one_picture() {
    let mut session = Session::open(Model::Mini, DevicePreference::Cpu).expect("a CPU");
    let all = pictures(3);
    let mut prepared = prepared(&mut session, &all);
    let image = prepared[1].images_mut().next();
    image.expect("mini has a detector").values.fill(f32::NAN);
    let outcome = session.encode_together(&inputs(&all, &prepared), Granularity::Coarse);
    let fault = outcome.err().expect("a value is not finite");
    assert_eq!(fault.code, ErrorCode::WrongResult);
    for (place, (pixels, prepared)) in all.iter().zip(prepared).enumerate() {
        session.engine().prepare_next(prepared, Encoded::default());
        let looked = looked(&mut session, pixels);
        assert_eq!(looked.is_err(), place == 1, "picture {place}");
    }
    let mut empty = Session::empty();
    let fault = empty.encode_together(&[], Granularity::Coarse).err();
    assert_eq!(fault.map(|fault| fault.code), Some(ErrorCode::NotReady));
    assert_eq!(empty.pictures_together(Some(9), None), 1);
}

/// On the CPU a model that is in memory as a whole gets single pictures unless the user wants more; one whose parts are
/// loaded on demand gets several.
#[test]
fn the_number_of_pictures_is_bounded() {
    let memory = Some(21 << 20);
    let load = LoadOptions {
        memory,
        ..DevicePreference::Cpu.into()
    };
    let mut session = Session::open(Model::Nano, load).expect("parts of it fit");
    assert_ne!(session.card().fit.residency, Residency::All);
    let found = session.pictures_together(None, memory);
    assert!((2..=8).contains(&found), "{found}");
    let all = pictures(3);
    let prepared = prepared(&mut session, &all);
    let encoded = session.encode_together(&inputs(&all, &prepared), Granularity::Coarse);
    assert_eq!(encoded.map(|encoded| encoded.len()), Ok(3));
    let session = Session::open(Model::Nano, DevicePreference::Cpu).expect("a CPU");
    for (wanted, limit, expected) in [
        (None, None, 1),
        (Some(5), None, 5),
        (Some(0), None, 1),
        (Some(1000), None, MOST_TOGETHER),
        (Some(8), Some(1 << 20), 1),
    ] {
        let found = session.pictures_together(wanted, limit);
        assert_eq!(found, expected, "{wanted:?} {limit:?}");
    }
}

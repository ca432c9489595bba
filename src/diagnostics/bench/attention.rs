//! Rows of the kernels that attend: over the words before, over a picture, over windows of it, and at
//! sampled places.

use burn::tensor::{Int, Tensor};

use super::clock::{Case, Clock};
use super::kernels::{Shapes, case};
use crate::engine::Host;
use crate::error::Fault;
use crate::gpu::attention::encoder::attention;
use crate::gpu::attention::window::{Regions, window_attention};
use crate::gpu::attention::{self as decoder_attention, AttentionShape, KvLayer, Qkv, RopeTable};
use crate::gpu::buffer::is_gpu;
use crate::gpu::deform_attention::deform_attention;
use crate::gpu::group_norm::group_norm;
use crate::gpu::random_fill;
use crate::model::upn::UpnConfig;

/// Rows of the language model that attend together: one token, a question, a part of a picture's turn.
const TOGETHER: [usize; 3] = [1, 20, 256];

/// All rows of this file.
///
/// # Errors
/// The device fails.
pub async fn measure<H: Host>(clock: &mut Clock<'_, H>, shapes: &Shapes<'_>) -> Result<(), Fault> {
    if is_gpu(clock.device())
        && decoder_attention::supports_head_dim(shapes.chatrex.llm.head_width())
    {
        over_words(clock, shapes).await?;
    }
    over_picture(clock, shapes).await?;
    match shapes.upn {
        Some(upn) => over_pyramid(clock, upn).await,
        None => Ok(()),
    }
}

/// The language model's attention, and what lays keys and values down for it.
async fn over_words<H: Host>(clock: &mut Clock<'_, H>, shapes: &Shapes<'_>) -> Result<(), Fault> {
    let llm = &shapes.chatrex.llm;
    let device = clock.device();
    let before = shapes.chatrex.visual_tokens() + 2 * shapes.boxes;
    let most = TOGETHER.into_iter().max().unwrap_or(1);
    let heads = AttentionShape {
        heads: llm.num_attention_heads,
        kv_heads: llm.num_key_value_heads,
        head_dim: llm.head_width(),
        capacity: before + most,
    };
    let (wide, narrow) = (
        heads.heads * heads.head_dim,
        heads.kv_heads * heads.head_dim,
    );
    let cache = KvLayer::new(heads, shapes.cache, device);
    let angles = random_fill::floats(heads.capacity * heads.head_dim, 1, 0.0, 1.0, device);
    let angles = angles.reshape([heads.capacity, heads.head_dim]);
    let places = RopeTable::new(angles, Tensor::<1, Int>::zeros([1], device));
    let written = wide + 2 * narrow;
    let rows = |count: usize| -> Tensor<2> {
        random_fill::floats(count * written, 2, 0.0, 1.0, device).reshape([count, written])
    };
    let write = |rows, past| {
        let rows = Qkv::Packed(Box::new(rows));
        decoder_attention::rope_kv_append(rows, heads, past, &places, &cache)
    };
    // Keys and values that are attended to; of zeros all scores would be alike.
    for past in (0..heads.capacity).step_by(most) {
        write(rows(most.min(heads.capacity - past)), past);
    }
    let key_bytes = shapes.cache.bytes() * 2 * narrow;
    let sizes = format!("{} x {}", heads.heads, heads.head_dim);
    for count in TOGETHER {
        let fresh = rows(count);
        let seen = before as f64 + (count as f64 + 1.0) / 2.0;
        let attended = Case {
            bytes: (count == 1).then_some(seen * key_bytes as f64),
            flops: Some(4.0 * count as f64 * seen * wide as f64),
            ..case(format!("attention, {count} after {before}"), sizes.clone())
        };
        if count == 1 {
            let row = || Qkv::Packed(Box::new(fresh.clone()));
            let work =
                |_| decoder_attention::attention_decode(row(), heads, before, &places, &cache);
            clock.kernel(attended, work).await?;
            continue;
        }
        let turned = Case {
            bytes: Some((count * (4 * (written + wide) + key_bytes)) as f64),
            ..case(format!("rotation and cache, {count} rows"), sizes.clone())
        };
        clock
            .kernel(turned, |_| write(fresh.clone(), before))
            .await?;
        let q = write(fresh, before);
        let work = |_| decoder_attention::attention_prefill(q.clone(), heads, before, &cache);
        clock.kernel(attended, work).await?;
    }
    Ok(())
}

/// The low-resolution tower's attention.
async fn over_picture<H: Host>(clock: &mut Clock<'_, H>, shapes: &Shapes<'_>) -> Result<(), Fault> {
    let clip = &shapes.chatrex.clip;
    let tokens = shapes.chatrex.visual_tokens() + 1;
    let (width, heads) = (clip.hidden_size, clip.num_attention_heads);
    let part = |seed| -> Tensor<3> {
        let values = random_fill::floats(tokens * width, seed, 0.0, 1.0, clock.device());
        values.reshape([1, tokens, width])
    };
    let [q, k, v] = [1, 2, 3].map(part);
    let case = Case {
        flops: Some(4.0 * (tokens * tokens * width) as f64),
        ..case(
            "attention of CLIP",
            format!("{tokens} x {heads} x {}", width / heads),
        )
    };
    let work = |_| attention(q.clone(), k.clone(), v.clone(), heads, None);
    clock.kernel(case, work).await.map(|_| ())
}

/// What the proposal network needs beside products: windows of its backbone's first stage, and the norm
/// and the sampling of its pyramid, for a picture of 4 by 3.
async fn over_pyramid<H: Host>(clock: &mut Clock<'_, H>, upn: &UpnConfig) -> Result<(), Fault> {
    let device = clock.device();
    let height = upn.size as usize;
    let first = [height, height * 4 / 3].map(|side| side.div_ceil(4));

    let swin = &upn.backbone;
    let (side, heads, channels) = (swin.window_size, swin.num_heads[0], swin.embed_dim);
    let windows: usize = first.iter().map(|cells| cells.div_ceil(side)).product();
    let tokens = side * side;
    let qkv = random_fill::floats(windows * tokens * 3 * channels, 1, 0.0, 1.0, device);
    let qkv: Tensor<3> = qkv.reshape([windows, tokens, 3 * channels]);
    let relations = (2 * side - 1).pow(2);
    let table =
        random_fill::floats(relations * heads, 2, 0.0, 1.0, device).reshape([relations, heads]);
    let regions = Regions::one(tokens, device);
    let windowed = Case {
        flops: Some(4.0 * (windows * tokens * tokens * channels) as f64),
        ..case(
            "window attention",
            format!("{windows} x {tokens} x {heads} x {}", channels / heads),
        )
    };
    clock
        .kernel(windowed, |_| {
            window_attention(qkv.clone(), table.clone(), &regions, 0)
        })
        .await?;

    let width = upn.d_model;
    let map = random_fill::floats(first[0] * first[1] * width, 3, 0.0, 1.0, device);
    let map: Tensor<3> = map.reshape([1, first[0] * first[1], width]);
    let ones = Tensor::<1>::ones([width], device);
    let normed = Case {
        bytes: Some(8.0 * (first[0] * first[1] * width) as f64),
        ..case(
            "group norm",
            format!("{} x {} x {width}", first[0], first[1]),
        )
    };
    let groups = upn.group_norm_groups;
    clock
        .kernel(normed, |_| {
            group_norm(map.clone(), ones.clone(), ones.clone(), groups, 1e-5)
        })
        .await?;

    let levels: Vec<[usize; 2]> = (0..upn.num_feature_levels)
        .map(|level| first.map(|cells| cells.div_ceil(1 << level)))
        .collect();
    let cells = levels.iter().map(|[h, w]| h * w).sum::<usize>();
    let heads = upn.n_heads;
    let samples = heads * levels.len() * upn.n_points;
    // As many places as the encoder has in one portion of its queries at most.
    let queries = cells.min(1 << 14);
    let value = random_fill::floats(cells * width, 4, 0.0, 1.0, device);
    let value: Tensor<4> = value.reshape([1, cells, heads, width / heads]);
    let locations = random_fill::floats(queries * samples * 2, 5, 0.5, 0.5, device);
    let locations: Tensor<3> = locations.reshape([1, queries, samples * 2]);
    let weights = random_fill::floats(queries * samples, 6, 0.05, 0.05, device);
    let weights: Tensor<3> = weights.reshape([1, queries, samples]);
    let sampled = Case {
        bytes: Some(4.0 * (cells * width + queries * (3 * samples + width)) as f64),
        flops: Some(8.0 * (queries * samples * (width / heads)) as f64),
        ..case(
            format!("deformable attention, {queries} queries"),
            format!("{cells} x {heads} x {}", width / heads),
        )
    };
    clock
        .kernel(sampled, |_| {
            deform_attention(value.clone(), &levels, locations.clone(), weights.clone())
        })
        .await
        .map(|_| ())
}

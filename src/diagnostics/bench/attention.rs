//! Rows of the attention kernels: decoder, CLIP, windows of Swin, deformable attention; and group norm.

use burn::tensor::{Int, Tensor};

use super::case::{Case, kernel_case as case};
use super::clock::Clock;
use super::plan::Shapes;
use crate::engine::Host;
use crate::error::Fault;
use crate::gpu::attention::encoder::attention;
use crate::gpu::attention::window::{Regions, window_attention};
use crate::gpu::attention::{
    AttentionShape, KvLayer, Qkv, RopeTable, attention_decode, attention_prefill, rope_kv_append,
    supports_head_dim,
};
use crate::gpu::buffer::is_gpu;
use crate::gpu::deform_attention::deform_attention;
use crate::gpu::group_norm::group_norm;
use crate::gpu::random_fill;
use crate::model::upn::UpnConfig;

/// Query rows of decoder attention: one decoded token, a question, a part of the image's prompt.
const QUERY_ROWS: [usize; 3] = [1, 20, 256];

/// Measures all rows of this file.
///
/// # Errors
/// The device fails.
pub async fn measure<H: Host>(clock: &mut Clock<'_, H>, shapes: &Shapes<'_>) -> Result<(), Fault> {
    if is_gpu(clock.device()) && supports_head_dim(shapes.chatrex.llm.head_width()) {
        decoder(clock, shapes).await?;
    }
    clip(clock, shapes).await?;
    match shapes.upn {
        Some(upn) => upn_layers(clock, upn).await,
        None => Ok(()),
    }
}

/// Decoder attention, and the kernel that applies RoPE and appends to the KV cache.
async fn decoder<H: Host>(clock: &mut Clock<'_, H>, shapes: &Shapes<'_>) -> Result<(), Fault> {
    let llm = &shapes.chatrex.llm;
    let device = clock.device();
    let past = shapes.chatrex.towers.visual_tokens() + 2 * shapes.boxes;
    let max_rows = QUERY_ROWS.into_iter().max().unwrap_or(1);
    let shape = AttentionShape {
        heads: llm.num_attention_heads,
        kv_heads: llm.num_key_value_heads,
        head_dim: llm.head_width(),
        capacity: past + max_rows,
    };
    let (q_width, kv_width) = (
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    );
    let cache = KvLayer::new(shape, shapes.cache, device);
    let angles = random_fill::uniform(shape.capacity * shape.head_dim, 1, 0.0, 1.0, device);
    let angles = angles.reshape([shape.capacity, shape.head_dim]);
    let rope = RopeTable::new(angles, Tensor::<1, Int>::zeros([1], device));
    let qkv_width = q_width + 2 * kv_width;
    let rows = |count: usize| -> Tensor<2> {
        random_fill::uniform(count * qkv_width, 2, 0.0, 1.0, device).reshape([count, qkv_width])
    };
    let append = |qkv, position| {
        let qkv = Qkv::Packed(Box::new(qkv));
        rope_kv_append(qkv, shape, position, &rope, &cache)
    };
    // Fills the cache with random keys and values: with zeros all scores would be equal.
    for position in (0..shape.capacity).step_by(max_rows) {
        append(rows(max_rows.min(shape.capacity - position)), position);
    }
    let kv_bytes = shapes.cache.bytes() * 2 * kv_width;
    let sizes = format!("{} x {}", shape.heads, shape.head_dim);
    for count in QUERY_ROWS {
        let qkv = rows(count);
        let keys = past as f64 + (count as f64 + 1.0) / 2.0;
        let attention = Case {
            bytes: (count == 1).then_some(keys * kv_bytes as f64),
            flops: Some(4.0 * count as f64 * keys * q_width as f64),
            ..case(format!("attention, {count} after {past}"), sizes.clone())
        };
        if count == 1 {
            let row = || Qkv::Packed(Box::new(qkv.clone()));
            let work = |_| attention_decode(row(), shape, past, &rope, &cache);
            clock.kernel(attention, work).await?;
            continue;
        }
        let appended = Case {
            bytes: Some((count * (4 * (qkv_width + q_width) + kv_bytes)) as f64),
            ..case(format!("RoPE and KV append, {count} rows"), sizes.clone())
        };
        clock
            .kernel(appended, |_| append(qkv.clone(), past))
            .await?;
        let q = append(qkv, past);
        let work = |_| attention_prefill(q.clone(), shape, past, &cache);
        clock.kernel(attention, work).await?;
    }
    Ok(())
}

/// CLIP's attention.
async fn clip<H: Host>(clock: &mut Clock<'_, H>, shapes: &Shapes<'_>) -> Result<(), Fault> {
    let clip = &shapes.chatrex.towers.clip;
    let tokens = shapes.chatrex.towers.visual_tokens() + 1;
    let (width, heads) = (clip.hidden_size, clip.num_attention_heads);
    let random = |seed| -> Tensor<3> {
        let values = random_fill::uniform(tokens * width, seed, 0.0, 1.0, clock.device());
        values.reshape([1, tokens, width])
    };
    let [q, k, v] = [1, 2, 3].map(random);
    let case = Case {
        flops: Some(4.0 * (tokens * tokens * width) as f64),
        ..case(
            "CLIP attention",
            format!("{tokens} x {heads} x {}", width / heads),
        )
    };
    let work = |_| attention(q.clone(), k.clone(), v.clone(), heads, None);
    clock.kernel(case, work).await.map(|_| ())
}

/// Kernels of the proposal network on a 4:3 image: window attention in the backbone's first stage, group
/// norm and deformable attention over the feature pyramid.
async fn upn_layers<H: Host>(clock: &mut Clock<'_, H>, upn: &UpnConfig) -> Result<(), Fault> {
    let device = clock.device();
    let height = upn.size as usize;
    let first = [height, height * 4 / 3].map(|side| side.div_ceil(4));

    let swin = &upn.backbone;
    let (side, heads, channels) = (swin.window_size, swin.num_heads[0], swin.embed_dim);
    let windows: usize = first.iter().map(|cells| cells.div_ceil(side)).product();
    let tokens = side * side;
    let qkv = random_fill::uniform(windows * tokens * 3 * channels, 1, 0.0, 1.0, device);
    let qkv: Tensor<3> = qkv.reshape([windows, tokens, 3 * channels]);
    let offsets = (2 * side - 1).pow(2);
    let table =
        random_fill::uniform(offsets * heads, 2, 0.0, 1.0, device).reshape([offsets, heads]);
    let regions = Regions::one(tokens, device);
    let window = Case {
        flops: Some(4.0 * (windows * tokens * tokens * channels) as f64),
        ..case(
            "window attention",
            format!("{windows} x {tokens} x {heads} x {}", channels / heads),
        )
    };
    clock
        .kernel(window, |_| {
            window_attention(qkv.clone(), table.clone(), &regions, 0)
        })
        .await?;

    let width = upn.d_model;
    let map = random_fill::uniform(first[0] * first[1] * width, 3, 0.0, 1.0, device);
    let map: Tensor<3> = map.reshape([1, first[0] * first[1], width]);
    let ones = Tensor::<1>::ones([width], device);
    let norm = Case {
        bytes: Some(8.0 * (first[0] * first[1] * width) as f64),
        ..case(
            "group norm",
            format!("{} x {} x {width}", first[0], first[1]),
        )
    };
    let groups = upn.group_norm_groups;
    clock
        .kernel(norm, |_| {
            group_norm(map.clone(), ones.clone(), ones.clone(), groups, 1e-5)
        })
        .await?;

    let levels: Vec<[usize; 2]> = (0..upn.num_feature_levels)
        .map(|level| first.map(|cells| cells.div_ceil(1 << level)))
        .collect();
    let cells = levels.iter().map(|[h, w]| h * w).sum::<usize>();
    let heads = upn.n_heads;
    let samples = heads * levels.len() * upn.n_points;
    // The encoder's largest chunk of queries.
    let queries = cells.min(1 << 14);
    let value = random_fill::uniform(cells * width, 4, 0.0, 1.0, device);
    let value: Tensor<4> = value.reshape([1, cells, heads, width / heads]);
    let locations = random_fill::uniform(queries * samples * 2, 5, 0.5, 0.5, device);
    let locations: Tensor<3> = locations.reshape([1, queries, samples * 2]);
    let weights = random_fill::uniform(queries * samples, 6, 0.05, 0.05, device);
    let weights: Tensor<3> = weights.reshape([1, queries, samples]);
    let deformable = Case {
        bytes: Some(4.0 * (cells * width + queries * (3 * samples + width)) as f64),
        flops: Some(8.0 * (queries * samples * (width / heads)) as f64),
        ..case(
            format!("deformable attention, {queries} queries"),
            format!("{cells} x {heads} x {}", width / heads),
        )
    };
    clock
        .kernel(deformable, |_| {
            deform_attention(value.clone(), &levels, locations.clone(), weights.clone())
        })
        .await
        .map(|_| ())
}

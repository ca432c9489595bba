//! The proposal network and its parts: `ms_deform_attn`, `swin`, `upn_helpers`, `upn_encoder_layer`,
//! `upn_decoder_layer`, `upn`.

use burn::tensor::{Device, Tensor};

use super::fixture::{Array, Computed, Fixture};
use super::image::{Recorded, put_ranked, ranked};
use crate::error::Fault;
use crate::gpu::deform_attention::deform_attention;
use crate::gpu::readback::read;
use crate::model::deformable::{
    DecoderLayer, DeformableAttention, DeformableConfig, EncoderLayer, Pyramid,
};
use crate::model::swin::{Swin, SwinConfig};
use crate::model::upn::{
    Memory, PaddingMask, Upn, UpnConfig, box_position_embedding, encoder_proposals,
    encoder_references, inverse_sigmoid, sine_positions,
};
use crate::nn::Loader;
use crate::protocol::Granularity;

fn deformable_config(fixture: &Fixture) -> Result<DeformableConfig, Fault> {
    let size = |name: &str| fixture.config_at::<usize>(&format!("/{name}"));
    Ok(DeformableConfig {
        d_model: size("d_model")?,
        d_ffn: size("d_ffn").unwrap_or(0),
        n_heads: size("n_heads")?,
        n_levels: size("n_levels")?,
        n_points: size("n_points")?,
    })
}

fn level_sizes(fixture: &Fixture, key: &str) -> Result<Vec<[usize; 2]>, Fault> {
    let shapes = fixture.array(key)?.i64();
    Ok(shapes
        .chunks(2)
        .map(|pair| [pair[0] as usize, pair[1] as usize])
        .collect())
}

/// `[B, S]` with 1 at padding, as `[B, S, 1]` with 0 at padding.
fn keep(fixture: &Fixture, key: &str, device: &Device) -> Result<Tensor<3>, Fault> {
    let padded = fixture.tensor::<2>(key, device)?;
    let [batch, cells] = padded.dims();
    Ok(padded.neg().add_scalar(1.0).reshape([batch, cells, 1]))
}

fn mask(fixture: &Fixture, key: &str) -> Result<PaddingMask, Fault> {
    let array = fixture.array(key)?;
    Ok(PaddingMask {
        batch: array.shape[0],
        height: array.shape[1],
        width: array.shape[2],
        padded: array.values.iter().map(|&value| value != 0.0).collect(),
    })
}

/// Fixture `ms_deform_attn`.
///
/// # Errors
/// The recording is incomplete or its weights do not match its config.
pub async fn ms_deform_attn(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let mut computed = Computed::new();
    let sizes = level_sizes(fixture, "core.in.spatial_shapes")?;
    let locations = fixture.tensor::<6>("core.in.sampling_locations", device)?;
    let weights = fixture.tensor::<5>("core.in.attention_weights", device)?;
    let [batch, queries, heads, levels, points] = weights.dims();
    let samples = heads * levels * points;
    computed
        .put(
            "core.out",
            deform_attention(
                fixture.tensor("core.in.value", device)?,
                &sizes,
                locations.reshape([batch, queries, samples * 2]),
                weights.reshape([batch, queries, samples]),
            ),
        )
        .await?;
    let parameters = fixture.weights()?;
    let module = DeformableAttention::load(
        &Loader::new(&parameters, device),
        deformable_config(fixture)?,
    )?;
    parameters.finish(&[])?;
    let query = fixture.tensor::<3>("module.in.query", device)?;
    let references: Vec<&str> = fixture
        .keys()
        .filter_map(|key| key.strip_prefix("module.in."))
        .filter(|name| name.starts_with("ref"))
        .collect();
    let mut pyramid = Pyramid {
        tokens: fixture.tensor("module.in.input_flatten", device)?,
        keep: None,
        sizes,
    };
    for name in &references {
        let reference = fixture.tensor(&format!("module.in.{name}"), device)?;
        let out = module.forward(query.clone(), reference, &pyramid);
        computed.put(format!("module.out.{name}"), out).await?;
    }
    pyramid.keep = Some(keep(fixture, "module.in.padding_mask", device)?);
    for name in &references {
        let reference = fixture.tensor(&format!("module.in.{name}"), device)?;
        let out = module.forward(query.clone(), reference, &pyramid);
        computed
            .put(format!("module.out.{name}_masked"), out)
            .await?;
    }
    Ok(computed)
}

/// Fixture `swin`.
///
/// # Errors
/// The recording is incomplete or its weights do not match its config.
pub async fn swin(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let mut computed = Computed::new();
    let config = fixture.config_as::<SwinConfig>()?;
    let outputs = fixture.config_at::<Vec<usize>>("/out_indices")?;
    let parameters = fixture.weights()?;
    let swin = Swin::load(&Loader::new(&parameters, device), &config, &outputs)?;
    parameters.finish(&["*.relative_position_index"])?;
    let inputs: Vec<(&str, &str)> = fixture
        .keys()
        .filter_map(|key| {
            let case = key.strip_suffix(".in.image");
            Some((case.or_else(|| key.strip_suffix(".in.padded"))?, key))
        })
        .collect();
    for (case, image) in inputs {
        let image = fixture.tensor::<4>(image, device)?;
        let [batch, _, height, width] = image.dims();
        let key = format!("{case}.in.mask");
        let mask = if fixture.has(&key) {
            mask(fixture, &key)?
        } else {
            PaddingMask::none(batch, height, width)
        };
        for (map, stage) in swin.forward(image).into_iter().zip(&outputs) {
            let [height, width] = map.size;
            let level = mask.resize(height, width);
            computed.put_array(
                format!("{case}.out_mask.{stage}"),
                Array::new(
                    &[batch, height, width],
                    level.padded.iter().map(|&p| u8::from(p)),
                ),
            );
            computed
                .put(format!("{case}.out.{stage}"), map.channels_first())
                .await?;
        }
    }
    Ok(computed)
}

/// Fixture `upn_helpers`.
///
/// # Errors
/// The recording is incomplete.
pub async fn upn_helpers(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let mut computed = Computed::new();
    let channels = fixture.config_at::<usize>("/sine/dims_per_coord")?;
    computed
        .put(
            "sine.out",
            box_position_embedding(fixture.tensor("sine.in", device)?, channels),
        )
        .await?;
    computed
        .put(
            "invsig.out",
            inverse_sigmoid(fixture.tensor::<1>("invsig.in", device)?),
        )
        .await?;
    let channels = fixture.config_at::<usize>("/pos/num_pos_feats")?;
    let temperature = temperature(fixture, "/pos")?;
    let pos = mask(fixture, "pos.in.mask")?;
    let shape = [pos.batch, pos.height, pos.width, 2 * channels];
    let table = Tensor::<4>::from_data(
        burn::tensor::TensorData::new(sine_positions(&pos, channels, temperature), shape),
        device,
    );
    computed.put("pos.out", table.permute([0, 3, 1, 2])).await?;

    let flat = fixture.array("prop.in.mask_flatten")?;
    let [batch, cells] = [flat.shape[0], flat.shape[1]];
    let mut start = 0;
    let levels = level_sizes(fixture, "prop.in.spatial_shapes")?
        .into_iter()
        .map(|[height, width]| {
            let padded = (0..batch)
                .flat_map(|image| {
                    let row = &flat.values[image * cells..][..cells];
                    row[start..start + height * width].iter().map(|&p| p != 0.0)
                })
                .collect();
            start += height * width;
            PaddingMask {
                batch,
                height,
                width,
                padded,
            }
        })
        .collect::<Vec<_>>();
    let proposals = encoder_proposals(&levels, UpnConfig::large().proposal_side);
    let memory = fixture.array("prop.in.memory")?;
    let channels = memory.shape[2];
    let kept = memory
        .values
        .chunks(channels)
        .zip(&proposals)
        .flat_map(|(token, proposal)| {
            let factor = if proposal[0].is_finite() { 1.0 } else { 0.0 };
            token.iter().map(move |value| value * factor)
        })
        .collect::<Vec<_>>();
    computed.put_array("prop.out.memory", Array::new(&memory.shape, kept));
    computed.put_array(
        "prop.out.proposals_unsigmoid",
        Array::new(&[batch, cells, 4], proposals.into_iter().flatten()),
    );

    let sizes = level_sizes(fixture, "encref.in.spatial_shapes")?;
    let ratios = fixture.array("encref.in.valid_ratios")?;
    let ratios = ratios
        .f32()
        .chunks(2 * sizes.len())
        .map(|image| image.chunks(2).map(|pair| [pair[0], pair[1]]).collect())
        .collect::<Vec<Vec<[f32; 2]>>>();
    let references = encoder_references(&sizes, &ratios);
    let shape = [
        ratios.len(),
        references.len() / ratios.len() / sizes.len() / 2,
        sizes.len(),
        2,
    ];
    computed.put_array("encref.out", Array::new(&shape, references));
    Ok(computed)
}

/// Fixture `upn_encoder_layer`.
///
/// # Errors
/// The recording is incomplete or its weights do not match its config.
pub async fn upn_encoder_layer(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let parameters = fixture.weights()?;
    let layer = EncoderLayer::load(
        &Loader::new(&parameters, device),
        deformable_config(fixture)?,
    )?;
    parameters.finish(&[])?;
    let pyramid = Pyramid {
        tokens: fixture.tensor("in.src", device)?,
        keep: Some(keep(fixture, "in.padding_mask", device)?),
        sizes: level_sizes(fixture, "in.spatial_shapes")?,
    };
    let mut computed = Computed::new();
    computed
        .put(
            "out",
            layer.forward(
                &pyramid,
                fixture.tensor("in.pos", device)?,
                fixture.tensor("in.reference_points", device)?,
            ),
        )
        .await?;
    Ok(computed)
}

/// Fixture `upn_decoder_layer`; its tensors are (length, batch, channel).
///
/// # Errors
/// The recording is incomplete or its weights do not match its config.
pub async fn upn_decoder_layer(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let parameters = fixture.weights()?;
    let layer = DecoderLayer::load(
        &Loader::new(&parameters, device),
        deformable_config(fixture)?,
    )?;
    parameters.finish(&[])?;
    let batch_first = |key: &str| {
        let tensor = fixture.tensor::<3>(key, device)?;
        Ok::<_, Fault>(tensor.swap_dims(0, 1))
    };
    let memory = Pyramid {
        tokens: batch_first("in.memory")?,
        keep: Some(keep(fixture, "in.padding_mask", device)?),
        sizes: level_sizes(fixture, "in.spatial_shapes")?,
    };
    let reference = fixture.tensor::<4>("in.reference_points_input", device)?;
    let out = layer.forward(
        batch_first("in.tgt")?,
        batch_first("in.query_pos")?,
        reference.swap_dims(0, 1),
        &memory,
        None,
    );
    let mut computed = Computed::new();
    computed.put("out", out.swap_dims(0, 1)).await?;
    Ok(computed)
}

/// The temperature of the position embedding below the JSON pointer `at`: one for both axes.
fn temperature(fixture: &Fixture, at: &str) -> Result<f64, Fault> {
    let vertical: f64 = fixture.config_at(&format!("{at}/temperatureH"))?;
    let horizontal: f64 = fixture.config_at(&format!("{at}/temperatureW"))?;
    if vertical == horizontal {
        return Ok(vertical);
    }
    let what = format!("config.json at `{at}`: two temperatures are not supported");
    Err(fixture.fault(&what))
}

fn upn_config(fixture: &Fixture) -> Result<UpnConfig, Fault> {
    let transformer =
        |name: &str| fixture.config_at::<usize>(&format!("/model/transformer_cfg/{name}"));
    for name in ["n_heads", "d_ffn", "n_points"] {
        let encoder = transformer(&format!("encoder_cfg/encoder_layer_cfg/{name}")).ok();
        let decoder = transformer(&format!("decoder_cfg/decoder_layer_cfg/{name}")).ok();
        if encoder != decoder {
            let what = format!("config.json: encoder and decoder differ in {name}");
            return Err(fixture.fault(&what));
        }
    }
    Ok(UpnConfig {
        backbone: fixture.config_at("/swin")?,
        return_interm_indices: fixture
            .config_at("/model/vision_backbone_cfg/return_interm_indices")?,
        num_feature_levels: transformer("num_feature_levels")?,
        num_queries: transformer("num_queries")?,
        d_model: transformer("d_model")?,
        n_heads: transformer("encoder_cfg/encoder_layer_cfg/n_heads")?,
        d_ffn: transformer("encoder_cfg/encoder_layer_cfg/d_ffn")?,
        n_points: transformer("encoder_cfg/encoder_layer_cfg/n_points")
            .unwrap_or(UpnConfig::large().n_points),
        num_encoder_layers: transformer("encoder_cfg/num_layers")?,
        num_decoder_layers: transformer("decoder_cfg/num_layers")?,
        temperature: temperature(fixture, "/model/vision_backbone_cfg/position_embedding_cfg")?,
        size: fixture.config_at("/resize/size")?,
        max_size: fixture.config_at("/resize/max_size")?,
        ..UpnConfig::large()
    })
}

/// Fixture `upn`: the whole network on one image and on a padded batch, with the recorded prompts.
///
/// # Errors
/// The recording is incomplete or its weights do not match its config.
pub async fn upn(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let parameters = fixture.weights()?;
    let config = upn_config(fixture)?;
    let network = Upn::load(&Loader::new(&parameters, device), &config)?;
    parameters.finish(&[
        "*.relative_position_index",
        "bbox_embed.*",
        "transformer.decoder.bbox_embed.*",
        "transformer.decoder.ref_point_head_point.*",
    ])?;
    let mut computed = Computed::new();
    let single = fixture
        .tensor::<4>("single.in.image", device)
        .or_else(|_| {
            let image = fixture.tensor::<3>("single.in.image", device)?;
            Ok::<_, Fault>(image.unsqueeze())
        })?;
    let [_, _, height, width] = single.dims();
    let memory = network.encode(single, &PaddingMask::none(1, height, width))?;
    for (case, granularity) in recorded_prompts(fixture, "single") {
        propose(
            fixture,
            &network,
            &memory,
            granularity,
            &case,
            &mut computed,
        )
        .await?;
    }
    let images = (0..)
        .map(|index| format!("batch.in.image{index}"))
        .take_while(|key| fixture.has(key))
        .map(|key| fixture.tensor::<3>(&key, device))
        .collect::<Result<Vec<_>, _>>()?;
    if images.is_empty() {
        return Ok(computed);
    }
    let sizes = images
        .iter()
        .map(|image| [image.dims()[1], image.dims()[2]])
        .collect::<Vec<_>>();
    let mask = PaddingMask::from_sizes(&sizes);
    let images = images
        .into_iter()
        .zip(&sizes)
        .map(|(image, [h, w])| image.pad((0, mask.width - w, 0, mask.height - h), 0.0))
        .collect::<Vec<_>>();
    let memory = network.encode(Tensor::stack(images, 0), &mask)?;
    for (case, granularity) in recorded_prompts(fixture, "batch") {
        propose(
            fixture,
            &network,
            &memory,
            granularity,
            &case,
            &mut computed,
        )
        .await?;
    }
    Ok(computed)
}

/// The cases `{input}_fine` and `{input}_coarse` that are recorded.
fn recorded_prompts(fixture: &Fixture, input: &str) -> Vec<(String, Granularity)> {
    [("fine", Granularity::Fine), ("coarse", Granularity::Coarse)]
        .into_iter()
        .map(|(prompt, granularity)| (format!("{input}_{prompt}"), granularity))
        .filter(|(case, _)| fixture.has(&format!("{case}.out.pred_boxes")))
        .collect()
}

async fn propose(
    fixture: &Fixture,
    network: &Upn,
    memory: &Memory,
    granularity: Granularity,
    case: &str,
    computed: &mut Computed,
) -> Result<(), Fault> {
    let logits = network.logits(memory.candidates.clone(), network.prompt(granularity));
    let values = read("encoder logits", logits.clone()).await?;
    let selected = network.select(memory, &values).indices;
    let [batch, queries] = [selected.len(), network.config().num_queries];
    computed
        .put(format!("{case}.mid.enc_logits"), logits)
        .await?;
    computed.put_array(
        format!("{case}.mid.topk_indices"),
        Array::new(
            &[batch, queries],
            selected.into_iter().flatten().map(|index| index as u32),
        ),
    );
    let proposals = network.propose(memory, granularity).await?;
    computed
        .put(format!("{case}.out.pred_boxes"), proposals.boxes.clone())
        .await?;
    computed
        .put(
            format!("{case}.out.pred_logits"),
            proposals.logits.clone().reshape([batch, queries, 1]),
        )
        .await?;
    let input = case.split('_').next().unwrap_or(case);
    let image_sizes = fixture.config_at::<Vec<[u32; 2]>>(&format!("/image_sizes_hw/{input}"))?;
    let boxes = read("boxes", proposals.boxes).await?;
    let logits = read("logits", proposals.logits).await?;
    let ranked = ranked(
        &image_sizes,
        &Array::new(&[batch, queries, 4], boxes),
        &Array::new(&[batch, queries, 1], logits),
    );
    put_ranked(computed, &format!("{case}.out"), &ranked);
    let recorded = fixture.config_at::<Recorded>(&format!("/filter_results/{case}"))?;
    let differences = recorded.differences(
        &ranked,
        fixture.config_at("/filter/min_score")?,
        fixture.config_at("/filter/nms")?,
        1.0,
        0.01 + 1e-6,
    );
    computed.put_json(
        differences
            .into_iter()
            .map(|difference| format!("{case}: {difference}")),
    );
    Ok(())
}

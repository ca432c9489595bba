//! Sampling on the GPU, with constrained decoding: the next token needs no readback.

use burn::backend::Cube;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;

use crate::generate::constraint::{Grammar, GrammarState, TokenKind};
use crate::generate::sampling::{MAX_TOP_K, Sampling, token_flags};
use crate::gpu::buffer::{alloc, int_to_buffer, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

#[cfg(feature = "diagnostics")]
use crate::generate::sampling::Sampler;
#[cfg(feature = "diagnostics")]
use crate::gpu::readback::read_ids;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, tensor};

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 128;

/// Workgroups of `top_k`, each of which scans a stripe of the vocabulary.
const STRIPES: usize = 64;

/// Constants of both shaders; kinds and states are those of [`TokenKind`] and [`GrammarState`].
const CONSTANTS: &[(&str, u32)] = &[
    ("WORKGROUP_SIZE", WORKGROUP_SIZE),
    ("MAX_TOP_K", MAX_TOP_K as u32),
    ("KIND_TEXT", TokenKind::Text as u32),
    ("KIND_INDEX", TokenKind::Index as u32),
    ("KIND_OPEN", TokenKind::Open as u32),
    ("KIND_CLOSE", TokenKind::Close as u32),
    ("STATE_TEXT", GrammarState::Text as u32),
    ("STATE_FIRST", GrammarState::First as u32),
    ("STATE_MORE", GrammarState::More as u32),
];

uniforms! {
    /// Uniforms of `shaders/top_k.wgsl`.
    struct TopKUniforms {
        /// Number of logits.
        vocab_size: u32,
        /// Number of workgroups.
        stripes: u32,
        /// Candidates per stripe.
        k: u32,
        /// Repetition penalty.
        penalty: f32,
    }
}

uniforms! {
    /// Uniforms of `shaders/sample.wgsl`.
    struct SampleUniforms {
        /// Number of candidates.
        count: u32,
        /// The best candidates that are sampled from.
        k: u32,
        /// Number of tokens; the id of a NaN.
        vocab_size: u32,
        /// Length of `output_ids`.
        max_tokens: u32,
        /// Softmax temperature.
        temperature: f32,
        /// Probability of the nucleus.
        top_p: f32,
        /// Seed of the random numbers.
        seed: u32,
    }
}

/// `shaders/top_k.wgsl`.
pub const TOP_K: Shader = Shader {
    name: "top_k",
    text: include_str!("../../shaders/top_k.wgsl"),
    uniforms: TopKUniforms::LAYOUT,
    constants: CONSTANTS,
    imports: &[],
};

/// `shaders/sample.wgsl`.
pub const SAMPLE: Shader = Shader {
    name: "sample",
    text: include_str!("../../shaders/sample.wgsl"),
    uniforms: SampleUniforms::LAYOUT,
    constants: CONSTANTS,
    imports: &[],
};

/// How the tokens of an answer are sampled.
#[derive(Clone, Debug)]
pub struct SamplingConfig {
    /// Temperature, top-k, top-p, seed, and whether decoding is constrained.
    pub sampling: Sampling,
    /// Repetition penalty on tokens that the answer contains.
    pub penalty: f32,
    /// The tokens of box lists, for constrained decoding.
    pub grammar: Option<Grammar>,
}

impl SamplingConfig {
    /// Argmax, without penalty or grammar.
    pub fn greedy() -> Self {
        Self {
            sampling: Sampling::default(),
            penalty: 1.0,
            grammar: None,
        }
    }
}

/// The sampler of one answer; its state is in GPU buffers.
#[derive(Clone, Debug)]
pub struct GpuSampler {
    vocabulary: usize,
    config: SamplingConfig,
    max_tokens: usize,
    token: CubeTensor,
    position: CubeTensor,
    token_flags: CubeTensor,
    output_ids: CubeTensor,
    state: CubeTensor,
}

impl GpuSampler {
    /// A sampler of at most `max_tokens` tokens that samples as
    /// [`Sampler`](crate::generate::sampling::Sampler) does; the first token has
    /// the position `position`.
    ///
    /// # Panics
    /// `device` is not a GPU, or a size is 0.
    pub fn new(
        vocabulary: usize,
        config: SamplingConfig,
        max_tokens: usize,
        position: usize,
        device: &Device,
    ) -> Self {
        let values = |values: Vec<i32>| {
            let count = values.len();
            let data = TensorData::new(values, [count]);
            int_to_buffer("sampling", Tensor::from_data(data, device))
        };
        assert!(
            vocabulary > 0 && max_tokens > 0,
            "sampling: {max_tokens} tokens of a vocabulary of {vocabulary}"
        );
        let grammar = config.grammar.as_ref().filter(|_| config.sampling.grammar);
        let token_flags = token_flags(vocabulary, grammar);
        Self {
            vocabulary,
            max_tokens,
            token: values(vec![0]),
            position: values(vec![position as i32 - 1]),
            token_flags: values(token_flags.into_iter().map(u32::cast_signed).collect()),
            output_ids: values(vec![0; max_tokens]),
            state: values(vec![0, GrammarState::default() as i32]),
            config,
        }
    }

    /// Samples a token from `logits` `[V]`.
    ///
    /// # Panics
    /// V is not the size of the vocabulary.
    pub fn sample(&self, logits: Tensor<1>) {
        assert_eq!(logits.dims(), [self.vocabulary], "sampling: logits");
        let logits = to_buffer("top_k", logits);
        let sampling = &self.config.sampling;
        let k = sampling.candidates();
        let candidates = alloc("top_k", &logits.client, 2 * STRIPES * k);
        launch(
            &TOP_K,
            &logits.client,
            STRIPES as u64,
            &[&logits.handle, &self.token_flags.handle, &self.state.handle],
            &[&candidates],
            &TopKUniforms {
                vocab_size: self.vocabulary as u32,
                stripes: STRIPES as u32,
                k: k as u32,
                penalty: self.config.penalty,
            },
        );
        launch(
            &SAMPLE,
            &logits.client,
            1,
            &[&candidates],
            &[
                &self.token.handle,
                &self.position.handle,
                &self.token_flags.handle,
                &self.output_ids.handle,
                &self.state.handle,
            ],
            &SampleUniforms {
                count: (STRIPES * k) as u32,
                k: k as u32,
                vocab_size: self.vocabulary as u32,
                max_tokens: self.max_tokens as u32,
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                seed: sampling.seed,
            },
        );
    }

    /// The token sampled last, `[1]`.
    pub fn token(&self) -> Tensor<1, Int> {
        Tensor::from_primitive::<Cube>(self.token.clone())
    }

    /// Its position, `[1]`.
    pub fn position(&self) -> Tensor<1, Int> {
        Tensor::from_primitive::<Cube>(self.position.clone())
    }

    /// All sampled tokens, `[max_tokens]`; the size of the vocabulary where a logit was NaN.
    pub fn output_ids(&self) -> Tensor<1, Int> {
        Tensor::from_primitive::<Cube>(self.output_ids.clone())
    }
}

/// Vocabulary sizes of the sweep: below, at and above a stripe and a workgroup, up to Qwen2's.
#[cfg(feature = "diagnostics")]
const VOCABULARIES: [usize; 7] = [1, 2, 127, 869, 8192, 8193, 152_064];

/// A sampler on the GPU and the CPU's [`Sampler`] over the same logits.
#[cfg(feature = "diagnostics")]
struct Comparison<'a> {
    report: &'a mut SweepReport,
    device: &'a Device,
}

#[cfg(feature = "diagnostics")]
impl Comparison<'_> {
    /// Samples `count` tokens from the same logits each time; the ids and the GPU's sampler.
    async fn ids(
        &mut self,
        name: &str,
        logits: &[f32],
        config: &SamplingConfig,
        count: usize,
    ) -> Result<(Vec<u32>, GpuSampler), String> {
        let gpu = GpuSampler::new(logits.len(), config.clone(), count, 10, self.device);
        let mut cpu = Sampler::new(config.sampling, config.penalty, config.grammar.clone());
        let mut expected = Vec::new();
        for _ in 0..count {
            gpu.sample(tensor(logits, [logits.len()], self.device));
            expected.push(cpu.sample(logits));
        }
        let got = ids(name, gpu.output_ids()).await?;
        if got != expected {
            return Err(format!("{name}: {got:?}, expected {expected:?}"));
        }
        self.report.shapes += 1;
        Ok((got, gpu))
    }
}

#[cfg(feature = "diagnostics")]
async fn ids(name: &str, ids: Tensor<1, Int>) -> Result<Vec<u32>, String> {
    read_ids(name, ids).await.map_err(|fault| fault.to_string())
}

/// Compares the GPU's tokens with the CPU sampler's: greedy with repetition penalty and equal logits,
/// top-k and top-p, constrained decoding, and NaN.
///
/// # Errors
/// The first difference.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    let mut both = Comparison {
        report: &mut report,
        device,
    };
    let mut rng = TestRng::default();
    for vocabulary in VOCABULARIES {
        for penalty in [1.0, 1.3] {
            let mut logits = rng.values(vocabulary);
            let equal = logits[vocabulary / 2].max(1.5);
            logits[vocabulary / 2] = equal;
            logits[vocabulary - 1] = equal;
            let config = SamplingConfig {
                penalty,
                ..SamplingConfig::greedy()
            };
            let name = format!("argmax of {vocabulary}, penalty {penalty}");
            let (sampled, gpu) = both.ids(&name, &logits, &config, 5).await?;
            let position = ids(&name, gpu.position()).await?;
            let token = ids(&name, gpu.token()).await?;
            if position != [14] || token != sampled[4..] {
                return Err(format!("{name}: token {token:?} at {position:?}"));
            }
        }
        for (top_k, top_p) in [(1, 1.0), (7, 1.0), (64, 0.9), (64, 1.0)] {
            let sampling = Sampling {
                temperature: 0.8,
                top_k,
                top_p,
                seed: 5 + vocabulary as u32,
                grammar: false,
                repetition_penalty: None,
            };
            let config = SamplingConfig {
                sampling,
                ..SamplingConfig::greedy()
            };
            let name = format!("top {top_k}, {top_p} of {vocabulary}");
            both.ids(&name, &rng.values(vocabulary), &config, 4).await?;
        }
    }
    for (seed, boxes) in [(1, 0), (2, 1), (3, 5), (4, 100)] {
        let mut logits = rng.values(300);
        for tag in [3, 4] {
            logits[tag] = 3.0;
        }
        let config = SamplingConfig {
            sampling: Sampling {
                temperature: 1.5,
                top_k: 8,
                seed,
                ..Sampling::default()
            },
            grammar: Some(Grammar {
                open: 3,
                close: 4,
                indices: (200..300).collect(),
                boxes,
            }),
            ..SamplingConfig::greedy()
        };
        let name = format!("grammar over {boxes} boxes");
        let (sampled, _) = both.ids(&name, &logits, &config, 100).await?;
        well_formed(&sampled, boxes).map_err(|error| format!("{name}: {error}"))?;
    }
    for temperature in [0.0, 1.0] {
        let config = SamplingConfig {
            sampling: Sampling {
                temperature,
                ..Sampling::default()
            },
            ..SamplingConfig::greedy()
        };
        let mut logits = vec![1.0; 300];
        logits[17] = f32::NAN;
        let gpu = GpuSampler::new(logits.len(), config, 1, 10, device);
        gpu.sample(tensor(&logits, [300], device));
        let sampled = ids("NaN", gpu.output_ids()).await?;
        if sampled != [300] {
            return Err(format!("NaN at temperature {temperature}: {sampled:?}"));
        }
        both.report.shapes += 1;
    }
    Ok(report)
}

/// Lists of boxes in `ids`, with the grammar's tokens of [`sweep`]: every list opens before an index
/// below `boxes`, closes after one, and exists only where there are boxes.
#[cfg(feature = "diagnostics")]
fn well_formed(ids: &[u32], boxes: usize) -> Result<(), String> {
    let index = |id: u32| (200..200 + boxes as u32).contains(&id);
    let lists = ids.iter().filter(|&&id| id == 3).count();
    if (lists > 0) != (boxes > 0) {
        return Err(format!("{lists} lists"));
    }
    for pair in ids.windows(2) {
        let right = match *pair {
            [3, next] => index(next),
            [last, 4] => index(last),
            [_, id] => id < 200 || index(id),
            _ => unreachable!("pairs"),
        };
        if !right {
            return Err(format!("{pair:?}"));
        }
    }
    Ok(())
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn a_broken_list_is_noticed() {
        assert!(well_formed(&[3, 200, 4, 7], 1).is_ok());
        assert!(well_formed(&[3, 201, 4], 1).is_err());
        assert!(well_formed(&[3, 4], 1).is_err());
        assert!(well_formed(&[7, 201], 1).is_err());
        assert!(well_formed(&[3, 200], 0).is_err());
    }
}

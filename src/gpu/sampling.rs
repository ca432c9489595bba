//! The choice of the next token on a graphics device, so that decoding need not wait for the host.

use burn::backend::Cube;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;

use crate::generate::constraint::{Grammar, GrammarState, TokenKind};
use crate::generate::sampling::{MAX_TOP_K, Sampler, Sampling, token_flags};
use crate::gpu::buffer::{alloc, to_buffer};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::matmul::integers;
use crate::gpu::testing::{SweepReport, TestRng};

/// Invocations per workgroup.
const GROUP: u32 = 128;

/// Stripes that a vocabulary is read in.
const STRIPES: usize = 64;

/// The numbers of [`TokenKind`] and [`GrammarState`].
const CONSTANTS: &[(&str, u32)] = &[
    ("GROUP", GROUP),
    ("MOST", MAX_TOP_K as u32),
    ("WORD", TokenKind::Text as u32),
    ("INDEX", TokenKind::Index as u32),
    ("OPEN", TokenKind::Open as u32),
    ("CLOSE", TokenKind::Close as u32),
    ("WORDS", GrammarState::Text as u32),
    ("FIRST", GrammarState::First as u32),
    ("MORE", GrammarState::More as u32),
];

/// `shaders/top_k.wgsl`.
pub const TOP_K: Shader = Shader {
    name: "top_k",
    text: include_str!("../../shaders/top_k.wgsl"),
    constants: CONSTANTS,
    imports: &[],
};

/// `shaders/sample.wgsl`.
pub const SAMPLE: Shader = Shader {
    name: "sample",
    text: include_str!("../../shaders/sample.wgsl"),
    constants: CONSTANTS,
    imports: &[],
};

/// What an answer's tokens are chosen by.
#[derive(Clone, Debug)]
pub struct SamplingConfig {
    /// Chance, and whether the grammar is followed.
    pub sampling: Sampling,
    /// Penalty on tokens that the answer has.
    pub penalty: f32,
    /// The tokens that the grammar is about.
    pub grammar: Option<Grammar>,
}

impl SamplingConfig {
    /// The highest logit, without penalty or grammar.
    pub fn greedy() -> Self {
        Self {
            sampling: Sampling::default(),
            penalty: 1.0,
            grammar: None,
        }
    }
}

/// An answer in the making: what was chosen, and where the next token stands.
#[derive(Clone, Debug)]
pub struct GpuSampler {
    vocabulary: usize,
    rule: SamplingConfig,
    limit: usize,
    token: CubeTensor,
    position: CubeTensor,
    marks: CubeTensor,
    said: CubeTensor,
    progress: CubeTensor,
}

impl GpuSampler {
    /// An answer of at most `limit` tokens of a vocabulary, chosen as
    /// [`Sampler`](crate::generate::sampling::Sampler) chooses; the first token will stand at
    /// `position`.
    ///
    /// # Panics
    /// `device` is not a graphics device, or a size is 0.
    pub fn new(
        vocabulary: usize,
        rule: SamplingConfig,
        limit: usize,
        position: usize,
        device: &Device,
    ) -> Self {
        let values = |values: Vec<i32>| {
            let count = values.len();
            integers(Tensor::<1, Int>::from_data(
                TensorData::new(values, [count]),
                device,
            ))
        };
        assert!(
            vocabulary > 0 && limit > 0,
            "{vocabulary} tokens, {limit} at most"
        );
        let grammar = rule.grammar.as_ref().filter(|_| rule.sampling.grammar);
        let marks = token_flags(vocabulary, grammar);
        Self {
            vocabulary,
            limit,
            token: values(vec![0]),
            position: values(vec![position as i32 - 1]),
            marks: values(marks.into_iter().map(u32::cast_signed).collect()),
            said: values(vec![0; limit]),
            progress: values(vec![0, GrammarState::default() as i32]),
            rule,
        }
    }

    /// Chooses a token by `logits` `[V]`.
    ///
    /// # Panics
    /// There are not as many logits as tokens.
    pub fn sample(&self, logits: Tensor<1>) {
        assert_eq!(logits.dims(), [self.vocabulary], "choice: logits");
        let logits = to_buffer("top_k", logits);
        let sampling = &self.rule.sampling;
        let each = sampling.candidates();
        let best = alloc("top_k", &logits.client, 2 * STRIPES * each);
        launch(
            &TOP_K,
            &logits.client,
            STRIPES as u64,
            &[&logits.handle, &self.marks.handle, &self.progress.handle],
            &[&best],
            &[
                self.vocabulary as u32,
                STRIPES as u32,
                self.rule.penalty.to_bits(),
                each as u32,
            ],
        );
        launch(
            &SAMPLE,
            &logits.client,
            1,
            &[&best],
            &[
                &self.token.handle,
                &self.position.handle,
                &self.marks.handle,
                &self.said.handle,
                &self.progress.handle,
            ],
            &[
                (STRIPES * each) as u32,
                self.limit as u32,
                self.vocabulary as u32,
                each as u32,
                sampling.temperature.to_bits(),
                sampling.top_p.to_bits(),
                sampling.seed,
                0,
            ],
        );
    }

    /// The token chosen last, `[1]`.
    pub fn token(&self) -> Tensor<1, Int> {
        Tensor::from_primitive::<Cube>(self.token.clone())
    }

    /// Where it stands, `[1]`.
    pub fn position(&self) -> Tensor<1, Int> {
        Tensor::from_primitive::<Cube>(self.position.clone())
    }

    /// All that was chosen, `[limit]`; the size of the vocabulary where a logit was no number.
    pub fn output_ids(&self) -> Tensor<1, Int> {
        Tensor::from_primitive::<Cube>(self.said.clone())
    }
}

/// Vocabulary sizes of the sweep: below, at and above a stripe and a workgroup, up to Qwen2's.
const VOCABULARIES: [usize; 7] = [1, 2, 127, 869, 8192, 8193, 152_064];

/// A sampler on the GPU and the CPU's [`Sampler`] over the same logits.
struct Comparison<'a> {
    report: &'a mut SweepReport,
    device: &'a Device,
}

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
            let data = TensorData::new(logits.to_vec(), [logits.len()]);
            gpu.sample(Tensor::from_data(data, self.device));
            expected.push(cpu.sample(logits));
        }
        let got = read_ids(name, gpu.output_ids()).await?;
        if got != expected {
            return Err(format!("{name}: {got:?}, expected {expected:?}"));
        }
        self.report.shapes += 1;
        Ok((got, gpu))
    }
}

async fn read_ids(name: &str, ids: Tensor<1, Int>) -> Result<Vec<u32>, String> {
    let data = ids.into_data_async().await;
    let ids: Vec<i32> = data
        .map_err(|error| format!("{name}: {error:?}"))?
        .try_to_vec()
        .map_err(|error| format!("{name}: {error:?}"))?;
    Ok(ids.into_iter().map(i32::cast_unsigned).collect())
}

/// Compares the GPU's tokens with the CPU sampler's: greedy with repetition penalty and equal logits,
/// top-k and top-p, constrained decoding, and NaN.
///
/// # Errors
/// The first difference.
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
            let (ids, gpu) = both.ids(&name, &logits, &config, 5).await?;
            let position = read_ids(&name, gpu.position()).await?;
            let token = read_ids(&name, gpu.token()).await?;
            if position != [14] || token != ids[4..] {
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
            };
            let config = SamplingConfig {
                sampling,
                ..SamplingConfig::greedy()
            };
            let name = format!("top {top_k}, {top_p} of {vocabulary}");
            both.ids(&name, &rng.values(vocabulary), &config, 12)
                .await?;
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
                top_k: 64,
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
        let (ids, _) = both.ids(&name, &logits, &config, 100).await?;
        well_formed(&ids, boxes).map_err(|error| format!("{name}: {error}"))?;
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
        gpu.sample(Tensor::from_data(TensorData::new(logits, [300]), device));
        let ids = read_ids("NaN", gpu.output_ids()).await?;
        if ids != [300] {
            return Err(format!("NaN at temperature {temperature}: {ids:?}"));
        }
        both.report.shapes += 1;
    }
    Ok(report)
}

/// Lists of boxes in `ids`, with the grammar's tokens of [`sweep`]: every list opens before an index
/// below `boxes`, closes after one, and exists only where there are boxes.
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
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn samples_as_the_cpu_does() {
        let Some(device) = adapter_for_test("samples_as_the_cpu_does") else {
            return;
        };
        let report = pollster::block_on(sweep(&device)).expect("GPU and CPU agree");
        assert_eq!(report.shapes, 48);
    }

    #[test]
    fn a_broken_list_is_noticed() {
        assert!(well_formed(&[3, 200, 4, 7], 1).is_ok());
        assert!(well_formed(&[3, 201, 4], 1).is_err());
        assert!(well_formed(&[3, 4], 1).is_err());
        assert!(well_formed(&[7, 201], 1).is_err());
        assert!(well_formed(&[3, 200], 0).is_err());
    }
}

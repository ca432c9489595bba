//! The choice of the next token on a graphics device, so that decoding need not wait for the host.

use burn::backend::Cube;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;

use crate::generate::grammar::{Grammar, Kind, Place};
use crate::generate::sampler::{MOST, Sampling, marks};
use crate::kernel::graphics::{buffer, output};
use crate::kernel::launch::{Shader, launch};
use crate::kernel::weight_rows::integers;

/// Invocations per workgroup.
const GROUP: u32 = 128;

/// Stripes that a vocabulary is read in.
const STRIPES: usize = 64;

/// The numbers of [`Kind`] and [`Place`].
const CONSTANTS: &[(&str, u32)] = &[
    ("GROUP", GROUP),
    ("MOST", MOST as u32),
    ("WORD", Kind::Word as u32),
    ("INDEX", Kind::Index as u32),
    ("OPEN", Kind::Open as u32),
    ("CLOSE", Kind::Close as u32),
    ("WORDS", Place::Words as u32),
    ("FIRST", Place::First as u32),
    ("MORE", Place::More as u32),
];

/// `shaders/candidates.wgsl`.
pub const CANDIDATES: Shader = Shader {
    name: "candidates",
    text: include_str!("../../shaders/candidates.wgsl"),
    constants: CONSTANTS,
    imports: &[],
};

/// `shaders/choose.wgsl`.
pub const CHOOSE: Shader = Shader {
    name: "choose",
    text: include_str!("../../shaders/choose.wgsl"),
    constants: CONSTANTS,
    imports: &[],
};

/// What an answer's tokens are chosen by.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Chance, and whether the grammar is followed.
    pub sampling: Sampling,
    /// Penalty on tokens that the answer has.
    pub penalty: f32,
    /// The tokens that the grammar is about.
    pub grammar: Option<Grammar>,
}

impl Rule {
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
pub struct Choice {
    vocabulary: usize,
    rule: Rule,
    limit: usize,
    token: CubeTensor,
    position: CubeTensor,
    marks: CubeTensor,
    said: CubeTensor,
    progress: CubeTensor,
}

impl Choice {
    /// An answer of at most `limit` tokens of a vocabulary, chosen as
    /// [`Sampler`](crate::generate::sampler::Sampler) chooses; the first token will stand at
    /// `position`.
    ///
    /// # Panics
    /// `device` is not a graphics device, or a size is 0.
    pub fn new(
        vocabulary: usize,
        rule: Rule,
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
        let marks = marks(vocabulary, grammar);
        Self {
            vocabulary,
            limit,
            token: values(vec![0]),
            position: values(vec![position as i32 - 1]),
            marks: values(marks.into_iter().map(u32::cast_signed).collect()),
            said: values(vec![0; limit]),
            progress: values(vec![0, Place::default() as i32]),
            rule,
        }
    }

    /// Chooses a token by `logits` `[V]`.
    ///
    /// # Panics
    /// There are not as many logits as tokens.
    pub fn choose(&self, logits: Tensor<1>) {
        assert_eq!(logits.dims(), [self.vocabulary], "choice: logits");
        let logits = buffer("candidates", logits);
        let sampling = &self.rule.sampling;
        let each = sampling.candidates();
        let best = output("candidates", &logits.client, 2 * STRIPES * each);
        launch(
            &CANDIDATES,
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
            &CHOOSE,
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
    pub fn said(&self) -> Tensor<1, Int> {
        Tensor::from_primitive::<Cube>(self.said.clone())
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::generate::sampler::Sampler;
    use crate::kernel::device::adapter_for_test;
    use crate::kernel::sweep::Dice;

    /// Chooses `count` tokens by the same logits each time: on the device, and on the host.
    fn both(
        logits: &[f32],
        rule: &Rule,
        count: usize,
        device: &Device,
    ) -> (Vec<u32>, Vec<u32>, Choice) {
        let choice = Choice::new(logits.len(), rule.clone(), count, 10, device);
        let mut sampler = Sampler::new(rule.sampling, rule.penalty, rule.grammar.clone());
        let expected = (0..count).map(|_| {
            let data = TensorData::new(logits.to_vec(), [logits.len()]);
            choice.choose(Tensor::from_data(data, device));
            sampler.choose(logits)
        });
        let expected = expected.collect();
        let said: Vec<i32> = choice.said().into_data().try_to_vec().expect("ids");
        let said = said.into_iter().map(i32::cast_unsigned).collect();
        (said, expected, choice)
    }

    const VOCABULARIES: [usize; 7] = [1, 2, 127, 869, 8192, 8193, 152_064];

    /// The device chooses what the host's sampler chooses, penalty and equal logits included.
    #[test]
    fn chooses_as_the_sampler_does() {
        let Some(device) = adapter_for_test("chooses_as_the_sampler_does") else {
            return;
        };
        let mut dice = Dice::default();
        for vocabulary in VOCABULARIES {
            for penalty in [1.0, 1.3] {
                let mut logits = dice.values(vocabulary);
                let equal = logits[vocabulary / 2].max(1.5);
                logits[vocabulary / 2] = equal;
                logits[vocabulary - 1] = equal;
                let rule = Rule {
                    penalty,
                    ..Rule::greedy()
                };
                let (said, expected, choice) = both(&logits, &rule, 5, &device);
                assert_eq!(said, expected, "{vocabulary} tokens, penalty {penalty}");
                let read = |x: Tensor<1, Int>| x.into_data().try_to_vec::<i32>().expect("i32")[0];
                assert_eq!(read(choice.position()), 14);
                assert_eq!(read(choice.token()).cast_unsigned(), expected[4]);
            }
        }
    }

    /// Chance falls on the same tokens, though exponentials may differ in their last place.
    #[test]
    fn chance_falls_as_on_the_host() {
        let Some(device) = adapter_for_test("chance_falls_as_on_the_host") else {
            return;
        };
        let mut dice = Dice::default();
        for vocabulary in VOCABULARIES {
            for (top_k, top_p) in [(1, 1.0), (7, 1.0), (64, 0.9), (64, 1.0)] {
                let sampling = Sampling {
                    temperature: 0.8,
                    top_k,
                    top_p,
                    seed: 5 + vocabulary as u32,
                    grammar: false,
                };
                let rule = Rule {
                    sampling,
                    ..Rule::greedy()
                };
                let (said, expected, _) = both(&dice.values(vocabulary), &rule, 12, &device);
                assert_eq!(said, expected, "{vocabulary} tokens, {top_k}, {top_p}");
            }
        }
    }

    /// Lists of boxes are well formed whatever the logits are, and as on the host.
    #[test]
    fn the_grammar_is_followed() {
        let Some(device) = adapter_for_test("the_grammar_is_followed") else {
            return;
        };
        let mut dice = Dice::default();
        for (seed, boxes) in [(1, 0), (2, 1), (3, 5), (4, 100)] {
            let grammar = Grammar {
                open: 3,
                close: 4,
                indices: (200..300).collect(),
                boxes,
            };
            let mut logits = dice.values(300);
            for tag in [3, 4] {
                logits[tag] = 3.0;
            }
            let rule = Rule {
                sampling: Sampling {
                    temperature: 1.5,
                    top_k: 64,
                    seed,
                    ..Sampling::default()
                },
                grammar: Some(grammar),
                ..Rule::greedy()
            };
            let (said, expected, _) = both(&logits, &rule, 100, &device);
            assert_eq!(said, expected, "{boxes} boxes");
            let lists = said.iter().filter(|&&id| id == 3).count();
            assert_eq!(lists > 0, boxes > 0, "{boxes} boxes");
            for pair in said.windows(2) {
                let index = |id: u32| (200..200 + boxes as u32).contains(&id);
                match *pair {
                    [3, next] => assert!(index(next), "{pair:?}"),
                    [last, 4] => assert!(index(last), "{pair:?}"),
                    [_, id] => assert!(id < 200 || index(id), "{pair:?}"),
                    _ => unreachable!("pairs"),
                }
            }
        }
    }

    #[test]
    fn no_number_is_noticed() {
        let Some(device) = adapter_for_test("no_number_is_noticed") else {
            return;
        };
        for sampling in [
            Sampling::default(),
            Sampling {
                temperature: 1.0,
                ..Sampling::default()
            },
        ] {
            let rule = Rule {
                sampling,
                ..Rule::greedy()
            };
            let mut logits = vec![1.0; 300];
            logits[17] = f32::NAN;
            let (said, ..) = both(&logits, &rule, 1, &device);
            assert_eq!(said[0], 300);
        }
    }
}

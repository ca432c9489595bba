//! The choice of the next token from logits: the highest, or one of the highest by chance.
//!
//! `gpu::sampling` makes the same choice on a graphics device.

use serde::{Deserialize, Serialize};

use super::constraint::{Grammar, Kind, Place};
use crate::error::{Fault, FaultKind};

/// The most tokens that chance chooses among.
pub const MAX_TOP_K: usize = 64;

/// How a person wants tokens chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// What logits are divided by before chance has its say; 0 takes the highest.
    pub temperature: f32,
    /// Chance chooses among so many of the highest, 1 to [`MAX_TOP_K`].
    pub top_k: u32,
    /// Of those, as many of the likeliest as make up this share of probability, above 0 to 1.
    pub top_p: f32,
    /// The same seed, the same answer.
    pub seed: u32,
    /// Whether lists of boxes follow the grammar: only indices of boxes that there are.
    pub grammar: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 50,
            top_p: 1.0,
            seed: 0,
            grammar: true,
        }
    }
}

impl Sampling {
    /// What cannot be done.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn check(&self) -> Result<(), Fault> {
        let outside = |name: &str, value: f32, range: &str| {
            Err(Fault::new(
                FaultKind::Question,
                name,
                format!("is {value}, not {range}"),
                "Choose a number in this range",
            ))
        };
        if !(0.0..=100.0).contains(&self.temperature) {
            return outside("temperature", self.temperature, "0 to 100");
        }
        if !(1..=MAX_TOP_K as u32).contains(&self.top_k) {
            return outside("top-k", self.top_k as f32, &format!("1 to {MAX_TOP_K}"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return outside("top-p", self.top_p, "above 0 to 1");
        }
        Ok(())
    }

    /// How many of the highest logits matter.
    pub fn candidates(&self) -> usize {
        if self.temperature == 0.0 {
            1
        } else {
            self.top_k as usize
        }
    }
}

/// The mark of every token ([`Kind`] tells how it is written) before an answer.
pub fn marks(vocabulary: usize, grammar: Option<&Grammar>) -> Vec<u32> {
    let mut marks = vec![0; vocabulary];
    for (id, kind) in grammar.iter().flat_map(|grammar| grammar.kinds()) {
        if let Some(mark) = marks.get_mut(id as usize) {
            *mark = 2 * kind as u32;
        }
    }
    marks
}

fn kind_of(mark: u32) -> Kind {
    const KINDS: [Kind; 5] = [
        Kind::Word,
        Kind::Index,
        Kind::Never,
        Kind::Open,
        Kind::Close,
    ];
    KINDS[(mark / 2) as usize]
}

/// A number of [0, 1) for choice `step` of an answer: a permuted congruential generator's output
/// function (O'Neill 2014, RXS-M-XS) over seed and step.
pub fn uniform(seed: u32, step: u32) -> f32 {
    let state = (seed ^ step.wrapping_mul(0x9e37_79b9))
        .wrapping_mul(747_796_405)
        .wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (((word >> 22) ^ word) >> 8) as f32 / (1 << 24) as f32
}

/// Chooses the tokens of one answer.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    penalty: f32,
    grammar: Option<Grammar>,
    /// Of every token; empty before the first choice.
    marks: Vec<u32>,
    place: Place,
    taken: u32,
}

impl Sampler {
    /// The highest logit, without penalty or grammar.
    pub fn greedy() -> Self {
        Self::new(Sampling::default(), 1.0, None)
    }

    /// A choice by `sampling` in which every token chosen before has its logit divided by `penalty`
    /// where positive and multiplied where negative (`chatrex.md` 8). Tokens of the prompt do not
    /// count. Where `sampling` wants a grammar, `grammar` is followed.
    ///
    /// # Panics
    /// `penalty` is not above 0.
    pub fn new(sampling: Sampling, penalty: f32, grammar: Option<Grammar>) -> Self {
        assert!(penalty > 0.0, "a repetition penalty is above 0");
        Self {
            sampling,
            penalty,
            grammar: grammar.filter(|_| sampling.grammar),
            marks: Vec::new(),
            place: Place::default(),
            taken: 0,
        }
    }

    /// The id chosen from `logits`, one per token of the vocabulary. Of equal logits the lower id
    /// counts as higher; NaN is never chosen.
    ///
    /// # Panics
    /// There are no logits.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        assert!(!logits.is_empty(), "a choice needs a vocabulary");
        if self.marks.is_empty() {
            self.marks = marks(logits.len(), self.grammar.as_ref());
        }
        let allowed = logits.iter().zip(&self.marks).enumerate();
        let mut ranked: Vec<(u32, f32)> = allowed
            .filter(|(_, (logit, mark))| !logit.is_nan() && self.place.allows(kind_of(**mark)))
            .map(|(id, (&logit, &mark))| {
                let penalised = match mark % 2 == 1 {
                    true if logit > 0.0 => logit / self.penalty,
                    true => logit * self.penalty,
                    false => logit,
                };
                (id as u32, penalised)
            })
            .collect();
        let higher = |a: &(u32, f32), b: &(u32, f32)| {
            let order = b.1.partial_cmp(&a.1).expect("NaN was left out");
            order.then(a.0.cmp(&b.0))
        };
        let count = self.sampling.candidates();
        let ranked = if count < ranked.len() {
            let (best, kth, _) = ranked.select_nth_unstable_by(count - 1, higher);
            let mut best = [&*best, &[*kth]].concat();
            best.sort_by(higher);
            best
        } else {
            ranked.sort_by(higher);
            ranked
        };
        let id = match &ranked[..] {
            [] => 0,
            [(id, _)] => *id,
            ranked => self.sample_top(ranked),
        };
        let mark = &mut self.marks[id as usize];
        self.place = self.place.after(kind_of(*mark));
        *mark |= 1;
        self.taken += 1;
        id
    }

    /// One of `ranked`, the highest first.
    fn sample_top(&self, ranked: &[(u32, f32)]) -> u32 {
        let weight = |logit: f32| ((logit - ranked[0].1) / self.sampling.temperature).exp();
        let weights: Vec<f32> = ranked.iter().map(|(_, logit)| weight(*logit)).collect();
        let wanted = self.sampling.top_p * weights.iter().sum::<f32>();
        let mut kept = 0.0;
        let mut count = 0;
        while count < weights.len() && (count == 0 || kept < wanted) {
            kept += weights[count];
            count += 1;
        }
        let mut rest = uniform(self.sampling.seed, self.taken) * kept;
        let mut chosen = 0;
        while chosen + 1 < count && rest >= weights[chosen] {
            rest -= weights[chosen];
            chosen += 1;
        }
        ranked[chosen].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalised(penalty: f32) -> Sampler {
        Sampler::new(Sampling::default(), penalty, None)
    }

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(Sampler::greedy().sample(&[-1.0, 3.0, 3.0, f32::NAN]), 1);
        assert_eq!(Sampler::greedy().sample(&[-1.0, 3.0, 3.0]), 1);
        assert_eq!(Sampler::greedy().sample(&[f32::NEG_INFINITY; 2]), 0);
    }

    #[test]
    fn chosen_tokens_are_penalised_once() {
        let mut sampler = penalised(2.0);
        assert_eq!(sampler.sample(&[4.0, 2.1, -1.0]), 0);
        assert_eq!(sampler.sample(&[4.0, 2.1, -1.0]), 1);
        assert_eq!(sampler.sample(&[4.0, 2.1, -1.0]), 0);
        let mut sampler = penalised(2.0);
        assert_eq!(sampler.sample(&[-1.0, -1.5]), 0);
        assert_eq!(sampler.sample(&[-1.0, -1.5]), 1);
    }

    #[test]
    fn indices_of_no_box_are_never_chosen_unless_the_person_wants() {
        let grammar = Grammar {
            open: 1,
            close: 2,
            indices: vec![3, 4],
            boxes: 1,
        };
        let logits = [
            [0.0, 9.0, 0.0, 0.0, 1.0],
            [5.0, 4.0, 3.0, 1.0, 9.0],
            [5.0, 4.0, 3.0, 1.0, 9.0],
        ];
        let chosen = |on| {
            let sampling = Sampling {
                grammar: on,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(sampling, 1.0, Some(grammar.clone()));
            logits.map(|logits| sampler.sample(&logits))
        };
        assert_eq!(chosen(true), [1, 3, 2]);
        assert_eq!(chosen(false), [1, 4, 4]);
    }

    /// How often each of four tokens comes, against the probabilities of the definition.
    #[test]
    fn chance_has_the_shares_of_the_definition() {
        let logits = [1.0_f32, 2.0, 0.0, 1.5];
        let shares = |top_k, top_p| {
            let sampling = Sampling {
                temperature: 0.7,
                top_k,
                top_p,
                seed: 11,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(sampling, 1.0, None);
            let mut counts = [0_u32; 4];
            for _ in 0..20_000 {
                counts[sampler.sample(&logits) as usize] += 1;
            }
            counts.map(|count| f64::from(count) / 20_000.0)
        };
        let expected = |kept: &[usize]| {
            let weight = |i: usize| f64::from(logits[i] / 0.7).exp();
            let sum: f64 = kept.iter().map(|&i| weight(i)).sum();
            [0, 1, 2, 3].map(|i| {
                if kept.contains(&i) {
                    weight(i) / sum
                } else {
                    0.0
                }
            })
        };
        for (top_k, top_p, kept) in [
            (4, 1.0, &[0, 1, 2, 3][..]),
            (2, 1.0, &[1, 3]),
            (4, 0.8, &[1, 3]),
            (4, 0.01, &[1]),
            (64, 0.9, &[0, 1, 3]),
        ] {
            for (share, expected) in shares(top_k, top_p).into_iter().zip(expected(kept)) {
                assert!(
                    (share - expected).abs() < 0.012,
                    "{top_k} {top_p}: {share} {expected}"
                );
            }
        }
    }

    #[test]
    fn numbers_outside_their_range_are_refused_by_name() {
        let good = Sampling::default();
        assert_eq!(good.check(), Ok(()));
        let cases = [
            (
                Sampling {
                    temperature: -1.0,
                    ..good
                },
                "temperature",
            ),
            (
                Sampling {
                    temperature: f32::NAN,
                    ..good
                },
                "temperature",
            ),
            (Sampling { top_k: 0, ..good }, "top-k"),
            (Sampling { top_k: 65, ..good }, "top-k"),
            (Sampling { top_p: 0.0, ..good }, "top-p"),
            (Sampling { top_p: 1.1, ..good }, "top-p"),
        ];
        for (sampling, name) in cases {
            let fault = sampling.check().expect_err(name);
            assert!(fault.to_string().contains(name), "{fault}");
        }
    }
}

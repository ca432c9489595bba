//! Sampling of the next token from logits on the CPU: greedy (argmax), or top-k and top-p with a
//! temperature. `gpu::sampling` computes the same on the GPU.

use serde::{Deserialize, Serialize};

use super::constraint::{Grammar, GrammarState, TokenKind};
use crate::error::{Fault, FaultKind};

/// Largest k of top-k sampling.
pub const MAX_TOP_K: usize = 64;

/// Largest repetition penalty.
pub const MAX_PENALTY: f32 = 10.0;

/// The sampling parameters of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Softmax temperature; 0 is greedy (argmax).
    pub temperature: f32,
    /// Sample from the k most likely tokens, 1 to [`MAX_TOP_K`].
    pub top_k: u32,
    /// Nucleus sampling: of these, the most likely ones whose probabilities add up to this share;
    /// above 0, at most 1.
    pub top_p: f32,
    /// Seed of the random numbers; the same seed gives the same answer.
    pub seed: u32,
    /// Constrained decoding: lists of boxes name boxes of the prompt only.
    pub grammar: bool,
    /// Repetition penalty, above 0 to [`MAX_PENALTY`]; 1 is none. Without it the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 50,
            top_p: 1.0,
            seed: 0,
            grammar: true,
            repetition_penalty: None,
        }
    }
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// A parameter outside its range, by name.
    pub fn check(&self) -> Result<(), Fault> {
        let outside = |name: &str, value: f32, range: &str| {
            Err(Fault::new(
                FaultKind::Question,
                name,
                format!("is {value}, expected {range}"),
                "Choose a value in this range",
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
        let penalty = self.repetition_penalty.unwrap_or(1.0);
        if !(penalty > 0.0 && penalty <= MAX_PENALTY) {
            let range = format!("above 0 to {MAX_PENALTY}");
            return outside("repetition penalty", penalty, &range);
        }
        Ok(())
    }

    /// The number of most likely tokens to sample from.
    pub fn candidates(&self) -> usize {
        if self.temperature == 0.0 {
            1
        } else {
            self.top_k as usize
        }
    }
}

/// The flags of every token at the start of an answer: its [`TokenKind`] times 2. The lowest bit is
/// set once the answer contains the token.
pub fn token_flags(vocabulary: usize, grammar: Option<&Grammar>) -> Vec<u32> {
    let mut all_flags = vec![0; vocabulary];
    for (id, kind) in grammar.iter().flat_map(|grammar| grammar.kinds()) {
        if let Some(flags) = all_flags.get_mut(id as usize) {
            *flags = 2 * kind as u32;
        }
    }
    all_flags
}

fn kind_of(flags: u32) -> TokenKind {
    const KINDS: [TokenKind; 5] = [
        TokenKind::Text,
        TokenKind::Index,
        TokenKind::Forbidden,
        TokenKind::Open,
        TokenKind::Close,
    ];
    KINDS[(flags / 2) as usize]
}

/// PCG hash: the output function RXS-M-XS of O'Neill 2014; `shaders/shared/pcg.wgsl`.
pub fn pcg(input: u32) -> u32 {
    let state = input.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// The uniform random number of [0, 1) for token `step` of an answer.
pub fn uniform(seed: u32, step: u32) -> f32 {
    (pcg(seed ^ step.wrapping_mul(0x9e37_79b9)) >> 8) as f32 / (1 << 24) as f32
}

/// Samples the tokens of one answer.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    penalty: f32,
    grammar: Option<Grammar>,
    /// See [`token_flags`]; empty before the first token.
    token_flags: Vec<u32>,
    state: GrammarState,
    /// Tokens sampled.
    count: u32,
}

impl Sampler {
    /// Greedy sampling without repetition penalty and grammar.
    pub fn greedy() -> Self {
        Self::new(Sampling::default(), 1.0, None)
    }

    /// Samples by `sampling`. Repetition penalty (`docs/reference/chatrex.md`, section 8): the logit of
    /// a token that the answer contains is divided by `penalty` if positive, else multiplied; tokens
    /// of the prompt do not count. `grammar` constrains the tokens if `sampling` says so.
    ///
    /// # Panics
    /// `penalty` is not positive.
    pub fn new(sampling: Sampling, penalty: f32, grammar: Option<Grammar>) -> Self {
        assert!(penalty > 0.0, "the repetition penalty is positive");
        Self {
            sampling,
            penalty,
            grammar: grammar.filter(|_| sampling.grammar),
            token_flags: Vec::new(),
            state: GrammarState::default(),
            count: 0,
        }
    }

    /// The id of the next token, from one logit per token of the vocabulary. Of equal logits the
    /// lower id ranks higher; NaN is never sampled.
    ///
    /// # Panics
    /// There are no logits.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        assert!(!logits.is_empty(), "sampling: the vocabulary is empty");
        if self.token_flags.is_empty() {
            self.token_flags = token_flags(logits.len(), self.grammar.as_ref());
        }
        let tokens = logits.iter().zip(&self.token_flags).enumerate();
        let mut ranked: Vec<(u32, f32)> = tokens
            .filter(|(_, (logit, flags))| !logit.is_nan() && self.state.allows(kind_of(**flags)))
            .map(|(id, (&logit, &flags))| {
                let penalized = match flags % 2 == 1 {
                    true if logit > 0.0 => logit / self.penalty,
                    true => logit * self.penalty,
                    false => logit,
                };
                (id as u32, penalized)
            })
            .collect();
        let higher = |a: &(u32, f32), b: &(u32, f32)| {
            let order = b.1.partial_cmp(&a.1).expect("NaN was filtered out");
            order.then(a.0.cmp(&b.0))
        };
        let count = self.sampling.candidates();
        let ranked = if count < ranked.len() {
            let (before_kth, kth, _) = ranked.select_nth_unstable_by(count - 1, higher);
            let mut top_k = [&*before_kth, &[*kth]].concat();
            top_k.sort_by(higher);
            top_k
        } else {
            ranked.sort_by(higher);
            ranked
        };
        let id = match &ranked[..] {
            [] => 0,
            [(id, _)] => *id,
            ranked => self.sample_top(ranked),
        };
        let flags = &mut self.token_flags[id as usize];
        self.state = self.state.after(kind_of(*flags));
        *flags |= 1;
        self.count += 1;
        id
    }

    /// Samples one of `ranked`, which are sorted, highest logit first.
    fn sample_top(&self, ranked: &[(u32, f32)]) -> u32 {
        let weight = |logit: f32| ((logit - ranked[0].1) / self.sampling.temperature).exp();
        let weights: Vec<f32> = ranked.iter().map(|(_, logit)| weight(*logit)).collect();
        // The nucleus: the fewest tokens, best first, whose weights reach top_p of the sum.
        let nucleus_sum = self.sampling.top_p * weights.iter().sum::<f32>();
        let mut kept_sum = 0.0;
        let mut kept = 0;
        while kept < weights.len() && (kept == 0 || kept_sum < nucleus_sum) {
            kept_sum += weights[kept];
            kept += 1;
        }
        let mut rest = uniform(self.sampling.seed, self.count) * kept_sum;
        let mut sampled = 0;
        while sampled + 1 < kept && rest >= weights[sampled] {
            rest -= weights[sampled];
            sampled += 1;
        }
        ranked[sampled].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalized(penalty: f32) -> Sampler {
        Sampler::new(Sampling::default(), penalty, None)
    }

    #[test]
    fn the_lower_id_of_equal_logits_wins() {
        assert_eq!(Sampler::greedy().sample(&[-1.0, 3.0, 3.0, f32::NAN]), 1);
        assert_eq!(Sampler::greedy().sample(&[-1.0, 3.0, 3.0]), 1);
        assert_eq!(Sampler::greedy().sample(&[f32::NEG_INFINITY; 2]), 0);
    }

    #[test]
    fn repeated_tokens_are_penalized_once() {
        let mut sampler = penalized(2.0);
        assert_eq!(sampler.sample(&[4.0, 2.1, -1.0]), 0);
        assert_eq!(sampler.sample(&[4.0, 2.1, -1.0]), 1);
        assert_eq!(sampler.sample(&[4.0, 2.1, -1.0]), 0);
        let mut sampler = penalized(2.0);
        assert_eq!(sampler.sample(&[-1.0, -1.5]), 0);
        assert_eq!(sampler.sample(&[-1.0, -1.5]), 1);
    }

    /// `RepetitionPenaltyLogitsProcessor` of the library transformers: of the tokens in the answer so far
    /// a score below 0 is multiplied by the penalty, any other divided, each token once. These values are
    /// of its definition `torch.where(score < 0, score * penalty, score / penalty)` with a penalty of 1.3.
    #[test]
    fn the_penalty_is_that_of_the_transformers_library() {
        let steps: [([f32; 6], u32); 6] = [
            ([2.6, 2.1, 0.0, -0.5, -1.0, 1.9], 0),
            // 2.6 / 1.3 = 2.0 < 2.1.
            ([2.6, 2.1, 0.0, -0.5, -1.0, 1.9], 1),
            // 2.0, 1.615 and 1.9: the first again.
            ([2.6, 2.1, 0.0, -0.5, -1.0, 1.9], 0),
            // Not divided twice: 2.0 against 1.99.
            ([2.6, 2.1, 0.0, -0.5, -1.0, 1.99], 0),
            // -0.5 * 1.3 = -0.65 < -0.6.
            ([-0.5, -0.8, -0.6, -0.7, -1.0, -9.0], 2),
            // -0.65, -0.65 (-0.5 * 1.3) and -0.64: a seen token is lower than an unseen one.
            ([-0.5, -0.5, -0.5, -0.64, -1.0, -9.0], 3),
        ];
        let mut sampler = penalized(1.3);
        for (step, (logits, expected)) in steps.iter().enumerate() {
            assert_eq!(sampler.sample(logits), *expected, "step {step}");
        }
    }

    #[test]
    fn indices_of_no_box_are_never_sampled_with_a_grammar() {
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
        let sampled = |on| {
            let sampling = Sampling {
                grammar: on,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(sampling, 1.0, Some(grammar.clone()));
            logits.map(|logits| sampler.sample(&logits))
        };
        assert_eq!(sampled(true), [1, 3, 2]);
        assert_eq!(sampled(false), [1, 4, 4]);
    }

    /// How often each of four tokens is sampled, against the probabilities of the definition.
    #[test]
    fn sampled_tokens_have_the_probabilities_of_the_definition() {
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
    fn parameters_outside_their_range_are_rejected_by_name() {
        let good = Sampling::default();
        let penalty = |penalty| Sampling {
            repetition_penalty: Some(penalty),
            ..good
        };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(penalty(1.3).check(), Ok(()));
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
            (penalty(0.0), "repetition penalty"),
            (penalty(-1.0), "repetition penalty"),
            (penalty(f32::NAN), "repetition penalty"),
            (penalty(11.0), "repetition penalty"),
        ];
        for (sampling, name) in cases {
            let fault = sampling.check().expect_err(name);
            assert!(fault.to_string().contains(name), "{fault}");
        }
    }
}

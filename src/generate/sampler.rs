//! Greedy choice of the next token, with the repetition penalty some checkpoints ask for.

/// Chooses tokens and remembers them.
#[derive(Clone, Debug)]
pub struct Sampler {
    penalty: f32,
    /// Tokens chosen so far, each once.
    chosen: Vec<u32>,
}

impl Sampler {
    /// A greedy choice without penalty.
    pub fn greedy() -> Self {
        Self::with_penalty(1.0)
    }

    /// A greedy choice in which every token chosen before has its logit divided by `penalty` where
    /// positive and multiplied where negative (`chatrex.md` 8). Tokens of the prompt do not count.
    ///
    /// # Panics
    /// `penalty` is not above 0.
    pub fn with_penalty(penalty: f32) -> Self {
        assert!(penalty > 0.0, "a repetition penalty is above 0");
        Self {
            penalty,
            chosen: Vec::new(),
        }
    }

    /// The id of the highest of `logits`, one per token of the vocabulary; of equal ones the
    /// lowest id. NaN is never the highest.
    ///
    /// # Panics
    /// There are no logits.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        assert!(!logits.is_empty(), "a choice needs a vocabulary");
        let highest = if self.penalty == 1.0 || self.chosen.is_empty() {
            highest(logits)
        } else {
            let mut logits = logits.to_vec();
            for &id in &self.chosen {
                let logit = &mut logits[id as usize];
                if *logit > 0.0 {
                    *logit /= self.penalty;
                } else {
                    *logit *= self.penalty;
                }
            }
            highest(&logits)
        };
        self.note(highest);
        highest
    }

    /// Counts a token that was chosen elsewhere, such as on the device.
    pub fn note(&mut self, id: u32) {
        if !self.chosen.contains(&id) {
            self.chosen.push(id);
        }
    }
}

/// Index of the highest value; of equal ones the first.
fn highest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (index, logit);
        }
    }
    best.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_wins() {
        let mut sampler = Sampler::greedy();
        assert_eq!(sampler.choose(&[-1.0, 3.0, 3.0, f32::NAN]), 1);
        assert_eq!(sampler.choose(&[-1.0, 3.0, 3.0]), 1);
        assert_eq!(sampler.choose(&[f32::NEG_INFINITY; 2]), 0);
    }

    #[test]
    fn chosen_tokens_are_penalised_once() {
        let mut sampler = Sampler::with_penalty(2.0);
        assert_eq!(sampler.choose(&[4.0, 2.1, -1.0]), 0);
        assert_eq!(sampler.choose(&[4.0, 2.1, -1.0]), 1);
        assert_eq!(sampler.choose(&[4.0, 2.1, -1.0]), 0);
        let mut sampler = Sampler::with_penalty(2.0);
        sampler.note(0);
        assert_eq!(sampler.choose(&[-1.0, -1.5]), 1);
    }
}

//! The choice of the next token on a graphics device, so that decoding need not wait for the host.

use burn::backend::Cube;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;

use crate::kernel::graphics::{buffer, output};
use crate::kernel::launch::{Shader, launch};
use crate::kernel::weight_rows::integers;

/// Invocations per workgroup.
const GROUP: u32 = 128;

/// Stripes that a vocabulary is read in.
const STRIPES: usize = 64;

/// `shaders/highest.wgsl`.
pub const HIGHEST: Shader = Shader {
    name: "highest",
    text: include_str!("../../shaders/highest.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// `shaders/choose.wgsl`.
pub const CHOOSE: Shader = Shader {
    name: "choose",
    text: include_str!("../../shaders/choose.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// An answer in the making: what was chosen, and where the next token stands.
#[derive(Clone, Debug)]
pub struct Choice {
    vocabulary: usize,
    penalty: f32,
    limit: usize,
    token: CubeTensor,
    position: CubeTensor,
    chosen: CubeTensor,
    said: CubeTensor,
    taken: CubeTensor,
}

impl Choice {
    /// An answer of at most `limit` tokens of a vocabulary; the first token will stand at
    /// `position`. Every token chosen before has its logit divided by `penalty` where positive and
    /// multiplied where negative.
    ///
    /// # Panics
    /// `device` is not a graphics device, or a size is 0.
    pub fn new(
        vocabulary: usize,
        penalty: f32,
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
        Self {
            vocabulary,
            penalty,
            limit,
            token: values(vec![0]),
            position: values(vec![position as i32 - 1]),
            chosen: values(vec![0; vocabulary]),
            said: values(vec![0; limit]),
            taken: values(vec![0]),
        }
    }

    /// Chooses the token with the highest of `logits` `[V]`; of equal ones the lowest id.
    ///
    /// # Panics
    /// There are not as many logits as tokens.
    pub fn choose(&self, logits: Tensor<1>) {
        assert_eq!(logits.dims(), [self.vocabulary], "choice: logits");
        let logits = buffer("highest", logits);
        let best = output("highest", &logits.client, 2 * STRIPES);
        launch(
            &HIGHEST,
            &logits.client,
            STRIPES as u64,
            &[&logits.handle, &self.chosen.handle],
            &[&best],
            &[
                self.vocabulary as u32,
                STRIPES as u32,
                self.penalty.to_bits(),
                0,
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
                &self.chosen.handle,
                &self.said.handle,
                &self.taken.handle,
            ],
            &[STRIPES as u32, self.limit as u32, self.vocabulary as u32, 0],
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

    /// The device chooses what the host's sampler chooses, penalty and equal logits included.
    #[test]
    fn chooses_as_the_sampler_does() {
        let Some(device) = adapter_for_test("chooses_as_the_sampler_does") else {
            return;
        };
        let mut dice = Dice::default();
        for vocabulary in [1, 2, 127, 869, 8192, 8193, 152_064] {
            for penalty in [1.0, 1.3] {
                let choice = Choice::new(vocabulary, penalty, 5, 10, &device);
                let mut sampler = Sampler::with_penalty(penalty);
                let mut logits = dice.values(vocabulary);
                let equal = logits[vocabulary / 2].max(1.5);
                logits[vocabulary / 2] = equal;
                logits[vocabulary - 1] = equal;
                let mut expected = Vec::new();
                for _ in 0..5 {
                    choice.choose(Tensor::from_data(
                        TensorData::new(logits.clone(), [vocabulary]),
                        &device,
                    ));
                    expected.push(sampler.choose(&logits).cast_signed());
                }
                let said: Vec<i32> = choice.said().into_data().try_to_vec().expect("ids");
                assert_eq!(said, expected, "{vocabulary} tokens, penalty {penalty}");
                let read = |x: Tensor<1, Int>| x.into_data().try_to_vec::<i32>().expect("i32")[0];
                assert_eq!(read(choice.position()), 14);
                assert_eq!(read(choice.token()), expected[4]);
            }
        }
    }

    #[test]
    fn no_number_is_noticed() {
        let Some(device) = adapter_for_test("no_number_is_noticed") else {
            return;
        };
        let choice = Choice::new(300, 1.0, 2, 0, &device);
        let mut logits = vec![1.0; 300];
        logits[17] = f32::NAN;
        choice.choose(Tensor::from_data(TensorData::new(logits, [300]), &device));
        let said: Vec<i32> = choice.said().into_data().try_to_vec().expect("ids");
        assert_eq!(said[0], 300);
    }
}

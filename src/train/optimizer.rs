//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) with clipping of the global gradient norm and
//! a learning rate per parameter name. One pass over host memory per parameter; its state is plain
//! data by name, so a run resumes to the bit.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};

use crate::train::checkpoint::Start;

/// The running moments of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Mean of gradients.
    pub first: Vec<f32>,
    /// Mean of squared gradients.
    pub second: Vec<f32>,
    /// Updates so far.
    pub steps: u64,
}

/// The optimiser.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Weight decay of matrices; vectors have none.
    pub decay: f32,
    /// The global gradient norm is scaled down to this.
    pub clip: f32,
    /// State by parameter name.
    pub moments: BTreeMap<String, Moments>,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            decay: 0.01,
            clip: 1.0,
            moments: BTreeMap::new(),
        }
    }
}

impl AdamW {
    /// One update of the parameters of `module` that have a gradient, `rate` giving the learning
    /// rate by name. Returns the module and the gradient norm before clipping. A norm that is not
    /// finite leaves everything as it was.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        start: &Start,
        mut gradients: Gradients,
        rate: impl Fn(&str) -> f64,
    ) -> (M, f32) {
        let mut collector = Collector {
            gradients: &mut gradients,
            found: HashMap::new(),
        };
        module.visit(&mut collector);
        let found = collector.found;
        let mut ids = found.keys().copied().collect::<Vec<_>>();
        ids.sort_unstable();
        let square = ids
            .iter()
            .map(|id| {
                found[id]
                    .iter()
                    .map(|&g| f64::from(g) * f64::from(g))
                    .sum::<f64>()
            })
            .sum::<f64>();
        let norm = square.sqrt() as f32;
        if !norm.is_finite() {
            return (module, norm);
        }
        let scale = if norm > self.clip {
            self.clip / norm
        } else {
            1.0
        };
        let module = module.map(&mut Updater {
            names: start.names(),
            optimizer: self,
            found,
            scale,
            rate,
        });
        (module, norm)
    }

    /// Updates `values` in place.
    fn update(&mut self, name: &str, values: &mut [f32], gradient: &[f32], rate: f32, decay: f32) {
        let (beta1, beta2, epsilon) = (self.beta1, self.beta2, self.epsilon);
        if !self.moments.contains_key(name) {
            self.moments.insert(
                name.to_owned(),
                Moments {
                    first: vec![0.0; values.len()],
                    second: vec![0.0; values.len()],
                    steps: 0,
                },
            );
        }
        let moments = self
            .moments
            .get_mut(name)
            .expect("present or just inserted");
        moments.steps += 1;
        let steps = moments.steps.min(1 << 20) as i32;
        let first_scale = rate / (1.0 - beta1.powi(steps));
        let second_scale = (1.0 - beta2.powi(steps)).recip();
        let keep = 1.0 - rate * decay;
        for (((value, &g), m), v) in values
            .iter_mut()
            .zip(gradient)
            .zip(&mut moments.first)
            .zip(&mut moments.second)
        {
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *value = keep * *value - first_scale * *m / ((second_scale * *v).sqrt() + epsilon);
        }
    }
}

/// The gradients of `module` by name.
pub fn gradients<M: Module>(
    module: &M,
    start: &Start,
    mut gradients: Gradients,
) -> BTreeMap<String, Vec<f32>> {
    let mut collector = Collector {
        gradients: &mut gradients,
        found: HashMap::new(),
    };
    module.visit(&mut collector);
    let names = start.names();
    let named = |(id, gradient)| (names[&id].clone(), gradient);
    collector.found.into_iter().map(named).collect()
}

struct Collector<'a> {
    gradients: &'a mut Gradients,
    found: HashMap<u64, Vec<f32>>,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        if let Some(gradient) = param.val().grad_remove(self.gradients) {
            let gradient = gradient
                .into_data()
                .try_into_vec::<f32>()
                .expect("gradients are f32");
            self.found.insert(param.id.val(), gradient);
        }
    }
}

struct Updater<'a, F> {
    names: HashMap<u64, String>,
    optimizer: &'a mut AdamW,
    found: HashMap<u64, Vec<f32>>,
    scale: f32,
    rate: F,
}

impl<F: Fn(&str) -> f64> ModuleMapper for Updater<'_, F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(mut gradient) = self.found.remove(&param.id.val()) else {
            return param;
        };
        for g in &mut gradient {
            *g *= self.scale;
        }
        let (id, tensor, mapper) = param.consume();
        let device = tensor.device();
        let shape = tensor.dims();
        let mut values = tensor
            .into_data()
            .try_into_vec::<f32>()
            .expect("parameters are f32 while they are trained");
        let name = &self.names[&id.val()];
        let rate = (self.rate)(name) as f32;
        let decay = if D > 1 { self.optimizer.decay } else { 0.0 };
        self.optimizer
            .update(name, &mut values, &gradient, rate, decay);
        let tensor = Tensor::from_data(TensorData::new(values, shape), &device).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Linear, Loader};
    use crate::train::checkpoint::{Weights, select_trained};
    use burn::tensor::Device;

    fn fit(steps: usize, mut optimizer: AdamW, weights: Weights) -> (Weights, AdamW) {
        let device = Device::flex().autodiff();
        let start = Start::new(weights, 5);
        let linear = Linear::load(&Loader::new(&start, &device).child("fc"), 3, 2, true).unwrap();
        let mut linear = select_trained(linear, &start, |_| true);
        for step in 0..steps {
            let x = Tensor::<2>::from_floats([[1.0, 2.0, -1.0], [0.5, -1.0, 2.0]], &device);
            let y = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0]], &device);
            let loss = (linear.forward(x) - y).square().mean();
            let rate = 0.05 / (step + 1) as f64;
            (linear, _) = optimizer.step(linear, &start, loss.backward(), |_| rate);
        }
        (Weights::of_module(&linear, &start), optimizer)
    }

    /// First step by hand: Adam moves every parameter by the rate against the gradient's sign.
    #[test]
    fn first_step_moves_by_the_rate() {
        let before = fit(0, AdamW::default(), Weights::default()).0;
        let optimizer = AdamW {
            decay: 0.0,
            ..AdamW::default()
        };
        let after = fit(1, optimizer, Weights::default()).0;
        for (name, tensor) in &before.tensors {
            for (a, b) in tensor.values.iter().zip(&after.tensors[name].values) {
                assert!(((a - b).abs() - 0.05).abs() < 1e-4, "{name}: {a} {b}");
            }
        }
    }

    #[test]
    fn state_survives_a_file() {
        let (weights, optimizer) = fit(2, AdamW::default(), Weights::default());
        let path = std::env::temp_dir().join(format!("chatrex-state-{}", std::process::id()));
        crate::train::checkpoint::write_state(&path, &weights, &optimizer, &7_u64).unwrap();
        let mut read = AdamW::default();
        let (again, step): (Weights, u64) =
            crate::train::checkpoint::read_state(&path, &mut read).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((step, &again), (7, &weights));
        assert_eq!(read.moments, optimizer.moments);
        assert_eq!(fit(2, read, again).0, fit(2, optimizer, weights).0);
    }
}

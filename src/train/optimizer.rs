//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) on the CPU, with clipping of the global gradient
//! norm and a learning rate per parameter name. Its state is plain data by name, so a run resumes
//! bit-exactly.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};

use crate::train::checkpoint::Initializer;

/// Moments of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// First moment: running mean of the gradient.
    pub first: Vec<f32>,
    /// Second moment: running mean of the squared gradient.
    pub second: Vec<f32>,
    /// Number of updates.
    pub steps: u64,
}

/// The optimizer.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Decay rate of the first moment.
    pub beta1: f32,
    /// Decay rate of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub epsilon: f32,
    /// Weight decay of parameters with two or more dimensions; vectors have none.
    pub weight_decay: f32,
    /// Upper limit of the global gradient norm.
    pub max_grad_norm: f32,
    /// State by parameter name.
    pub moments: BTreeMap<String, Moments>,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            moments: BTreeMap::new(),
        }
    }
}

impl AdamW {
    /// Updates the parameters of `module` that have a gradient; `lr` gives the learning rate by name.
    /// Returns the module and the gradient norm before clipping. If the norm is not finite, nothing
    /// is updated.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        initializer: &Initializer,
        mut gradients: Gradients,
        lr: impl Fn(&str) -> f64,
    ) -> (M, f32) {
        let mut collector = GradientCollector {
            gradients: &mut gradients,
            gradients_by_id: HashMap::new(),
        };
        module.visit(&mut collector);
        let gradients_by_id = collector.gradients_by_id;
        let mut ids = gradients_by_id.keys().copied().collect::<Vec<_>>();
        ids.sort_unstable();
        let square = ids
            .iter()
            .map(|id| {
                gradients_by_id[id]
                    .iter()
                    .map(|&g| f64::from(g) * f64::from(g))
                    .sum::<f64>()
            })
            .sum::<f64>();
        let grad_norm = square.sqrt() as f32;
        if !grad_norm.is_finite() {
            return (module, grad_norm);
        }
        let scale = if grad_norm > self.max_grad_norm {
            self.max_grad_norm / grad_norm
        } else {
            1.0
        };
        let module = module.map(&mut ParameterUpdater {
            names: initializer.names(),
            optimizer: self,
            gradients_by_id,
            scale,
            lr,
        });
        (module, grad_norm)
    }

    /// Updates `values` in place.
    fn update(
        &mut self,
        name: &str,
        values: &mut [f32],
        gradient: &[f32],
        lr: f32,
        weight_decay: f32,
    ) {
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
        let first_scale = lr / (1.0 - beta1.powi(steps));
        let second_scale = (1.0 - beta2.powi(steps)).recip();
        let decay_factor = 1.0 - lr * weight_decay;
        for (((value, &g), m), v) in values
            .iter_mut()
            .zip(gradient)
            .zip(&mut moments.first)
            .zip(&mut moments.second)
        {
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *value =
                decay_factor * *value - first_scale * *m / ((second_scale * *v).sqrt() + epsilon);
        }
    }
}

/// The gradients of `module` by parameter name.
pub fn gradients<M: Module>(
    module: &M,
    initializer: &Initializer,
    mut gradients: Gradients,
) -> BTreeMap<String, Vec<f32>> {
    let mut collector = GradientCollector {
        gradients: &mut gradients,
        gradients_by_id: HashMap::new(),
    };
    module.visit(&mut collector);
    let names = initializer.names();
    let named = |(id, gradient)| (names[&id].clone(), gradient);
    collector.gradients_by_id.into_iter().map(named).collect()
}

struct GradientCollector<'a> {
    gradients: &'a mut Gradients,
    gradients_by_id: HashMap<u64, Vec<f32>>,
}

impl ModuleVisitor for GradientCollector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        if let Some(gradient) = param.val().grad_remove(self.gradients) {
            let gradient = gradient
                .into_data()
                .try_into_vec::<f32>()
                .expect("gradients are f32");
            self.gradients_by_id.insert(param.id.val(), gradient);
        }
    }
}

struct ParameterUpdater<'a, F> {
    names: HashMap<u64, String>,
    optimizer: &'a mut AdamW,
    gradients_by_id: HashMap<u64, Vec<f32>>,
    scale: f32,
    lr: F,
}

impl<F: Fn(&str) -> f64> ModuleMapper for ParameterUpdater<'_, F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(mut gradient) = self.gradients_by_id.remove(&param.id.val()) else {
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
            .expect("parameters are f32 during training");
        let name = &self.names[&id.val()];
        let lr = (self.lr)(name) as f32;
        let weight_decay = if D > 1 {
            self.optimizer.weight_decay
        } else {
            0.0
        };
        self.optimizer
            .update(name, &mut values, &gradient, lr, weight_decay);
        let tensor = Tensor::from_data(TensorData::new(values, shape), &device).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Linear, Loader};
    use crate::train::checkpoint::{Weights, set_trainable};
    use burn::tensor::Device;

    fn train_linear(steps: usize, mut optimizer: AdamW, weights: Weights) -> (Weights, AdamW) {
        let device = Device::flex().autodiff();
        let initializer = Initializer::new(weights, 5);
        let linear =
            Linear::load(&Loader::new(&initializer, &device).child("fc"), 3, 2, true).unwrap();
        let mut linear = set_trainable(linear, &initializer, |_| true);
        for step in 0..steps {
            let x = Tensor::<2>::from_floats([[1.0, 2.0, -1.0], [0.5, -1.0, 2.0]], &device);
            let y = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0]], &device);
            let loss = (linear.forward(x) - y).square().mean();
            let lr = 0.05 / (step + 1) as f64;
            (linear, _) = optimizer.step(linear, &initializer, loss.backward(), |_| lr);
        }
        (Weights::of_module(&linear, &initializer), optimizer)
    }

    /// The first step of Adam moves every parameter by the learning rate against the gradient's sign.
    #[test]
    fn first_step_moves_by_the_learning_rate() {
        let before = train_linear(0, AdamW::default(), Weights::default()).0;
        let optimizer = AdamW {
            weight_decay: 0.0,
            ..AdamW::default()
        };
        let after = train_linear(1, optimizer, Weights::default()).0;
        for (name, tensor) in &before.tensors {
            for (a, b) in tensor.values.iter().zip(&after.tensors[name].values) {
                assert!(((a - b).abs() - 0.05).abs() < 1e-4, "{name}: {a} {b}");
            }
        }
    }

    #[test]
    fn state_round_trips_through_a_file() {
        let (weights, optimizer) = train_linear(2, AdamW::default(), Weights::default());
        let path = std::env::temp_dir().join(format!("chatrex-state-{}", std::process::id()));
        crate::train::state::write_state(&path, &weights, &optimizer, &7_u64).unwrap();
        let mut read = AdamW::default();
        let (again, step): (Weights, u64) =
            crate::train::state::read_state(&path, &mut read).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((step, &again), (7, &weights));
        assert_eq!(read.moments, optimizer.moments);
        assert_eq!(
            train_linear(2, read, again).0,
            train_linear(2, optimizer, weights).0
        );
    }
}

//! Mean cross-entropy of rows of logits on the CPU, in one pass forward and one backward. Tensor operations
//! take a dozen passes, which is a tenth of a training step where the vocabulary has 49,000 tokens.

use burn::tensor::Tensor;

use crate::cpu::op::{CpuOp, apply_to_one};
use crate::simd::{exp, for_each_chunk, vectorized};

/// The mean of `-log softmax(logits)[label]` over the rows of `logits` `[R, C]` with a label; rows whose
/// label is negative do not count. 0 without labels. On a device that [`is_cpu`](crate::cpu::op::is_cpu)
/// only.
///
/// # Panics
/// There is not one label per row, or a label is not below C.
pub fn cross_entropy(logits: Tensor<2>, labels: &[i32]) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    assert_eq!(rows, labels.len(), "one label per row");
    let labels: Vec<Option<usize>> = labels
        .iter()
        .map(|&label| usize::try_from(label).ok())
        .collect();
    assert!(labels.iter().flatten().all(|&label| label < classes));
    apply_to_one(CrossEntropy { labels }, logits, [1])
}

/// A row of logits with a label.
struct Row<'a> {
    logits: &'a [f32],
    label: usize,
    highest: f32,
    /// Of `e^(x - highest)`.
    sum: f32,
}

#[derive(Debug)]
struct CrossEntropy {
    labels: Vec<Option<usize>>,
}

impl CrossEntropy {
    fn labeled(&self) -> f32 {
        self.labels.iter().flatten().count().max(1) as f32
    }

    fn classes(&self, logits: &[f32]) -> usize {
        logits.len() / self.labels.len().max(1)
    }

    /// The row `row` of `logits` with its label; `None` if it has none.
    fn row<'a>(&self, logits: &'a [f32], row: usize) -> Option<Row<'a>> {
        let label = self.labels[row]?;
        let classes = self.classes(logits);
        let logits = &logits[row * classes..][..classes];
        let mut statistics = [0.0; 2];
        highest_and_sum(logits, &mut statistics);
        let [highest, sum] = statistics;
        Some(Row {
            logits,
            label,
            highest,
            sum,
        })
    }
}

vectorized! {
    /// The highest value of `row`, and the sum of `e^(x - highest)`.
    fn highest_and_sum(row: &[f32], result: &mut [f32; 2]) {
        let mut lanes = [f32::NEG_INFINITY; 16];
        let mut chunks = row.chunks_exact(16);
        for chunk in &mut chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let rest = chunks.remainder();
        let highest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let mut sums = [0.0_f32; 16];
        for chunk in row.chunks_exact(16) {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += exp(x - highest);
            }
        }
        let rest: f32 = rest.iter().map(|&x| exp(x - highest)).sum();
        *result = [highest, sums.iter().sum::<f32>() + rest];
    }
}

vectorized! {
    /// `out = factor * e^(row - shift)`.
    fn scaled_exp(row: &[f32], shift: f32, factor: f32, out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(row) {
            *out = factor * exp(x - shift);
        }
    }
}

impl CpuOp for CrossEntropy {
    fn forward(&self, [logits, ..]: [&[f32]; 3]) -> Vec<f32> {
        let mut losses = vec![0.0; self.labels.len()];
        for_each_chunk(&mut losses, 1, |row, loss| {
            if let Some(row) = self.row(logits, row) {
                loss[0] = row.highest + row.sum.ln() - row.logits[row.label];
            }
        });
        let sum: f64 = losses.into_iter().map(f64::from).sum();
        vec![sum as f32 / self.labeled()]
    }

    fn backward(&self, [logits, ..]: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let share = gradient[0] / self.labeled();
        let mut out = vec![0.0; logits.len()];
        for_each_chunk(&mut out, self.classes(logits).max(1), |row, out| {
            if let Some(row) = self.row(logits, row) {
                scaled_exp(row.logits, row.highest, share / row.sum, out);
                out[row.label] -= share;
            }
        });
        [out, vec![0.0], vec![0.0]]
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn loss_and_gradient_equal_those_of_tensor_operations() {
        let device = Device::flex().autodiff();
        for (rows, classes) in [(1, 1), (3, 5), (7, 33), (4, 1000)] {
            let labels: Vec<i32> = (0..rows)
                .map(|row| {
                    if row % 3 == 1 {
                        -1
                    } else {
                        (row * 7 % classes) as i32
                    }
                })
                .collect();
            let uniform = Distribution::Uniform(-9.0, 9.0);
            let logits = Tensor::<2>::random([rows, classes], uniform, &device).require_grad();
            let labeled: Vec<usize> = (0..rows).filter(|row| labels[*row] >= 0).collect();
            let log = log_softmax(logits.clone(), 1);
            let picked = labeled.iter().map(|&row| {
                let label = labels[row] as usize;
                log.clone().slice([row..row + 1, label..label + 1])
            });
            let expected = Tensor::cat(picked.collect(), 0).mean().neg();
            let loss = cross_entropy(logits.clone(), &labels);
            let difference = (loss.clone() - expected.clone()).abs().into_scalar::<f32>();
            assert!(difference < 1e-5, "{rows} x {classes}: {difference}");
            let gradient = |loss: Tensor<1>| logits.grad(&loss.backward()).expect("a leaf");
            let difference = gradient(loss * 3.0) - gradient(expected * 3.0);
            let difference = difference.abs().max().into_scalar::<f32>();
            assert!(difference < 1e-6, "{rows} x {classes}: {difference}");
        }
    }

    #[test]
    fn no_label_is_no_loss() {
        let logits = Tensor::<2>::ones([2, 3], &Device::flex());
        assert_eq!(cross_entropy(logits, &[-1, -1]).into_scalar::<f32>(), 0.0);
    }
}

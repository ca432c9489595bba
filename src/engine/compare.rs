//! [`Request::Compare`](crate::protocol::Request::Compare): how alike boxes of the current picture are.

use super::ask::{Meter, object_tokens};
use super::{Engine, Host, current, no_model};
use crate::error::{Fault, FaultKind};
use crate::geometry::BoxXyxy;
use crate::gpu::readback;
use crate::protocol::{Event, PictureId, TurnId};
use crate::text::prompt::MAX_BOXES;

impl<H: Host> Engine<H> {
    pub(super) async fn compare(
        &mut self,
        turn: TurnId,
        id: PictureId,
        boxes: &[BoxXyxy],
    ) -> Result<(), Fault> {
        if boxes.len() > MAX_BOXES {
            let what = format!("has {} boxes, the limit is {MAX_BOXES}", boxes.len());
            let advice = "Compare fewer boxes";
            return Err(Fault::new(FaultKind::Question, "comparison", what, advice));
        }
        let model = self.model.as_mut().ok_or_else(no_model)?;
        let picture = current(&mut self.picture, id)?;
        let mut meter = Meter::start(&self.host);
        let likeness = match object_tokens(model, picture, boxes, &mut meter).await? {
            Some(tokens) => {
                let width = tokens.dims()[1];
                let values = readback::read("the object tokens", tokens).await?;
                cosines(&values, width)
            }
            None => Vec::new(),
        };
        self.host.emit(Event::Compared { turn, likeness });
        Ok(())
    }
}

/// The cosine of every pair of rows of `values` `[N, width]`; 0 for rows of zeros.
fn cosines(values: &[f32], width: usize) -> Vec<Vec<f32>> {
    let rows: Vec<&[f32]> = values.chunks_exact(width).collect();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let norms: Vec<f64> = rows.iter().map(|row| dot(row, row).sqrt()).collect();
    let cosine = |a: usize, b: usize| {
        let scale = norms[a] * norms[b];
        if scale > 0.0 {
            (dot(rows[a], rows[b]) / scale) as f32
        } else {
            0.0
        }
    };
    let numbers = 0..rows.len();
    numbers
        .clone()
        .map(|a| numbers.clone().map(|b| cosine(a, b)).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::cosines;

    #[test]
    fn cosines_of_rows() {
        let rows = [3.0, 4.0, 6.0, 8.0, -4.0, 3.0, 0.0, 0.0];
        let expected = [
            vec![1.0, 1.0, 0.0, 0.0],
            vec![1.0, 1.0, 0.0, 0.0],
            vec![0.0, 0.0, 1.0, 0.0],
            vec![0.0; 4],
        ];
        assert_eq!(cosines(&rows, 2), expected);
        assert!(cosines(&[], 2).is_empty());
    }
}

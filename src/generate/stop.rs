//! When an answer ends.

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The model generated an end token.
    End,
    /// The token limit.
    Length,
    /// The user cancelled it.
    Cancelled,
}

/// Detects the end of one answer.
#[derive(Clone, Debug)]
pub struct Stop {
    end_ids: Vec<u32>,
    limit: u32,
    taken: u32,
}

impl Stop {
    /// The answer ends with any of `end_ids`, or after `limit` tokens.
    pub fn new(end_ids: &[u32], limit: u32) -> Self {
        Self {
            end_ids: end_ids.to_vec(),
            limit,
            taken: 0,
        }
    }

    /// Tokens so far, the end token included.
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// The reason to stop before the next token, if any.
    pub fn before(&self, cancelled: bool) -> Option<Ending> {
        if cancelled {
            Some(Ending::Cancelled)
        } else {
            (self.taken >= self.limit).then_some(Ending::Length)
        }
    }

    /// Counts a token; [`Ending::End`] if it ends the answer. An end token is not part of the text.
    pub fn take(&mut self, id: u32) -> Option<Ending> {
        self.taken += 1;
        self.end_ids.contains(&id).then_some(Ending::End)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_by_token_length_or_cancellation() {
        let mut stop = Stop::new(&[7, 9], 2);
        assert_eq!(stop.before(false), None);
        assert_eq!(stop.before(true), Some(Ending::Cancelled));
        assert_eq!(stop.take(3), None);
        assert_eq!(stop.take(9), Some(Ending::End));
        assert_eq!(
            (stop.before(false), stop.taken()),
            (Some(Ending::Length), 2)
        );
        assert_eq!(Stop::new(&[], 0).before(false), Some(Ending::Length));
    }
}

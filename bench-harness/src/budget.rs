//! How long each row may take, so that the whole run keeps its limit on a slow disk too.

use std::time::{Duration, Instant};

/// Share of the time left that goes into measuring; the rest is for filling, reopening and cleaning up.
const MEASURED_SHARE: f64 = 0.6;

/// A row is not measured for less than this.
const ROW_MIN: Duration = Duration::from_millis(150);

/// The time of a run, dealt out row by row.
#[derive(Debug)]
pub(crate) struct Budget {
    rule: Rule,
    wished: Duration,
}

#[derive(Debug)]
enum Rule {
    /// Every row gets this.
    Fixed(Duration),
    /// Rows get what they wish, less if the end would come too late.
    Until(Instant),
}

impl Budget {
    /// Gives every row `row`.
    pub(crate) fn fixed(row: Duration) -> Self {
        Self { rule: Rule::Fixed(row), wished: Duration::ZERO }
    }

    /// Gives rows what they wish while the run, whose rows wish `wished` in all, ends before `total` has passed.
    pub(crate) fn until(total: Duration, wished: Duration) -> Self {
        Self { rule: Rule::Until(Instant::now() + total), wished }
    }

    /// Time for a row that wishes `wish`. Ask once for each row that was counted in.
    pub(crate) fn take(&mut self, wish: Duration) -> Duration {
        match self.rule {
            Rule::Fixed(row) => row,
            Rule::Until(end) => {
                let left = end.saturating_duration_since(Instant::now()).mul_f64(MEASURED_SHARE);
                let scale = (left.as_secs_f64() / self.wished.as_secs_f64().max(1e-3)).min(1.0);
                self.wished = self.wished.saturating_sub(wish);
                wish.mul_f64(scale).max(ROW_MIN.min(wish))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_share_what_is_left() {
        let mut budget = Budget::until(Duration::from_secs(10), Duration::from_secs(12));
        let first = budget.take(Duration::from_secs(6));
        assert!(first > Duration::from_millis(2500) && first <= Duration::from_secs(3), "{first:?}");
        let mut ample = Budget::until(Duration::from_secs(100), Duration::from_secs(4));
        assert_eq!(ample.take(Duration::from_secs(2)), Duration::from_secs(2));
        assert_eq!(Budget::fixed(ROW_MIN).take(Duration::from_secs(9)), ROW_MIN);
    }
}

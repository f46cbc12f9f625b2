//! A logarithmic axis with labels at 1, 2 and 5 times the powers of ten: a range of a few factors has more than one of them.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// The axis of a range of positive numbers.
#[derive(Clone, Debug)]
pub(super) struct LogAxis(pub(super) Range<f64>);

impl Ranged for LogAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value / self.0.start).ln() / (self.0.end / self.0.start).ln();
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let powers = self.0.start.log10().floor() as i32..=self.0.end.log10().ceil() as i32;
        let steps = |factors: &'static [f64]| {
            let all =
                powers.clone().flat_map(move |power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
            all.filter(|value| self.0.contains(value)).collect::<Vec<_>>()
        };
        let fine = steps(&[1.0, 2.0, 5.0]);
        if fine.len() <= hint.max_num_points() { fine } else { steps(&[1.0]) }
    }

    fn range(&self) -> Range<f64> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::coord::ranged1d::BoldPoints;

    #[test]
    fn a_narrow_range_has_several_labels_and_a_wide_one_not_too_many() {
        assert_eq!(LogAxis(80.0..600.0).key_points(BoldPoints(12)), [100.0, 200.0, 500.0]);
        assert_eq!(LogAxis(0.9..1e6).key_points(BoldPoints(12)).len(), 6);
    }

    #[test]
    fn ends_of_the_range_are_ends_of_the_axis() {
        let axis = LogAxis(10.0..1000.0);
        assert_eq!([10.0, 100.0, 1000.0].map(|value| axis.map(&value, (300, 100))), [300, 200, 100]);
    }
}

//! The ratio of two things that were measured several times, and how sure it is.
//!
//! Rates and latencies vary by factors and not by sums, so their logarithms are compared. The interval is the one of Welch's t test
//! (B. L. Welch, "The generalization of 'Student's' problem when several different population variances are involved",
//! Biometrika 34, 1947), which lets both sides vary differently; degrees of freedom by his formula, rounded down.
//! Bootstrapping five turns would give intervals that are too narrow: their extremes are the extremes of five numbers.

/// Two-sided 95 % points of Student's t distribution for 1 to 30 degrees of freedom.
const T_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The same for 40, 60 and 120 degrees of freedom.
const T_95_ABOVE: [(f64, f64); 3] = [(40.0, 2.021), (60.0, 2.000), (120.0, 1.980)];

/// Least standard error of a ratio's logarithm: latencies are told apart to a thousandth, so five equal ones are not certain.
const STANDARD_ERROR_MIN: f64 = 0.0005;

/// A ratio and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    /// Of the geometric means.
    pub(crate) value: f64,
    /// 95 % confidence interval; `None` if one side was measured once only.
    pub(crate) interval: Option<(f64, f64)>,
}

impl Ratio {
    /// `after` over `before`; `None` if one of them has no positive value.
    pub(crate) fn of(before: &[f64], after: &[f64]) -> Option<Self> {
        let (before, after) = (Logarithms::of(before)?, Logarithms::of(after)?);
        let difference = after.mean - before.mean;
        let interval = standard_error(&before, &after).map(|(error, freedom)| {
            let reach = t_95(freedom) * error.max(STANDARD_ERROR_MIN);
            ((difference - reach).exp(), (difference + reach).exp())
        });
        Some(Self { value: difference.exp(), interval })
    }

    /// The same the other way round.
    pub(crate) fn inverse(self) -> Self {
        Self { value: 1.0 / self.value, interval: self.interval.map(|(low, high)| (1.0 / high, 1.0 / low)) }
    }
}

/// Mean and variance of logarithms.
struct Logarithms {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Logarithms {
    fn of(values: &[f64]) -> Option<Self> {
        let logarithms: Vec<f64> = values.iter().filter(|value| **value > 0.0).map(|value| value.ln()).collect();
        let count = logarithms.len() as f64;
        if logarithms.is_empty() {
            return None;
        }
        let mean = logarithms.iter().sum::<f64>() / count;
        let squares = logarithms.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        Some(Self { count, mean, variance: squares / (count - 1.0).max(1.0) })
    }
}

/// Standard error of the difference of the means, and its degrees of freedom; `None` if a side has one value only.
fn standard_error(a: &Logarithms, b: &Logarithms) -> Option<(f64, f64)> {
    if a.count < 2.0 || b.count < 2.0 {
        return None;
    }
    let (a_part, b_part) = (a.variance / a.count, b.variance / b.count);
    let both = a_part + b_part;
    let freedom = both.powi(2) / (a_part.powi(2) / (a.count - 1.0) + b_part.powi(2) / (b.count - 1.0));
    // Without any variance it is zero by zero.
    let freedom = if freedom.is_finite() { freedom } else { a.count + b.count - 2.0 };
    Some((both.sqrt(), freedom))
}

fn t_95(freedom: f64) -> f64 {
    let whole = freedom.floor().max(1.0);
    match T_95.get(whole as usize - 1) {
        Some(t) => *t,
        None => T_95_ABOVE.iter().rfind(|(least, _)| whole >= *least).map_or(T_95[29], |(_, t)| *t),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a value computed by hand: logarithms 0, 1, 2 and 1, 3, 5, so variances 1 and 4.
    #[test]
    fn the_interval_is_that_of_welch() {
        let exp = |values: [f64; 3]| values.map(f64::exp);
        let ratio = Ratio::of(&exp([0.0, 1.0, 2.0]), &exp([1.0, 3.0, 5.0])).unwrap();
        assert!((ratio.value.ln() - 2.0).abs() < 1e-9);
        let (low, high) = ratio.interval.unwrap();
        // (1/3 + 4/3)^2 / ((1/9 + 16/9) / 2) = 2.94 degrees of freedom, rounded down: 2.
        let reach = 4.303 * (5.0_f64 / 3.0).sqrt();
        assert!((low.ln() - (2.0 - reach)).abs() < 1e-9 && (high.ln() - (2.0 + reach)).abs() < 1e-9);
    }

    #[test]
    fn equal_measurements_are_not_certain() {
        let ratio = Ratio::of(&[100.0; 5], &[100.0; 5]).unwrap();
        let (low, high) = ratio.interval.unwrap();
        assert_eq!(ratio.value, 1.0);
        assert!(low < 1.0 && high > 1.0);
    }

    #[test]
    fn one_measurement_has_no_interval_and_nothing_has_no_ratio() {
        assert_eq!(Ratio::of(&[1.0], &[2.0, 2.0]).unwrap().interval, None);
        assert_eq!(Ratio::of(&[0.0], &[2.0]), None);
        assert_eq!(Ratio::of(&[], &[]), None);
    }

    #[test]
    fn the_inverse_turns_the_interval_round() {
        let ratio = Ratio { value: 2.0, interval: Some((1.0, 4.0)) }.inverse();
        assert_eq!(ratio, Ratio { value: 0.5, interval: Some((0.25, 1.0)) });
    }

    #[test]
    fn more_freedom_is_a_narrower_interval() {
        let points: Vec<f64> = [0.5, 1.0, 2.9, 30.0, 35.0, 40.0, 90.0, 1e6].map(t_95).to_vec();
        assert!(points.windows(2).all(|pair| pair[0] >= pair[1]), "{points:?}");
        assert_eq!(points[2], 4.303);
        assert_eq!(points[7], 1.980);
    }
}

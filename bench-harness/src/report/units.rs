//! Numbers as people read them: three digits and a unit.

/// A time in ns.
pub fn time(ns: f64) -> String {
    scaled(ns, 1000.0, &["ns", "us", "ms", "s"])
}

/// A count or a rate.
pub fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G"]).trim_end().to_owned()
}

/// A size in bytes.
pub fn size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A whole number as it is, without a unit.
pub(crate) fn whole(value: f64) -> String {
    format!("{}", value.round())
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let (sign, mut value, mut unit) = (if value < 0.0 { "-" } else { "" }, value.abs(), 0);
    while value >= 0.9995 * step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = match value {
        _ if value.fract() == 0.0 => 0,
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{sign}{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(time(0.0), "0 ns");
        assert_eq!(time(999.0), "999 ns");
        assert_eq!(time(81_240.0), "81.2 us");
        assert_eq!(time(999_999.0), "1.00 ms");
        assert_eq!(count(1_234_567.0), "1.23 M");
        assert_eq!(count(12.0), "12");
        assert_eq!(size(-4096.0), "-4 KiB");
    }
}

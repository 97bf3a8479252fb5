//! Sums over what was measured.

use std::fmt::{Display, Formatter, Result};

/// The middle one of several rounds, with the smallest and the largest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// In the middle.
    pub(crate) median: f64,
    min: f64,
    max: f64,
    single: bool,
}

impl Spread {
    /// Of one value at least.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|one| one.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: values.get(values.len() / 2).copied()?,
            min: values.first().copied()?,
            max: values.last().copied()?,
            single: values.first() == values.last(),
        })
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}", short(self.median))?;
        if self.single {
            return Ok(());
        }
        write!(f, " ({}–{})", short(self.min), short(self.max))
    }
}

/// The smallest, which had the least of what else ran on the machine; none of none.
pub(crate) fn smallest(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let finite = values.into_iter().filter(|one| one.is_finite());
    finite.min_by(f64::total_cmp)
}

/// Three digits that count; thousands parted.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        size if size < 999.5 => format!("{value:.0}"),
        size if size < 999_999.5 => {
            let whole = value.round();
            format!(
                "{},{:03.0}",
                (whole / 1000.0).trunc(),
                (whole % 1000.0).abs()
            )
        }
        _ => format!("{value:.2e}"),
    }
}

/// The value below which so large a part of them is; nothing is NaN of none.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = (last as f64 * part).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// Jain's index of fairness: 1 when all have the same, 1/n when one has it all.
pub(crate) fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    if squares == 0.0 {
        f64::NAN
    } else {
        sum * sum / (shares.len() as f64 * squares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown: Vec<String> = [0.857, 9.996, 42.04, 999.4, 1234.6, 95_004.0]
            .map(short)
            .to_vec();
        assert_eq!(shown, ["0.86", "10.0", "42.0", "999", "1,235", "95,004"]);
    }

    #[test]
    fn a_median_has_its_neighbours() {
        let spread = Spread::of([3.0, 1.0, 2.0]).map(|spread| spread.to_string());
        assert_eq!(spread.as_deref(), Some("2.00 (1.00–3.00)"));
        assert!(Spread::of([]).is_none());
    }

    #[test]
    fn fairness_is_between_one_and_a_share() {
        assert!((jain(&[5, 5, 5, 5]) - 1.0).abs() < 1e-9);
        assert!((jain(&[9, 0, 0, 0]) - 0.25).abs() < 1e-9);
    }
}

//! Medians and spreads: on a machine that others use, a mean tells of its worst moment.

/// Values of one quantity, sorted.
#[derive(Debug, Default, Clone)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// From any order.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    /// The value that `percent` of all are at or below (nearest rank); not a number if there are none.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// Smallest and largest.
    pub fn range(&self) -> (f64, f64) {
        (self.percentile(0.0), self.percentile(100.0))
    }
}

//! Whether something stays what it is over a long run: the mean of the second quarter of the samples against that of the last.
//!
//! The first quarter is left out, since caches fill and pools grow in it. A mean, since single samples depend on what was going
//! on just then.

/// Fewest samples: each of the two means is of a quarter of them.
pub const SAMPLES_MIN: usize = 40;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Mean of the second quarter.
    pub before: f64,
    /// Mean of the last.
    pub after: f64,
}

impl Trend {
    /// Looks at samples in the order of their time.
    ///
    /// # Errors
    /// If there are too few of them to say anything, or nothing was measured.
    pub fn of(samples: &[f64]) -> Result<Self, String> {
        if samples.len() < SAMPLES_MIN {
            return Err(format!("expected {SAMPLES_MIN} samples or more, found {}", samples.len()));
        }
        let quarter = samples.len() / 4;
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let trend =
            Self { before: mean(&samples[quarter..2 * quarter]), after: mean(&samples[samples.len() - quarter..]) };
        if trend.before > 0.0 && trend.after > 0.0 {
            Ok(trend)
        } else {
            Err(format!("expected something to be there, found means of {} and {}", trend.before, trend.after))
        }
    }

    /// By what part it has grown, or shrunk if negative.
    #[must_use]
    pub fn growth(&self) -> f64 {
        self.after / self.before - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::{SAMPLES_MIN, Trend};

    fn growth(sample: impl Fn(usize) -> f64) -> f64 {
        Trend::of(&(0..200).map(sample).collect::<Vec<_>>()).expect("enough").growth()
    }

    #[test]
    fn what_leaks_is_seen_and_what_goes_up_and_down_is_not() {
        // Noise of a third, and the same again after 17 samples.
        let noise = |i: usize| ((i * 7919) % 17) as f64 / 17.0 * 0.33;
        assert!(growth(|i| 4.0 * (1.0 + noise(i))).abs() < 0.02);
        // A tenth over the whole run is 5 % between the two means; a quarter is more than a tenth.
        assert!(growth(|i| 4.0 * (1.0 + noise(i)) * (1.0 + 0.1 * i as f64 / 200.0)) < 0.10);
        assert!(growth(|i| 4.0 * (1.0 + noise(i)) * (1.0 + 0.25 * i as f64 / 200.0)) > 0.10);
        assert!(growth(|i| 4.0 + 0.02 * i as f64) > 0.10);
        // Warming up is no leak, and neither is a peak in the middle.
        assert!(growth(|i| if i < 45 { 1.0 + i as f64 / 15.0 } else { 4.0 }).abs() < 0.01);
        assert!(growth(|i| if (100..140).contains(&i) { 9.0 } else { 4.0 }).abs() < 0.01);
        // A leak that begins late, and a step up.
        assert!(growth(|i| if i < 120 { 4.0 } else { 4.0 + 0.02 * (i - 120) as f64 }) > 0.10);
        assert!(growth(|i| if i < 150 { 4.0 } else { 4.5 }) > 0.10);
        assert!(growth(|i| 8.0 - 0.03 * i as f64) < -0.10);
    }

    #[test]
    fn nothing_is_said_of_too_little() {
        assert!(Trend::of(&[1.0; SAMPLES_MIN - 1]).is_err());
        assert!(Trend::of(&[0.0; 100]).is_err());
        assert_eq!(Trend::of(&[2.0; SAMPLES_MIN]), Ok(Trend { before: 2.0, after: 2.0 }));
    }
}

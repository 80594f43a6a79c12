//! Counting: cells that are added to from any thread, and what they are called outside.
//!
//! Invariants: adding is one relaxed atomic addition, never a lock and never memory. Every label value is known beforehand,
//! so what is counted takes bounded memory whatever comes in. What does not fit is counted under the last value, `other`.
//!
//! Absent: how it is written for others to read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows, or one for each value of a label.
pub struct Family {
    /// Name, without the prefix and the ending `_total`.
    pub name: &'static str,
    /// What it counts, in a sentence.
    pub help: &'static str,
    /// Name of the label; empty for a single number.
    pub label: &'static str,
    /// Values of the label, at most 24; a single empty one for a single number.
    pub values: &'static [&'static str],
}

/// Values of a label: each is a line of whatever is written of them.
const VALUES_MAX: usize = 24;

/// A family of one number.
#[must_use]
pub const fn single(name: &'static str, help: &'static str) -> Family {
    Family { name, help, label: "", values: &[""] }
}

/// The numbers of some families.
pub struct Counts {
    families: &'static [Family],
    /// [`VALUES_MAX`] of each family.
    cells: Vec<AtomicU64>,
}

impl Counts {
    /// All zero.
    #[must_use]
    pub fn new(families: &'static [Family]) -> Self {
        let cells = (0..families.len() * VALUES_MAX).map(|_| AtomicU64::new(0)).collect();
        Self { families, cells }
    }

    /// Adds to the value `label` of the family at place `family`.
    pub fn add(&self, family: usize, label: &str, n: u64) {
        let Some(Family { values, .. }) = self.families.get(family) else { return };
        let value = values.iter().position(|v| *v == label).unwrap_or(values.len().saturating_sub(1));
        if let Some(cell) = self.cells.get(family * VALUES_MAX + value) {
            cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Every family with its numbers, in the order of its values.
    pub fn each(&self, tell: &mut dyn FnMut(&'static Family, &[AtomicU64])) {
        for (family, cells) in self.families.iter().zip(self.cells.chunks(VALUES_MAX)) {
            tell(family, cells.get(..family.values.len()).unwrap_or_default());
        }
    }
}

/// Upper bounds of a histogram's buckets.
pub struct Buckets {
    /// In the order of size; the last bucket has no bound.
    bounds: [u32; BOUNDS],
    /// Each as it is written, in the unit of the outside, with blanks between them.
    pub words: &'static str,
    /// How many of the numbers that are observed make one of the unit of the outside.
    pub scale: u64,
}

/// Bounds of a histogram; it has one bucket more.
const BOUNDS: usize = 11;

/// Of a write to disk, in microseconds: an SSD takes 0.1 ms, a worn card seconds.
pub static DISK: Buckets = Buckets {
    bounds: [100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000],
    words: "0.0001 0.0003 0.001 0.003 0.01 0.03 0.1 0.3 1 3 10",
    scale: 1_000_000,
};

/// Of calls of models and tools, in microseconds: a file is read in a millisecond, a slow model answers in a quarter of an
/// hour.
pub static CALL: Buckets = Buckets {
    bounds: [
        10_000,
        30_000,
        100_000,
        300_000,
        1_000_000,
        3_000_000,
        10_000_000,
        30_000_000,
        100_000_000,
        300_000_000,
        1_000_000_000,
    ],
    words: "0.01 0.03 0.1 0.3 1 3 10 30 100 300 1000",
    scale: 1_000_000,
};

/// Of sizes in bytes.
pub static SIZE: Buckets = Buckets {
    bounds: [256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536, 262_144, 1_048_576, 4_194_304],
    words: "256 512 1024 2048 4096 8192 16384 65536 262144 1048576 4194304",
    scale: 1,
};

/// How many observations were how large.
pub struct Histogram {
    /// What its numbers mean.
    pub buckets: &'static Buckets,
    counts: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(buckets: &'static Buckets) -> Self {
        Self { buckets, counts: Default::default(), sum: AtomicU64::new(0) }
    }

    /// Adds an observation.
    pub fn add(&self, observed: u64) {
        let bucket = self.buckets.bounds.iter().position(|bound| observed <= u64::from(*bound)).unwrap_or(BOUNDS);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(observed, Ordering::Relaxed);
    }

    /// Adds a time.
    pub fn took(&self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many observations are at most as large as each bound, and how many there are; then their sum. Consistent in
    /// itself even while others add.
    #[must_use]
    pub fn read(&self) -> ([u64; BOUNDS + 1], u64) {
        let mut below = 0;
        let counts = std::array::from_fn(|i| {
            below += self.counts.get(i).map_or(0, |count| count.load(Ordering::Relaxed));
            below
        });
        (counts, self.sum.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FAMILIES: [Family; 3] =
        [single("a", ""), Family { name: "b", help: "", label: "kind", values: &["x", "y", "other"] }, single("c", "")];

    #[test]
    fn every_cell_is_its_own() {
        let counts = Counts::new(&FAMILIES);
        for (family, label, n) in
            [(0, "", 1), (1, "y", 2), (1, "other", 4), (1, "never heard of", 8), (2, "", 16), (9, "", 32)]
        {
            counts.add(family, label, n);
        }
        let mut found = Vec::new();
        counts.each(&mut |f, cells| {
            found.push((f.name, cells.iter().map(|c| c.load(Ordering::Relaxed)).collect::<Vec<_>>()))
        });
        assert_eq!(found, [("a", vec![1]), ("b", vec![0, 2, 12]), ("c", vec![16])]);
    }

    #[test]
    fn bounds_are_written_as_they_are_and_belong_to_their_bucket() {
        for buckets in [&DISK, &CALL, &SIZE] {
            assert!(buckets.bounds.is_sorted());
            let histogram = Histogram::new(buckets);
            for (i, (bound, word)) in buckets.bounds.iter().zip(buckets.words.split(' ')).enumerate() {
                let value: f64 = word.parse().expect("a number");
                assert!((value * buckets.scale as f64 - f64::from(*bound)).abs() < 1e-6, "{word}");
                histogram.add(u64::from(*bound));
                assert_eq!(histogram.read().0[i], i as u64 + 1, "a bound is inclusive: {word}");
                assert_eq!(i.checked_sub(1).map_or(0, |i| histogram.read().0[i]), i as u64, "{word}");
            }
            let last = u64::from(buckets.bounds[BOUNDS - 1]);
            histogram.add(last + 1);
            assert_eq!(histogram.read().0[BOUNDS], BOUNDS as u64 + 1);
            assert_eq!(histogram.read().1, buckets.bounds.iter().map(|b| u64::from(*b)).sum::<u64>() + last + 1);
        }
        assert_eq!((DISK.bounds[0], DISK.bounds[BOUNDS - 1]), (100, 10_000_000), "100 µs to 10 s");
    }
}

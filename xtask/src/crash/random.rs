//! Choices that are the same for the same seed.

/// Marsaglia's xorshift64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed; 0 is as good as any other.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // xorshift never leaves 0, and small seeds start with small numbers.
        let mut random = Self(seed.wrapping_add(0x9e37_79b9_7f4a_7c15).max(1));
        for _ in 0..8 {
            random.next();
        }
        random
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap_or(0)
    }

    /// At most `count` of the items, in their order.
    pub fn sample<T>(&mut self, mut items: Vec<T>, count: usize) -> Vec<T> {
        while items.len() > count {
            items.remove(self.below(items.len()));
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_same_seed_chooses_the_same_and_another_something_else() {
        let sample = |seed| Random::new(seed).sample((0..1000).collect::<Vec<u32>>(), 10);
        assert_eq!(sample(1), sample(1));
        assert_ne!(sample(1), sample(2));
        assert!(sample(0).is_sorted() && sample(0).len() == 10);
        assert_eq!(Random::new(7).sample(vec![1, 2], 10), [1, 2]);
    }
}

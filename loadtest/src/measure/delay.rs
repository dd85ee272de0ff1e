//! A histogram of durations with a relative error below 2 %, of fixed size, so
//! that hours of packets cost no memory and thousands of receivers little.

/// Buckets of each power of two.
const SUB: u64 = 64;
const SUB_BITS: u32 = SUB.trailing_zeros();
/// Durations below that are told apart no further: 1.024 us.
const UNIT_BITS: u32 = 10;
/// Durations from here on count as that: 73 minutes.
const LIMIT: u64 = (1 << 42) - 1;

/// Counts nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; bucket(LIMIT) + 1],
            total: 0,
            max: 0,
        }
    }
}

fn bucket(value_ns: u64) -> usize {
    let value = value_ns.min(LIMIT) >> UNIT_BITS;
    if value < SUB {
        return value as usize;
    }
    let exponent = value.ilog2() - SUB_BITS;
    (u64::from(exponent) * SUB + (value >> exponent)) as usize
}

/// The smallest value of a bucket.
fn floor(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SUB {
        return bucket << UNIT_BITS;
    }
    let exponent = bucket / SUB - 1;
    (bucket - exponent * SUB) << exponent << UNIT_BITS
}

impl Histogram {
    pub fn record(&mut self, value_ns: u64) {
        let count = &mut self.counts[bucket(value_ns)];
        *count = count.saturating_add(1);
        self.total += 1;
        self.max = self.max.max(value_ns);
    }

    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.total
    }

    /// The value below which the share `q` of all lies, in milliseconds; 0 when
    /// nothing was recorded.
    pub fn quantile_ms(&self, q: f64) -> f64 {
        let rank = (q * self.total as f64).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank.max(1) {
                return floor(index).min(self.max) as f64 / 1e6;
            }
        }
        0.0
    }

    pub fn max_ms(&self) -> f64 {
        self.max as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn buckets_are_ordered_and_narrow(value in 0..LIMIT) {
            let index = bucket(value);
            prop_assert!(floor(index) <= value);
            prop_assert!(index == bucket(LIMIT) || value < floor(index + 1));
            prop_assert!((value - floor(index)) as f64 <= value as f64 / 60.0 + 1024.0);
        }

        #[test]
        fn quantiles_are_those_of_the_values(mut values in prop::collection::vec(0u64..1 << 40, 1..300)) {
            let mut histogram = Histogram::default();
            let mut other = Histogram::default();
            for (number, value) in values.iter().enumerate() {
                if number % 2 == 0 { &mut histogram } else { &mut other }.record(*value);
            }
            histogram.merge(&other);
            values.sort_unstable();
            for q in [0.01, 0.5, 0.99, 1.0] {
                let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
                let exact = values[rank - 1] as f64 / 1e6;
                let got = histogram.quantile_ms(q);
                prop_assert!(got <= exact && got >= exact * 0.98 - 0.0011, "{got} for {exact}");
            }
        }
    }
}

//! [`AggregateFunction`]: how records become an accumulator, and accumulators a result. After Flink's interface
//! of the same name.

use rkyv::Archived;
use tidemill_storage::record::Record;

/// How records of one key are summed up. Functions are pure: all state is in the accumulator.
///
/// ```
/// use tidemill_operators::aggregate::AggregateFunction;
/// use rkyv::Archived;
///
/// /// The mean of a stream of numbers.
/// #[derive(Clone)]
/// struct Mean;
///
/// impl AggregateFunction<f64> for Mean {
///     type Accumulator = (f64, u64);
///     type Output = f64;
///
///     fn create(&self) -> (f64, u64) { (0.0, 0) }
///     fn add(&self, sum: &mut (f64, u64), value: &Archived<f64>) {
///         sum.0 += value.to_native();
///         sum.1 += 1;
///     }
///     fn merge(&self, into: &mut (f64, u64), other: &(f64, u64)) {
///         into.0 += other.0;
///         into.1 += other.1;
///     }
///     fn result(&self, sum: &(f64, u64)) -> f64 { sum.0 / sum.1 as f64 }
/// }
/// ```
pub trait AggregateFunction<T: Record>: Clone + Send + 'static {
    /// What is kept per key and window.
    type Accumulator: Record + Clone;
    /// What comes of it.
    type Output: 'static;

    /// The accumulator of no records.
    fn create(&self) -> Self::Accumulator;
    /// Adds one record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: &Archived<T>);
    /// Adds what another accumulator holds; sliding windows are put together from slices by it.
    fn merge(&self, into: &mut Self::Accumulator, other: &Self::Accumulator);
    /// The result of all records added.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Output;
}

/// Counts records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count;

impl<T: Record> AggregateFunction<T> for Count {
    type Accumulator = u64;
    type Output = u64;

    fn create(&self) -> u64 {
        0
    }

    #[inline(always)]
    fn add(&self, count: &mut u64, _record: &Archived<T>) {
        *count += 1;
    }

    fn merge(&self, into: &mut u64, other: &u64) {
        *into += other;
    }

    fn result(&self, count: &u64) -> u64 {
        *count
    }
}

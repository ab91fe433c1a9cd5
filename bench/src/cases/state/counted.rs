//! Contents that prove themselves: from an update's rule, how often a key was updated says what its value is.

use tidemill::storage::{key::bits_of_hash, log::table::LogTable, record::restore, state::KeyedTable};

use super::bed::Value;
use crate::error::BenchError;

/// Whether [`touch`](super::bed::Touched::touch) makes this value of a key in `value[0]` updates.
pub(super) fn is_right(key: u64, value: &Value) -> bool {
    let count = value[0];
    count > 0 && value[1] == key.wrapping_mul(count) && value[2] == key * (count % 2) && value[3] == key
}

/// Fails unless there are so many keys, with so many updates in all, and every value is right.
pub(super) fn check(
    row: &str,
    table: &mut LogTable<u64, Value>,
    keys: u64,
    updates: u64,
) -> Result<(), BenchError> {
    let (mut seen, mut counted, mut difference) = (0, 0, None);
    table.scan(0, |key, value| {
        let (bits, value) = (bits_of_hash(key.hash), restore::<Value>(value));
        if !is_right(bits, &value) {
            difference = Some(format!("key {bits} has {value:?}"));
        }
        (seen, counted) = (seen + 1, counted + value[0]);
        difference.is_none()
    });
    if difference.is_none() && (seen, counted) != (keys, updates) {
        difference = Some(format!("{seen} keys updated {counted} times instead of {keys} and {updates}"));
    }
    match difference {
        None => Ok(()),
        Some(difference) => {
            Err(BenchError::WrongAnswer { side: "the log".to_owned(), query: row.to_owned(), difference })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::bed::Touched, *};

    #[test]
    fn what_touch_makes_is_right_and_nothing_else() {
        let mut value = [0; 4];
        for _ in 0..5 {
            value.touch(77);
            assert!(is_right(77, &value));
        }
        assert!(!is_right(78, &value));
        value[1] += 1;
        assert!(!is_right(77, &value));
    }
}

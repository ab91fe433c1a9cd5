//! What a job should have committed, and what it has.

use std::{fs, path::Path};

use tidemill_postgres_server::{self as postgres_server, PostgresServer};

use super::{
    job::{KEYS, RECORDS_PER_MS, Row, WINDOW_MS, key},
    outside::TABLE,
};
use crate::error::BenchError;

/// Records of a window.
const RECORDS_PER_WINDOW: u64 = RECORDS_PER_MS * WINDOW_MS as u64;

/// Every row that a job should have committed.
pub(super) struct Expected {
    /// Number and sum of the records, by window and key.
    sums: Vec<(u64, u64)>,
}

/// What was found in one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) rows: u64,
    /// Not there.
    pub(super) lost: u64,
    /// There once more.
    pub(super) duplicated: u64,
    /// No row, not of this job, or with another result.
    pub(super) wrong: u64,
}

impl Committed {
    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.wrong += other.wrong;
    }

    pub(super) fn is_bad(&self) -> bool {
        self.lost + self.duplicated + self.wrong > 0
    }
}

impl Expected {
    /// Of a job with so many records.
    pub(super) fn of(records: u64) -> Self {
        let windows = records.div_ceil(RECORDS_PER_WINDOW);
        let mut sums = vec![(0, 0); (windows * KEYS) as usize];
        for record in 0..records {
            let sum = &mut sums[(record / RECORDS_PER_WINDOW * KEYS + key(record)) as usize];
            sum.0 += 1;
            sum.1 += record;
        }
        Self { sums }
    }

    /// Compares with rows that were committed; `None` for what is no row.
    pub(super) fn compare(&self, rows: impl IntoIterator<Item = Option<Row>>) -> Committed {
        let (mut committed, mut seen) = (Committed::default(), vec![0_u64; self.sums.len()]);
        for row in rows {
            committed.rows += 1;
            let place = row.as_ref().and_then(|row| self.place(row));
            let Some((row, place)) = row.zip(place) else {
                committed.wrong += 1;
                continue;
            };
            seen[place] += 1;
            committed.wrong += u64::from(self.sums[place] != (row.count, row.sum));
        }
        for (&times, &(records, _)) in seen.iter().zip(&self.sums) {
            committed.lost += u64::from(records > 0 && times == 0);
            committed.duplicated += times.saturating_sub(1);
        }
        committed
    }

    /// Where its window and key are.
    fn place(&self, row: &Row) -> Option<usize> {
        let start = u64::try_from(row.start_ms).ok()?;
        let (window, of_window) = (start / WINDOW_MS as u64, start % WINDOW_MS as u64);
        let place = window.checked_mul(KEYS)?.checked_add(row.key)? as usize;
        let exists = row.key < KEYS && of_window == 0 && self.sums.get(place)?.0 > 0;
        exists.then_some(place)
    }
}

/// The rows of all committed files.
pub(super) fn in_files(directory: &Path) -> Result<Vec<Option<Row>>, BenchError> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if !path.is_dir() {
            rows.extend(fs::read_to_string(&path)?.lines().map(parse));
        }
    }
    Ok(rows)
}

fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split(',');
    let row = Row {
        key: fields.next()?.parse().ok()?,
        start_ms: fields.next()?.parse().ok()?,
        count: fields.next()?.parse().ok()?,
        sum: fields.next()?.parse().ok()?,
    };
    fields.next().is_none().then_some(row)
}

/// The rows of the table.
pub(super) fn in_table(server: &PostgresServer) -> Result<Vec<Option<Row>>, BenchError> {
    let query = format!("SELECT key, start_ms, count, sum FROM {TABLE}");
    let rows = server.query(&query)?;
    let row = |row: &postgres_server::Row| {
        let [key, start_ms, count, sum] = [0, 1, 2, 3].map(|column| row.get::<_, i64>(column));
        Some(Row {
            key: key.try_into().ok()?,
            start_ms,
            count: count.try_into().ok()?,
            sum: sum.try_into().ok()?,
        })
    };
    Ok(rows.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: u64 = 2 * RECORDS_PER_WINDOW;

    fn all() -> (Expected, Vec<Option<Row>>) {
        let expected = Expected::of(RECORDS);
        let rows = expected.sums.iter().enumerate().map(|(place, &(count, sum))| {
            let (window, key) = (place as u64 / KEYS, place as u64 % KEYS);
            Some(Row { key, start_ms: window as i64 * WINDOW_MS, count, sum })
        });
        let rows = rows.collect();
        (expected, rows)
    }

    #[test]
    fn every_row_once_is_right() {
        let (expected, rows) = all();
        assert_eq!(expected.sums.iter().map(|(count, _)| count).sum::<u64>(), RECORDS);
        let right = Committed { rows: 2 * KEYS, ..Committed::default() };
        assert_eq!(expected.compare(rows), right);
        assert!(!right.is_bad());
    }

    #[test]
    fn what_is_lost_there_twice_or_different_is_counted() {
        let (expected, mut rows) = all();
        let twice = rows.pop();
        rows.push(rows[0].clone());
        rows.extend([None, None]);
        assert!(twice.is_some());
        if let Some(row) = &mut rows[1] {
            row.sum += 1;
        }
        let found = expected.compare(rows);
        assert_eq!(found, Committed { rows: 2 * KEYS + 2, lost: 1, duplicated: 1, wrong: 3 });
        assert!(found.is_bad());
    }

    #[test]
    fn a_row_of_no_window_is_wrong() {
        let (expected, rows) = all();
        let bad = |change: fn(&mut Row)| {
            let mut row = rows[0].clone();
            row.iter_mut().for_each(change);
            expected.compare([row]).wrong
        };
        assert_eq!(bad(|_| {}), 0);
        assert_eq!(bad(|row| row.key = KEYS), 1);
        assert_eq!(bad(|row| row.start_ms = -WINDOW_MS), 1);
        assert_eq!(bad(|row| row.start_ms = 1), 1);
        assert_eq!(bad(|row| row.start_ms = 2 * WINDOW_MS), 1);
    }

    #[test]
    fn lines_are_rows_of_four_numbers() {
        assert_eq!(parse("1,-2,3,4"), Some(Row { key: 1, start_ms: -2, count: 3, sum: 4 }));
        assert!(parse("1,2,3").is_none() && parse("1,2,3,4,5").is_none() && parse("1,2,3,x").is_none());
    }
}

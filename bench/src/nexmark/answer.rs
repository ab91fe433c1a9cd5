//! The queries that are measured, and their answers in a form that can be compared.

use super::rows::Checksum;
use crate::error::BenchError;

/// A query of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Query {
    /// Every bid.
    Q0,
    /// Every bid, its price in another currency.
    Q1,
    /// Bids in every 123rd auction.
    Q2,
    /// The auctions with most bids in each hopping window.
    Q5,
    /// Persons who joined and opened an auction in the same tumbling window.
    Q8,
}

impl Query {
    /// The queries in their order.
    pub const ALL: [Self; 5] = [Self::Q0, Self::Q1, Self::Q2, Self::Q5, Self::Q8];

    /// The query's usual name, `q0` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q0 => "q0",
            Self::Q1 => "q1",
            Self::Q2 => "q2",
            Self::Q5 => "q5",
            Self::Q8 => "q8",
        }
    }
}

/// A row of q5: one of the auctions with most bids in a window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct HotItem {
    /// Where the window starts, milliseconds since 1970.
    pub window_start: i64,
    /// The auction.
    pub auction: i64,
    /// Its bids in the window.
    pub bids: u64,
}

/// A row of q8: a person who joined and sold in one window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct NewUser {
    /// The person.
    pub id: i64,
    /// The person's name.
    pub name: String,
    /// Where the window starts, milliseconds since 1970.
    pub window_start: i64,
}

/// What a query gives over a whole range of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// q0, q1, q2: one row per bid or so, kept as a checksum.
    Rows(Checksum),
    /// q5, sorted.
    HotItems(Vec<HotItem>),
    /// q8, sorted.
    NewUsers(Vec<NewUser>),
}

impl Answer {
    /// The answer of q5 from its rows in any order.
    pub fn hot_items(mut rows: Vec<HotItem>) -> Self {
        rows.sort_unstable();
        Self::HotItems(rows)
    }

    /// The answer of q8 from its rows in any order.
    pub fn new_users(mut rows: Vec<NewUser>) -> Self {
        rows.sort_unstable();
        Self::NewUsers(rows)
    }

    /// How many rows the query gave.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Rows(checksum) => checksum.rows,
            Self::HotItems(rows) => rows.len() as u64,
            Self::NewUsers(rows) => rows.len() as u64,
        }
    }

    /// Holds this answer of `side` against the reference.
    ///
    /// # Errors
    /// [`BenchError::WrongAnswer`], naming the first difference, when they are not equal.
    pub fn check(&self, side: &str, query: Query, reference: &Self) -> Result<(), BenchError> {
        if self == reference {
            return Ok(());
        }
        let difference = match (self, reference) {
            (Self::HotItems(got), Self::HotItems(expected)) => first_difference(got, expected),
            (Self::NewUsers(got), Self::NewUsers(expected)) => first_difference(got, expected),
            (got, expected) => format!("got {got:?}, expected {expected:?}"),
        };
        Err(BenchError::WrongAnswer { side: side.to_owned(), query: query.name().to_owned(), difference })
    }
}

fn first_difference<T: PartialEq + std::fmt::Debug>(got: &[T], expected: &[T]) -> String {
    let same = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    format!(
        "{} rows, expected {}; row {same} is {:?}, expected {:?}",
        got.len(),
        expected.len(),
        got.get(same),
        expected.get(same)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_names_the_first_difference() {
        let row = |bids| HotItem { window_start: 0, auction: 1, bids };
        let (right, wrong) =
            (Answer::hot_items(vec![row(2), row(1)]), Answer::hot_items(vec![row(1), row(3)]));
        assert!(right.check("x", Query::Q5, &right).is_ok());
        let message = wrong.check("peer", Query::Q5, &right).unwrap_err().to_string();
        assert!(message.contains("peer") && message.contains("q5") && message.contains("row 1"), "{message}");
    }
}

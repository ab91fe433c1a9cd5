//! The records of the tests, and inputs made of them without chance.

use tidemill_storage::Record;

/// A record without pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Record)]
pub struct Trade {
    pub id: u64,
    pub at: i64,
    pub account: u32,
    pub amount: i64,
}

#[derive(Clone, Debug, PartialEq, Record)]
pub enum Side {
    Buy,
    Sell { reason: String },
    Swap(u32, Option<String>),
}

#[derive(Clone, Debug, PartialEq, Record)]
pub struct Leg {
    pub symbol: String,
    pub prices: Vec<f64>,
}

/// A record with everything that a record may have.
#[derive(Clone, Debug, PartialEq, Record)]
pub struct Order {
    pub id: u64,
    pub client: String,
    pub note: Option<String>,
    pub side: Side,
    pub legs: Vec<Leg>,
    pub parent: Option<Leg>,
    pub tags: Vec<Vec<String>>,
    pub pair: (u8, String),
}

/// Numbers that look random and are the same in every run.
pub struct Numbers(u64);

impl Numbers {
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// How far out of order [`trades`] are at most, in milliseconds.
pub const DISORDER_MS: u64 = 40;

/// Trades of seven accounts over about ten milliseconds each, out of order by less than [`DISORDER_MS`].
pub fn trades(count: u64) -> Vec<Trade> {
    let mut numbers = Numbers::from_seed(count);
    (0..count)
        .map(|id| Trade {
            id,
            at: 10 * id as i64 - numbers.below(DISORDER_MS) as i64 - 300,
            account: numbers.below(7) as u32,
            amount: numbers.below(1000) as i64 - 500,
        })
        .collect()
}

/// The same, in splits such that all trades of an account are in one: their order is then fixed.
pub fn splits_by_account(trades: &[Trade], splits: u32) -> Vec<Vec<Trade>> {
    (0..splits)
        .map(|split| trades.iter().filter(|trade| trade.account % splits == split).copied().collect())
        .collect()
}

pub fn orders(count: u64) -> Vec<Order> {
    let mut numbers = Numbers::from_seed(count);
    let word = |numbers: &mut Numbers| "abcdefghijklmnopqrstuvwxyz"[..numbers.below(26) as usize].to_owned();
    let leg = |numbers: &mut Numbers| Leg {
        symbol: word(numbers),
        prices: (0..numbers.below(4)).map(|n| n as f64 / 3.0).collect(),
    };
    (0..count)
        .map(|id| Order {
            id,
            client: word(&mut numbers),
            note: (id % 3 == 0).then(|| word(&mut numbers)),
            side: match id % 4 {
                0 => Side::Buy,
                1 => Side::Sell { reason: word(&mut numbers) },
                2 => Side::Swap(id as u32, None),
                _ => Side::Swap(7, Some(word(&mut numbers))),
            },
            legs: (0..numbers.below(3)).map(|_| leg(&mut numbers)).collect(),
            parent: (id % 2 == 0).then(|| leg(&mut numbers)),
            tags: (0..numbers.below(3)).map(|_| vec![word(&mut numbers); 2]).collect(),
            pair: (id as u8, word(&mut numbers)),
        })
        .collect()
}

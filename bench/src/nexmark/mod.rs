//! Nexmark, the online auction: events, their generator, the queries' answers and slow references.
//!
//! Event `n` is a pure function of `n` and a [`Config`], so every split of an id range over sources gives
//! the same multiset of events. Views ([`BidRef`] and its siblings) borrow all text from tables that live
//! as long as the process: an engine decides itself whether to copy, serialize or own it.

mod answer;
mod config;
mod events;
pub mod fields;
mod generator;
mod ids;
mod model;
pub(crate) mod random;
pub mod reference;
mod rows;
mod split;
mod text;
mod view;

pub use answer::{Answer, HotItem, NewUser, Query};
pub use config::Config;
pub use events::Events;
pub use generator::Generator;
pub use ids::{EPOCH_EVENTS, Kind, kind_of};
pub use model::{Auction, Bid, Event, Person};
pub use rows::{Checksum, q0_row, q1_row, q2_row};
pub use split::Split;
pub use view::{AuctionRef, BidRef, EventRef, PersonRef};

/// How far the watermark trails the largest event time, in milliseconds.
pub const WATERMARK_DELAY_MS: i64 = 4_000;
/// The size of q5's hopping window, in milliseconds.
pub const HOT_ITEMS_SIZE_MS: i64 = 10_000;
/// The slide of q5's hopping window, in milliseconds.
pub const HOT_ITEMS_SLIDE_MS: i64 = 2_000;
/// The size of q8's tumbling window, in milliseconds.
pub const NEW_USERS_SIZE_MS: i64 = 10_000;

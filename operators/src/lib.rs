//! Tidemill's operators, sources and sinks, and the typed stream API.
//!
//! Begin with [`api`]. Each operator has a file of its own; those of keyed streams stand in [`keyed`] and [`window`].

pub mod aggregate;
pub mod api;
pub mod assign_timestamps;
pub mod backend;
pub mod ends;
pub mod exchange;
pub mod filter;
pub mod filter_map;
pub mod flat_map;
pub mod fork;
pub mod inspect;
pub mod kept;
pub mod keyed;
pub mod map;
pub mod ship_as;
pub mod sim;
pub mod sink;
pub mod source;
pub mod source_chain;
mod stage;
pub mod testkit;
pub mod window;

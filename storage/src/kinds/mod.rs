//! The kinds of state: what a value, a list, a map or a timer is, made of keyed tables and of nothing else.
//!
//! Everything here is generic over the [`StateBackend`](crate::state::StateBackend) and keeps nothing in memory that it
//! could not find again in its tables: so all of it is as durable as the backend. Semantics and words are Flink's.
//!
//! | kind | per key | tables |
//! |---|---|---|
//! | [`value`] | one value | key → value |
//! | [`reducing`], [`aggregating`] | one value, combined with each that is added | key → value |
//! | [`list`] | elements in order | key → [head](list::ListHead); (key, page number) → [page] |
//! | [`map`] | values by map keys | (key, map key) → value, position; (key, position) → map key; key → count |
//! | [`timers`] | points in time | per second: (key, time) → nothing |
//! | [`time_buffer`] | records in the order of time | per bucket of time: those of a list |
//!
//! [`ttl`] says when values, elements and entries expire; [`ttl_value`], [`ttl_list`] and [`ttl_map`] keep them with a time
//! stamp. [`broadcast`] and [`operator_list`] are not keyed: they become blobs of a snapshot.
//!
//! **Names.** A state of several tables opens the one that holds its values under its own name, and the others under
//! its name with a suffix after a slash. [`descriptor`] gives the name, the types and the migrations in one.
//!
//! **Key groups.** Tables of entries have [composite] keys, which stay in the key group of their key.
//!
//! **Time** comes in as a parameter, in milliseconds; nothing here reads a clock.

pub mod aggregating;
pub mod blob;
pub mod broadcast;
pub mod composite;
pub mod descriptor;
pub mod list;
pub mod map;
pub mod operator_list;
pub mod page;
pub mod reducing;
pub mod time_buffer;
pub mod timers;
pub mod ttl;
pub mod ttl_list;
pub mod ttl_map;
pub mod ttl_value;
pub mod value;

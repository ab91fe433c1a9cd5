//! Windows of event time over keyed streams.
//!
//! [`assigner`] says which windows there are, [`function`] what is computed in one, [`late`] where records go that come
//! after their windows are gone, and [`operator`] runs them.

pub mod assigner;
pub mod function;
pub mod late;
pub mod operator;

//! Windows of event time over keyed streams.
//!
//! [`assigner`] says which windows there are, [`function`] and [`apply`] what is computed in one, [`pane`] and [`accumulator`] how the
//! records of one are kept until then, [`late`] where records go that come after their windows are gone, and [`operator`]
//! runs them. [`combine`] sums records up before they cross to the window's core, and [`combined`] goes on from there.

pub mod accumulator;
pub mod apply;
pub mod assigner;
pub mod combine;
pub mod combined;
pub mod function;
pub mod late;
pub mod operator;
pub mod pane;
mod partials;
mod timeline;

/// Why a window of event time stops the job at a record that has none.
const NO_EVENT_TIME: &str = "a record without a timestamp came to a window of event time";

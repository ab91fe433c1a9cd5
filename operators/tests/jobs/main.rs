//! Whole jobs on both platforms: their results, their failures, what they tell and what they hold on to.
#![allow(clippy::unwrap_used)]

extern crate tidemill_storage as tidemill;

mod beginnings;
mod changed_job;
mod checkpoint_settings;
mod combine;
mod damage;
mod drained;
mod equality;
mod event_time;
mod exactly_once;
mod failure;
mod files_exactly_once;
mod files_in_place;
mod machine_lost;
mod metrics;
mod pressure;
mod records;
mod recovery;
mod region_failures;
mod regions;
mod restore;
mod savepoints;
mod savepoints_in_directories;
mod state;
mod stopping;
mod timers;
mod windows;
mod write_ahead;

//! `floor`: the machine's own noise, to be held beside every tail latency.

use std::time::Duration;

use super::Options;
use crate::{
    error::BenchError,
    floor,
    report::{Latencies, Line, Reporter},
};

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let histogram = floor::measure(options.cores, Duration::from_secs(options.pick(10, 2)));
    let mut line = Line::new("floor", "spin", options.cores);
    let latencies = Latencies::of_nanos(&histogram);
    line.floor_p999_us = Some(latencies.p999_us);
    line.latencies = Some(latencies);
    reporter.print(&line)
}

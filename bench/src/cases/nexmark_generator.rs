//! `nexmark-generator`: how fast events are made, which bounds every figure that includes them.

use std::{hint::black_box, time::Instant};

use super::Options;
use crate::{
    error::BenchError,
    nexmark::{Config, EventRef, Generator, Split, fields},
    report::{Line, Reporter},
    versus::{Rounds, per_second},
};

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let events = options.pick(20_000_000, 1_000_000);
    let rounds = options.pick(5, 3);
    let mut figure = |case: &str, pass: fn(u64)| {
        pass(events / 10);
        let rounds = Rounds::measure(rounds, || {
            let start = Instant::now();
            pass(events);
            Ok::<_, BenchError>(per_second(events, start.elapsed()))
        })?;
        let line = Line::new("nexmark-generator", case, 1).rounds(&rounds, "events/s");
        reporter.print(&line.over(events, Some(Config::RATE_PER_S)))
    };
    figure("all-views", views::<{ fields::ALL }>)?;
    figure("all-copied", copies)?;
    figure("all-owned", owned)?;
    figure("q0-views", views::<{ fields::Q0 }>)?;
    figure("q2-views", views::<{ fields::Q2 }>)?;
    figure("q8-views", views::<{ fields::Q8 }>)
}

fn generate<const FIELDS: u32>(events: u64) -> Generator<FIELDS> {
    Generator::new(Config::default(), Split::whole(0..events))
}

/// Every field of every view is made, and no text is read.
fn views<const FIELDS: u32>(events: u64) {
    for event in generate::<FIELDS>(events) {
        black_box(&event);
    }
}

/// All text is copied to one buffer, as serializing would.
fn copies(events: u64) {
    const BUFFER_BYTES: usize = 1 << 16;
    let mut buffer: Vec<u8> = Vec::with_capacity(BUFFER_BYTES);
    let mut copy = |texts: &[&str]| {
        if buffer.len() + 4096 > BUFFER_BYTES {
            black_box(&buffer);
            buffer.clear();
        }
        texts.iter().for_each(|text| buffer.extend_from_slice(text.as_bytes()));
    };
    for event in generate::<{ fields::ALL }>(events) {
        match &event {
            EventRef::Person(person) => copy(&person.texts()),
            EventRef::Auction(auction) => copy(&auction.texts()),
            EventRef::Bid(bid) => copy(&bid.texts()),
        }
        black_box(&event);
    }
}

/// Every text becomes a `String` of its own, and is dropped.
fn owned(events: u64) {
    for event in generate::<{ fields::ALL }>(events) {
        black_box(event.to_owned());
    }
}

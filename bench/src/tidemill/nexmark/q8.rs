//! q8: who joined and opened an auction in the same window of 10 s.

use std::time::Duration;

use ::tidemill::prelude::*;

use super::Job;
use crate::{
    error::BenchError,
    nexmark::{Answer, EventRef, NEW_USERS_SIZE_MS, NewUser, WATERMARK_DELAY_MS, fields},
    peers::QueryRun,
    tidemill::{environment, timed},
};

/// A person or an auction, as far as q8 reads it.
#[derive(Record, Clone)]
struct Activity {
    person: i64,
    /// With a name the person joined, without one the person opened an auction.
    joined_as: Option<String>,
}

/// An [`Activity`] whose text is borrowed, with its time.
#[derive(WriteAs, Clone)]
#[write_as(Activity)]
struct ActivityView {
    person: i64,
    joined_as: Option<&'static str>,
}

/// An activity and when it was.
struct Timed {
    date_time: i64,
    activity: ActivityView,
}

fn activity(event: EventRef<'static>) -> Option<Timed> {
    match event {
        EventRef::Person(person) => Some(Timed {
            date_time: person.date_time,
            activity: ActivityView { person: person.id, joined_as: Some(person.name) },
        }),
        EventRef::Auction(auction) => Some(Timed {
            date_time: auction.date_time,
            activity: ActivityView { person: auction.seller, joined_as: None },
        }),
        EventRef::Bid(_) => None,
    }
}

/// What a person did in one window.
#[derive(Clone)]
struct JoinedAndSold;

impl AggregateFunction<Activity> for JoinedAndSold {
    /// The name, if the person joined; whether the person sold.
    type Accumulator = (Option<String>, bool);
    type Output = Option<String>;

    fn create(&self) -> (Option<String>, bool) {
        (None, false)
    }

    fn add(&self, seen: &mut (Option<String>, bool), activity: &Archived<Activity>) {
        match activity.joined_as.as_ref() {
            Some(name) => seen.0 = Some(name.as_str().to_owned()),
            None => seen.1 = true,
        }
    }

    fn merge(&self, into: &mut (Option<String>, bool), other: &(Option<String>, bool)) {
        if other.0.is_some() {
            into.0.clone_from(&other.0);
        }
        into.1 |= other.1;
    }

    fn result(&self, seen: &(Option<String>, bool)) -> Option<String> {
        if seen.1 { seen.0.clone() } else { None }
    }
}

pub(super) fn run(job: Job) -> Result<QueryRun, BenchError> {
    let env = environment(job.cores);
    let (sink, rows) = CollectSink::new();
    let size = Duration::from_millis(NEW_USERS_SIZE_MS as u64);
    let delay = Duration::from_millis(WATERMARK_DELAY_MS as u64);
    let strategy = WatermarkStrategy::for_bounded_out_of_orderness(delay)
        .with_timestamps(|timed: &Timed| timed.date_time);
    job.source::<{ fields::Q8 }, _, _, _>(&env, activity, strategy)
        .map(|timed| timed.activity)
        .ship_as::<Activity>()
        .key_by(|activity| activity.person)
        .window(TumblingEventTime::of(size))
        .aggregate(JoinedAndSold)
        .filter_map(|seen| {
            let (id, window_start) = (seen.key, seen.window.start);
            seen.value.map(|name| NewUser { id, name, window_start })
        })
        .sink("new users", sink);
    let elapsed = timed(env)?;
    Ok(QueryRun { answer: Answer::new_users(rows.take()), elapsed })
}

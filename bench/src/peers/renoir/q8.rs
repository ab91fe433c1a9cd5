//! q8: persons who joined and opened an auction in the same window of 10 s.
//!
//! Both kinds of event go through one exchange by person, and one fold per person and window sees whether
//! both happened; a window join would give a row for each auction instead.

use serde::{Deserialize, Serialize};

use super::{Job, aligned_window::AlignedWindow, source};
use crate::{
    error::BenchError,
    nexmark::{Answer, EventRef, NEW_USERS_SIZE_MS, NewUser, fields},
    peers::QueryRun,
};

/// A person or an auction, as far as q8 reads it.
#[derive(Clone, Serialize, Deserialize)]
struct Activity {
    person: i64,
    date_time: i64,
    /// With a name the person joined, without one the person opened an auction.
    joined_as: Option<String>,
}

impl Activity {
    fn from_event(event: EventRef<'static>) -> Option<Self> {
        match event {
            EventRef::Person(person) => Some(Self {
                person: person.id,
                date_time: person.date_time,
                joined_as: Some(person.name.to_owned()),
            }),
            EventRef::Auction(auction) => {
                Some(Self { person: auction.seller, date_time: auction.date_time, joined_as: None })
            }
            EventRef::Bid(_) => None,
        }
    }
}

/// What a person did in one window.
#[derive(Clone, Default)]
struct Seen {
    window_start: i64,
    name: Option<String>,
    sold: bool,
}

pub(super) fn run(job: Job) -> Result<QueryRun, BenchError> {
    let (rows, elapsed) = job.execute(|context| {
        source::events::<{ fields::Q8 }, _, _>(context, job, Activity::from_event)
            .add_timestamps(|activity| activity.date_time, source::watermarks(NEW_USERS_SIZE_MS))
            .group_by(|activity| activity.person)
            .window(AlignedWindow::tumbling(NEW_USERS_SIZE_MS))
            .fold(Seen::default(), |seen, activity: &Activity| {
                seen.window_start = activity.date_time - activity.date_time.rem_euclid(NEW_USERS_SIZE_MS);
                match &activity.joined_as {
                    Some(name) => seen.name = Some(name.clone()),
                    None => seen.sold = true,
                }
            })
            .unkey()
            .filter_map(|(id, Seen { window_start, name, sold })| {
                name.filter(|_| sold).map(|name| NewUser { id, name, window_start })
            })
            .collect_vec()
    })?;
    Ok(QueryRun { answer: Answer::new_users(rows), elapsed })
}

//! Functions of one's own with state and timers, in whole jobs.

use std::collections::BTreeMap;

use rkyv::Archived;
use tidemill_engine::{
    model::{
        source::BoxError,
        time::{NO_TIMESTAMP, Timestamp},
        watermark::WatermarkStrategy,
    },
    platform::SIM_EPOCH_MILLIS,
};
use tidemill_operators::{
    keyed::process::{FiredTimer, KeyedProcessFunction, ProcessContext, StateRegistry, ValueState},
    testkit::{
        job::{run, same_everywhere, settings},
        script::ScriptSource,
    },
};

use crate::records::{DISORDER_MS, Trade, splits_by_account, trades};

/// Sums up amounts per account and tells the sum at fixed times of event time, as of then.
struct Report {
    sum: ValueState<i64>,
    next: ValueState<i64>,
}

const EVERY_MS: i64 = 250;

fn report(states: &mut StateRegistry<String>) -> Report {
    Report { sum: states.value("sum"), next: states.value("next") }
}

impl KeyedProcessFunction<String, Trade> for Report {
    type Output = (String, Timestamp, i64);

    fn on_record(
        &mut self,
        trade: &Archived<Trade>,
        context: &mut ProcessContext<'_, String, Self::Output>,
    ) -> Result<(), BoxError> {
        assert_eq!(context.key(), format!("account {}", trade.account));
        assert_eq!(context.timestamp(), trade.at.to_native());
        assert!(context.watermark() < trade.at.to_native(), "a record in time");
        let due = (trade.at.to_native().div_euclid(EVERY_MS) + 1) * EVERY_MS;
        context.register_event_timer(due);
        // Registered twice, fires once; registered and deleted, does not fire.
        context.register_event_timer(due);
        context.register_event_timer(due + 1);
        context.delete_event_timer(due + 1);
        context.update(self.sum, || 0, |sum| *sum += trade.amount.to_native());
        context.set(self.next, due);
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: FiredTimer,
        context: &mut ProcessContext<'_, String, Self::Output>,
    ) -> Result<(), BoxError> {
        let FiredTimer::EventTime(at) = timer else { return Err("no such timer was registered".into()) };
        assert_eq!(at, context.timestamp());
        assert!(context.watermark() >= at);
        if context.get(self.next) == Some(at) {
            // The last one so far: the sum as of then, and a new beginning.
            let sum = context.get(self.sum).unwrap_or_default();
            context.clear(self.sum);
            let key = context.key();
            context.collect((key, at, sum));
        }
        Ok(())
    }
}

/// Timestamps in order within each account, so that what a timer sees is known.
fn in_order() -> Vec<Trade> {
    trades(150).into_iter().map(|trade| Trade { at: 10 * trade.id as i64 - 300, ..trade }).collect()
}

#[test]
fn state_and_event_time_timers_per_key() {
    let mut expected = Vec::new();
    let mut by_account: BTreeMap<u32, Vec<Trade>> = BTreeMap::new();
    in_order().into_iter().for_each(|trade| by_account.entry(trade.account).or_default().push(trade));
    for (account, trades) in by_account {
        let mut by_time: BTreeMap<i64, i64> = BTreeMap::new();
        for trade in trades {
            *by_time.entry((trade.at.div_euclid(EVERY_MS) + 1) * EVERY_MS).or_default() += trade.amount;
        }
        expected.extend(by_time.into_iter().map(|(at, sum)| (format!("account {account}"), at, sum)));
    }
    for setting in settings(3) {
        let mut results = run(&setting, |environment, results| {
            // One split: how far the watermark is behind a record is then known, too.
            let strategy =
                WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|trade: &Trade| trade.at);
            environment
                .from_source("trades", ScriptSource::new([in_order()]), strategy)
                .key_by(|trade| format!("account {}", trade.account))
                .process(report)
                .sink("results", results);
        });
        results.sort();
        let sums = |all: &[(String, i64, i64)]| {
            let mut sums: BTreeMap<String, i64> = BTreeMap::new();
            all.iter().for_each(|(key, _, sum)| *sums.entry(key.clone()).or_default() += sum);
            sums
        };
        // A timer fires when the watermark comes, which may be behind later records of its key: these are in the sum of the
        // next timer then or in this one, but never lost and never twice.
        assert_eq!(sums(&results), sums(&expected), "under {}", setting.name);
        assert!(results.iter().all(|(_, at, _)| at % EVERY_MS == 0));
    }
}

/// Tells each record again half a second later, by the wall clock.
struct Echo;

impl KeyedProcessFunction<u32, Trade> for Echo {
    type Output = (u32, i64, Timestamp);

    fn on_record(
        &mut self,
        _trade: &Archived<Trade>,
        context: &mut ProcessContext<'_, u32, Self::Output>,
    ) -> Result<(), BoxError> {
        let key = context.key();
        context.register_processing_timer(SIM_EPOCH_MILLIS + 500 + i64::from(key));
        context.register_processing_timer(SIM_EPOCH_MILLIS + 700);
        context.delete_processing_timer(SIM_EPOCH_MILLIS + 700);
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: FiredTimer,
        context: &mut ProcessContext<'_, u32, Self::Output>,
    ) -> Result<(), BoxError> {
        let FiredTimer::ProcessingTime(at) = timer else { return Err("no such timer was registered".into()) };
        assert!(context.processing_time() >= at);
        let key = context.key();
        context.collect((key, at - SIM_EPOCH_MILLIS, context.timestamp()));
        Ok(())
    }
}

#[test]
fn processing_time_timers_fire_once_per_key_and_time() {
    use std::time::Duration;
    use tidemill_operators::testkit::script::Event;
    let expected: Vec<(u32, i64, Timestamp)> =
        (0..7).map(|key| (key, 500 + i64::from(key), NO_TIMESTAMP)).collect();
    for setting in settings(3) {
        // Virtual time only: on cores the wall clock is years behind that of these timers, or ahead of it.
        if setting.name.starts_with("glommio") {
            continue;
        }
        let mut results = run(&setting, |environment, results| {
            let records = trades(150).into_iter().map(Event::Record);
            let events = records.chain([Event::Wait(Duration::from_secs(1))]).collect();
            environment
                .from_source("trades", ScriptSource::of_events([events]), WatermarkStrategy::none())
                .key_by(|trade| trade.account)
                .process(|_states| Echo)
                .sink("results", results);
        });
        results.sort_unstable();
        assert_eq!(results, expected, "under {}", setting.name);
    }
}

/// Counts the records of a key in a state, and hands each on with its number.
struct Numbered(ValueState<u64>);

impl KeyedProcessFunction<(u32, bool), Trade> for Numbered {
    type Output = (u64, u64);

    fn on_record(
        &mut self,
        trade: &Archived<Trade>,
        context: &mut ProcessContext<'_, (u32, bool), Self::Output>,
    ) -> Result<(), BoxError> {
        let number = context.get(self.0).unwrap_or_default() + 1;
        context.set(self.0, number);
        assert_eq!(context.get(self.0), Some(number));
        context.collect((trade.id.to_native(), number));
        Ok(())
    }
}

#[test]
fn a_value_per_key() {
    let mut counts: BTreeMap<(u32, bool), u64> = BTreeMap::new();
    let expected: Vec<(u64, u64)> = trades(150)
        .into_iter()
        .map(|trade| {
            let count = counts.entry((trade.account, trade.amount > 0)).or_default();
            *count += 1;
            (trade.id, *count)
        })
        .collect();
    same_everywhere(expected, |environment, results| {
        let strategy =
            WatermarkStrategy::for_bounded_out_of_orderness(std::time::Duration::from_millis(DISORDER_MS))
                .with_timestamps(|trade: &Trade| trade.at);
        environment
            .from_source("trades", ScriptSource::new(splits_by_account(&trades(150), 4)), strategy)
            .key_by(|trade| (trade.account, trade.amount > 0))
            .process(|states| Numbered(states.value("count")))
            .sink("results", results);
    });
}

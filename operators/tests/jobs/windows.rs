//! Windows of whole jobs: the same results however records are dealt, batched and interleaved.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidemill_engine::model::{
    time::Timestamp,
    watermark::{TimestampFn, WatermarkStrategy},
};
use tidemill_operators::{
    aggregate::Count,
    testkit::{
        job::{run, same_everywhere, settings},
        record::RecordSink,
        script::ScriptSource,
    },
    window::{
        assigner::{SlidingEventTime, TimeWindow, TumblingEventTime},
        function::WindowResult,
    },
};
use tidemill_storage::record::{InPlaceOf, restore};

use crate::records::{DISORDER_MS, Trade, trades};

/// A result as a record.
type Parts = (u32, i64, i64, u64);

fn parts(result: WindowResult<u32, u64>) -> Parts {
    (result.key, result.window.start, result.window.end, result.value)
}

fn whole(parts: &InPlaceOf<Parts>) -> WindowResult<u32, u64> {
    let (key, start, end, value) = restore::<Parts>(parts);
    WindowResult { key, window: TimeWindow { start, end }, value }
}

/// One test per row: `name(expected, describe)`.
macro_rules! rows {
    ($($name:ident($expected:expr, $describe:expr);)*) => {$(
        #[test]
        fn $name() {
            same_everywhere($expected, $describe);
        }
    )*};
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn within_bound() -> WatermarkStrategy<TimestampFn<fn(&Trade) -> Timestamp>> {
    WatermarkStrategy::for_bounded_out_of_orderness(millis(DISORDER_MS))
        .with_timestamps(|trade: &Trade| trade.at)
}

fn source(splits: usize) -> ScriptSource<Trade> {
    ScriptSource::dealt(trades(200), splits)
}

/// The trades of every window and account, by trying every window there could be.
pub fn by_window(
    trades: &[Trade],
    size: i64,
    slide: i64,
    offset: i64,
) -> BTreeMap<(TimeWindow, u32), Vec<Trade>> {
    let mut windows: BTreeMap<(TimeWindow, u32), Vec<Trade>> = BTreeMap::new();
    for trade in trades {
        for start in trade.at - size + 1..=trade.at {
            if (start - offset).rem_euclid(slide) == 0 {
                let window = TimeWindow { start, end: start + size };
                windows.entry((window, trade.account)).or_default().push(*trade);
            }
        }
    }
    windows
}

fn counts(size: i64, slide: i64, offset: i64) -> Vec<WindowResult<u32, u64>> {
    let windows = by_window(&trades(200), size, slide, offset).into_iter();
    let result =
        |((window, key), trades): (_, Vec<Trade>)| WindowResult { key, window, value: trades.len() as u64 };
    windows.map(result).collect()
}

rows! {
    tumbling_windows(counts(100, 100, 0), |environment, results| {
        environment
            .from_source("trades", source(4), within_bound())
            .key_by(|trade| trade.account)
            .window(TumblingEventTime::of(millis(100)))
            .aggregate(Count)
            .sink("results", results);
    });
    tumbling_windows_with_an_offset(counts(70, 70, 33), |environment, results| {
        environment
            .from_source("trades", source(1), within_bound())
            .key_by(|trade| trade.account)
            .window(TumblingEventTime::of(millis(70)).with_offset(millis(33)))
            .aggregate(Count)
            .sink("results", results);
    });
    sliding_windows(counts(100, 25, 0), |environment, results| {
        environment
            .from_source("trades", source(5), within_bound())
            .key_by(|trade| trade.account)
            .window(SlidingEventTime::of(millis(100), millis(25)))
            .aggregate(Count)
            .sink("results", results);
    });
    sliding_windows_whose_size_is_no_multiple_of_the_slide(counts(100, 30, 7), |environment, results| {
        environment
            .from_source("trades", source(3), within_bound())
            .key_by(|trade| trade.account)
            .window(SlidingEventTime::of(millis(100), millis(30)).with_offset(millis(7)))
            .aggregate(Count)
            .sink("results", results);
    });
    windows_behind_several_exchanges(counts(100, 100, 0), |environment, results| {
        environment
            .from_source("trades", source(4), within_bound())
            .rebalance()
            .rescale()
            .key_by(|trade| trade.account.to_native())
            .window(TumblingEventTime::of(millis(100)))
            .aggregate(Count)
            .map(parts)
            .forward()
            .map(whole)
            .sink("results", results);
    });
    windows_over_a_union(counts(100, 100, 0), |environment, results| {
        let (odd, even): (Vec<Trade>, Vec<Trade>) = trades(200).into_iter().partition(|trade| trade.id % 2 == 1);
        let odd = environment.from_source("odd", ScriptSource::dealt(odd, 3), within_bound());
        environment
            .from_source("even", ScriptSource::dealt(even, 2), within_bound())
            .union(odd.global())
            .key_by(|trade| trade.account.to_native())
            .window(TumblingEventTime::of(millis(100)))
            .aggregate(Count)
            .sink("results", results);
    });
    a_window_of_each_branch_of_a_fork(
        counts(100, 100, 0).into_iter().chain(counts(50, 50, 0)).collect::<Vec<_>>(),
        |environment, results| {
            let (one, other) = environment.from_source("trades", source(4), within_bound()).fork();
            let short = other
                .key_by(|trade| trade.account.to_native())
                .window(TumblingEventTime::of(millis(50)))
                .aggregate(Count)
                .map(parts);
            one.key_by(|trade| trade.account.to_native())
                .window(TumblingEventTime::of(millis(100)))
                .aggregate(Count)
                .map(parts)
                .union(short)
                .map(whole)
                .sink("results", results);
        }
    );
    timestamps_assigned_in_mid_chain(counts(100, 100, 0), |environment, results| {
        environment
            .from_source("trades", source(1), WatermarkStrategy::none())
            .map(|trade| (trade, "ballast".to_owned()))
            .assign_timestamps_and_watermarks(
                WatermarkStrategy::for_bounded_out_of_orderness(millis(DISORDER_MS))
                    .with_timestamps(|pair: &(Trade, String)| pair.0.at),
            )
            .map(|(trade, _ballast)| trade)
            .key_by(|trade| trade.account)
            .window(TumblingEventTime::of(millis(100)))
            .aggregate(Count)
            .sink("results", results);
    });
    timestamps_assigned_behind_an_exchange(counts(100, 100, 0), |environment, results| {
        // One subtask reads one split behind the other: whatever is assigned there has seen the disorder of one split only.
        environment
            .from_source("trades", source(1), WatermarkStrategy::none())
            .global()
            .assign_timestamps_and_watermarks(
                WatermarkStrategy::for_bounded_out_of_orderness(millis(DISORDER_MS))
                    .with_timestamps(|trade: &InPlaceOf<Trade>| trade.at.to_native()),
            )
            .key_by(|trade| trade.account.to_native())
            .window(TumblingEventTime::of(millis(100)))
            .aggregate(Count)
            .sink("results", results);
    });
    a_reduce_in_windows(
        by_window(&trades(200), 100, 50, 0)
            .into_iter()
            .map(|((window, key), trades)| (key, window.start, trades.iter().map(|trade| trade.amount).max()))
            .collect::<Vec<_>>(),
        |environment, results| {
            environment
                .from_source("trades", source(4), within_bound())
                .key_by(|trade| trade.account)
                .window(SlidingEventTime::of(millis(100), millis(50)))
                .reduce(|best, trade| if trade.amount > best.amount { *trade } else { best })
                .map(|best| (best.key, best.window.start, Some(best.value.amount)))
                .sink("results", results);
        }
    );
    an_apply_in_windows(
        by_window(&trades(200), 100, 100, 0)
            .into_iter()
            .flat_map(|((window, key), trades)| {
                let mut ids: Vec<u64> = trades.iter().map(|trade| trade.id).collect();
                ids.sort_unstable();
                [format!("{key} {} {ids:?}", window.end), format!("{key} has {}", ids.len())]
            })
            .collect::<Vec<_>>(),
        |environment, results| {
            environment
                .from_source("trades", source(4), within_bound())
                .key_by(|trade| trade.account)
                .window(TumblingEventTime::of(millis(100)))
                .apply(|key, window, trades: &[Trade]| {
                    let mut ids: Vec<u64> = trades.iter().map(|trade| trade.id).collect();
                    ids.sort_unstable();
                    [format!("{key} {} {ids:?}", window.end), format!("{key} has {}", ids.len())]
                })
                .sink("results", results);
        }
    );
    windows_of_a_window(
        {
            let mut sums: BTreeMap<i64, u64> = BTreeMap::new();
            for result in counts(50, 50, 0) {
                *sums.entry((result.window.end - 1).div_euclid(200) * 200).or_default() += result.value;
            }
            sums.into_iter().collect::<Vec<_>>()
        },
        |environment, results| {
            environment
                .from_source("trades", source(4), within_bound())
                .key_by(|trade| trade.account)
                .window(TumblingEventTime::of(millis(50)))
                .aggregate(Count)
                .map(|result| result.value)
                .key_by(|_count| 0_u8)
                .window(TumblingEventTime::of(millis(200)))
                .apply(|_key, window, counts: &[u64]| [(window.start, counts.iter().sum::<u64>())])
                .sink("results", results);
        }
    );
    a_window_without_records(Vec::<u64>::new(), |environment, results| {
        environment
            .from_source("trades", ScriptSource::<Trade>::new([vec![], vec![]]), within_bound())
            .key_by(|trade| trade.account)
            .window(TumblingEventTime::of(millis(100)))
            .aggregate(Count)
            .map(|result| result.value)
            .sink("results", results);
    });
    a_window_of_one_record(vec![1_u64], |environment, results| {
        environment
            .from_source("trades", ScriptSource::dealt(trades(1), 1), within_bound())
            .key_by(|trade| trade.account)
            .window(TumblingEventTime::of(millis(100)))
            .aggregate(Count)
            .map(|result| result.value)
            .sink("results", results);
    });
    many_keys_in_one_window(
        (0..300_u64).collect::<Vec<_>>(),
        |environment, results| {
            let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|_: &u64| 7);
            environment
                .from_source("numbers", ScriptSource::dealt(0..300_u64, 3), strategy)
                .key_by(|number| format!("{number}"))
                .window(TumblingEventTime::of(millis(100)))
                .apply(|_key, _window, numbers: &[u64]| numbers.to_vec())
                .sink("results", results);
        }
    );
}

/// Trades of which every fifth comes much later than it says.
pub fn unruly() -> Vec<Trade> {
    let behind = |trade: Trade| Trade { at: trade.at - 400 * i64::from(trade.id.is_multiple_of(5)), ..trade };
    trades(200).into_iter().map(behind).collect()
}

#[test]
fn every_record_is_in_one_window_or_late() {
    for setting in settings(4) {
        let late_ids = RecordSink::new();
        let in_windows: Vec<u64> = run(&setting, |environment, results| {
            let (windows, late) = environment
                .from_source("trades", ScriptSource::dealt(unruly(), 3), within_bound())
                .key_by(|trade| trade.account)
                .window(TumblingEventTime::of(millis(20)))
                .split_late();
            // Late records first: their task may stand before the one that it reads from.
            late.map(|trade| trade.id.to_native()).sink("late", late_ids.0);
            windows
                .apply(|_key, _window, trades: &[Trade]| {
                    trades.iter().map(|trade| trade.id).collect::<Vec<_>>()
                })
                .sink("results", results);
        });
        let late = late_ids.1.take_records();
        assert!(!late.is_empty() && !in_windows.is_empty(), "under {}", setting.name);
        let mut all: Vec<u64> = in_windows.into_iter().chain(late).collect();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<u64>>(), "under {}", setting.name);
    }
}

#[test]
fn with_lateness_enough_the_last_result_of_a_window_has_every_record() {
    for (size, slide) in [(30, 30), (60, 20)] {
        let expected: BTreeMap<(u32, TimeWindow), BTreeSet<u64>> = by_window(&unruly(), size, slide, 0)
            .into_iter()
            .map(|((window, account), trades)| {
                ((account, window), trades.iter().map(|trade| trade.id).collect())
            })
            .collect();
        for setting in settings(2) {
            let fired: Vec<(u32, TimeWindow, Vec<u64>)> = run(&setting, |environment, results| {
                environment
                    .from_source("trades", ScriptSource::dealt(unruly(), 3), within_bound())
                    .key_by(|trade| trade.account)
                    .window(SlidingEventTime::of(millis(size as u64), millis(slide as u64)))
                    .allowed_lateness(Duration::from_secs(3600))
                    .apply(|key, window, trades: &[Trade]| {
                        [(key, window, trades.iter().map(|trade| trade.id).collect::<Vec<_>>())]
                    })
                    .sink("results", results);
            });
            let mut last: BTreeMap<(u32, TimeWindow), BTreeSet<u64>> = BTreeMap::new();
            for (key, window, ids) in fired {
                let ids: BTreeSet<u64> = ids.into_iter().collect();
                let before = last.insert((key, window), ids.clone()).unwrap_or_default();
                assert!(before.is_subset(&ids), "a window lost records; under {}", setting.name);
            }
            assert_eq!(last, expected, "under {}", setting.name);
        }
    }
}

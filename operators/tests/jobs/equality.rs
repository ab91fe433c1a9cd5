//! Every operator gives the same results at every parallelism, with every batch size, on both platforms.
//!
//! A row is a job and what an obvious program on one thread makes of the same input.

use std::collections::BTreeMap;

use tidemill_engine::model::watermark::WatermarkStrategy;
use tidemill_operators::{
    aggregate::Count,
    testkit::{
        job::{run, same_everywhere, settings},
        script::ScriptSource,
    },
};
use tidemill_storage::record::restore;

use crate::records::{Order, Trade, orders, splits_by_account, trades};

/// One test per row: `name(expected, describe)`.
macro_rules! rows {
    ($($name:ident($expected:expr, $describe:expr);)*) => {$(
        #[test]
        fn $name() {
            same_everywhere($expected, $describe);
        }
    )*};
}

fn source(splits: usize) -> ScriptSource<Trade> {
    ScriptSource::dealt(trades(150), splits)
}

/// The trades of an account in one split, so that what comes of their order is known.
fn ordered_source() -> ScriptSource<Trade> {
    ScriptSource::new(splits_by_account(&trades(150), 5))
}

fn none() -> WatermarkStrategy {
    WatermarkStrategy::none()
}

/// The running value per account, after each trade.
fn rolling<A: Clone>(start: impl Fn() -> A, mut add: impl FnMut(&mut A, &Trade)) -> Vec<(u32, A)> {
    let mut values = BTreeMap::new();
    let after = trades(150).into_iter().map(|trade| {
        let value = values.entry(trade.account).or_insert_with(&start);
        add(value, &trade);
        (trade.account, value.clone())
    });
    after.collect()
}

rows! {
    a_chain_of_stateless_operators(
        {
            let some = trades(150).into_iter().map(|trade| trade.amount * 2).filter(|amount| amount % 3 != 0);
            let more = some.flat_map(|amount| [amount, -amount, amount + 1]);
            more.filter(|amount| *amount > 0).map(|amount| format!("{amount}")).collect::<Vec<String>>()
        },
        |environment, results| {
            environment
                .from_source("trades", source(4), none())
                .map(|trade| trade.amount * 2)
                .filter(|amount| amount % 3 != 0)
                .flat_map(|amount| [amount, -amount, amount + 1])
                .inspect(|_amount| {})
                .filter_map(|amount| (amount > 0).then(|| format!("{amount}")))
                .sink("results", results);
        }
    );
    a_flat_map_that_makes_many_records_of_one(
        (0..10_u64).flat_map(|number| (0..300).map(move |part| number * 1000 + part)).collect::<Vec<_>>(),
        |environment, results| {
            environment
                .from_source("numbers", ScriptSource::dealt(0..10_u64, 3), none())
                .flat_map(|number| (0..300).map(move |part| number * 1000 + part))
                .rebalance()
                .map(|number| number.to_native())
                .sink("results", results);
        }
    );
    a_rolling_reduce(
        rolling(|| 0, |sum, trade| *sum += trade.amount),
        |environment, results| {
            environment
                .from_source("trades", ordered_source(), none())
                .key_by(|trade| trade.account)
                .reduce(|mut sum, trade| {
                    sum.amount += trade.amount.to_native();
                    sum
                })
                .map(|sum| (sum.account, sum.amount))
                .sink("results", results);
        }
    );
    a_rolling_fold(
        rolling(String::new, |text, trade| *text += &format!("{},", trade.id)),
        |environment, results| {
            environment
                .from_source("trades", ordered_source(), none())
                .key_by(|trade| trade.account)
                .fold(String::new(), |text, trade| *text += &format!("{},", trade.id))
                .sink("results", results);
        }
    );
    a_rolling_aggregate(
        rolling(|| 0_u64, |count, _| *count += 1),
        |environment, results| {
            environment
                .from_source("trades", ordered_source(), none())
                .key_by(|trade| trade.account)
                .aggregate(Count)
                .sink("results", results);
        }
    );
    keys_of_strings(
        rolling(|| 0_u64, |count, _| *count += 1)
            .into_iter()
            .map(|(account, count)| (format!("account {account}"), count))
            .collect::<Vec<_>>(),
        |environment, results| {
            environment
                .from_source("trades", ordered_source(), none())
                .key_by(|trade| format!("account {}", trade.account))
                .aggregate(Count)
                .sink("results", results);
        }
    );
    keys_of_tuples(
        rolling(|| 0_u64, |count, _| *count += 1)
            .into_iter()
            .map(|(account, count)| ((account as u16, format!("{account}"), -1_i128), count))
            .collect::<Vec<_>>(),
        |environment, results| {
            environment
                .from_source("trades", ordered_source(), none())
                .key_by(|trade| (trade.account as u16, format!("{}", trade.account), -1_i128))
                .aggregate(Count)
                .sink("results", results);
        }
    );
    keys_of_narrow_tuples(
        rolling(|| 0_u64, |count, _| *count += 1)
            .into_iter()
            .map(|(account, count)| ((account as i16 - 3, account % 2 == 0), count))
            .collect::<Vec<_>>(),
        |environment, results| {
            environment
                .from_source("trades", ordered_source(), none())
                .key_by(|trade| (trade.account as i16 - 3, trade.account.is_multiple_of(2)))
                .aggregate(Count)
                .sink("results", results);
        }
    );
    the_empty_key(
        (1..=150_u64).map(|count| ((), count)).collect::<Vec<_>>(),
        |environment, results| {
            environment
                .from_source("trades", source(3), none())
                .key_by(|_trade| ())
                .aggregate(Count)
                .sink("results", results);
        }
    );
    keys_borrowed_from_records(
        {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            let after = orders(100).into_iter().map(|order| {
                let count = counts.entry(order.client.clone()).or_default();
                *count += 1;
                (order.client, *count)
            });
            after.collect::<Vec<_>>()
        },
        |environment, results| {
            environment
                .from_source("orders", ScriptSource::dealt(orders(100), 3), none())
                .key_by_ref(|order: &Order| order.client.as_str())
                .aggregate(Count)
                .sink("results", results);
        }
    );
    a_key_by_behind_another(
        {
            let halves = trades(150).into_iter().map(|trade| trade.amount / 2);
            let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
            halves.for_each(|half| *sums.entry(half % 5).or_default() += half);
            sums.into_iter().collect::<Vec<_>>()
        },
        |environment, results| {
            environment
                .from_source("trades", source(4), WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|_: &Trade| 5))
                .key_by(|trade| trade.account)
                .reduce(|_last, trade| restore(trade))
                .map(|trade| trade.amount / 2)
                .key_by(|half| half % 5)
                .window(tidemill_operators::window::assigner::TumblingEventTime::of(std::time::Duration::from_secs(1)))
                .apply(|key, _window, halves: &[i64]| [(key, halves.iter().sum::<i64>())])
                .sink("results", results);
        }
    );
    records_of_every_shape_through_an_exchange(
        orders(120),
        |environment, results| {
            environment
                .from_source("orders", ScriptSource::dealt(orders(120), 4), none())
                .rebalance()
                .filter(|order| order.id.to_native() < u64::MAX)
                .partition_custom(|order, _targets| order.legs.len())
                .sink("results", results);
        }
    );
    records_without_size(
        vec![(); 50],
        |environment, results| {
            environment
                .from_source("nothings", ScriptSource::dealt(vec![(); 50], 4), none())
                .rebalance()
                .sink("results", results);
        }
    );
    a_union_of_three_streams(
        {
            let more = trades(60).into_iter().map(|trade| trade.amount + 1_000_000);
            let few = (0..5_i64).map(|number| -number);
            trades(150).into_iter().map(|trade| trade.amount).chain(more).chain(few).collect::<Vec<_>>()
        },
        |environment, results| {
            let more = environment.from_source("more", ScriptSource::dealt(trades(60), 2), none());
            let few = environment.from_source("few", ScriptSource::new([vec![0_i64, -1, -2, -3, -4]]), none());
            environment
                .from_source("trades", source(3), none())
                .map(|trade| trade.amount)
                .union(more.map(|trade| trade.amount + 1_000_000))
                .map(|amount| amount.to_native())
                .union(few.global())
                .sink("results", results);
        }
    );
    a_fork_whose_branches_meet_again(
        {
            let all = trades(150);
            let negative = all.clone().into_iter().filter(|trade| trade.amount < 0).map(|trade| -trade.amount);
            all.iter().map(|trade| trade.amount).chain(negative).collect::<Vec<_>>()
        },
        |environment, results| {
            let (one, other) = environment.from_source("trades", source(3), none()).fork();
            let negative = other.filter(|trade| trade.amount.to_native() < 0).map(|trade| -trade.amount.to_native());
            one.map(|trade| trade.amount.to_native()).union(negative).sink("results", results);
        }
    );
    a_rebalance(trades(150), |environment, results| {
        environment.from_source("trades", source(2), none()).rebalance().sink("results", results);
    });
    a_rescale(trades(150), |environment, results| {
        environment.from_source("trades", source(2), none()).rescale().sink("results", results);
    });
    a_rescale_from_one_subtask(trades(150), |environment, results| {
        environment.from_source("trades", source(2), none()).global().rescale().sink("results", results);
    });
    everything_in_one_subtask(trades(150), |environment, results| {
        environment
            .from_source("trades", source(2), none())
            .global()
            .map(restore)
            .sink("results", results);
    });
    a_partitioner_of_ones_own(trades(150), |environment, results| {
        environment
            .from_source("trades", source(2), none())
            .partition_custom(|trade, _targets| usize::MAX - trade.account as usize)
            .sink("results", results);
    });
    a_new_task_on_the_same_core(trades(150), |environment, results| {
        environment.from_source("trades", source(2), none()).forward().forward().sink("results", results);
    });
    an_empty_input(Vec::<Trade>::new(), |environment, results| {
        environment
            .from_source("trades", ScriptSource::<Trade>::new([]), none())
            .rebalance()
            .key_by(|trade| trade.account.to_native())
            .reduce(|_last, trade| restore(trade))
            .sink("results", results);
    });
    splits_without_records(Vec::<Trade>::new(), |environment, results| {
        environment
            .from_source("trades", ScriptSource::<Trade>::new([vec![], vec![], vec![]]), none())
            .broadcast()
            .sink("results", results);
    });
    a_single_record(trades(1), |environment, results| {
        environment
            .from_source("trades", ScriptSource::dealt(trades(1), 1), none())
            .rebalance()
            .key_by(|trade| trade.account.to_native())
            .reduce(|_last, trade| restore(trade))
            .sink("results", results);
    });
}

#[test]
fn a_broadcast_brings_every_record_to_every_subtask_once() {
    for setting in settings(2) {
        let copies: Vec<(u64, ())> = run(&setting, |environment, results| {
            environment
                .from_source("trades", source(3), none())
                .broadcast()
                .map(|trade| (trade.id.to_native(), ()))
                .sink("results", results);
        });
        let mut count = BTreeMap::new();
        copies.into_iter().for_each(|(id, ())| *count.entry(id).or_insert(0) += 1);
        let expected: BTreeMap<u64, usize> = (0..150).map(|id| (id, setting.config.parallelism)).collect();
        assert_eq!(count, expected, "under {}", setting.name);
    }
}

#[test]
fn records_keep_their_order_between_two_subtasks() {
    for setting in settings(2) {
        let environment = setting.environment();
        let (sink, recorded) = tidemill_operators::testkit::record::RecordSink::new();
        environment
            .from_source("numbers", ScriptSource::new([(0..200_u64).collect::<Vec<_>>()]), none())
            .key_by(|number| number % 5)
            .reduce(|_last, number| number.to_native())
            .sink("results", sink);
        environment.execute().unwrap();
        let arrived = recorded.take_records();
        for key in 0..5 {
            let own: Vec<u64> = arrived.iter().copied().filter(|number| number % 5 == key).collect();
            assert!(own.is_sorted() && own.len() == 40, "key {key}: {own:?} under {}", setting.name);
        }
    }
}

//! How long single operations on timers take: `cargo run --release -p tidemill-storage --example timer_steps -- TIMERS`.
//!
//! Registers this many timers in each of a few seconds, deletes every tenth, takes all of them in order; says what each
//! kind of operation takes on average and at worst. The same three times over, and each operation counts with the
//! shortest of its three times: what is left is its own, not the machine's.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use tidemill_storage::{
    key::hash_bits,
    kinds::timers::Timers,
    state::{KeyView, StateName},
    store::{Store, StoreOptions},
};

const SECONDS: u64 = 4;
const ROUNDS: u32 = 3;

/// What each operation of a kind has taken.
#[derive(Default)]
struct Times {
    all: Vec<Duration>,
    next: usize,
}

impl Times {
    fn of<R>(&mut self, run: impl FnOnce() -> R) -> R {
        let began = Instant::now();
        let result = run();
        let took = began.elapsed();
        match self.all.get_mut(self.next) {
            Some(shortest) => *shortest = took.min(*shortest),
            None => self.all.push(took),
        }
        self.next += 1;
        result
    }

    fn say(mut self, what: &str) {
        self.all.sort_unstable();
        let mean = self.all.iter().sum::<Duration>() / self.all.len() as u32;
        let at = |of: f64| self.all[((self.all.len() - 1) as f64 * of) as usize];
        println!(
            "{what:9} mean {mean:>9.1?}  99.9 % {:>9.1?}  99.99 % {:>9.1?}  worst five {:.1?}",
            at(0.999),
            at(0.9999),
            self.all.iter().rev().take(5).collect::<Vec<_>>()
        );
    }
}

fn main() {
    let per_second: u64 = std::env::args().nth(1).map_or(20_000, |count| count.parse().unwrap());
    let key = |number: u64| KeyView { hash: hash_bits(number), bytes: &[] };
    let at = |number: u64| (number / per_second * 1000 + hash_bits(number) % 1000) as i64;
    let (mut register, mut delete, mut pop) = (Times::default(), Times::default(), Times::default());
    for _ in 0..ROUNDS {
        let mut store = Store::new(StoreOptions::new());
        let mut timers = Timers::<u64, _>::open(&mut store, StateName::new("operator", "timers")).unwrap();
        (register.next, delete.next, pop.next) = (0, 0, 0);
        for number in 0..SECONDS * per_second {
            register.of(|| timers.register(&mut store, at(number), key(number)));
        }
        for number in (0..SECONDS * per_second).step_by(10) {
            assert!(delete.of(|| timers.delete(at(number), key(number))));
        }
        let mut last = i64::MIN;
        while let Some(timer) = pop.of(|| timers.pop_until(i64::MAX)) {
            assert!(timer.at >= last);
            last = timer.at;
        }
    }
    register.say("register");
    delete.say("delete");
    pop.say("pop");
}

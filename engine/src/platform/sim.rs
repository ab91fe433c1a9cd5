//! The platform for tests: all workers on one thread, in a seeded order and in virtual time.
//!
//! The same seed gives the same interleaving, turn by turn. A worker that said [`Turn::Idle`] is not turned
//! again before it is woken or its `wake_at` has come (with half of the seeds: seldom, at random), so that
//! a wake-up that the engine forgets shows as [`PlatformError::Stalled`] instead of hiding behind the next turn.
//! The order is unfair on purpose: for a while one worker gets many turns in a row, or none.
//!
//! Virtual time moves a little with every turn and jumps to the earliest `wake_at` when nothing else can happen.
//!
//! [`SimFaults`] says what goes wrong and at which turn. Turns are counted over all attempts of a job.

mod faults;
mod trace;

use super::random::Random;
use super::remote::{self, RemoteConfig, RemoteError, RemoteStore};
use super::seats::cause_of;
use super::{
    Clock, Drive, DriveFactory, Fleet, Mishaps, Nanos, Platform, PlatformError, Running, Turn, Wake,
};
pub use faults::SimFaults;
use faults::SimMishaps;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tidemill_storage::{
    snapshot::disk::{Disk, os::OsDisk},
    store::files::WriterKind,
};
pub use trace::SimTrace;

/// The wall clock at virtual time zero: 2020-01-01T00:00:00Z.
pub const SIM_EPOCH_MILLIS: i64 = 1_577_836_800_000;

/// A deterministic platform.
#[derive(Clone)]
pub struct SimPlatform {
    seed: u64,
    open: bool,
    clock: Arc<SimClock>,
    disk: Arc<dyn Disk>,
    remote: Option<Arc<dyn RemoteStore>>,
    /// Other stores, by URL.
    remotes: BTreeMap<String, Arc<dyn RemoteStore>>,
    faults: SimFaults,
    mishaps: Option<Arc<SimMishaps>>,
    /// What a turn takes at most, unless it is one of the slow ones.
    turn_ns_max: u64,
    /// Numbers that processes draw to be told apart.
    unique: Arc<Mutex<Random>>,
    trace: SimTrace,
    /// Turns taken in all fleets.
    turns: Arc<AtomicU64>,
    /// Fleets that were started: each runs in an order of its own.
    started: Arc<AtomicU64>,
    onlooker: Option<Onlooker>,
}

/// Somebody outside who looks on between two turns.
type Onlooker = Arc<dyn Fn() + Send + Sync>;

impl SimPlatform {
    /// A closed world whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Self {
        // State that leaves memory goes to the real disk, unless a test says otherwise.
        let disk = Arc::new(OsDisk::default());
        let clock = Arc::new(SimClock { now: AtomicU64::new(0), jumped_millis: AtomicI64::new(0) });
        Self {
            seed,
            open: false,
            clock,
            disk,
            remote: None,
            remotes: BTreeMap::new(),
            faults: SimFaults::default(),
            mishaps: None,
            turn_ns_max: 1_000,
            // Independent of the order of turns, which follows from the seed itself.
            unique: Arc::new(Mutex::new(Random::from_seed(!seed))),
            trace: SimTrace::default(),
            turns: Arc::default(),
            started: Arc::default(),
            onlooker: None,
        }
    }

    /// Keeps state and checkpoints on this disk instead of the real one.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Keeps remote checkpoints in this store, whatever the job's settings name.
    pub fn remote(mut self, remote: Arc<dyn RemoteStore>) -> Self {
        self.remote = Some(remote);
        self
    }

    /// The store at this URL, for savepoints; comes before the one that [`remote`](Self::remote) names.
    pub fn remote_at(mut self, url: impl Into<String>, remote: Arc<dyn RemoteStore>) -> Self {
        self.remotes.insert(url.into(), remote);
        self
    }

    /// Lets these things go wrong.
    pub fn faults(mut self, faults: SimFaults) -> Self {
        let steps = faults.fail_steps.clone();
        self.mishaps = (!steps.is_empty()).then(|| Arc::new(SimMishaps::new(Arc::clone(&self.turns), steps)));
        self.faults = faults;
        self
    }

    /// Lets a turn take up to so much virtual time, instead of a microsecond: a slow machine, on which more happens by the clock.
    pub fn turn_ns_max(mut self, turn_ns_max: u64) -> Self {
        self.turn_ns_max = turn_ns_max.max(1);
        self
    }

    /// Calls this before each turn: somebody outside who looks on, such as a reader of what the job writes.
    pub fn onlooker(mut self, onlooker: Arc<dyn Fn() + Send + Sync>) -> Self {
        self.onlooker = Some(onlooker);
        self
    }

    /// What happened last, in words.
    pub fn trace(&self) -> SimTrace {
        self.trace.clone()
    }

    /// Turns that workers and coordinators have taken so far.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// No thread outside wakes a worker (the default): when all are idle with nothing to wait for, the run
    /// ends with [`PlatformError::Stalled`].
    pub fn closed_world(mut self) -> Self {
        self.open = false;
        self
    }

    /// Threads outside may wake workers (a test that feeds a channel): when all are idle the simulation
    /// waits for them. The order then depends on those threads too.
    pub fn open_world(mut self) -> Self {
        self.open = true;
        self
    }
}

struct SimClock {
    now: AtomicU64,
    /// By how much the wall clock was set forward or back.
    jumped_millis: AtomicI64,
}

impl Clock for SimClock {
    fn now(&self) -> Nanos {
        self.now.load(Ordering::Relaxed)
    }

    fn wall_millis(&self) -> i64 {
        SIM_EPOCH_MILLIS + (self.now() / 1_000_000) as i64 + self.jumped_millis.load(Ordering::Relaxed)
    }
}

/// Which workers were woken since their last turn.
struct Bells {
    rung: Mutex<Vec<bool>>,
    any: Condvar,
}

impl Bells {
    fn lock(&self) -> MutexGuard<'_, Vec<bool>> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until any worker is woken.
    fn wait(&self) {
        let rung = self.lock();
        drop(self.any.wait_while(rung, |rung| !rung.contains(&true)).unwrap_or_else(PoisonError::into_inner));
    }
}

struct SimWake {
    worker: usize,
    bells: Arc<Bells>,
}

impl Wake for SimWake {
    fn wake(&self) {
        self.bells.lock()[self.worker] = true;
        self.bells.any.notify_one();
    }
}

impl Platform for SimPlatform {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn inline_io(&self) -> bool {
        true
    }

    fn state_writer(&self) -> WriterKind {
        WriterKind::Late { seed: self.seed ^ self.started.load(Ordering::Relaxed).rotate_left(32) }
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    fn remote(&self, config: &RemoteConfig) -> Result<Arc<dyn RemoteStore>, RemoteError> {
        let named = self.remotes.get(config.url()).or(self.remote.as_ref());
        named.cloned().map_or_else(|| remote::open(config), Ok)
    }

    fn mishaps(&self) -> Option<Arc<dyn Mishaps>> {
        self.mishaps.clone().map(|mishaps| mishaps as Arc<dyn Mishaps>)
    }

    fn unique(&self) -> u64 {
        self.unique.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    fn pause(&self, wait: Nanos, enough: &dyn Fn() -> bool) {
        if !enough() {
            self.clock.now.fetch_add(wait, Ordering::Relaxed);
        }
    }

    fn note(&self, event: &dyn Fn() -> String) {
        self.trace.add(self.clock.now(), event());
    }

    fn prepare(&self, workers: usize) -> Result<Box<dyn Fleet>, PlatformError> {
        if workers == 0 {
            return Err(super::no_workers());
        }
        let bells = Arc::new(Bells { rung: Mutex::new(vec![false; workers + 1]), any: Condvar::new() });
        Ok(Box::new(SimFleet { platform: self.clone(), bells, workers }))
    }
}

struct SimFleet {
    platform: SimPlatform,
    bells: Arc<Bells>,
    workers: usize,
}

impl Fleet for SimFleet {
    fn wakers(&self) -> Vec<Arc<dyn Wake>> {
        (0..self.workers)
            .map(|worker| Arc::new(SimWake { worker, bells: Arc::clone(&self.bells) }) as Arc<dyn Wake>)
            .collect()
    }

    fn control_waker(&self) -> Arc<dyn Wake> {
        Arc::new(SimWake { worker: self.workers, bells: Arc::clone(&self.bells) })
    }

    fn start(
        self: Box<Self>,
        mut factories: Vec<DriveFactory>,
        control: Option<DriveFactory>,
    ) -> Result<Box<dyn Running>, PlatformError> {
        assert_eq!(factories.len(), self.workers, "one factory per prepared worker");
        // One more hand among them: it is scheduled like a worker.
        factories.extend(control);
        let Self { platform, bells, .. } = *self;
        let thread = std::thread::Builder::new()
            .name("tidemill-sim".into())
            .spawn(move || Simulation::new(platform, bells).run(factories))
            .map_err(|error| PlatformError::Unfit {
                what: "starting the simulation's thread".into(),
                why: error.to_string(),
                fix: "Raise the limit on processes (`ulimit -u`).".into(),
            })?;
        Ok(Box::new(SimRunning(thread)))
    }
}

struct SimRunning(JoinHandle<Result<(), PlatformError>>);

impl Running for SimRunning {
    fn join(self: Box<Self>) -> Result<(), PlatformError> {
        self.0
            .join()
            .unwrap_or_else(|panic| Err(PlatformError::WorkerLost { worker: 0, cause: cause_of(&*panic) }))
    }
}

/// One simulated worker.
struct Hand {
    drive: Option<Box<dyn Drive>>,
    /// `None` while it is busy; otherwise when it wants its next turn at the latest.
    idle: Option<Option<Nanos>>,
    /// Its share of the turns in the present mood; 0 means that it starves while another one can run.
    weight: u64,
    /// Its core stands still until then.
    stalled_until: Nanos,
}

impl Hand {
    fn is_stalled(&self, now: Nanos) -> bool {
        self.stalled_until > now
    }

    /// When it can do something, if nobody wakes it before.
    fn due(&self, is_woken: bool) -> Option<Nanos> {
        let wanted = if is_woken { Some(0) } else { self.idle.unwrap_or(Some(0)) };
        wanted.map(|at| at.max(self.stalled_until))
    }
}

struct Simulation {
    platform: SimPlatform,
    bells: Arc<Bells>,
    random: Random,
    hands: Vec<Hand>,
    /// Turns until the weights are drawn anew.
    mood_turns_left: u64,
    /// Whether idle workers are sometimes turned without being woken, as a bounded park does.
    spurious: bool,
    lost: Option<PlatformError>,
}

impl Simulation {
    fn new(platform: SimPlatform, bells: Arc<Bells>) -> Self {
        let started = platform.started.fetch_add(1, Ordering::Relaxed);
        let mut random = Random::from_seed(platform.seed.wrapping_add(started << 32));
        let spurious = random.one_in(2);
        Self { platform, bells, random, hands: Vec::new(), mood_turns_left: 0, spurious, lost: None }
    }

    fn run(mut self, factories: Vec<DriveFactory>) -> Result<(), PlatformError> {
        for (worker, factory) in factories.into_iter().enumerate() {
            self.hands.push(Hand { drive: None, idle: None, weight: 1, stalled_until: 0 });
            match catch_unwind(AssertUnwindSafe(factory)) {
                Ok(drive) => self.hands[worker].drive = Some(drive),
                Err(panic) => self.lose(worker, &*panic),
            }
        }
        while self.hands.iter().any(|hand| hand.drive.is_some()) {
            match self.choose() {
                Some(worker) => {
                    if let Some(killed) = self.go_wrong() {
                        return Err(killed);
                    }
                    // Its core may have just come to a standstill.
                    if !self.hands[worker].is_stalled(self.platform.clock.now()) {
                        self.turn(worker);
                    }
                }
                None => match self.earliest_timer() {
                    Some(at) => {
                        self.platform.clock.now.fetch_max(at, Ordering::Relaxed);
                    }
                    None if self.platform.open => self.bells.wait(),
                    None => {
                        let stalled = PlatformError::Stalled { seed: self.platform.seed };
                        return Err(self.lost.unwrap_or(stalled));
                    }
                },
            }
        }
        self.lost.map_or(Ok(()), Err)
    }

    /// The next worker among those that can run, by weight; `None` when all wait.
    fn choose(&mut self) -> Option<usize> {
        if self.mood_turns_left == 0 {
            self.mood_turns_left = 1 + self.random.below(256);
            for hand in &mut self.hands {
                hand.weight = [0, 1, 1, 4, 64][self.random.below(5) as usize];
            }
        }
        self.mood_turns_left -= 1;
        let now = self.platform.clock.now();
        let rung = self.bells.lock().clone();
        let ready: Vec<usize> = (0..self.hands.len())
            .filter(|&worker| {
                let hand = &self.hands[worker];
                hand.drive.is_some() && hand.due(rung[worker]).is_some_and(|at| at <= now)
            })
            .collect();
        if ready.is_empty() {
            return None;
        }
        if self.spurious && self.random.one_in(16) {
            let worker = self.random.below(self.hands.len() as u64) as usize;
            if self.hands[worker].drive.is_some() && !self.hands[worker].is_stalled(now) {
                return Some(worker);
            }
        }
        let total: u64 = ready.iter().map(|&worker| self.hands[worker].weight).sum();
        if total == 0 {
            return Some(ready[self.random.below(ready.len() as u64) as usize]);
        }
        let mut ticket = self.random.below(total);
        ready.into_iter().find(|&worker| match ticket.checked_sub(self.hands[worker].weight) {
            Some(rest) => {
                ticket = rest;
                false
            }
            None => true,
        })
    }

    /// Lets go wrong what is to go wrong at this turn; the error is that of a process that was killed.
    fn go_wrong(&mut self) -> Option<PlatformError> {
        let turn = self.platform.turns.fetch_add(1, Ordering::Relaxed);
        self.platform.onlooker.iter().for_each(|look| look());
        let SimFaults { kill_at_turn, lose_worker_at_turn, jump_at_turn, stall_at_turn, on_kill, .. } =
            &self.platform.faults;
        if let Some((_, worker, nanos)) = stall_at_turn.filter(|(at, ..)| *at == turn) {
            let worker = worker % self.hands.len();
            self.platform.note(&|| {
                format!("turn {turn}: the core of worker {worker} stands still for {} ms", nanos / 1_000_000)
            });
            self.hands[worker].stalled_until = self.platform.clock.now().saturating_add(nanos);
        }
        if let Some((_, millis)) = jump_at_turn.filter(|(at, _)| *at == turn) {
            self.platform.note(&|| format!("the wall clock jumps by {millis} ms"));
            self.platform.clock.jumped_millis.fetch_add(millis, Ordering::Relaxed);
        }
        if *kill_at_turn == Some(turn) {
            self.platform.note(&|| format!("turn {turn}: the process is killed"));
            on_kill.iter().for_each(|on_kill| on_kill());
            for worker in 0..self.hands.len() {
                self.retire(worker);
            }
            return Some(PlatformError::Killed { turn });
        }
        if let Some((_, worker)) = lose_worker_at_turn.filter(|(at, _)| *at == turn) {
            let worker = worker % self.hands.len();
            self.platform.note(&|| format!("turn {turn}: worker {worker} is lost"));
            self.retire(worker);
        }
        None
    }

    fn turn(&mut self, worker: usize) {
        // Mostly sub-microsecond turns, now and then a slow one.
        let took = if self.random.one_in(256) {
            self.random.below(1_000_000)
        } else {
            self.random.below(self.platform.turn_ns_max)
        };
        let now = self.platform.clock.now.fetch_add(1 + took, Ordering::Relaxed) + 1 + took;
        // Cleared before the turn: a wake-up that comes during it leads to another one.
        self.bells.lock()[worker] = false;
        let hand = &mut self.hands[worker];
        let Some(drive) = hand.drive.as_mut() else { return };
        match catch_unwind(AssertUnwindSafe(|| drive.turn(now))) {
            Ok(Turn::Busy { .. }) => hand.idle = None,
            Ok(Turn::Idle { wake_at }) => hand.idle = Some(wake_at),
            Ok(Turn::Done) => self.retire(worker),
            Err(panic) => {
                self.retire(worker);
                self.lose(worker, &*panic);
            }
        }
    }

    fn retire(&mut self, worker: usize) {
        let drive = self.hands[worker].drive.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(drive))) {
            self.lose(worker, &*panic);
        }
    }

    /// The first loss is the one that is told.
    fn lose(&mut self, worker: usize, panic: &(dyn std::any::Any + Send)) {
        self.lost.get_or_insert(PlatformError::WorkerLost { worker, cause: cause_of(panic) });
    }

    /// When the first of those that wait can do something: in the past, if somebody outside has woken one just now.
    fn earliest_timer(&self) -> Option<Nanos> {
        let rung = self.bells.lock().clone();
        let waiting = self.hands.iter().zip(rung).filter(|(hand, _)| hand.drive.is_some());
        waiting.filter_map(|(hand, is_woken)| hand.due(is_woken)).min()
    }
}

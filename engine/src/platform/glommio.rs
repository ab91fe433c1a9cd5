//! The platform for production: one glommio executor per worker, each on a thread of its own.
//!
//! The worker's loop is the executor's main task, and its only one; others would run when the executor's preemption timer says
//! so, which is set to never (`seats.rs` says why).
//! A parked worker blocks its thread, so nothing else may wait on the executor's ring then
//! (docs/design/001-parking.md).

use super::bell::{self, Bell};
use super::clock::MachineClock;
use super::cores::Cores;
use super::park::{self, Parker, Waker};
use super::probe::probe;
use super::pump::{Patience, Pump, Stretch};
use super::seats::{Seat, cause_of};
use super::{Clock, DriveFactory, Fleet, Nanos, Platform, PlatformError, Running, Wake};
use glommio::LocalExecutor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use tidemill_storage::snapshot::disk::{Disk, os::OsDisk};

/// Pinned executors on io_uring.
#[derive(Clone)]
pub struct GlommioPlatform {
    clock: Arc<MachineClock>,
    cores: Cores,
    pin: bool,
    spin_us_max: u64,
    park_ms_max: u64,
}

impl Default for GlommioPlatform {
    fn default() -> Self {
        Self::new()
    }
}

impl GlommioPlatform {
    /// Spinning this long costs about as much as a wake-up that it may save (30–50 µs), so an idle worker never burns more
    /// than twice what the best choice would have cost.
    pub const SPIN_US_MAX_DEFAULT: u64 = 50;
    /// Ten needless turns a second per idle worker: 0.01 % of a core, and a bound on any wake-up.
    pub const PARK_MS_MAX_DEFAULT: u64 = 100;

    /// The platform with its defaults on the cores of this process.
    pub fn new() -> Self {
        Self {
            clock: Arc::new(MachineClock::new()),
            cores: Cores::of_this_process(),
            pin: true,
            spin_us_max: Self::SPIN_US_MAX_DEFAULT,
            park_ms_max: Self::PARK_MS_MAX_DEFAULT,
        }
    }

    /// Whether each worker is tied to its core (the default). See [`Cores::assign`] for when it floats all the same.
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// How long a worker looks for work after its last before it parks, in microseconds. With more workers
    /// than usable cores it is zero, whatever is set here.
    pub fn spin_us_max(mut self, spin_us_max: u64) -> Self {
        self.spin_us_max = spin_us_max;
        self
    }

    /// The longest sleep of a parked worker, in milliseconds, at least one.
    pub fn park_ms_max(mut self, park_ms_max: u64) -> Self {
        self.park_ms_max = park_ms_max.max(1);
        self
    }

    /// The cores that the platform found. `cores().usable()` is the natural number of workers.
    pub fn cores(&self) -> &Cores {
        &self.cores
    }
}

impl Platform for GlommioPlatform {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(OsDisk::default())
    }

    fn has_outside(&self) -> bool {
        true
    }

    fn pause(&self, wait: Nanos, enough: &dyn Fn() -> bool) {
        bell::pause(wait, &*self.clock, enough);
    }

    fn memory_bytes(&self) -> Option<u64> {
        super::memory::memory_of_this_process()
    }

    fn prepare(&self, workers: usize) -> Result<Box<dyn Fleet>, PlatformError> {
        if workers == 0 {
            return Err(super::no_workers());
        }
        probe(workers, None).require()?;
        let crowded = workers > self.cores.usable();
        let patience = Patience {
            spin_ns_max: if crowded { 0 } else { self.spin_us_max.saturating_mul(1_000) },
            park_ns_max: self.park_ms_max.saturating_mul(1_000_000),
        };
        let cores = if self.pin { self.cores.assign(workers) } else { vec![None; workers] };
        let control = Arc::new(Bell::default());
        let (parkers, wakers) = (0..workers).map(|_| park::pair()).unzip();
        Ok(Box::new(GlommioFleet { clock: self.clock(), cores, patience, parkers, wakers, control }))
    }
}

struct GlommioFleet {
    clock: Arc<dyn Clock>,
    cores: Vec<Option<usize>>,
    patience: Patience,
    parkers: Vec<Parker>,
    wakers: Vec<Waker>,
    control: Arc<Bell>,
}

/// What a worker's thread needs.
struct Berth {
    clock: Arc<dyn Clock>,
    patience: Patience,
    parker: Parker,
    factory: DriveFactory,
}

impl Fleet for GlommioFleet {
    fn wakers(&self) -> Vec<Arc<dyn Wake>> {
        self.wakers.iter().map(|waker| Arc::new(waker.clone()) as Arc<dyn Wake>).collect()
    }

    fn control_waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.control) as Arc<dyn Wake>
    }

    fn start(
        self: Box<Self>,
        factories: Vec<DriveFactory>,
        control: Option<DriveFactory>,
    ) -> Result<Box<dyn Running>, PlatformError> {
        assert_eq!(factories.len(), self.parkers.len(), "one factory per prepared worker");
        let mut seats = Vec::with_capacity(factories.len());
        for core in self.cores {
            match Seat::take(core) {
                Ok(seat) => seats.push(seat),
                Err(error) => {
                    seats.into_iter().for_each(Seat::give_back);
                    return Err(error);
                }
            }
        }
        let (clock, patience, bell) = (self.clock, self.patience, self.control);
        let control = control.map(|make| Control { make, clock: Arc::clone(&clock), bell });
        let outcomes = seats
            .into_iter()
            .zip(self.parkers)
            .zip(factories)
            .map(|((seat, parker), factory)| {
                let berth = Berth { clock: Arc::clone(&clock), patience, parker, factory };
                seat.work(Box::new(move |executor| berth.run(executor)))
            })
            .collect();
        Ok(Box::new(GlommioRunning { outcomes, control }))
    }
}

impl Berth {
    /// Drives the worker to its end. The error is what its panic said.
    fn run(self, executor: &LocalExecutor) -> Result<(), String> {
        let Self { clock, patience, parker, factory } = self;
        parker.attach();
        executor.run(async move {
            let made = catch_unwind(AssertUnwindSafe(|| Pump::new(factory(), clock, parker, patience)));
            let mut pump = made.map_err(|panic| cause_of(&*panic))?;
            let outcome = loop {
                let stretch =
                    catch_unwind(AssertUnwindSafe(|| pump.run(|| glommio::executor().need_preempt())));
                match stretch {
                    Ok(Stretch::Yield) => glommio::executor().yield_if_needed().await,
                    Ok(Stretch::Done) => break Ok(()),
                    Err(panic) => break Err(cause_of(&*panic)),
                }
            };
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(pump)));
            outcome.and(dropped.map_err(|panic| cause_of(&*panic)))
        })
    }
}

struct GlommioRunning {
    outcomes: Vec<mpsc::Receiver<Result<(), String>>>,
    control: Option<Control>,
}

/// What is driven beside the workers, by the thread that waits for them.
struct Control {
    make: DriveFactory,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
}

impl Running for GlommioRunning {
    fn join(self: Box<Self>) -> Result<(), PlatformError> {
        if let Some(Control { make, clock, bell }) = self.control {
            // What it says when it panics, it says to the job as it is dropped.
            let _outcome = catch_unwind(AssertUnwindSafe(|| bell::drive(make(), &*clock, &bell)));
        }
        let mut lost = Ok(());
        for (worker, outcome) in self.outcomes.into_iter().enumerate() {
            let ended = outcome.recv().unwrap_or_else(|_| Err("its executor broke".into()));
            if let Err(cause) = ended {
                lost = lost.and(Err(PlatformError::WorkerLost { worker, cause }));
            }
        }
        lost
    }
}

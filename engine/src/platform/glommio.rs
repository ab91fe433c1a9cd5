//! The platform for production: one glommio executor per worker, each on a thread of its own.
//!
//! The worker's loop is the executor's main task; the executor's other tasks run when its preemption timer says so.
//! A parked worker blocks its thread, so nothing else may wait on the executor's ring then
//! (docs/design/001-parking.md).

use super::clock::MachineClock;
use super::cores::Cores;
use super::os::sleep_exactly;
use super::park::{self, Parker, Waker};
use super::probe::probe;
use super::pump::{Patience, Pump, Stretch};
use super::{Clock, DriveFactory, Fleet, Platform, PlatformError, Running, Wake};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

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
        let (parkers, wakers) = (0..workers).map(|_| park::pair()).unzip();
        Ok(Box::new(GlommioFleet { clock: self.clock(), cores, patience, parkers, wakers }))
    }
}

struct GlommioFleet {
    clock: Arc<dyn Clock>,
    cores: Vec<Option<usize>>,
    patience: Patience,
    parkers: Vec<Parker>,
    wakers: Vec<Waker>,
}

/// What a worker's thread needs.
struct Berth {
    core: Option<usize>,
    clock: Arc<dyn Clock>,
    patience: Patience,
    parker: Parker,
    factory: DriveFactory,
}

impl Fleet for GlommioFleet {
    fn wakers(&self) -> Vec<Arc<dyn Wake>> {
        self.wakers.iter().map(|waker| Arc::new(waker.clone()) as Arc<dyn Wake>).collect()
    }

    fn start(self: Box<Self>, factories: Vec<DriveFactory>) -> Result<Box<dyn Running>, PlatformError> {
        assert_eq!(factories.len(), self.parkers.len(), "one factory per prepared worker");
        let workers = factories.len();
        let (report, reports) = mpsc::channel();
        let mut threads = Vec::with_capacity(workers);
        let mut starts = Vec::with_capacity(workers);
        let mut failure = None;
        for (worker, ((parker, core), factory)) in
            self.parkers.into_iter().zip(self.cores).zip(factories).enumerate()
        {
            let berth =
                Berth { core, clock: Arc::clone(&self.clock), patience: self.patience, parker, factory };
            let (start, started) = mpsc::channel::<()>();
            let report = report.clone();
            let spawned = std::thread::Builder::new().name(format!("tidemill-{worker}")).spawn(move || {
                let executor = match make_executor(worker) {
                    Ok(executor) => executor,
                    Err(error) => {
                        let _ = report.send(Err(error));
                        return Ok(());
                    }
                };
                let _ = report.send(Ok(()));
                drop(report);
                // A closed channel means that another executor failed: nothing runs.
                if started.recv().is_err() { Ok(()) } else { berth.run(&executor) }
            });
            match spawned {
                Ok(thread) => {
                    threads.push(thread);
                    starts.push(start);
                }
                Err(error) => {
                    failure = Some(PlatformError::Unfit {
                        what: format!("starting the thread of worker {worker}"),
                        why: error.to_string(),
                        fix: "Ask for fewer cores, or raise the limit on processes (`ulimit -u`).".into(),
                    });
                    break;
                }
            }
        }
        drop(report);
        for outcome in reports {
            if let Err(error) = outcome {
                failure.get_or_insert(error);
            }
        }
        if let Some(error) = failure {
            drop(starts);
            for thread in threads {
                let _ = thread.join();
            }
            return Err(error);
        }
        for start in starts {
            let _ = start.send(());
        }
        Ok(Box::new(GlommioRunning { threads }))
    }
}

/// Makes an executor on the calling thread, whose affinity it leaves alone: its helper threads must not share the worker's core.
fn make_executor(worker: usize) -> Result<LocalExecutor, PlatformError> {
    // The workers do no direct I/O through the executor, so the smallest buffer pool does.
    let made = catch_unwind(|| {
        LocalExecutorBuilder::new(Placement::Unbound).name("tidemill").io_memory(64 << 10).make()
    });
    let why = match made {
        Ok(Ok(executor)) => return Ok(executor),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => cause_of(&*panic),
    };
    Err(PlatformError::Unfit {
        what: format!("starting the io_uring executor of worker {worker}"),
        why,
        fix: "Run `tidemill doctor` to see what the machine lacks.".into(),
    })
}

impl Berth {
    /// Drives the worker to its end. The error is what its panic said.
    fn run(self, executor: &LocalExecutor) -> Result<(), String> {
        let Self { core, clock, patience, parker, factory } = self;
        if let Some(id) = core {
            // Refused only if the mask shrank meanwhile: the worker floats then.
            if !core_affinity::set_for_current(core_affinity::CoreId { id }) {
                tracing::warn!(core = id, "cannot pin a worker to its core");
            }
        }
        sleep_exactly();
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
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Running for GlommioRunning {
    fn join(self: Box<Self>) -> Result<(), PlatformError> {
        let mut lost = Ok(());
        for (worker, thread) in self.threads.into_iter().enumerate() {
            let outcome = thread.join().unwrap_or_else(|panic| Err(cause_of(&*panic)));
            if let Err(cause) = outcome {
                lost = lost.and(Err(PlatformError::WorkerLost { worker, cause }));
            }
        }
        lost
    }
}

/// What a panic said.
pub(super) fn cause_of(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

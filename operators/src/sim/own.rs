//! A system outside of the job that is the user's own, as is the sink that commits to it.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidemill_engine::{model::source::BoxError, platform::Random};

use super::{
    Counts, counted, difference,
    outside::{Act, Outside},
};
use crate::api::environment::StreamEnvironment;

struct Contents<W> {
    world: W,
    /// The process that reaches it was killed: nothing comes through any more.
    is_cut_off: bool,
}

/// The way from a simulated process to a system outside of it: what a connection is to a real one. The system outlives the crashes
/// of the process, and has a state of its own under each seed. Clones are the same.
///
/// Given by [`Simulation::check_outside`](super::Simulation::check_outside).
pub struct SimOutside<W>(Arc<Mutex<Contents<W>>>);

impl<W> Clone for SimOutside<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> SimOutside<W> {
    fn lock(&self) -> MutexGuard<'_, Contents<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks something of the system, which does it whole.
    ///
    /// # Errors
    /// When the process was killed: whatever of it still runs reaches nobody. A sink hands it on.
    pub fn ask<R>(&self, act: impl FnOnce(&mut W) -> R) -> Result<R, BoxError> {
        let mut contents = self.lock();
        if contents.is_cut_off {
            return Err("the process is dead".into());
        }
        Ok(act(&mut contents.world))
    }
}

/// The system, with the job that commits to it.
pub(super) struct OwnOutside<'a, W, R, D> {
    way: SimOutside<W>,
    rows: &'a R,
    expected: &'a Counts,
    describe: &'a D,
}

impl<'a, W: Default, R, D> OwnOutside<'a, W, R, D> {
    pub(super) fn new(rows: &'a R, expected: &'a Counts, describe: &'a D) -> Self {
        let contents = Contents { world: W::default(), is_cut_off: false };
        Self { way: SimOutside(Arc::new(Mutex::new(contents))), rows, expected, describe }
    }
}

impl<W, T, R, D> Outside for OwnOutside<'_, W, R, D>
where
    W: Send + 'static,
    T: Debug,
    R: Fn(&W) -> Vec<T>,
    D: Fn(&StreamEnvironment, SimOutside<W>),
{
    fn describe(&self, environment: &StreamEnvironment) {
        (self.describe)(environment, self.way.clone());
    }

    fn when_killed(&self) -> Act {
        let way = self.way.clone();
        Arc::new(move || way.lock().is_cut_off = true)
    }

    fn life_is_over(&self, _: bool) {
        self.way.lock().is_cut_off = true;
    }

    fn recover_from_crash(&self, _: &mut Random) {
        self.way.lock().is_cut_off = false;
    }

    fn wrong(&self) -> Option<String> {
        difference(self.expected, &counted((self.rows)(&self.way.lock().world)))
    }
}

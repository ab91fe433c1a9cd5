//! When checkpoints begin, when they are given up, and when one overtakes what it waits for.

use super::{Coordinator, NANOS_PER_MILLI, Underway};
use crate::{control::archive::Copier, model::checkpoint::BarrierKind, platform::Nanos};

impl Coordinator {
    /// The time after which a checkpoint is given up.
    pub(super) fn timeout(&self) -> Nanos {
        let timeout_ms = self.plan.config.as_ref().map_or(u64::MAX, |config| config.timeout_ms);
        timeout_ms.saturating_mul(NANOS_PER_MILLI)
    }

    /// Gives up checkpoints whose time is up.
    pub(super) fn expire(&mut self, now: Nanos) {
        let timeout = self.timeout();
        let late = |own: &&Underway| own.is_bounded() && now.saturating_sub(own.began) >= timeout;
        if self.copying.as_ref().is_some_and(|securing| late(&&securing.own)) {
            // It is on its way there.
            self.plan.copier.iter_mut().for_each(Copier::cancel);
        }
        let expired: Vec<_> =
            self.underway.iter().filter(late).map(|own| (own.checkpoint, own.missing)).collect();
        for (checkpoint, missing) in expired {
            let ms = timeout / NANOS_PER_MILLI;
            let cause = match missing {
                0 => format!("the one before was not in the remote store after {ms} ms"),
                _ => format!("{missing} tasks had not passed its barrier after {ms} ms"),
            };
            self.fail_checkpoint(checkpoint, cause);
        }
    }

    /// Begins the checkpoint that is due; returns when the next one is.
    pub(super) fn trigger_due(&mut self, now: Nanos) -> Option<Nanos> {
        if self.closing {
            return self.next_late(now);
        }
        if self.failover.all_at_end() {
            let request = self.draining.take();
            self.trigger(BarrierKind::Final, request, now);
            return None;
        }
        let config = self.plan.config.as_ref()?;
        let interval = config.interval_ms.saturating_mul(NANOS_PER_MILLI);
        let pause = config.pause_ms_min.saturating_mul(NANOS_PER_MILLI);
        let due = self.last_begun.saturating_add(interval).max(self.last_ended.saturating_add(pause));
        if self.underway.len() + usize::from(self.copying.is_some()) >= config.concurrent_max {
            return self.next_late(now);
        }
        if now < due {
            return Some(due);
        }
        self.trigger(self.kind_at_first(), None, now);
        Some(now.saturating_add(interval))
    }

    /// When the time of the next checkpoint is up.
    fn next_late(&self, now: Nanos) -> Option<Nanos> {
        let copying = self.copying.iter().map(|securing| &securing.own);
        let bounded = self.underway.iter().chain(copying).filter(|own| own.is_bounded());
        let ends = bounded.map(|own| own.began.saturating_add(self.timeout()));
        // What is late already is being given up, which is told.
        ends.filter(|end| *end > now).min()
    }

    /// How a checkpoint begins. A barrier that overtakes may not overtake another one.
    pub(super) fn kind_at_first(&self) -> BarrierKind {
        let unaligned_after = self.plan.config.as_ref().and_then(|config| config.unaligned_after_ms);
        if unaligned_after == Some(0) && self.underway.is_empty() {
            BarrierKind::Overtaking
        } else {
            BarrierKind::Running
        }
    }

    /// Gives up the checkpoint that waits for records for too long, in favour of one that does not; returns when that is to be
    /// looked at again. It does not count as a failure.
    pub(super) fn hasten(&mut self, now: Nanos) -> Option<Nanos> {
        let after = self.plan.config.as_ref()?.unaligned_after_ms?.saturating_mul(NANOS_PER_MILLI);
        let [own] = &self.underway[..] else { return None };
        let is_savepoint = own.request.as_ref().is_some_and(|request| request.target.is_some());
        if own.kind != BarrierKind::Running || own.missing == 0 || is_savepoint || self.closing {
            return None;
        }
        let due = own.began.saturating_add(after);
        if now < due {
            return Some(due);
        }
        let own = self.underway.remove(0);
        self.platform.note(&|| format!("checkpoint {} has waited for records for too long", own.checkpoint));
        let (began, bytes_written) = (own.began, own.bytes_written);
        let request = self.give_up(own);
        self.trigger(BarrierKind::Overtaking, request, now);
        if let Some(hastened) = self.underway.last_mut() {
            // For whoever waits, and for the timeout, it is the same checkpoint.
            hastened.began = began;
            hastened.bytes_written = bytes_written;
        }
        None
    }
}

//! The output of an operator under test: keeps what comes and checks that it is a legal stream.

use std::{cell::RefCell, marker::PhantomData, rc::Rc};

use tidemill_engine::model::{
    item::Item,
    metrics::OperatorVisitor,
    operator::{Push, Signal, StepContext},
    time::{Timestamp, WATERMARK_MIN},
};

use super::operator::Seen;

/// What came out of an operator.
pub(super) type Log<T> = Rc<RefCell<Vec<Seen<T>>>>;

/// Takes what an operator hands on.
pub(super) struct Probe<I: Item> {
    log: Log<I::Native>,
    /// Whether it is full after every second record, and only has room again at the second drain after that.
    often_full: bool,
    records: usize,
    drains_until_room: usize,
    watermark: Timestamp,
    ended: bool,
    item: PhantomData<fn() -> I>,
}

impl<I: Item> Probe<I> {
    pub(super) fn new(log: Log<I::Native>, often_full: bool) -> Self {
        Self {
            log,
            often_full,
            records: 0,
            drains_until_room: 0,
            watermark: WATERMARK_MIN,
            ended: false,
            item: PhantomData,
        }
    }
}

impl<I: Item> Push<I> for Probe<I> {
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        assert!(!self.ended, "the operator hands on a record behind the end");
        self.log.borrow_mut().push(Seen::Record(I::into_native(item), timestamp));
        self.records += 1;
        if self.often_full && self.records.is_multiple_of(2) {
            self.drains_until_room = 2;
            context.block();
        }
    }

    fn signal(&mut self, signal: Signal, _context: &mut StepContext) {
        assert!(!self.ended, "the operator says {signal:?} behind the end");
        match signal {
            Signal::Watermark(watermark) => {
                assert!(watermark >= self.watermark, "the watermark falls: {} {watermark}", self.watermark);
                self.watermark = watermark;
            }
            Signal::End => self.ended = true,
            Signal::Idle | Signal::Active | Signal::Barrier(_) => {}
        }
        self.log.borrow_mut().push(Seen::Signal(signal));
    }

    fn drain(&mut self, context: &mut StepContext) {
        self.drains_until_room = self.drains_until_room.saturating_sub(1);
        if self.drains_until_room > 0 {
            context.block();
        }
    }

    fn report(&self, _arrived: u64, _visitor: &mut dyn OperatorVisitor) {}
}

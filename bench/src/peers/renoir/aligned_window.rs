//! Event-time windows that start at multiples of their slide, on Renoir's window traits.
//!
//! Each key holds its open windows in ascending order, and only those that an event fell into. A watermark
//! closes the windows that end at or before it; a result's time is its window's end.

use std::collections::VecDeque;

use renoir::operator::{
    Data, StreamElement, Timestamp,
    window::{WindowAccumulator, WindowDescription, WindowManager, WindowResult},
};

/// Windows of `size` that start at every multiple of `slide`, both in milliseconds.
#[derive(Clone, Copy)]
pub(super) struct AlignedWindow {
    size: Timestamp,
    slide: Timestamp,
}

impl AlignedWindow {
    pub(super) fn tumbling(size: Timestamp) -> Self {
        Self { size, slide: size }
    }

    pub(super) fn sliding(size: Timestamp, slide: Timestamp) -> Self {
        assert_eq!(size % slide, 0, "a window is a whole number of slides");
        Self { size, slide }
    }
}

impl<T: Data> WindowDescription<T> for AlignedWindow {
    type Manager<A: WindowAccumulator<In = T>> = AlignedWindowManager<A>;

    fn build<A: WindowAccumulator<In = T>>(&self, accumulator: A) -> Self::Manager<A> {
        AlignedWindowManager { empty: accumulator, window: *self, open: VecDeque::new() }
    }
}

/// The open windows of one key.
#[derive(Clone)]
pub(super) struct AlignedWindowManager<A> {
    empty: A,
    window: AlignedWindow,
    open: VecDeque<(Timestamp, A)>,
}

impl<A: WindowAccumulator> AlignedWindowManager<A> {
    #[inline]
    fn add(&mut self, item: &A::In, time: Timestamp) {
        let AlignedWindow { size, slide } = self.window;
        let last = time - time.rem_euclid(slide);
        let mut start = last - (size - slide);
        // Events come nearly in order, so that the windows of this one are the last of the open ones.
        let mut place = self.open.len();
        while place > 0 && self.open[place - 1].0 >= start {
            place -= 1;
        }
        while start <= last {
            if self.open.get(place).is_none_or(|open| open.0 != start) {
                self.open.insert(place, (start, self.empty.clone()));
            }
            self.open[place].1.process(item);
            place += 1;
            start += slide;
        }
    }

    fn close(&mut self, count: usize) -> Vec<WindowResult<A::Out>> {
        let size = self.window.size;
        self.open
            .drain(..count)
            .map(|(start, accumulator)| WindowResult::Timestamped(accumulator.output(), start + size))
            .collect()
    }
}

impl<A: WindowAccumulator> WindowManager for AlignedWindowManager<A> {
    type In = A::In;
    type Out = A::Out;
    type Output = Vec<WindowResult<A::Out>>;

    #[inline]
    fn process(&mut self, element: StreamElement<A::In>) -> Self::Output {
        match element {
            StreamElement::Timestamped(item, time) => {
                self.add(&item, time);
                Vec::new()
            }
            StreamElement::Watermark(time) => {
                self.close(self.open.partition_point(|open| open.0 + self.window.size <= time))
            }
            StreamElement::FlushAndRestart | StreamElement::Terminate => self.close(self.open.len()),
            StreamElement::FlushBatch => Vec::new(),
            StreamElement::Item(_) => panic!("an event-time window needs events with a time"),
        }
    }

    fn recycle(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Collect(Vec<i64>);

    impl WindowAccumulator for Collect {
        type In = i64;
        type Out = Vec<i64>;

        fn process(&mut self, item: &i64) {
            self.0.push(*item);
        }

        fn output(self) -> Vec<i64> {
            self.0
        }
    }

    #[test]
    fn windows_start_at_multiples_and_close_at_their_end() {
        let mut windows = AlignedWindow::sliding(10, 5).build(Collect(Vec::new()));
        let mut closed = Vec::new();
        for time in [7, 12, 9, 31] {
            assert!(windows.process(StreamElement::Timestamped(time, time)).is_empty());
        }
        for element in
            [StreamElement::Watermark(14), StreamElement::Watermark(15), StreamElement::FlushAndRestart]
        {
            closed.push(windows.process(element));
        }
        let window = |items: &[i64], end| WindowResult::Timestamped(items.to_vec(), end);
        assert_eq!(closed[0], [window(&[7, 9], 10)]);
        assert_eq!(closed[1], [window(&[7, 12, 9], 15)]);
        assert_eq!(closed[2], [window(&[12], 20), window(&[31], 35), window(&[31], 40)]);
        assert!(windows.recycle());
    }
}

//! A function that gets every record: how an embedding service receives answers.

use tidemill_engine::model::{
    sink::{Sink, SinkWriter},
    source::{BoxError, SubtaskContext},
    time::Timestamp,
};

/// Calls a function with every record. Each subtask has a clone of the function, and calls it on its data
/// core: it must not block; to hand records on, send them over a channel.
///
/// ```
/// use tidemill_operators::sink::CallbackSink;
///
/// let (sender, receiver) = std::sync::mpsc::channel::<u64>();
/// let answers = CallbackSink::new(move |answer: u64| drop(sender.send(answer)));
/// # drop((answers, receiver));
/// ```
#[derive(Clone, Debug)]
pub struct CallbackSink<F> {
    call: F,
}

impl CallbackSink<()> {
    /// Calls `call` with every record.
    pub fn new<T>(
        mut call: impl FnMut(T) + Clone + Send + Sync + 'static,
    ) -> CallbackSink<impl FnMut(T, Timestamp) -> Result<(), BoxError> + Clone + Send + Sync + 'static> {
        CallbackSink {
            call: move |record: T, _timestamp: Timestamp| {
                call(record);
                Ok(())
            },
        }
    }
}

impl<F> CallbackSink<F> {
    /// Calls `call` with every record and its timestamp; an error fails the job.
    pub fn fallible<T>(call: F) -> Self
    where
        F: FnMut(T, Timestamp) -> Result<(), BoxError> + Clone + Send + Sync + 'static,
    {
        Self { call }
    }
}

impl<T: 'static, F> Sink<T> for CallbackSink<F>
where
    F: FnMut(T, Timestamp) -> Result<(), BoxError> + Clone + Send + Sync + 'static,
{
    type Writer = CallbackWriter<F>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, _context: &SubtaskContext) -> Result<CallbackWriter<F>, BoxError> {
        Ok(CallbackWriter { call: self.call.clone() })
    }
}

/// Calls one subtask's clone of the function of a [`CallbackSink`].
pub struct CallbackWriter<F> {
    call: F,
}

impl<T: 'static, F> SinkWriter<T> for CallbackWriter<F>
where
    F: FnMut(T, Timestamp) -> Result<(), BoxError> + 'static,
{
    #[inline]
    fn write(&mut self, record: T, timestamp: Timestamp) -> Result<(), BoxError> {
        (self.call)(record, timestamp)
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}

//! Sources that other threads feed: iterators, TCP and channels.
#![allow(clippy::unwrap_used)]

mod source_kit;

use std::{
    future::Future,
    io::Write,
    net::TcpStream,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Wake, Waker},
    thread,
};

use source_kit::{Taken, context, drain, failure, open, read};
use tidemill_engine::model::source::{Polled, Reader, Source, SubtaskContext};
use tidemill_operators::source::{
    BadRecords, SendError, TcpLinesSource, TrySendError, channel, from_iter, from_parallel_iter, from_vec,
};

#[test]
fn a_vector_is_shared_out_in_contiguous_parts() {
    for parallelism in [1, 2, 3, 8, 150] {
        let read = read(from_vec((0..100).collect()), parallelism, 7, true).unwrap();
        let sizes: Vec<usize> = read.by_subtask.iter().map(Vec::len).collect();
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        assert_eq!(read.all(), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn iterators_are_read_by_one_subtask_or_by_each() {
    let one = read(from_iter(0..10), 3, 4, true).unwrap();
    assert_eq!(one.by_subtask, [(0..10).collect(), vec![], vec![]]);
    let each = from_parallel_iter(|subtask, parallelism| (subtask..10).step_by(parallelism));
    assert_eq!(read(each, 2, 4, true).unwrap().by_subtask, [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]);
    let mut source = from_iter(0..10);
    source.prepare(1).unwrap();
    // A job that starts again begins again.
    for _ in 0..2 {
        let mut taken = Taken::new(3);
        drain(&mut open(&source, &context(0, 1, true)).unwrap(), &mut taken).unwrap();
        assert_eq!(taken.records, (0..10).collect::<Vec<_>>());
    }
}

fn number(line: &str) -> Result<u32, std::num::ParseIntError> {
    line.parse()
}

#[test]
fn lines_of_several_connections_arrive_in_order_at_any_parallelism() {
    for parallelism in [1, 2, 3] {
        let mut source = TcpLinesSource::new("127.0.0.1:0", number).end_after_connections(4);
        let handle = source.handle();
        source.prepare(parallelism).unwrap();
        let address = handle.wait_for_address().unwrap();
        let clients: Vec<_> = (0..4_u32)
            .map(|client| {
                thread::spawn(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    for count in 0..10_000 {
                        writeln!(stream, "{}\r", client * 100_000 + count).unwrap();
                    }
                    write!(stream, "{}", client * 100_000 + 10_000).unwrap();
                })
            })
            .collect();
        let readers: Vec<_> = (0..parallelism)
            .map(|subtask| open(&source, &context(subtask, parallelism, false)).unwrap())
            .collect();
        // The readers keep the server open.
        drop(source);
        let mut records = Vec::new();
        for mut reader in readers {
            let mut taken = Taken::new(100);
            drain(&mut reader, &mut taken).unwrap();
            records.extend(taken.records);
        }
        for client in clients {
            client.join().unwrap();
        }
        for client in 0..4_u32 {
            let of_client: Vec<u32> = records.iter().copied().filter(|n| n / 100_000 == client).collect();
            let expected: Vec<u32> = (0..=10_000).map(|count| client * 100_000 + count).collect();
            assert_eq!(of_client, expected);
        }
    }
}

#[test]
fn bad_lines_of_a_connection_are_told_skipped_or_kept() {
    let directory = tempfile::tempdir().unwrap();
    let dead = directory.path().join("dead");
    let long = "9".repeat(200_000);
    let sent = [&b"1\nx\n\xff\n2\n"[..], long.as_bytes(), b"\n3\n"].concat();
    for on_error in [BadRecords::Fail, BadRecords::Skip, BadRecords::DeadLetter(dead.clone())] {
        let mut source = TcpLinesSource::new("127.0.0.1:0", number)
            .end_after_connections(1)
            .line_bytes_max(1000)
            .on_error(on_error.clone());
        source.prepare(1).unwrap();
        let address = source.handle().address().unwrap();
        let client = thread::spawn({
            let sent = sent.clone();
            // Under `Fail` the other end may hang up first.
            move || drop(TcpStream::connect(address).unwrap().write_all(&sent))
        });
        let mut reader = open(&source, &context(0, 1, false)).unwrap();
        let mut taken = Taken::new(1);
        let outcome = drain(&mut reader, &mut taken);
        drop((source, reader));
        client.join().unwrap();
        if on_error == BadRecords::Fail {
            let error = outcome.unwrap_err().to_string();
            assert!(
                error.contains("connection 0 from 127.0.0.1:") && error.contains("byte 2 (line 2)"),
                "{error}"
            );
            continue;
        }
        outcome.unwrap();
        assert_eq!((taken.records, taken.skipped), (vec![1, 2, 3], 3));
    }
    assert_eq!(std::fs::read(dead).unwrap(), [b"x\n\xff\n", long.as_bytes(), b"\n"].concat());
}

#[test]
fn a_port_in_use_is_a_clear_error_and_stopping_ends_the_input() {
    let mut source = TcpLinesSource::new("127.0.0.1:0", number);
    let handle = source.handle();
    assert_eq!(handle.address(), None);
    source.prepare(1).unwrap();
    let port = handle.address().unwrap().port();
    let error = failure(TcpLinesSource::on_port(port, number));
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("in use"), "{error}");
    assert!(open(&source, &context(0, 1, true)).is_err(), "there are no threads in simulation");
    let mut reader = open(&source, &context(0, 1, false)).unwrap();
    let silent = TcpStream::connect(reader.address()).unwrap();
    handle.stop();
    drain(&mut reader, &mut Taken::new(1)).unwrap();
    drop(silent);
    let unused = TcpLinesSource::new("127.0.0.1:0", number);
    let handle = unused.handle();
    drop(unused);
    assert_eq!(handle.wait_for_address(), None);
}

#[test]
fn a_channel_hands_over_every_record_in_order_per_feeder_and_subtask() {
    for parallelism in [1, 2, 3] {
        let (feeder, mut source) = channel::<(u32, u32)>(16);
        feeder.send((9, 0)).unwrap();
        source.prepare(parallelism).unwrap();
        let feeders: Vec<_> = (0..3_u32)
            .map(|name| {
                let feeder = feeder.clone();
                thread::spawn(move || (0..5000).for_each(|count| feeder.send((name, count)).unwrap()))
            })
            .collect();
        drop(feeder);
        let readers: Vec<_> = (0..parallelism)
            .map(|subtask| {
                let mut reader = open(&source, &context(subtask, parallelism, false)).unwrap();
                thread::spawn(move || {
                    let mut taken = Taken::new(7);
                    drain(&mut reader, &mut taken).unwrap();
                    taken.records
                })
            })
            .collect();
        drop(source);
        let taken: Vec<Vec<(u32, u32)>> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        feeders.into_iter().for_each(|feeder| feeder.join().unwrap());
        assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), 15_001);
        for records in &taken {
            for name in 0..3 {
                assert!(records.iter().filter(|record| record.0 == name).is_sorted());
            }
        }
    }
}

#[test]
fn a_feeder_deals_its_records_over_the_subtasks_in_turn() {
    let (feeder, mut source) = channel::<u32>(16);
    source.prepare(3).unwrap();
    (0..9).for_each(|count| feeder.send(count).unwrap());
    drop(feeder);
    let readers: Vec<_> = (0..3).map(|subtask| open(&source, &context(subtask, 3, true)).unwrap()).collect();
    for (subtask, mut reader) in readers.into_iter().enumerate() {
        let mut taken = Taken::new(2);
        drain(&mut reader, &mut taken).unwrap();
        assert_eq!(taken.records, (subtask as u32..9).step_by(3).collect::<Vec<_>>());
    }
}

struct NoWaker;

impl Wake for NoWaker {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_full_channel_holds_back_and_sending_works_from_async_code() {
    let (feeder, mut source) = channel::<u32>(2);
    source.prepare(1).unwrap();
    let mut reader = open(&source, &context(0, 1, false)).unwrap();
    feeder.try_send(1).unwrap();
    feeder.try_send(2).unwrap();
    assert!(matches!(feeder.try_send(3), Err(TrySendError::Full(3))));
    let waker = Waker::from(Arc::new(NoWaker));
    let mut async_context = Context::from_waker(&waker);
    let mut sending = pin!(feeder.send_async(3));
    assert!(sending.as_mut().poll(&mut async_context).is_pending());
    let mut taken = Taken::new(1);
    assert_eq!(reader.poll(&mut taken, 0).unwrap(), Polled::More);
    assert!(matches!(sending.as_mut().poll(&mut async_context), Poll::Ready(Ok(()))));
    feeder.close();
    assert!(matches!(feeder.send(4), Err(SendError::Closed(4))));
    let mut rest = Taken::new(9);
    drain(&mut reader, &mut rest).unwrap();
    assert_eq!((taken.records, rest.records), (vec![1], vec![2, 3]));
}

#[test]
fn a_failed_job_gives_records_back_and_frees_what_waits() {
    for parallelism in [1, 2] {
        let (feeder, mut source) = channel::<Arc<()>>(1);
        source.prepare(parallelism).unwrap();
        let readers: Vec<_> = (0..parallelism)
            .map(|subtask| open(&source, &context(subtask, parallelism, false)).unwrap())
            .collect();
        let waiting = Arc::new(());
        while feeder.try_send(waiting.clone()).is_ok() {}
        let blocked = thread::spawn({
            let (feeder, record) = (feeder.clone(), Arc::new(()));
            move || feeder.send(record).unwrap_err()
        });
        drop((readers, source));
        assert!(matches!(blocked.join().unwrap(), SendError::JobEnded(_)));
        assert!(matches!(feeder.send(waiting.clone()), Err(SendError::JobEnded(_))));
        assert_eq!(Arc::strong_count(&waiting), 1);
    }
    let (feeder, source) = channel::<u32>(1);
    drop(source);
    assert_eq!(feeder.send(1).unwrap_err().into_record(), 1);
}

#[test]
fn a_job_that_starts_again_goes_on_with_what_waits() {
    let (feeder, mut source) = channel(16);
    source.prepare(1).unwrap();
    (0..10).for_each(|number| feeder.send(number).unwrap());
    let mut taken = Taken::new(4);
    let mut reader = open(&source, &context(0, 1, false)).unwrap();
    assert_eq!(reader.poll(&mut taken, 0).unwrap(), Polled::More);
    // The attempt fails; the job, and with it the source, lives on.
    drop(reader);
    let woken = Arc::new(source_kit::CountingWake::default());
    let again = SubtaskContext { waker: woken.clone(), ..context(0, 1, false) };
    let mut reader = open(&source, &again).unwrap();
    feeder.send(10).unwrap();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1, "it is the new worker that is woken");
    drop(feeder);
    drain(&mut reader, &mut taken).unwrap();
    assert_eq!(taken.records, (0..11).collect::<Vec<_>>());

    let mut source = TcpLinesSource::new("127.0.0.1:0", number).end_after_connections(1);
    source.prepare(1).unwrap();
    let address = source.handle().wait_for_address().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    drop(open(&source, &context(0, 1, false)).unwrap());
    let mut reader = open(&source, &context(0, 1, false)).unwrap();
    writeln!(stream, "7").unwrap();
    drop(stream);
    let mut taken = Taken::new(4);
    drain(&mut reader, &mut taken).unwrap();
    assert_eq!(taken.records, [7]);
}

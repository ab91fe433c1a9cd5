//! Lines arrive whole, a full inbox holds the peer back, and stopping unblocks every thread.

use std::{io::Write, net::TcpStream};

use super::*;

fn options(inboxes: usize, accepts_max: Option<usize>) -> LineServerOptions {
    LineServerOptions {
        inboxes,
        connections_max: 16,
        accepts_max,
        limits: Limits { chunk_bytes: 16, line_bytes_max: 1 << 10, eager: true },
    }
}

/// Takes everything until the inbox ends.
fn drain(inbox: &LineInbox) -> Vec<(usize, Vec<u8>)> {
    let mut taken = Vec::new();
    loop {
        match inbox.poll() {
            Incoming::Chunk(chunk) => {
                let lines = chunk.chunk.as_ref().map(|lines| lines.text.as_bytes().to_vec());
                taken.push((chunk.connection.index, lines.unwrap()));
            }
            Incoming::Pending => std::thread::yield_now(),
            Incoming::End => return taken,
        }
    }
}

#[test]
fn connections_are_dealt_over_inboxes_and_end_with_the_last() {
    let (server, inboxes) = LineServer::listen("127.0.0.1:0", options(2, Some(3))).unwrap();
    for index in 0..3 {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        write!(stream, "first {index}\nsecond {index}\nunended").unwrap();
    }
    for (number, inbox) in inboxes.iter().enumerate() {
        let taken = drain(inbox);
        for connection in (number..3).step_by(2) {
            let bytes: Vec<u8> = taken
                .iter()
                .filter(|(index, _)| *index == connection)
                .flat_map(|(_, bytes)| bytes.clone())
                .collect();
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.starts_with("first ") && text.ends_with("\nunended"), "{text}");
        }
        assert!(taken.iter().all(|(index, _)| index % 2 == number));
    }
}

#[test]
fn a_port_in_use_and_a_bad_address_are_clear_errors() {
    let (server, _inboxes) = LineServer::listen("127.0.0.1:0", options(1, None)).unwrap();
    let address = server.address().to_string();
    let error = LineServer::listen(&address, options(1, None)).err().unwrap();
    assert!(matches!(error, SocketError::InUse { .. }));
    assert!(error.to_string().contains(&address), "{error}");
    server.stop();
    LineServer::listen(&address, options(1, None)).unwrap();
    let error = LineServer::listen("nonsense", options(1, None)).err().unwrap();
    assert!(error.to_string().contains("HOST:PORT"), "{error}");
}

#[test]
fn stopping_unblocks_readers_that_wait_for_bytes_and_for_room() {
    let (server, inboxes) = LineServer::listen("127.0.0.1:0", options(1, None)).unwrap();
    let mut busy = TcpStream::connect(server.address()).unwrap();
    for _ in 0..100 {
        busy.write_all(b"a line that nobody takes\n").unwrap();
    }
    let _silent = TcpStream::connect(server.address()).unwrap();
    while !matches!(inboxes[0].poll(), Incoming::Chunk(_)) {
        std::thread::yield_now();
    }
    server.stop();
    drain(&inboxes[0]);
}

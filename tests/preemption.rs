//! Votes pass bulk, on a real socket.
//!
//! Set-up: an engine with messages of up to 16 MiB and an outbox of twice that, a reader that takes 10 MB a second through a receive buffer
//! of 64 KiB, and an 8 MiB message in the bulk lane on its way to it. Claim: a message in the high lane that is sent in the middle
//! of it has in front of it no more than one fragment, what the kernel of the sender holds (`TCP_NOTSENT_LOWAT` and the skb that takes
//! it over that), and what is between the kernels and in the receiver's buffer. Counted in bytes of the stream, not in time.

mod common;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::node::Node;
use common::raw::{BULK, FRAGMENT, HIGH, Hello, MORE, Raw};
use common::{NEVER, eventually, loopback};
use corecast::{Config, Lane, Meta};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

const BULK_LEN: usize = 8 << 20;
const FRAGMENT_LEN: usize = 16 << 10;
const NOTSENT_LOWAT: usize = 16 << 10;
/// The most that one skb holds, by which the kernel may overshoot its mark.
const SKB: usize = 64 << 10;
/// Bytes a second that the reader takes, and in how large steps.
const RATE: usize = 10_000_000;
const STEP: usize = 10_000;
/// High-lane messages that are sent while the large one is under way, and bytes that the reader takes between two of them.
const VOTES: usize = 8;
const APART: usize = 800_000;

const BLOCK: u16 = 1;
const VOTE: u16 = 2;

fn config() -> Config {
    let mut config = loopback();
    config.limits.max_message = 16 << 20;
    // Twice the longest message and its 1,025 headers: the least that is allowed.
    config.limits.outbox_hard = (32 << 20) + (32 << 10);
    config.limits.outbox_soft = config.limits.outbox_hard;
    config.limits.log_bytes = 2 * config.limits.outbox_hard;
    config.io.notsent_lowat = Some(NOTSENT_LOWAT as u32);
    config.timeouts.write_stall = NEVER;
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config
}

/// A connection with a receive buffer of 64 KiB, and how much of the kernel's memory that allows it.
fn narrow(address: SocketAddr) -> (Raw, usize) {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.connect(&address.into()).unwrap();
    let raw = Raw::over(socket.into());
    let room = SockRef::from(&raw.stream).recv_buffer_size().unwrap();
    (raw.shake(Hello { max_message: 16 << 20, ..Hello::node(1) }), room)
}

/// A frame's place in the stream.
#[derive(Clone, Copy, Debug)]
struct Placed {
    kind: u8,
    flags: u8,
    message_type: u16,
    at: usize,
    len: usize,
}

/// Reads to the end of the large message and the last vote, at the rate, and says where each frame stood.
fn read_slowly(mut stream: TcpStream, taken: &AtomicUsize) -> Vec<Placed> {
    let began = Instant::now();
    let mut bytes = Vec::new();
    let mut frames: Vec<Placed> = Vec::new();
    let mut at = 0;
    let ended = |frames: &[Placed]| {
        let votes = frames.iter().filter(|frame| frame.message_type == VOTE).count();
        votes == VOTES && frames.iter().any(|frame| frame.kind == FRAGMENT && frame.flags & MORE == 0)
    };
    while !ended(&frames) {
        // The pace is part of the set-up: without it nothing would ever wait.
        let due = Duration::from_secs_f64(bytes.len() as f64 / RATE as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let mut step = [0; STEP];
        let read = stream.read(&mut step).unwrap();
        assert!(read > 0, "the end after {} bytes", bytes.len());
        bytes.extend_from_slice(&step[..read]);
        taken.store(bytes.len(), Ordering::SeqCst);
        while bytes.len() >= at + 8 {
            let len = 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            if bytes.len() < at + len {
                break;
            }
            let message_type = u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]);
            frames.push(Placed { kind: bytes[at + 4], flags: bytes[at + 5], message_type, at, len });
            at += len;
        }
    }
    frames
}

#[test]
fn a_vote_has_at_most_a_fragment_and_the_kernels_buffers_before_it() {
    let mut node = Node::report(config());
    let (raw, room) = narrow(node.address());
    let (peer, _) = node.connected();
    let taken = Arc::new(AtomicUsize::new(0));
    let reader = std::thread::spawn({
        let (stream, taken) = (raw.stream.try_clone().unwrap(), Arc::clone(&taken));
        move || read_slowly(stream, &taken)
    });
    let block = vec![7; BULK_LEN];
    node.run(0, move |cx| cx.send(peer, Meta::new(BLOCK).lane(Lane::Bulk), &block)).unwrap();
    // For each vote: what the engine had still to give to the kernel, and what the reader had, when it was sent.
    let mut sent = Vec::new();
    for vote in 1..=VOTES {
        eventually("the reader goes on", || taken.load(Ordering::SeqCst) >= vote * APART);
        let taken = Arc::clone(&taken);
        sent.push(node.run(0, move |cx| {
            let queued = cx.queued_bytes(peer);
            cx.send(peer, Meta::new(VOTE).lane(Lane::High), &vote.to_le_bytes()).unwrap();
            (queued, taken.load(Ordering::SeqCst))
        }));
    }
    let frames = reader.join().unwrap();
    let end = frames.last().map_or(0, |frame| frame.at + frame.len);
    let votes: Vec<_> = frames.iter().filter(|frame| frame.message_type == VOTE).collect();
    assert!(votes.iter().all(|vote| vote.flags == HIGH));
    assert!(frames.iter().all(|frame| frame.message_type == VOTE || frame.flags & 3 == BULK));
    let last = frames.iter().rposition(|frame| frame.message_type == BLOCK).unwrap();
    assert!(votes[VOTES - 1].at < frames[last].at, "the votes were to come while the large message was under way");
    for (number, (vote, &(queued, taken))) in votes.iter().zip(&sent).enumerate() {
        // Of the votes that came later, nothing was in the outbox yet. What is queued includes a charge of some bytes for each span.
        let later: usize = votes[number..].iter().map(|vote| vote.len).sum();
        let in_kernel = end - later - queued;
        let passed_over = vote.at.saturating_sub(in_kernel);
        assert!(passed_over <= FRAGMENT_LEN + 8 + 256, "vote {number}: the socket took {passed_over} bytes of the large message first");
        let ahead = vote.at - taken;
        let most = FRAGMENT_LEN + 8 + NOTSENT_LOWAT + SKB + room;
        assert!(ahead <= most, "vote {number}: {ahead} bytes were ahead of it, and may be {most}");
    }
    drop(raw);
    node.finish();
}

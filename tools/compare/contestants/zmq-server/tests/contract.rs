//! Set-up: the program as a process; DEALERs by hand, and for fan-out libzmq's own sockets, on loopback. Claim: all of the contract, and a
//! subscriber that never reads holds up no one.

use std::time::Instant;

use conformance::contract;
use conformance::peers::DealerPeer;
use conformance::program::{DEADLINE, Program, Running, locked_version};
use zmq::{Context, Socket};

const PROGRAM: Program = Program { path: env!("CARGO_BIN_EXE_zmq-server"), arguments: &[] };

conformance::contract!(DealerPeer, PROGRAM;
    echoes_everything_in_order,
    takes_input_in_pieces,
    a_sink_answers_every_64th,
    ends_in_order_while_connections_are_open,
);

/// A fan-out with its publisher and its subscribers.
struct Fanout {
    server: Running,
    publisher: Socket,
    subscribers: Vec<Socket>,
    // Behind the sockets, which must be closed before it.
    _context: Context,
}

impl Fanout {
    /// Returns when all subscribers get what is published: a subscription is not acknowledged.
    fn start(count: usize) -> Self {
        let mut server = PROGRAM.start("fanout");
        let (address, publishing) = (server.address, server.announced("publishing"));
        let context = Context::new();
        let publisher = context.socket(zmq::PUSH).unwrap();
        publisher.connect(&format!("tcp://{address}")).unwrap();
        let subscribers: Vec<Socket> = (0..count).map(|_| subscribe(&context, publishing)).collect();
        for socket in subscribers.iter().chain([&publisher]) {
            socket.set_linger(0).unwrap();
        }
        let fanout = Self { server, publisher, subscribers, _context: context };
        fanout.probe();
        fanout
    }

    fn probe(&self) {
        let deadline = Instant::now() + DEADLINE;
        let mut missing: Vec<&Socket> = self.subscribers.iter().collect();
        while !missing.is_empty() {
            assert!(Instant::now() < deadline, "{} subscriptions are not there", missing.len());
            self.publisher.send("probe", 0).unwrap();
            missing.retain(|subscriber| subscriber.poll(zmq::POLLIN, 10).unwrap() == 0);
        }
        self.publisher.send("begin", 0).unwrap();
        for subscriber in &self.subscribers {
            while subscriber.recv_bytes(0).unwrap() != b"begin" {}
        }
    }
}

fn subscribe(context: &Context, publishing: std::net::SocketAddr) -> Socket {
    let subscriber = context.socket(zmq::SUB).unwrap();
    subscriber.set_subscribe(b"").unwrap();
    subscriber.set_rcvtimeo(DEADLINE.as_millis() as i32).unwrap();
    subscriber.connect(&format!("tcp://{publishing}")).unwrap();
    subscriber
}

#[test]
fn what_is_published_goes_to_all_subscribers_in_order() {
    let fanout = Fanout::start(5);
    for number in 0..1000_u32 {
        let body = number.to_le_bytes().repeat(1 + number as usize % 100);
        fanout.publisher.send(&body, 0).unwrap();
        for subscriber in &fanout.subscribers {
            assert_eq!(subscriber.recv_bytes(0).unwrap(), body, "message {number}");
        }
    }
    fanout.server.end();
}

#[test]
fn a_subscriber_that_never_reads_holds_up_no_one() {
    let fanout = Fanout::start(2);
    let [_stuck, prompt] = &fanout.subscribers[..] else { unreachable!("two") };
    // Far more than the queues and the sockets' buffers take.
    for number in 0..40_000_u32 {
        let body = number.to_le_bytes().repeat(250);
        fanout.publisher.send(&body, 0).unwrap();
        assert_eq!(prompt.recv_bytes(0).unwrap(), body, "message {number}");
    }
    fanout.server.end();
}

#[test]
fn subscribers_may_leave_at_any_time() {
    let mut fanout = Fanout::start(3);
    for number in 0..30_u32 {
        let leaving = fanout.subscribers.remove(0);
        fanout.publisher.send("unread", 0).unwrap();
        drop(leaving);
        let publishing = fanout.subscribers[0].get_last_endpoint().unwrap().unwrap();
        let publishing = publishing.strip_prefix("tcp://").unwrap().parse().unwrap();
        fanout.subscribers.push(subscribe(&fanout._context, publishing));
        fanout.probe();
        fanout.publisher.send(&number.to_le_bytes()[..], 0).unwrap();
        for subscriber in &fanout.subscribers {
            assert_eq!(subscriber.recv_bytes(0).unwrap(), number.to_le_bytes());
        }
    }
    fanout.server.end();
}

#[test]
fn says_what_it_is() {
    let (major, minor, patch) = zmq::version();
    let versions = [format!("libzmq {major}.{minor}.{patch}"), format!("zmq {}", locked_version("zmq"))];
    contract::says_what_it_is(PROGRAM, &versions.each_ref().map(String::as_str));
}

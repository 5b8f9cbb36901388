//! A core that is behind does not hold it against its peers.
//!
//! Set-up: an engine that writes to one peer a turn, readers that read all they get, and a thread that broadcasts as fast as the inbox
//! takes it: far more than a peer's hard bound in all. Claim: the producer is slowed down by `InboxFull`, every reader gets everything, and
//! nobody is cut off for what the core had not written yet. A batch that could never fit is refused and comes back.

mod common;

use std::time::Duration;

use common::loopback;
use common::node::Node;
use corecast::{Config, Counter, Dial, SendError};

const READERS: u16 = 20;
const MESSAGES: u64 = 4000;
const HARD: usize = 256 << 10;

fn slow_writer() -> Config {
    let mut config = loopback();
    config.io.flush_peers = 1;
    config.limits.max_message = 64 << 10;
    config.limits.outbox_soft = HARD;
    config.limits.outbox_hard = HARD;
    config.limits.log_bytes = 4 * HARD;
    config.limits.inbox_messages = 256;
    config
}

#[test]
fn broadcasts_that_outrun_the_writing_cut_nobody_off() {
    let node = Node::report(slow_writer());
    let readers = Node::report(Config::plaintext());
    for channel in 0..READERS {
        readers.handle().dial(Dial::to(node.address()).channel(channel)).unwrap();
    }
    node.counts(Counter::Peers, u64::from(READERS));
    let frame = node.handle().frame(1, &[7; 1000]).unwrap();
    let mut refused = 0;
    for _ in 0..MESSAGES {
        while let Err(rejected) = node.handle().broadcast(frame.clone()) {
            assert_eq!(rejected.reason, SendError::InboxFull { core: 0 });
            refused += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    readers.counts(Counter::MessagesReceived, MESSAGES * u64::from(READERS));
    assert!(refused > 0, "the producer was to be faster than the core");
    let stats = node.handle().stats();
    assert_eq!((stats.get(Counter::Peers), stats.get(Counter::SlowHardBound)), (u64::from(READERS), 0));
    assert_eq!(stats.get(Counter::InboxRefused), refused);
    assert_eq!((stats.get(Counter::SlowSoftMark), stats.get(Counter::BroadcastsRefused)), (0, 0));
    assert!(readers.engine.shutdown().drained);
    assert!(node.engine.shutdown().drained);
}

#[test]
fn a_batch_that_never_fits_comes_back() {
    let node = Node::report(slow_writer());
    let frame = node.handle().frame(1, &[7; 60_000]).unwrap();
    let rejected = node.handle().broadcast_batch(vec![frame.clone(); 3]).unwrap_err();
    assert_eq!((rejected.reason, rejected.value.len()), (SendError::LogFull, 3));
    node.handle().broadcast_batch(vec![frame; 2]).unwrap();
    node.finish();
}

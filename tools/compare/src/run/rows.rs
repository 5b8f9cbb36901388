//! The rows of the comparison.

use crate::client::Load;
use crate::server::Poll;

/// One row of the table: a load, and how both sides wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) load: Load,
    pub(super) body_len: usize,
    pub(super) poll: Poll,
}

impl Row {
    /// What `--only` is matched against.
    pub(super) fn name(&self) -> String {
        let (poll, body) = (self.poll.name(), self.body_len);
        match self.load {
            Load::Echo { connections, in_flight } => format!("echo-{connections}-{poll}-{body}B-x{in_flight}"),
            Load::Fanout { subscribers, outstanding, .. } => format!("fanout-{subscribers}-{poll}-{body}B-x{outstanding}"),
            load => format!("{load:?}-{poll}-{body}B"),
        }
    }
}

fn echo(connections: usize, poll: Poll) -> Row {
    Row { load: Load::Echo { connections, in_flight: 1 }, body_len: 32, poll }
}

fn fanout(subscribers: usize, poll: Poll, body_len: usize, outstanding: usize) -> Row {
    Row { load: Load::Fanout { subscribers, outstanding, stuck: 0 }, body_len, poll }
}

/// All rows. With few peers, spinning compares the time from one end to the other and blocking the server's CPU: a server
/// that blocks and is slower sleeps less often, and looks faster for it.
pub(super) fn all() -> Vec<Row> {
    vec![
        echo(1, Poll::Spin),
        echo(100, Poll::Spin),
        echo(1000, Poll::Spin),
        echo(1, Poll::Block),
        echo(100, Poll::Block),
        echo(1000, Poll::Block),
        fanout(50, Poll::Spin, 128, 1),
        fanout(50, Poll::Spin, 1024, 1),
        fanout(50, Poll::Block, 128, 1),
        fanout(50, Poll::Block, 1024, 1),
        fanout(1000, Poll::Block, 128, 1),
        fanout(1000, Poll::Block, 1024, 1),
        fanout(1000, Poll::Block, 128, 64),
    ]
}

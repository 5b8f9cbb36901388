//! How much memory the thread around a shard takes, part by part. [`crate::Config::memory_bound`] adds the parts up.

use super::Ending;
use super::inbox::{Command, Queued, ReplyTo, Signal};
use super::socket::Socket;
use crate::shard::Conn;

/// A readiness event of the kernel's.
pub(crate) const EVENT: usize = 16;
/// A socket, in a table that grows by doubling, and in the list of those to be read.
pub(crate) const SOCKET: usize = 2 * (size_of::<Option<Socket>>() + size_of::<Conn>());
/// A command in the queue of handles. The handler's own commands may be larger.
pub(crate) const COMMAND: usize = size_of::<Queued<Command<[u64; 8]>>>() + size_of::<usize>();
/// A thread that waits for a response.
pub(crate) const WAITER: usize = 4 * size_of::<(u64, ReplyTo)>();
/// A control message in its queue, or put off.
pub(crate) const SIGNAL: usize = 2 * (size_of::<Signal>() + size_of::<usize>()) + 2 * size_of::<Ending>();

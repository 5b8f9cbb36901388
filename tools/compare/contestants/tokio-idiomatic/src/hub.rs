//! Who is subscribed: a channel to each.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

/// Messages that may wait for one subscriber before it is disconnected. Slots are allocated as they are used.
const QUEUE: usize = 16_384;

struct Subscriber {
    queue: Sender<Bytes>,
    /// Ends its task, which may be waiting for its socket.
    disconnect: CancellationToken,
}

#[derive(Default)]
struct Subscribers {
    next_id: u64,
    by_id: HashMap<u64, Subscriber>,
}

#[derive(Default)]
pub(crate) struct Hub {
    // Held for the length of a few pushes, never across an await: the standard library's is the right one.
    subscribers: Mutex<Subscribers>,
}

/// A place in the hub.
pub(crate) struct Subscription {
    pub(crate) id: u64,
    pub(crate) queue: Receiver<Bytes>,
    /// Set when the subscriber did not keep up.
    pub(crate) disconnected: CancellationToken,
}

impl Hub {
    pub(crate) fn join(&self) -> Subscription {
        let (sender, queue) = mpsc::channel(QUEUE);
        let disconnected = CancellationToken::new();
        let mut subscribers = self.subscribers.lock().unwrap();
        let id = subscribers.next_id;
        subscribers.next_id += 1;
        subscribers.by_id.insert(id, Subscriber { queue: sender, disconnect: disconnected.clone() });
        Subscription { id, queue, disconnected }
    }

    pub(crate) fn leave(&self, id: u64) {
        self.subscribers.lock().unwrap().by_id.remove(&id);
    }

    /// Queues a message for all but its sender. Who has no room for it is disconnected: one slow subscriber must not hold up the others.
    pub(crate) fn publish(&self, sender: u64, message: &Bytes) {
        self.subscribers.lock().unwrap().by_id.retain(|&id, subscriber| {
            if id == sender || subscriber.queue.try_send(message.clone()).is_ok() {
                return true;
            }
            subscriber.disconnect.cancel();
            false
        });
    }
}

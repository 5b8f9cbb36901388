//! Connecting many peers: some at a time, each tried again until the run's deadline, every failure remembered by its reason.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use corecast::{Context, DialId};

use crate::progress::Progress;
use crate::security::Goal;

/// Dials and greetings under way at a time. Below the smallest listen backlog in use (128), so that the kernel drops no connection request
/// and makes it wait a second for the next try.
const UNDER_WAY: usize = 100;

/// The channels of one client engine that have still to become ready.
pub(crate) struct Connector {
    goal: Goal,
    /// Channels to dial, in order; those that failed come back here.
    waiting: VecDeque<u16>,
    dialling: HashMap<DialId, u16>,
    greeting: usize,
    /// Why channels failed, and how often.
    failures: BTreeMap<String, u64>,
    /// Told of the latest failure.
    progress: Arc<Progress>,
    limit: usize,
}

impl Connector {
    /// `channels` of one of `engines` engines that connect at the same time.
    pub(crate) fn new(goal: Goal, channels: impl Iterator<Item = u16>, engines: usize, progress: Arc<Progress>) -> Self {
        let waiting = channels.collect();
        let limit = (UNDER_WAY / engines).max(1);
        Self { goal, waiting, dialling: HashMap::new(), greeting: 0, failures: BTreeMap::new(), progress, limit }
    }

    /// Dials as many as may be under way.
    pub(crate) fn refill(&mut self, cx: &mut Context<'_>) {
        while self.dialling.len() + self.greeting < self.limit {
            let Some(channel) = self.waiting.pop_front() else { return };
            let dial = cx.dial(self.goal.dial(channel));
            self.dialling.insert(dial, channel);
        }
    }

    /// A dial became a peer, and the peer is being greeted.
    pub(crate) fn connected(&mut self, dial: Option<DialId>) {
        if dial.and_then(|dial| self.dialling.remove(&dial)).is_some() {
            self.greeting += 1;
        }
    }

    /// A dial failed. The next refill tries again.
    pub(crate) fn dial_failed(&mut self, dial: DialId, reason: impl ToString) {
        if let Some(channel) = self.dialling.remove(&dial) {
            self.failed(channel, reason);
        }
    }

    /// The server answered the greeting.
    pub(crate) fn greeted(&mut self) {
        self.greeting = self.greeting.saturating_sub(1);
    }

    /// The peer ended before the server had answered the greeting.
    pub(crate) fn greeting_failed(&mut self, channel: u16, reason: impl ToString) {
        self.greeting = self.greeting.saturating_sub(1);
        self.failed(channel, reason);
    }

    fn failed(&mut self, channel: u16, reason: impl ToString) {
        self.note(channel, reason);
        self.waiting.push_back(channel);
    }

    /// Which target a channel goes to.
    pub(crate) fn target(&self, channel: u16) -> usize {
        self.goal.targets.index_of(self.goal.number(channel))
    }

    /// Which target a dial goes to.
    pub(crate) fn target_of(&self, dial: DialId) -> Option<usize> {
        self.dialling.get(&dial).map(|channel| self.target(*channel))
    }

    /// A reason that this channel failed or ended for.
    pub(crate) fn explain(&self, channel: u16, reason: impl ToString) -> String {
        self.goal.explain(channel, reason)
    }

    /// Remembers a failure that belongs to no dial.
    pub(crate) fn note(&mut self, channel: u16, reason: impl ToString) {
        let reason = self.explain(channel, reason);
        self.progress.failed(&reason);
        *self.failures.entry(reason).or_default() += 1;
    }

    pub(crate) fn failures(&self) -> &BTreeMap<String, u64> {
        &self.failures
    }
}

//! One turn of the loop.

use std::time::Duration;

use mio::Events;
use mio::event::Event;

use super::accounts::{Phase, RawSample};
use super::connections::{Source, source, token};
use super::inbox::{Command, Queued, Report, ReportTo, Signal};
use super::socket::{ReadResult, Socket, WriteResult};
use super::{ALARM, Ending, PUBLISH_INTERVAL, Reactor, Taken, WAKER};
use crate::error::RequestError;
use crate::handler::Handler;
use crate::metrics::{Counter, Measure};
use crate::proto::{Origin, Slices};
use crate::receipt::Target;
use crate::shard::{Action, Asker, Conn, Control, Mail, ReadOutcome, Shard};
use crate::time::Timestamp;
use crate::wire::Meta;

/// Most that a turn takes from each queue of the inbox before it looks at its sockets again.
const INBOX_BUDGET: usize = 1024;
/// Peers written to between two looks at the clock: the look costs a hundredth of what they do.
const FLUSH_STEP: usize = 32;
/// Looks for work between two looks at the clock, while spinning: a look takes a quarter of a microsecond.
const LOOKS: usize = 8;
/// Reads of one handshake in one turn. A handshake needs three; what a refused connection still sends is read on with the next turn.
const HALF_READS: usize = 8;

/// What the kernel took at once.
#[inline]
fn measure_batch(shard: &mut Shard, bytes: usize) {
    if bytes > 0 {
        shard.measure(Measure::Batch, bytes as u64);
    }
}

impl<H: Handler> Reactor<H> {
    pub(super) fn turn(&mut self, events: &mut Events) {
        let waited = self.wait(events);
        let now = self.look();
        self.accounts.end(waited, now);
        self.shard.begin_turn(now, self.meant);
        self.meant = now;
        let mut came = self.drain_inbox();
        for event in events.iter() {
            came |= self.mark(event);
        }
        came |= self.accept_all();
        self.end_phase(Phase::Inbox, came);
        let read = self.read_ready();
        self.end_phase(Phase::Read, read);
        let expired = self.shard.handle_timeouts();
        let told = self.shard.settle(&mut self.handler);
        // Before the flush, so that other cores begin while this one writes, and new peers have their sockets.
        let sent = self.send_mail();
        let acted = self.act();
        self.end_phase(Phase::Events, expired || told || sent || acted);
        self.flush();
        self.act();
        self.send_mail();
        self.shard.finish_turn();
        if self.landing.is_some() && self.shard.has_landed() {
            self.landing = None;
        }
        self.watch_messages(now);
        self.end_turn(now);
        if now - self.published_at >= PUBLISH_INTERVAL {
            self.publish(now);
        }
    }

    /// Reads the clock.
    #[inline]
    pub(super) fn look(&mut self) -> Timestamp {
        self.looked_at = self.clock.now();
        self.looked_at
    }

    /// What was done since the last border is over. Where nothing was done there is no border.
    #[inline]
    fn end_phase(&mut self, phase: Phase, did_something: bool) {
        if did_something && self.accounts.is_on() {
            let now = self.look();
            self.accounts.end(phase, now);
        }
    }

    /// The last border of a turn, which began with the wake. What follows, if it is sleep, goes by it.
    #[inline]
    fn end_turn(&mut self, began: Timestamp) {
        let now = self.look();
        self.accounts.end(Phase::Write, now);
        self.shard.measure(Measure::Turn, (now - began).as_nanos() as u64);
    }

    /// What waits since then has been taken out.
    #[inline]
    fn measure_queueing(&mut self, since: Option<Timestamp>) {
        if let Some(since) = since {
            let waited = self.clock.now() - since;
            self.shard.measure(Measure::Queueing, waited.as_nanos() as u64);
        }
    }

    /// Whether the next turn has something to do whatever the kernel says.
    fn has_work(&self) -> bool {
        self.shard.has_work() || self.connections.ready() > 0 || self.accept_pending() || !self.inbox().is_empty()
    }

    /// Gets events: at once while there is work, else after looking for some time, else asleep.
    /// Says what that was.
    fn wait(&mut self, events: &mut Events) -> Phase {
        if self.has_work() {
            self.poll(events, Some(Duration::ZERO));
            return Phase::Poll;
        }
        if self.spinner.is_open() && self.spin(events) {
            return Phase::Idle;
        }
        let now = self.looked_at;
        self.publish(now);
        self.spinner.handle_sleep(now);
        let deadline = self.next_deadline();
        let timeout = self.alarm.set(deadline, now);
        self.inbox().latch.fall_asleep();
        if self.inbox().is_empty() {
            self.shard.stats_mut().count(Counter::Sleeps);
            self.meant = deadline.unwrap_or(Timestamp::END);
            self.poll(events, timeout);
        } else {
            self.poll(events, Some(Duration::ZERO));
        }
        self.inbox().latch.wake_up();
        Phase::Idle
    }

    /// Looks for work without sleeping. Says whether there is any.
    fn spin(&mut self, events: &mut Events) -> bool {
        let deadline = self.next_deadline();
        loop {
            for _ in 0..LOOKS {
                self.poll(events, Some(Duration::ZERO));
                if !events.is_empty() || !self.inbox().is_empty() {
                    return true;
                }
            }
            let now = self.look();
            self.meant = now;
            if now - self.published_at >= PUBLISH_INTERVAL {
                self.publish(now);
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return true;
            }
            if !self.spinner.goes_on(now) {
                return false;
            }
        }
    }

    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) {
        if self.poll.poll(events, timeout).is_err() {
            // Interrupted by a signal, or stopped and continued: the turn goes on without events, and the next poll has them.
            events.clear();
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let paused = self.listeners.iter().filter_map(|listener| listener.paused_until);
        paused.chain(self.shard.next_deadline()).chain(self.stop_at).min()
    }

    /// Opens the spin window when messages came, by whatever way.
    fn watch_messages(&mut self, now: Timestamp) {
        let stats = self.shard.stats_mut();
        let cast = stats.get(Counter::Broadcasts) + stats.get(Counter::Publishes);
        let came = stats.get(Counter::MessagesReceived) + stats.get(Counter::AcksReceived);
        let stirred = self.taken.handles + came + cast;
        if stirred != self.stirred {
            self.stirred = stirred;
            self.spinner.handle_messages(now);
        }
    }

    /// Whether there was anything.
    fn drain_inbox(&mut self) -> bool {
        let core = self.shard.core();
        let taken = self.taken;
        // All that is there: it was not refused when it came, so it must not pile up. What comes meanwhile is for the next turn.
        let signals = self.inbox().control.len();
        for _ in 0..signals {
            let Some(signal) = self.fabric.inboxes[core].control.pop() else { break };
            self.handle_signal(signal);
        }
        // By turns, so that neither queue keeps the other from its share of what a turn takes in.
        self.handles_first = !self.handles_first;
        if self.handles_first {
            self.take_commands();
            self.take_mail();
        } else {
            self.take_mail();
            self.take_commands();
        }
        self.handle_endings();
        signals > 0 || self.taken != taken
    }

    fn take_mail(&mut self) {
        let core = self.shard.core();
        // Its length costs two loads, a pop in vain a fence.
        for _ in 0..self.inbox().cores.len().min(INBOX_BUDGET) {
            if !self.shard.wants_mail() {
                return;
            }
            let Some(Queued { what: mail, since }) = self.fabric.inboxes[core].cores.pop() else { return };
            self.measure_queueing(since);
            let cost = mail.cost();
            self.taken.cores += 1;
            self.shard.handle_mail(mail);
            // Only now: what is being looked at takes memory too.
            self.fabric.shared.credits[core].release(cost);
            self.handle_endings();
        }
    }

    fn take_commands(&mut self) {
        for _ in 0..self.inbox().handles.len().min(INBOX_BUDGET) {
            if !self.shard.wants_mail() {
                return;
            }
            let Some(Queued { what: command, since }) = self.inbox().handles.pop() else { return };
            self.measure_queueing(since);
            let cost = command.cost();
            self.taken.handles += 1;
            match command {
                Command::Mail(mail) => {
                    self.shard.handle_mail(mail);
                    self.inbox().handle_credit.release(cost);
                }
                // The handler may post to its own core, and block for a while: its command is out of the queue.
                command => {
                    self.inbox().handle_credit.release(cost);
                    self.handle_command(command);
                }
            }
            self.handle_endings();
        }
    }

    fn handle_signal(&mut self, signal: Signal) {
        let from_outside = matches!(signal, Signal::Outside(_));
        match signal {
            Signal::Shard(control) | Signal::Outside(control) if control.is_ending() => self.put_off(control, from_outside),
            Signal::Shard(control) => self.shard.handle_control(control),
            Signal::Outside(control) => {
                self.inbox().outside_credit.release(0);
                self.shard.handle_control(control);
            }
            Signal::Accepted { socket, address, ticket } => self.adopt(socket, address, ticket),
            // Whoever asked may have given up.
            Signal::Snapshot(reply) => drop(reply.try_send(self.shard.snapshot())),
            Signal::Landing(waiting) => self.landing = Some(waiting),
            Signal::Histograms(reply) => drop(reply.try_send(self.shard.histograms())),
        }
    }

    /// Control overtakes mail, but an ending must not overtake what was sent before it.
    fn put_off(&mut self, control: Control, from_outside: bool) {
        let inbox = self.inbox();
        let cores = self.taken.cores + inbox.cores.len() as u64;
        let handles = self.taken.handles + inbox.handles.len() as u64;
        self.endings.push_back(Ending { after: Taken { cores, handles }, control, from_outside });
    }

    /// Does what ends peers or the engine, as soon as everything that was in the inbox before it has been taken.
    #[inline]
    fn handle_endings(&mut self) {
        while self.endings.front().is_some_and(|ending| ending.after.is_reached(&self.taken))
            && let Some(ending) = self.endings.pop_front()
        {
            if ending.from_outside {
                self.inbox().outside_credit.release(0);
            }
            if matches!(ending.control, Control::Shutdown) && self.stop_at.is_none() {
                let timeouts = &self.fabric.shared.config.timeouts;
                self.stop_at = Some(self.shard.now() + timeouts.drain + timeouts.linger);
                self.listeners.clear();
            }
            self.shard.handle_control(ending.control);
        }
    }

    fn handle_command(&mut self, command: Command<H::Command>) {
        match command {
            Command::Mail(mail) => self.shard.handle_mail(mail),
            Command::User(command) => self.shard.handle_command(&mut self.handler, command),
            Command::Request { peer, meta, body, timeout, reply } => {
                self.next_waiter += 1;
                let waiter = self.next_waiter;
                self.waiters.insert(waiter, reply);
                self.shard.handle_mail(Mail::Request { peer, meta, body, timeout, origin: Origin::Waiter(waiter) });
            }
            Command::Acked { target, meta, body, deadline, reply } => self.send_acked(target, meta, &body, deadline, reply),
            Command::Connect { endpoint, pin, reply } => {
                self.next_waiter += 1;
                self.connects.insert(self.next_waiter, reply);
                self.shard.connect_for(endpoint, Origin::Waiter(self.next_waiter), pin);
            }
        }
    }

    /// Notes what an event says; the work comes later in the turn, but for what a half-open connection writes. Says whether that was done.
    #[inline]
    fn mark(&mut self, event: &Event) -> bool {
        if event.token() == WAKER || event.token() == ALARM {
            return false;
        }
        match source(event.token()) {
            Source::Listener(index) => {
                if let Some(listener) = self.listeners.get_mut(index) {
                    listener.ready = true;
                }
            }
            Source::Conn(conn) => {
                let Some(socket) = self.connections.get(conn) else { return false };
                socket.read_closed |= event.is_read_closed() || event.is_error();
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.connections.make_ready(conn);
                }
                if event.is_writable() || event.is_write_closed() || event.is_error() {
                    if let Some(socket) = self.connections.get(conn) {
                        socket.has_room(self.poll.registry(), event.token());
                    }
                    match conn {
                        Conn::Peer(slot) => self.shard.handle_writable(slot),
                        Conn::Half(half) => {
                            self.half_writable(half);
                            return true;
                        }
                    }
                }
            }
        }
        false
    }

    fn half_writable(&mut self, half: u32) {
        let Some(socket) = self.connections.get(Conn::Half(half)) else { return };
        if socket.connecting {
            match socket.finish_connect() {
                None => return,
                Some(Ok(())) => {
                    if let Some(credentials) = socket.credentials() {
                        self.shard.handle_credentials(half, credentials);
                    }
                    let drawn = self.fabric.shared.with_entropy(|entropy| self.shard.handle_connected(half, entropy));
                    if let Err(error) = drawn {
                        return self.shard.handle_half_error(half, error.kind());
                    }
                }
                Some(Err(error)) => return self.shard.handle_half_error(half, error.kind()),
            }
        }
        self.write_half(half);
    }

    /// Reads those that were ready when this began; who has more goes to the end of the list. Says whether there were any.
    fn read_ready(&mut self) -> bool {
        let ready = self.connections.ready();
        for _ in 0..ready {
            match self.connections.pop_ready() {
                Some(Conn::Peer(slot)) => self.read_peer(slot),
                Some(Conn::Half(half)) => self.read_half(half),
                None => break,
            }
        }
        ready > 0
    }

    fn read_peer(&mut self, slot: u32) {
        let conn = Conn::Peer(slot);
        let mut budget = self.fabric.shared.config.io.read_budget;
        while self.shard.wants_read(slot) {
            let Some(socket) = self.connections.get(conn) else { return };
            let most = self.buffer.len().min(self.shard.read_limit(slot));
            let sample = if self.accounts.is_sampled() { Some(self.clock.now()) } else { None };
            let bytes = match socket.read(&mut self.buffer[..most]) {
                ReadResult::Bytes(bytes) => bytes,
                ReadResult::Eof => return self.shard.handle_eof(slot),
                ReadResult::WouldBlock => return,
                ReadResult::Failed(kind) => return self.shard.handle_error(slot, kind),
            };
            self.accounts.count_batch();
            let drained = bytes < most && !socket.read_closed;
            let outcome = match sample {
                None => self.shard.handle_read(&mut self.handler, slot, &self.buffer[..bytes]),
                Some(began) => self.read_sampled(slot, bytes, began),
            };
            if drained || outcome == ReadOutcome::Stop {
                return;
            }
            budget = budget.saturating_sub(bytes);
            if budget == 0 {
                return self.connections.make_ready(conn);
            }
        }
    }

    /// What was read since `began`, with a close look at how long its parts take.
    #[cold]
    #[inline(never)]
    fn read_sampled(&mut self, slot: u32, bytes: usize, began: Timestamp) -> ReadOutcome {
        let read = self.clock.now();
        self.handler.handler().begin();
        self.shard.begin_encoding();
        let outcome = self.shard.handle_read(&mut self.handler, slot, &self.buffer[..bytes]);
        let ((sends, sent), (calls, called)) = (self.shard.end_encoding(), self.handler.handler().end());
        let rest = self.clock.now() - read;
        self.accounts.take(RawSample { read: read - began, rest, calls, called, sends, sent });
        outcome
    }

    fn read_half(&mut self, half: u32) {
        let conn = Conn::Half(half);
        for _ in 0..HALF_READS {
            if self.shard.half_is_deferred(half) {
                break;
            }
            let wanted = self.shard.half_wanted(half).min(self.buffer.len());
            let Some(socket) = self.connections.get(conn) else { return };
            if wanted == 0 || socket.connecting {
                return;
            }
            match socket.read(&mut self.buffer[..wanted]) {
                ReadResult::Bytes(bytes) => self.shard.handle_half_read(&mut self.handler, half, &self.buffer[..bytes]),
                ReadResult::Eof => return self.shard.handle_half_eof(half),
                ReadResult::WouldBlock => return,
                ReadResult::Failed(kind) => return self.shard.handle_half_error(half, kind),
            }
        }
        self.connections.make_ready(conn);
    }

    fn write_half(&mut self, half: u32) {
        let Some(socket) = self.connections.get(Conn::Half(half)) else { return };
        let output = self.shard.half_output(half);
        if output.is_empty() {
            return;
        }
        match socket.write(output) {
            WriteResult::Taken { bytes, full } => {
                self.shard.half_advance(half, bytes);
                if full {
                    self.await_room(Conn::Half(half));
                }
            }
            WriteResult::Failed(kind) => self.shard.handle_half_error(half, kind),
        }
    }

    /// A write was not taken whole.
    #[cold]
    fn await_room(&mut self, conn: Conn) {
        let Some(socket) = self.connections.get(conn) else { return };
        if let Err(error) = socket.await_room(self.poll.registry(), token(conn)) {
            match conn {
                Conn::Peer(slot) => self.shard.handle_error(slot, error.kind()),
                Conn::Half(half) => self.shard.handle_half_error(half, error.kind()),
            }
        }
    }

    /// Hands what this turn has for other cores over. Says whether there was any.
    fn send_mail(&mut self) -> bool {
        let mut any = false;
        while let Some((core, mail)) = self.shard.poll_mail() {
            self.fabric.deliver(core, mail);
            any = true;
        }
        while let Some((core, control)) = self.shard.poll_control() {
            self.fabric.signal(core, Signal::Shard(control));
            any = true;
        }
        any
    }

    /// Writes to those who have something to receive, until the phase's budget ends.
    fn flush(&mut self) {
        self.shard.begin_flush();
        let io = &self.fabric.shared.config.io;
        let (mut peers, budget, time) = (io.flush_peers, io.write_budget, io.flush_time);
        let mut began = None;
        while peers > 0 {
            let Some(slot) = self.shard.pop_dirty() else { return };
            self.flush_peer(slot, budget);
            peers -= 1;
            if peers % FLUSH_STEP == 0 {
                let now = self.clock.now();
                if now - *began.get_or_insert(now) >= time {
                    return;
                }
            }
        }
    }

    #[inline]
    fn flush_peer(&mut self, slot: u32, budget: usize) {
        if self.shard.is_sealed(slot) {
            return self.flush_sealed(slot, budget);
        }
        let Some(socket) = self.connections.get(Conn::Peer(slot)) else { return };
        let result = match self.shard.contiguous(slot) {
            Some(bytes) => socket.write(&bytes[..bytes.len().min(budget)]),
            None => {
                let mut slices = Slices::new(budget);
                self.shard.gather(slot, &mut slices);
                socket.write_vectored(&slices)
            }
        };
        match result {
            WriteResult::Taken { bytes, full } => {
                measure_batch(&mut self.shard, bytes);
                self.shard.advance(slot, bytes, full);
                if full {
                    self.await_room(Conn::Peer(slot));
                }
            }
            WriteResult::Failed(kind) => self.shard.handle_error(slot, kind),
        }
    }

    /// One record after the other, each written before the next is sealed: what is sealed cannot be taken back.
    fn flush_sealed(&mut self, slot: u32, mut budget: usize) {
        let Some(socket) = self.connections.get(Conn::Peer(slot)) else { return };
        loop {
            let record = self.shard.seal(slot);
            if record.is_empty() {
                return;
            }
            let (bytes, full) = match socket.write(record) {
                WriteResult::Taken { bytes, full } => (bytes, full),
                WriteResult::Failed(kind) => return self.shard.handle_error(slot, kind),
            };
            measure_batch(&mut self.shard, bytes);
            budget = budget.saturating_sub(bytes);
            let more = self.shard.advance_sealed(slot, bytes, full, budget == 0);
            if full {
                return self.await_room(Conn::Peer(slot));
            }
            if !more {
                return;
            }
        }
    }

    /// Does what the shard asks for. Says whether there was any.
    fn act(&mut self) -> bool {
        let mut any = false;
        while let Some(action) = self.shard.poll_action() {
            any = true;
            match action {
                Action::Connect { half, address, source } => match Socket::connect(&address, source) {
                    Ok(socket) => {
                        socket.configure(&self.fabric.shared.config);
                        self.register(half, socket);
                    }
                    Err(error) => self.shard.handle_half_error(half, error.kind()),
                },
                Action::Promote { half, slot } => self.promote(half, slot),
                Action::Read { slot } => self.connections.make_ready(Conn::Peer(slot)),
                Action::ReadHalf { half } => self.connections.make_ready(Conn::Half(half)),
                Action::WriteHalf { half } => self.write_half(half),
                Action::ShutdownWrite { conn } => {
                    // A socket that cannot be shut down is broken, which the next read says.
                    if let Some(socket) = self.connections.get(conn) {
                        let _ = socket.shutdown_write();
                    }
                    self.connections.make_ready(conn);
                }
                Action::Close { conn } => drop(self.connections.remove(conn)),
                Action::Answer { waiter, result } => self.answer(waiter, result),
                Action::Acked { waiter, node, after } => self.report(waiter, Report::Acked { node, after }),
                Action::Pooled { waiter, result } => {
                    if let Some(reply) = self.connects.remove(&waiter) {
                        // Whoever asked may have given up.
                        let _ = reply.try_send(result);
                    }
                }
                Action::Receipt { waiter, receipt } => self.report(waiter, Report::Ended(receipt)),
            }
        }
        any
    }

    fn promote(&mut self, half: u32, slot: u32) {
        let (from, to) = (Conn::Half(half), Conn::Peer(slot));
        let Some(mut socket) = self.connections.remove(from) else { return };
        socket.queued = false;
        let registered = socket.reregister(self.poll.registry(), token(to));
        self.connections.insert(to, socket);
        match registered {
            // What came after the handshake may have come with its last bytes, and its edge is gone.
            Ok(()) => self.connections.make_ready(to),
            Err(error) => self.shard.handle_error(slot, error.kind()),
        }
    }

    fn send_acked(&mut self, target: Option<Target>, meta: Meta, body: &[u8], deadline: Duration, reply: ReportTo) {
        self.next_waiter += 1;
        let asker = Asker::Waiter(self.next_waiter);
        self.receipts.insert(self.next_waiter, reply);
        let sent = match target {
            Some(target) => self.shard.send_acked(target, meta, body, deadline, asker),
            None => self.shard.broadcast_acked(meta, body, deadline, asker),
        };
        if let Err(reason) = sent {
            self.report(self.next_waiter, Report::Refused(reason));
        }
    }

    fn report(&mut self, waiter: u64, report: Report) {
        let is_last = !matches!(report, Report::Acked { .. });
        if let Some(reply) = self.receipts.get(&waiter) {
            // Whoever asked may have given up.
            let _ = reply.try_send(report);
        }
        if is_last {
            self.receipts.remove(&waiter);
        }
    }

    fn answer(&mut self, waiter: u64, result: Result<crate::shard::Owned, RequestError>) {
        if let Some(reply) = self.waiters.remove(&waiter) {
            // Whoever asked may have given up.
            let _ = reply.try_send(result);
        }
    }
}

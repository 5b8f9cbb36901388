//! New connections: accepted on core 0, handed over raw to the core with the fewest.

use super::Reactor;
use super::connections::token;
use super::inbox::Signal;
use super::listener::AcceptResult;
use super::socket::Socket;
use crate::address::Address;
use crate::handler::Handler;
use crate::metrics::Counter;
use crate::shard::{Conn, Ticket};

impl<H: Handler> Reactor<H> {
    /// Accepts what waits, to the turn's budget. Says whether it looked.
    pub(super) fn accept_all(&mut self) -> bool {
        let most = self.fabric.shared.config.io.accepts;
        let mut budget = most;
        for index in 0..self.listeners.len() {
            self.accept_from(index, &mut budget);
        }
        budget < most
    }

    fn accept_from(&mut self, index: usize, budget: &mut usize) {
        let now = self.shard.now();
        let listener = &mut self.listeners[index];
        if listener.paused_until.is_some_and(|until| until <= now) {
            listener.paused_until = None;
            listener.ready = true;
        }
        while self.listeners[index].ready && self.listeners[index].paused_until.is_none() && *budget > 0 {
            *budget -= 1;
            match self.listeners[index].accept(now) {
                AcceptResult::Connection(socket, address) => self.place(socket, address),
                AcceptResult::WouldBlock => self.listeners[index].ready = false,
                AcceptResult::Exhausted => self.shard.stats_mut().count(Counter::AcceptPauses),
                AcceptResult::Failed => self.shard.stats_mut().count(Counter::AcceptErrors),
            }
        }
    }

    /// Whether accepting has work that no event will announce.
    pub(super) fn accept_pending(&self) -> bool {
        self.listeners.iter().any(|listener| listener.ready && listener.paused_until.is_none())
    }

    fn place(&mut self, socket: Socket, address: Address) {
        let Some(ticket) = self.shard.admit(&address) else { return };
        if ticket.core() == self.shard.core() {
            self.adopt(socket, address, ticket);
        } else {
            self.fabric.signal(ticket.core(), Signal::Accepted { socket, address, ticket });
        }
    }

    /// A connection becomes this core's.
    pub(super) fn adopt(&mut self, socket: Socket, address: Address, ticket: Ticket) {
        socket.configure(&self.fabric.shared.config);
        match self.fabric.shared.with_entropy(|entropy| self.shard.handle_accepted(address, ticket, entropy)) {
            Ok(half) => {
                if let Some(credentials) = socket.credentials() {
                    self.shard.handle_credentials(half, credentials);
                }
                self.register(half, socket);
            }
            // No key without randomness, and no connection without a key.
            Err(_) => self.shard.stats_mut().count(Counter::AcceptErrors),
        }
    }

    /// Makes a half-open connection's socket part of the loop.
    pub(super) fn register(&mut self, half: u32, socket: Socket) {
        let conn = Conn::Half(half);
        let registered = socket.register(self.poll.registry(), token(conn));
        self.connections.insert(conn, socket);
        if let Err(error) = registered {
            self.shard.handle_half_error(half, error.kind());
        }
    }
}

//! What a core keeps of each peer and rarely looks at: who it is, and what few peers have.
//!
//! There is one for each connection, idle or not, so it has what cannot be told from anything else, in as few bytes as most peers need.
//! [`PeerInfo`] is made of it when somebody asks. What has to do with every message or write is not here.

use std::any::Any;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4};

use super::places::Place;
use super::topics::Subscriptions;
use crate::address::{Address, Credentials};
use crate::handler::{Direction, PeerInfo};
use crate::id::{DialId, NodeId};
use crate::proto::Exchange;
use crate::time::Timestamp;

/// See the module.
#[derive(Debug)]
pub(crate) struct Cold {
    pub(crate) node: NodeId,
    pub(crate) instance: u64,
    /// The dial that led to it. Without one, the other side has opened the connection.
    pub(crate) dial: Option<DialId>,
    pub(crate) grant: u64,
    /// Given back when this is dropped.
    #[expect(dead_code, reason = "held for its drop")]
    place: Place,
    pub(crate) established_at: Timestamp,
    /// What the application keeps with the peer. In two boxes, since one is two words, and most peers have none.
    user: Option<Box<Box<dyn Any>>>,
    pub(crate) few: Option<Box<Few>>,
    spot: Spot,
    channel: u16,
    pub(crate) takes_notice: bool,
}

/// Where a peer is.
#[derive(Clone, Copy, Debug)]
enum Spot {
    V4(SocketAddrV4),
    /// Without a scope or a flow.
    V6(Ipv6Addr, u16),
    /// See [`Few::address`].
    Other,
}

impl Spot {
    fn of(address: &Address) -> Self {
        match address {
            Address::Tcp(SocketAddr::V4(address)) => Self::V4(*address),
            Address::Tcp(SocketAddr::V6(address)) if address.scope_id() == 0 && address.flowinfo() == 0 => {
                Self::V6(*address.ip(), address.port())
            }
            _ => Self::Other,
        }
    }
}

/// What few peers have. It is there from the first of it to the peer's end.
#[derive(Debug, Default)]
pub(crate) struct Few {
    /// One that is no IP address, or has more to it.
    address: Option<Address>,
    credentials: Option<Credentials>,
    /// Topics of both directions.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// Acknowledged messages of both directions.
    pub(crate) exchange: Option<Box<Exchange>>,
    pub(crate) arrears: Arrears,
}

/// How far a peer is behind, or was.
#[derive(Debug, Default)]
pub(crate) struct Arrears {
    /// Bytes that the kernel took since the peer went over the soft mark.
    pub(crate) drained: u64,
    /// Since when something has been left over from a write; of meaning while `Entry::behind`.
    pub(crate) since: Option<Timestamp>,
    /// Messages that were dropped because the peer is slow, and not reported yet.
    pub(crate) shed: u64,
}

impl Cold {
    /// Memory besides itself that each may have.
    pub(super) const FEW: usize = size_of::<Few>();

    /// A peer's, as its connection becomes one with this grant.
    pub(super) fn new(info: PeerInfo, grant: u64, place: Place, now: Timestamp) -> Self {
        let PeerInfo { node, instance, channel, address, direction, dial, takes_notice, credentials, .. } = info;
        debug_assert_eq!(direction == Direction::Dialled, dial.is_some());
        let spot = Spot::of(&address);
        let mut cold = Self { node, instance, dial, grant, place, established_at: now, user: None, few: None, spot, channel, takes_notice };
        if matches!(spot, Spot::Other) {
            cold.few.get_or_insert_default().address = Some(address);
        }
        if let Some(credentials) = credentials {
            cold.few.get_or_insert_default().credentials = Some(*credentials);
        }
        cold
    }

    /// What there is to say of the peer. The core knows the rest from its session.
    pub(super) fn info(&self, authenticated: bool, max_message: usize) -> PeerInfo {
        PeerInfo {
            node: self.node,
            authenticated,
            instance: self.instance,
            channel: self.channel,
            address: self.address(),
            direction: if self.dial.is_some() { Direction::Dialled } else { Direction::Accepted },
            dial: self.dial,
            max_message,
            takes_notice: self.takes_notice,
            credentials: self.few.as_ref().and_then(|few| few.credentials).map(Box::new),
        }
    }

    fn address(&self) -> Address {
        match self.spot {
            Spot::V4(address) => SocketAddr::V4(address).into(),
            Spot::V6(ip, port) => SocketAddr::from((ip, port)).into(),
            Spot::Other => self.few.as_ref().and_then(|few| few.address.clone()).expect("an address that does not fit is in the box"),
        }
    }

    pub(crate) fn subscriptions(&self) -> Option<&Subscriptions> {
        self.few.as_ref()?.subscriptions.as_deref()
    }

    /// The same, where there are some: nothing is allocated.
    pub(crate) fn subscriptions_mut(&mut self) -> Option<&mut Subscriptions> {
        self.few.as_mut()?.subscriptions.as_deref_mut()
    }

    pub(crate) fn exchange(&self) -> Option<&Exchange> {
        self.few.as_ref()?.exchange.as_deref()
    }

    /// The same, where there is one: nothing is allocated.
    pub(crate) fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        self.few.as_mut()?.exchange.as_deref_mut()
    }

    pub(crate) fn take_exchange(&mut self) -> Option<Box<Exchange>> {
        self.few.as_mut()?.exchange.take()
    }

    pub(crate) fn arrears(&mut self) -> &mut Arrears {
        &mut self.few.get_or_insert_default().arrears
    }

    pub(crate) fn user(&self) -> Option<&dyn Any> {
        self.user.as_deref().map(Box::as_ref)
    }

    pub(crate) fn user_mut(&mut self) -> Option<&mut dyn Any> {
        self.user.as_deref_mut().map(Box::as_mut)
    }

    /// Returns what was there before.
    pub(crate) fn set_user(&mut self, value: Box<dyn Any>) -> Option<Box<dyn Any>> {
        self.user.replace(Box::new(value)).map(|before| *before)
    }

    pub(crate) fn take_user(&mut self) -> Option<Box<dyn Any>> {
        self.user.take().map(|user| *user)
    }

    /// Whether it holds nothing any more that only the core can take back.
    pub(super) fn has_given_back(&self) -> bool {
        self.subscriptions().is_none() && self.exchange().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Places;
    use super::*;

    /// There is one for each peer.
    #[test]
    fn is_small() {
        assert_eq!((size_of::<Spot>(), size_of::<Cold>(), size_of::<Option<Cold>>()), (20, 120, 120));
    }

    #[test]
    fn says_what_the_handshake_said_and_has_a_box_only_where_that_does_not_fit() {
        let dialled = Some(DialId::new(0, 7));
        for (address, dial, uid, boxed) in [
            ("10.1.2.3:4", None, None, false),
            ("[2001:db8::1]:65535", dialled, None, false),
            ("[::ffff:10.1.2.3]:4", None, None, false),
            ("[fe80::1%3]:9", dialled, None, true),
            ("unix:/run/node", None, None, true),
            ("unix:/run/node", None, Some(1000), true),
        ] {
            let info = PeerInfo {
                node: NodeId([7; 32]),
                authenticated: true,
                instance: u64::MAX,
                channel: u16::MAX,
                address: address.parse().unwrap(),
                direction: if dial.is_some() { Direction::Dialled } else { Direction::Accepted },
                dial,
                max_message: 1 << 20,
                takes_notice: dial.is_none(),
                credentials: uid.map(|uid| Box::new(Credentials::new(None, uid, 1))),
            };
            let place = Places::new(1).dial().establish();
            let mut cold = Cold::new(info.clone(), 1, place, Timestamp::ORIGIN);
            assert_eq!((cold.info(true, 1 << 20), cold.few.is_some()), (info, boxed), "{address}");
            assert!(cold.set_user(Box::new(1)).is_none() && cold.has_given_back());
            assert_eq!(cold.set_user(Box::new("two")).and_then(|user| user.downcast().ok()), Some(Box::new(1)));
            assert_eq!(cold.user_mut().and_then(|user| user.downcast_ref()), Some(&"two"));
            assert_eq!((cold.take_user().is_some(), cold.user().is_some(), cold.few.is_some()), (true, false, boxed));
        }
    }
}

//! Servers that a test makes of the library itself, to do what the tool's own would not.

use corecast::{Admission, Config, Context, Engine, Handler, Identity, Message, PeerId, Receipt, Responder};

/// The modes of a server, as a sample numbers them.
pub(crate) const FANOUT: u64 = 1;
pub(crate) const TOPICS: u64 = 4;
pub(crate) const RECEIPTS: u64 = 5;
pub(crate) const REQUEST: u64 = 6;
/// The type of the messages that are verified.
pub(crate) const DATA: u16 = 1;

/// What a server does with messages.
pub(crate) trait Rogue: 'static {
    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>);
    fn on_receipt(&mut self, _cx: &mut Context<'_>, _receipt: Receipt) {}
    /// A request of the workload, which is no question.
    fn on_request(&mut self, _cx: &mut Context<'_>, _peer: PeerId, _request: Message<'_>, _responder: Responder) {}
}

/// A running server of one core. Ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    _engine: Engine<()>,
}

impl Server {
    pub(crate) fn start<R: Rogue>(mode: u64, rogue: impl Fn() -> R + Send + Sync + 'static) -> Self {
        let identity = Identity::generate().expect("the system has randomness");
        let mut config = Config::secure(identity, Admission::Open).listen("127.0.0.1:0".parse().expect("an address"));
        config.addresses.exempt = vec!["127.0.0.0/8".parse().expect("a subnet")];
        let engine = Engine::start(config, move |_| Core { mode, rogue: rogue() }).expect("the server starts");
        Self { address: format!("{}@{}", engine.node_id(), engine.local_addrs()[0]), _engine: engine }
    }
}

struct Core<R> {
    mode: u64,
    rogue: R,
}

impl<R: Rogue> Handler for Core<R> {
    type Command = ();

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        self.rogue.on_message(cx, peer, message);
    }

    /// Every question is answered with a sample in which nothing stands but the mode.
    fn on_request(&mut self, cx: &mut Context<'_>, peer: PeerId, request: Message<'_>, responder: Responder) {
        if request.message_type() == DATA {
            return self.rogue.on_request(cx, peer, request, responder);
        }
        let mut sample = [0; 15 * 8];
        sample[..8].copy_from_slice(b"ccload03");
        sample[8..16].copy_from_slice(&self.mode.to_le_bytes());
        let _ = cx.respond(responder, request.meta, &sample);
    }

    fn on_receipt(&mut self, cx: &mut Context<'_>, receipt: Receipt) {
        self.rogue.on_receipt(cx, receipt);
    }
}

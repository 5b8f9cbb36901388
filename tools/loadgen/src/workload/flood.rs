//! Flood: every peer sends as fast as backpressure lets it; the server counts and verifies.
//!
//! What arrived is asked of the server at the end, peer by peer and behind the peer's last message, so the answer also says that the
//! peer's stream has come to its end.

use corecast::{Context, Message};

use super::Workload;
use crate::client::{Core, Push};
use crate::clock;
use crate::probe::Sample;

/// Messages that one peer sends before the others have their turn.
const BURST: u32 = 64;

/// One peer's messages.
#[derive(Clone, Default)]
struct Flow {
    next_seq: u64,
    blocked: bool,
}

/// One core's peers.
pub(crate) struct Flood {
    flows: Vec<Flow>,
}

impl Flood {
    pub(crate) fn new(peers: usize) -> Self {
        Self { flows: vec![Flow::default(); peers] }
    }

    /// Sends until the peer is told to wait, or has had its burst. Returns whether it could send more.
    fn burst(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) -> bool {
        let flow = &mut self.flows[index];
        for _ in 0..BURST {
            if !core.sending || flow.blocked {
                return false;
            }
            let push = core.send(cx, index, flow.next_seq, clock::now_ns());
            flow.blocked = push != Push::Taken;
            flow.next_seq += u64::from(push != Push::Refused);
        }
        true
    }

    fn fill(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        while self.burst(cx, core, index) {}
    }
}

impl Workload for Flood {
    fn begin(&mut self, cx: &mut Context<'_>, core: &mut Core, _at: u64) {
        let mut willing: Vec<usize> = (0..core.count()).collect();
        while !willing.is_empty() {
            willing.retain(|index| self.burst(cx, core, *index));
        }
    }

    fn on_message(&mut self, _cx: &mut Context<'_>, core: &mut Core, _index: usize, _message: Message<'_>) {
        // A sink sends nothing but answers.
        core.tally.corrupt += 1;
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, core: &mut Core, index: usize) {
        self.flows[index].blocked = false;
        self.fill(cx, core, index);
    }

    fn on_tick(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        if core.sending {
            (0..core.count()).for_each(|index| self.on_drained(cx, core, index));
        }
    }

    fn on_stop(&mut self, cx: &mut Context<'_>, core: &mut Core) {
        (0..core.count()).for_each(|index| core.ask_for_tally(cx, index));
    }

    fn on_tally(&mut self, _cx: &mut Context<'_>, core: &mut Core, _index: usize, sample: &Sample) {
        core.arrived_at_server(sample.tally);
    }
}

//! Several servers, to which the peers of a run are dealt in turn, and what each of them was sent and sent back.
//!
//! Peer `n` of a run goes to target `n % T`. Where there is one target nothing is counted here.

use std::fmt;
use std::sync::Arc;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::measure::new_histogram;
use crate::report::{Latency, group, percentile_text, row};
use crate::security::Target;

/// Targets at most: see [`crate::progress::Progress::reached`].
pub(crate) const MOST_TARGETS: usize = 64;

/// The servers of a run, in the order in which they were named. At least one, and at most [`MOST_TARGETS`].
#[derive(Clone, Debug)]
pub(crate) struct Targets(Arc<[Target]>);

impl From<Vec<Target>> for Targets {
    fn from(targets: Vec<Target>) -> Self {
        assert!((1..=MOST_TARGETS).contains(&targets.len()), "the command line has looked at that");
        Self(targets.into())
    }
}

impl Targets {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Which of them this peer of the run goes to.
    #[inline]
    pub(crate) fn index_of(&self, peer: u32) -> usize {
        peer as usize % self.0.len()
    }

    pub(crate) fn of(&self, peer: u32) -> &Target {
        &self.0[self.index_of(peer)]
    }

    /// A reason that somebody failed for, and whose it is where there are several.
    pub(crate) fn explain(&self, peer: u32, reason: impl ToString) -> String {
        if self.len() == 1 { reason.to_string() } else { format!("{}: {}", self.of(peer).address, reason.to_string()) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Target> {
        self.0.iter()
    }

    /// How many of so many peers go to each.
    fn shares(&self, peers: u32) -> impl Iterator<Item = u32> {
        let among = self.len() as u32;
        (0..among).map(move |target| peers / among + u32::from(target < peers % among))
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(Target::to_string).collect();
        f.write_str(&names.join(", "))
    }
}

/// What one core's peers have sent to one target, and what came of it.
#[derive(Clone)]
pub(crate) struct Exchange {
    sent: u64,
    delivered: u64,
    /// Of the measured messages.
    latency: Histogram<u64>,
}

/// What one core's peers have sent to each target; nothing where there is one.
#[derive(Clone, Default)]
pub(crate) struct Exchanges(Vec<Exchange>);

impl Exchanges {
    pub(crate) fn new(targets: usize) -> Self {
        let none = || Exchange { sent: 0, delivered: 0, latency: new_histogram() };
        Self(if targets > 1 { (0..targets).map(|_| none()).collect() } else { Vec::new() })
    }

    #[inline]
    fn of(&mut self, peer: u32) -> Option<&mut Exchange> {
        let targets = self.0.len();
        if targets == 0 { None } else { self.0.get_mut(peer as usize % targets) }
    }

    #[inline]
    pub(crate) fn sent(&mut self, peer: u32) {
        if let Some(exchange) = self.of(peer) {
            exchange.sent += 1;
        }
    }

    #[inline]
    pub(crate) fn delivered(&mut self, peer: u32, messages: u64) {
        if let Some(exchange) = self.of(peer) {
            exchange.delivered += messages;
        }
    }

    #[inline]
    pub(crate) fn measured(&mut self, peer: u32, latency: u64) {
        if let Some(exchange) = self.of(peer) {
            exchange.latency.saturating_record(latency);
        }
    }

    /// Another core's.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, others) in self.0.iter_mut().zip(&other.0) {
            mine.sent += others.sent;
            mine.delivered += others.delivered;
            mine.latency.add(&others.latency).expect("histograms of one shape");
        }
    }

    /// `of_server`: the latency as the server saw it, where it is the one that counts, and the processors that it was busy on and waited
    /// for. In the order of the targets.
    pub(crate) fn figures(&self, targets: &Targets, peers: u32, of_server: impl Fn(usize) -> OfServer) -> Vec<TargetFigures> {
        let each = targets.iter().zip(targets.shares(peers)).zip(&self.0).enumerate();
        each.map(|(index, ((target, peers), exchange))| {
            let OfServer { latency, cpus } = of_server(index);
            let (server_cpus_used, server_cpus_waited) = cpus.unzip();
            TargetFigures {
                target: target.to_string(),
                peers,
                total_sent: exchange.sent,
                total_delivered: exchange.delivered,
                latency_ns: latency.or_else(|| Latency::of(&exchange.latency)),
                server_cpus_used,
                server_cpus_waited,
            }
        })
        .collect()
    }
}

/// What one server said.
pub(crate) struct OfServer {
    pub(crate) latency: Option<Latency>,
    pub(crate) cpus: Option<(f64, f64)>,
}

/// One of several servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TargetFigures {
    pub(crate) target: String,
    /// Peers that were dealt to it.
    pub(crate) peers: u32,
    /// The whole run, with its warm-up and its drain.
    pub(crate) total_sent: u64,
    pub(crate) total_delivered: u64,
    /// The measured part.
    pub(crate) latency_ns: Option<Latency>,
    pub(crate) server_cpus_used: Option<f64>,
    pub(crate) server_cpus_waited: Option<f64>,
}

impl fmt::Display for TargetFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.total_sent.saturating_sub(self.total_delivered);
        let end = if missing > 0 { format!(", {} MISSING", group(missing)) } else { String::new() };
        let busy = self.server_cpus_used.map_or_else(String::new, |used| format!(", {used:.2} processors busy"));
        let [peers, sent, delivered] = [u64::from(self.peers), self.total_sent, self.total_delivered].map(group);
        // The node id says nothing to the eye.
        let address = self.target.split_once('@').map_or(self.target.as_str(), |(_, address)| address);
        row(f, "target", &format!("{address}: {peers} peers, {sent} sent, {delivered} delivered{end}{busy}"))?;
        self.latency_ns.map_or(Ok(()), |latency| row(f, "", &percentile_text(&latency)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::parse_target;

    fn targets(ports: &[u16]) -> Targets {
        let targets: Vec<_> = ports.iter().map(|port| parse_target(&format!("127.0.0.1:{port}")).unwrap()).collect();
        targets.into()
    }

    #[test]
    fn peers_are_dealt_in_turn() {
        let three = targets(&[1, 2, 3]);
        assert_eq!((0..5).map(|peer| three.index_of(peer)).collect::<Vec<_>>(), [0, 1, 2, 0, 1]);
        assert_eq!(three.shares(5).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(three.to_string(), "127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3");
        assert_eq!(three.explain(4, "gone"), "127.0.0.1:2: gone");
        assert_eq!(targets(&[1]).explain(4, "gone"), "gone");
    }

    #[test]
    fn each_target_has_its_account_and_one_alone_has_none() {
        let three = targets(&[1, 2, 3]);
        let mut exchanges = Exchanges::new(3);
        (0..5).for_each(|peer| exchanges.sent(peer));
        exchanges.delivered(1, 2);
        exchanges.measured(1, 7);
        let mut sum = exchanges.clone();
        sum.add(&exchanges);
        let none = |_| OfServer { latency: None, cpus: None };
        let figures = sum.figures(&three, 5, none);
        let counts: Vec<_> = figures.iter().map(|figures| (figures.peers, figures.total_sent, figures.total_delivered)).collect();
        assert_eq!(counts, [(2, 4, 0), (2, 4, 4), (1, 2, 0)]);
        assert_eq!(figures[1].latency_ns.map(|latency| latency.max), Some(7));
        let mut alone = Exchanges::new(1);
        alone.sent(0);
        assert!(alone.figures(&targets(&[1]), 5, none).is_empty());
    }
}

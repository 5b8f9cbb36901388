//! A report for tests that have none of a run.

use std::collections::BTreeMap;

use super::{Figures, Histograms, Latency, Measured, Report, SCHEMA, Setup, Validity, Verified};
use crate::machine::Machine;
use crate::measure::Slice;
use crate::pacer::Pace;

/// An open-loop echo of a second, of 1,000 messages a second, with these response times.
pub(crate) fn sample(run_id: u32, started_at_s: f64, response_ns: impl Iterator<Item = u64>) -> Report {
    let mut slice = Slice::new();
    response_ns.for_each(|nanos| slice.latency.saturating_record(nanos));
    let delivered = slice.latency.len();
    let measured = Measured {
        elapsed_s: 1.0,
        sent: delivered,
        delivered,
        msgs_per_s: delivered as f64,
        deliveries_per_s: delivered as f64,
        latency_ns: Latency::of(&slice.latency),
        service_ns: None,
        completion_ns: None,
        send_lag_ns: None,
        server_cpu_ns_per_delivery: None,
        server_cpus_used: None,
        server_cpus_waited: None,
        histograms: Histograms::of(&slice),
    };
    Report {
        schema: SCHEMA.to_owned(),
        run_id,
        command: vec!["corecast-loadgen".into(), "echo".into()],
        merged: Vec::new(),
        setup: Setup {
            workload: "echo".into(),
            server: "127.0.0.1:1".into(),
            peers: 10,
            size: 64,
            in_flight: None,
            rate: Some(1_000.0),
            arrivals: Some("constant".into()),
            arrival_seed: None,
            pace: Some(Pace::Sleep),
            plaintext: true,
            server_cores: None,
            client_cores: None,
            spin_us: None,
        },
        started_at_s,
        connect_s: 0.1,
        connect_failures: BTreeMap::new(),
        verified: Verified {
            total_sent: delivered,
            unsent: 0,
            total_delivered: delivered,
            lost: 0,
            duplicated: 0,
            reordered: 0,
            corrupt: 0,
            foreign: 0,
            disconnected: 0,
            disconnect_reasons: BTreeMap::new(),
        },
        figures: Figures::One(measured),
        validity: Some(Validity { valid: true, lag_bound_ns: 100_000, reasons: Vec::new() }),
        other_peers: None,
        targets: Vec::new(),
        intervals: Vec::new(),
        interrupted: false,
        server_counters: None,
        machine: Machine::describe(),
    }
}

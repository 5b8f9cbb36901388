//! The machine: what it is, because figures without it mean nothing, and how busy it is with other things.

use std::time::{Duration, Instant};
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use crate::network::{self, Network};

/// What the figures depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) virtual_machine: bool,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) governor: String,
    pub(crate) clock_source: String,
    /// Whose it is, and how TCP decides there when to send.
    #[serde(default)]
    pub(crate) network: String,
    /// Over the minute before the start.
    pub(crate) load_average: String,
}

impl Machine {
    pub(crate) fn read(network: Network) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let unknown = || "unknown".to_owned();
        Self {
            cpu: model.map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']).trim()).to_owned(),
            // Not `available_parallelism`: this thread may be pinned.
            cores: cpu.lines().filter(|line| line.starts_with("processor")).count(),
            virtual_machine: cpu.contains(" hypervisor"),
            memory_gib: memory_kib().map_or(0.0, |kib| kib as f64 / f64::from(1 << 20)),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").unwrap_or_else(|| "not readable".into()),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap_or_else(unknown),
            network: format!("{network}, congestion control {}", network::congestion_control().unwrap_or_else(unknown)),
            load_average: read("/proc/loadavg").and_then(|line| line.split(' ').next().map(String::from)).unwrap_or_else(unknown),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_gib, kernel, governor, clock_source, network, load_average, .. } = self;
        let virtual_machine = if self.virtual_machine { ", virtual machine" } else { "" };
        write!(f, "{cpu}, {cores} cores, {memory_gib:.0} GiB{virtual_machine}, Linux {kernel}, governor {governor}, ")?;
        write!(f, "clock source {clock_source}, {network}, load average {load_average}")
    }
}

fn memory_kib() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_ascii_whitespace().next()?.parse().ok()
}

/// CPU time that the whole machine has used since its start, with what its host took from it. In steps of 10 ms for each core.
pub(crate) fn busy_nanos() -> u64 {
    const NANOS_PER_TICK: u64 = 10_000_000;
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| fields.get(index)).sum::<u64>() * NANOS_PER_TICK
}

/// Waits until nothing else runs for a moment, but no longer than `patience`.
pub(crate) fn wait_until_quiet(patience: Duration) {
    const MOMENT: Duration = Duration::from_millis(300);
    /// Of one core.
    const QUIET_BELOW: f64 = 0.1;
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let (before, start) = (busy_nanos(), Instant::now());
        std::thread::sleep(MOMENT.min(patience));
        let busy = (busy_nanos() - before) as f64 / start.elapsed().as_nanos() as f64;
        if busy < QUIET_BELOW {
            return;
        }
    }
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described_in_one_line() {
        let machine = Machine::read(Network::Machine);
        assert!(machine.cores > 0 && machine.memory_gib > 0.0, "{machine:?}");
        let text = machine.to_string();
        assert!(
            text.contains(" cores, ")
                && text.contains("the machine's network, congestion control ")
                && text.contains("Linux ")
                && text.lines().count() == 1,
            "{text}"
        );
    }
}

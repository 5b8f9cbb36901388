//! The machine: what it is, because figures without it mean nothing, and how busy it is with other things.

use std::fs;
use std::time::{Duration, Instant};

/// CPU model, cores, kernel, governor, and how busy it is with other things.
pub(crate) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']).trim());
    // Not `available_parallelism`: this thread is pinned.
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into());
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").unwrap_or_else(|| "not readable".into());
    let virtual_machine = if cpu.contains(" hypervisor") { ", virtual machine" } else { "" };
    let load = read("/proc/loadavg").and_then(|line| line.split(' ').next().map(String::from)).unwrap_or_default();
    format!("{model}, {cores} cores{virtual_machine}, Linux {kernel}, governor {governor}, load average {load}")
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

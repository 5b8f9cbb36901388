//! What else is the machine's: its clock, its memory, and whether it lets itself be profiled.

use std::path::PathBuf;

use super::host::Host;
use super::network::size;
use super::{Finding, Plan};

/// Memory that a run takes without its peers, and for each peer with both ends on this machine: two engines' peers and the kernel's two
/// sockets with a little in them. Both are generous.
const BASE_MEMORY: u64 = 128 << 20;
const PEER_MEMORY: u64 = 32 << 10;

/// Capabilities that let a process profile whatever it likes: CAP_SYS_ADMIN and CAP_PERFMON.
const MAY_PROFILE: u64 = 1 << 21 | 1 << 38;

pub(super) fn checks(host: &Host, plan: &Plan) -> Vec<Finding> {
    vec![clock_source(host), memory(host, plan), huge_pages(host), profiling(host)]
}

fn clock_source(host: &Host) -> Finding {
    let check = "clock source";
    let folder = PathBuf::from("sys/devices/system/clocksource/clocksource0");
    let Some(current) = host.read(folder.join("current_clocksource")).filter(|name| is_name(name)) else {
        return Finding::cannot_read(check, "/sys/devices/system/clocksource/clocksource0/current_clocksource");
    };
    // Those that are read without a call into the kernel.
    let quick = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource", "timebase"];
    if quick.contains(&current.as_str()) {
        return Finding::ok(check, current);
    }
    let available = host.read(folder.join("available_clocksource")).unwrap_or_default();
    let means = "each reading of the clock is a call into the kernel, and there are several for each message";
    let better = available.split_ascii_whitespace().find(|name| quick.contains(name));
    let change = match better {
        Some(name) => format!("echo {name} | sudo tee /{}", folder.join("current_clocksource").display()),
        None => "dmesg | grep -i -e tsc -e clocksource says why there is no tsc; boot with tsc=reliable where it is sound".into(),
    };
    Finding::warn(check, current, means, change)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// The tightest limit of the control groups around, and what is free.
fn memory(host: &Host, plan: &Plan) -> Finding {
    let check = "memory";
    let limits = host.groups("memory").into_iter().flatten().filter_map(|(group, version_2)| {
        let file = group.join(if version_2 { "memory.max" } else { "memory.limit_in_bytes" });
        Some((host.number(&file)?, file.display().to_string()))
    });
    let limit = limits.min();
    let available = host.field("proc/meminfo", "MemAvailable").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let Some(available) = available.map(|kilobytes| kilobytes.saturating_mul(1024)) else {
        return Finding::cannot_read(check, "/proc/meminfo, `MemAvailable`");
    };
    let needed = BASE_MEMORY + plan.peers * PEER_MEMORY;
    let found = format!("{} available, about {} are enough for {} idle peers", size(available), size(needed), plan.peers);
    match limit {
        Some((limit, file)) if limit < needed => {
            let found = format!("limited to {} (/{file}), about {} are enough for {} idle peers", size(limit), size(needed), plan.peers);
            Finding::warn(check, found, "the kernel ends the run when it has taken that much", format!("echo {needed} | sudo tee /{file}"))
        }
        _ if available < needed => {
            Finding::warn(check, found, "the kernel may end the run, or something else", "end what takes the memory, or use fewer --peers")
        }
        _ => Finding::ok(check, found),
    }
}

fn huge_pages(host: &Host) -> Finding {
    let check = "huge pages";
    let file = "sys/kernel/mm/transparent_hugepage/enabled";
    // The one that is set stands in brackets.
    let set = host.read(file).and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned()));
    match set.as_deref() {
        None => Finding::cannot_read(check, format_args!("/{file}")),
        Some("always") => Finding::warn(
            check,
            "transparent huge pages: always",
            "memory per peer (RSS) comes out higher than what is used, and the kernel may stop a core to put pages together",
            format!("echo madvise | sudo tee /{file}"),
        ),
        Some(set) => Finding::ok(check, format!("transparent huge pages: {set}")),
    }
}

/// Whether `perf` may look at a process of this user, and at the kernel below it.
fn profiling(host: &Host) -> Finding {
    let check = "profiling";
    let file = "proc/sys/kernel/perf_event_paranoid";
    let Some(level) = host.read(file).and_then(|text| text.parse::<i64>().ok()) else {
        return Finding::cannot_read(check, format_args!("/{file}"));
    };
    let found = format!("perf_event_paranoid {level}");
    let capabilities = host.field("proc/self/status", "CapEff").and_then(|text| u64::from_str_radix(&text, 16).ok());
    if level <= 1 || capabilities.is_some_and(|mask| mask & MAY_PROFILE != 0) {
        return Finding::ok(check, found);
    }
    let means = match level {
        2 => "perf (tools/flamegraph.sh) sees the processes of this user, but not the kernel below them; --flamegraph needs neither",
        _ => "perf (tools/flamegraph.sh) sees nothing unless it is root; --flamegraph needs no leave",
    };
    Finding::warn(check, found, means, "sudo sysctl -w kernel.perf_event_paranoid=1 kernel.kptr_restrict=0")
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::host::tests::Tree;
    use super::*;

    fn plan(peers: u64) -> Plan {
        Plan { peers, own_server: false, server: vec![0], client: vec![1] }
    }

    fn says(finding: &Finding, status: Status, parts: &[&str]) {
        let text = format!("{} {:?} {:?}", finding.found, finding.means, finding.change);
        assert!(finding.status == status && parts.iter().all(|part| text.contains(part)), "{finding:#?}");
    }

    #[test]
    fn a_slow_clock_source() {
        let with = |current: &str, available: &str| {
            let folder = "sys/devices/system/clocksource/clocksource0";
            let tree = Tree::empty().with(&format!("{folder}/current_clocksource"), current);
            clock_source(&tree.with(&format!("{folder}/available_clocksource"), available).host())
        };
        says(&with("kvm-clock\n", "kvm-clock tsc\n"), Status::Ok, &["kvm-clock"]);
        says(&with("hpet\n", "tsc hpet acpi_pm\n"), Status::Warn, &["echo tsc | sudo tee /sys/devices/system/clocksource"]);
        says(&with("hpet\n", "hpet acpi_pm\n"), Status::Warn, &["dmesg"]);
    }

    #[test]
    fn memory_that_is_limited_or_taken() {
        let check = |tree: &Tree, peers| memory(&tree.host(), &plan(peers));
        says(&check(&Tree::good(), 1000), Status::Ok, &["11.4 GiB available"]);
        says(&check(&Tree::good(), 1_000_000), Status::Warn, &["fewer --peers"]);
        let limited = Tree::good().with("sys/fs/cgroup/a/memory.max", "67108864\n").with("sys/fs/cgroup/memory.max", "1073741824\n");
        says(&check(&limited, 1000), Status::Warn, &["limited to 64 MiB", "sudo tee /sys/fs/cgroup/a/memory.max"]);
    }

    #[test]
    fn huge_pages_that_come_by_themselves() {
        let check = |text| huge_pages(&Tree::empty().with("sys/kernel/mm/transparent_hugepage/enabled", text).host());
        says(&check("[always] madvise never\n"), Status::Warn, &["echo madvise"]);
        says(&check("always madvise [never]\n"), Status::Ok, &["never"]);
        says(&check("always\n"), Status::CannotRead, &["/sys/kernel"]);
    }

    #[test]
    fn who_may_profile() {
        let check = |level: &str, capabilities: &str| {
            let tree = Tree::empty().with("proc/sys/kernel/perf_event_paranoid", level);
            profiling(&tree.with("proc/self/status", &format!("CapEff:\t{capabilities}\n")).host())
        };
        says(&check("4\n", "0000000000000000"), Status::Warn, &["sees nothing", "perf_event_paranoid=1"]);
        says(&check("2\n", "0000000000000000"), Status::Warn, &["not the kernel"]);
        says(&check("4\n", "000001ffffffffff"), Status::Ok, &["4"]);
        says(&check("-1\n", "odd"), Status::Ok, &["-1"]);
    }
}

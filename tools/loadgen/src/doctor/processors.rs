//! What the cores of a run need: processors of their own, at full speed, all of the time.

use std::time::Duration;

use corecast::Warning;

use super::host::{Host, list_text, parse_list};
use super::{Finding, Plan};

/// Load of the last minute beyond which somebody else is at work.
const BUSY: f64 = 0.5;
/// Share of the time that a hypervisor gave to others, beyond which it is to be heard of.
const STOLEN: f64 = 0.01;

pub(super) fn checks(host: &Host, plan: &Plan) -> Vec<Finding> {
    vec![
        processors(host, plan),
        siblings(host, plan),
        isolated(host, plan),
        governor(host, plan),
        quota(host, plan),
        busy(host),
        stolen(host),
    ]
}

fn processors(host: &Host, plan: &Plan) -> Finding {
    let check = "processors";
    let Some(allowed) = host.allowed() else { return Finding::cannot_read(check, "/proc/self/status, `Cpus_allowed_list`") };
    let found = format!("{} allowed; server on {}, client on {}", list_text(&allowed), named(&plan.server), named(&plan.client));
    let all = plan.processors();
    if let Some((core, &processor)) = all.iter().enumerate().find(|(_, processor)| !allowed.contains(processor)) {
        let words = Warning::PinRefused { core, processor }.to_string();
        return Finding::warn(check, found, words, format!("taskset -pc {} $$", list_text(&all)));
    }
    let cores = all.len().max(2);
    if allowed.len() < cores {
        let words = Warning::MoreCoresThanProcessors { cores, processors: allowed.len() }.to_string();
        return Finding::warn(
            check,
            found,
            words,
            "taskset -pc 0,1 $$, or give the container or virtual machine two processors (cpuset.cpus)",
        );
    }
    Finding::ok(check, found)
}

fn named(processors: &[usize]) -> String {
    if processors.is_empty() { "none of its own".into() } else { list_text(processors) }
}

/// Processors of the run that are hyperthreads of one.
fn siblings(host: &Host, plan: &Plan) -> Finding {
    let check = "hyperthreads";
    let all = plan.processors();
    let file = |processor: usize| format!("sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list");
    let lists: Option<Vec<_>> = all.iter().map(|&processor| parse_list(&host.read(file(processor))?)).collect();
    let Some(lists) = lists.filter(|lists| !lists.is_empty()) else {
        return Finding::cannot_read(check, "/sys/devices/system/cpu/cpu*/topology/thread_siblings_list");
    };
    for (one, list) in lists.iter().enumerate() {
        if let Some(other) = (one + 1..all.len()).find(|&other| all[other] != all[one] && list.contains(&all[other])) {
            let found = format!("processors {} ({}) and {} ({}) are of one core", all[one], plan.side(one), all[other], plan.side(other));
            let means = "each gets about half of it while both are busy";
            let change = "choose others with --server-cores and --client-cores (lscpu -e shows which share a core)";
            return Finding::warn(check, found, means, change);
        }
    }
    Finding::ok(check, "each processor of the run is of another core")
}

fn isolated(host: &Host, plan: &Plan) -> Finding {
    let check = "isolated";
    let Some(isolated) = host.read("sys/devices/system/cpu/isolated").and_then(|list| parse_list(&list)) else {
        return Finding::cannot_read(check, "/sys/devices/system/cpu/isolated");
    };
    let all = plan.processors();
    let left: Vec<_> = all.iter().copied().filter(|processor| !isolated.contains(processor)).collect();
    // A cpuset that nobody else is in does as well.
    let partition = host.groups("cpuset").into_iter().flatten().find_map(|(group, _)| host.read(group.join("cpuset.cpus.partition")));
    if left.is_empty() || partition.as_deref() == Some("isolated") {
        return Finding::ok(check, format!("processors {} are the run's alone", list_text(&all)));
    }
    let found = format!("processors {} are open to every other process and to the kernel's own work", list_text(&left));
    let list = list_text(&all);
    let change = if host.allowed().is_some_and(|allowed| allowed.iter().all(|processor| all.contains(processor))) {
        "all processors are the run's and none is left for the rest: use a machine with one or two more".into()
    } else {
        format!("boot with isolcpus={list} nohz_full={list} rcu_nocbs={list}, and move interrupts away (/proc/irq/*/smp_affinity)")
    };
    Finding::warn(check, found, "the highest percentiles are partly theirs", change)
}

fn governor(host: &Host, plan: &Plan) -> Finding {
    let check = "governor";
    let governor = |processor| host.read(format!("sys/devices/system/cpu/cpu{processor}/cpufreq/scaling_governor"));
    let all = plan.processors();
    let governors: Vec<_> = all.iter().filter_map(|&processor| Some((processor, governor(processor)?))).collect();
    if governors.is_empty() {
        return Finding::cannot_read(check, "/sys/devices/system/cpu/cpu*/cpufreq: the machine's owner decides, as for most virtual ones");
    }
    let slow: Vec<_> = governors.iter().filter(|(_, name)| name != "performance").collect();
    let Some((_, name)) = slow.first() else { return Finding::ok(check, "performance") };
    let processors: Vec<_> = slow.iter().map(|(processor, _)| *processor).collect();
    let means = "the clock follows the load with a delay, so that a little load has worse latencies than much";
    let command = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor";
    Finding::warn(check, format!("{name} on processors {}", list_text(&processors)), means, command)
}

/// Processor time that a control group has in each period.
struct Quota {
    quota: Duration,
    period: Duration,
    /// The file that says so.
    file: String,
}

impl Quota {
    fn new(quota: u64, period: u64, file: String) -> Option<Self> {
        (period > 0).then(|| Self { quota: Duration::from_micros(quota), period: Duration::from_micros(period), file })
    }

    fn processors(&self) -> f64 {
        self.quota.as_secs_f64() / self.period.as_secs_f64()
    }
}

fn quota(host: &Host, plan: &Plan) -> Finding {
    let check = "cpu quota";
    let Some(groups) = host.groups("cpu") else { return Finding::cannot_read(check, "/proc/self/cgroup") };
    let quotas = groups.into_iter().filter_map(|(group, version_2)| {
        if version_2 {
            let file = group.join("cpu.max");
            let [quota, period] = host.numbers(&file)?;
            return Quota::new(quota, period, file.display().to_string());
        }
        let file = group.join("cpu.cfs_quota_us");
        Quota::new(host.number(&file)?, host.number(group.join("cpu.cfs_period_us"))?, file.display().to_string())
    });
    let tightest = quotas.min_by(|one, other| one.processors().total_cmp(&other.processors()));
    let Some(Quota { quota, period, file }) = tightest else { return Finding::ok(check, "none") };
    let cores = plan.processors().len().max(1);
    let words = Warning::CpuQuota { cores, quota, period }.to_string();
    let none = if file.ends_with("cpu.max") { "max" } else { "-1" };
    Finding::warn(check, format!("{quota:?} in {period:?} (/{file})"), words, format!("echo {none} | sudo tee /{file}"))
}

/// Whether somebody else is at work.
fn busy(host: &Host) -> Finding {
    let check = "load";
    let load = host.read("proc/loadavg").and_then(|text| text.split_ascii_whitespace().next()?.parse::<f64>().ok());
    match load {
        None => Finding::cannot_read(check, "/proc/loadavg"),
        Some(load) if load > BUSY => {
            let found = format!("{load:.2} in the last minute");
            let means = "something else runs here: what it takes is missing from the figures";
            Finding::warn(check, found, means, "end it, or wait for it (top shows what it is)")
        }
        Some(load) => Finding::ok(check, format!("{load:.2} in the last minute")),
    }
}

/// What the hypervisor gave to others.
fn stolen(host: &Host) -> Finding {
    let check = "stolen time";
    let text = host.read("proc/stat");
    let line = text.as_deref().and_then(|text| text.lines().next()?.strip_prefix("cpu "));
    let times: Vec<u64> = line.into_iter().flat_map(|line| line.split_ascii_whitespace()).map_while(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal, and guests' time, which is in the first two already.
    let Some([user, nice, system, idle, iowait, irq, softirq, steal]) = times.first_chunk() else {
        return Finding::cannot_read(check, "/proc/stat");
    };
    let busy = [user, nice, system, irq, softirq, steal].into_iter().fold(0_u64, |sum, time| sum.saturating_add(*time));
    if busy.saturating_add(*idle).saturating_add(*iowait) == 0 {
        return Finding::cannot_read(check, "/proc/stat");
    }
    let share = *steal as f64 / busy.max(1) as f64;
    let found = format!("{:.1} % of the time that was worked since boot", share * 100.0);
    if share > STOLEN {
        let means = "the hypervisor stops this machine while others run: that time is in the latencies";
        return Finding::warn(check, found, means, "use a machine whose processors are its own (dedicated, or bare metal)");
    }
    Finding::ok(check, found)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::host::tests::Tree;
    use super::*;

    fn plan(server: &[usize], client: &[usize]) -> Plan {
        Plan { peers: 1, own_server: false, server: server.to_vec(), client: client.to_vec() }
    }

    fn says(finding: &Finding, status: Status, parts: &[&str]) {
        let text = format!("{} {:?} {:?}", finding.found, finding.means, finding.change);
        assert!(finding.status == status && parts.iter().all(|part| text.contains(part)), "{finding:#?}");
    }

    #[test]
    fn processors_that_are_not_there() {
        let check = |tree: &Tree, plan: &Plan| processors(&tree.host(), plan);
        says(&check(&Tree::good(), &plan(&[0], &[1])), Status::Ok, &["server on 0, client on 1"]);
        says(&check(&Tree::good(), &plan(&[0], &[9])), Status::Warn, &["processor 9", "taskset -pc 0,9"]);
        let one = Tree::good().with("proc/self/status", "Cpus_allowed_list:\t0\n");
        says(&check(&one, &plan(&[0], &[])), Status::Warn, &["2 cores", "1 processors", "cpuset.cpus", "none of its own"]);
    }

    #[test]
    fn hyperthreads_of_one_core() {
        let sibling = |tree: Tree, cpu, list| tree.with(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), list);
        let tree = sibling(sibling(Tree::good(), 0, "0,4\n"), 4, "0,4\n");
        let check = |plan: &Plan| siblings(&tree.host(), plan);
        says(&check(&plan(&[0], &[1])), Status::Ok, &[]);
        says(&check(&plan(&[1, 0], &[2, 4])), Status::Warn, &["0 (server) and 4 (client)", "--server-cores"]);
        says(&check(&plan(&[0], &[99])), Status::CannotRead, &["thread_siblings_list"]);
    }

    #[test]
    fn processors_that_others_use_too() {
        let check = |tree: &Tree, plan: &Plan| isolated(&tree.host(), plan);
        says(&check(&Tree::good(), &plan(&[0], &[3])), Status::Ok, &["0,3"]);
        says(&check(&Tree::good(), &plan(&[0], &[4])), Status::Warn, &["processors 4 are open", "isolcpus=0,4"]);
        let nothing = Tree::good().with("sys/devices/system/cpu/isolated", "\n");
        says(&check(&nothing, &plan(&[0], &[1])), Status::Warn, &["processors 0,1"]);
        let cpuset = nothing.with("sys/fs/cgroup/a/cpuset.cpus.partition", "isolated\n");
        says(&check(&cpuset, &plan(&[0], &[1])), Status::Ok, &[]);
        let small = Tree::empty().with("proc/self/status", "Cpus_allowed_list:\t0-1\n").with("sys/devices/system/cpu/isolated", "\n");
        says(&check(&small, &plan(&[0], &[1])), Status::Warn, &["none is left"]);
    }

    #[test]
    fn a_clock_that_follows_the_load() {
        let tree = Tree::good().with("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n");
        says(&governor(&tree.host(), &plan(&[0], &[1])), Status::Warn, &["powersave on processors 1", "tee /sys/devices"]);
        says(&governor(&tree.host(), &plan(&[0], &[2])), Status::Ok, &["performance"]);
    }

    #[test]
    fn the_tightest_quota_of_either_version() {
        let check = |tree: &Tree| quota(&tree.host(), &plan(&[0], &[1]));
        let tree = Tree::good().with("sys/fs/cgroup/cpu.max", "150000 100000\n");
        says(&check(&tree), Status::Warn, &["150ms in 100ms", "1.50 processors", "2 cores", "echo max | sudo tee /sys/fs/cgroup/cpu.max"]);
        let tree = tree.with("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
        says(&check(&tree), Status::Warn, &["50ms in 100ms", "tee /sys/fs/cgroup/a/cpu.max"]);
        let old = Tree::empty().with("proc/self/cgroup", "2:cpu:/\n").with("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        let old = old.with("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
        says(&check(&old), Status::Ok, &["none"]);
        let old = old.with("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
        says(&check(&old), Status::Warn, &["echo -1 | sudo tee /sys/fs/cgroup/cpu/"]);
    }

    #[test]
    fn others_at_work() {
        says(&busy(&Tree::good().with("proc/loadavg", "3.51 1 1 1/1 1").host()), Status::Warn, &["3.51"]);
        let stat = |line: &str| stolen(&Tree::empty().with("proc/stat", line).host());
        says(&stat("cpu  50 0 45 900 0 0 0 5 0 0\n"), Status::Warn, &["5.0 %", "hypervisor"]);
        says(&stat("cpu  50 0 50 900 0 0 0 0 0 0\n"), Status::Ok, &["0.0 %"]);
        says(&stat("cpu  50 0 50\n"), Status::CannotRead, &[]);
    }
}

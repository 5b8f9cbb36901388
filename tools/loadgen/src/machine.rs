//! The machine: what it is, for the report; what it allows, for the run; what a server's threads have used of it.

use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// Where the figures were measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    cpu_model: String,
    /// The processors that this process may use.
    cpus_allowed: Vec<usize>,
    /// A cgroup's processor quota, as the kernel writes it.
    cpu_quota: Option<String>,
    memory_bytes: Option<u64>,
    kernel: String,
    virtual_machine: bool,
}

impl Machine {
    /// Why figures from the one say nothing about the other.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        if self.cpu_model != other.cpu_model {
            return Some(format!("on {}, and this is {}", self.cpu_model, other.cpu_model));
        }
        let (allowed, others) = (self.cpus_allowed.len(), other.cpus_allowed.len());
        (allowed != others).then(|| format!("with {allowed} processors, and here are {others}"))
    }

    pub(crate) fn describe() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines().find(|line| line.starts_with(name)).and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = field(&meminfo, "MemTotal").and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
        let uname = rustix::system::uname();
        let quota = fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().map(|text| text.trim().to_owned());
        Self {
            cpu_model: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
            cpus_allowed: allowed_cpus(),
            cpu_quota: quota.filter(|text| !text.starts_with("max")),
            memory_bytes: kilobytes.map(|value| value * 1024),
            kernel: format!(
                "{} {} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy(),
                uname.machine().to_string_lossy()
            ),
            virtual_machine: field(&cpuinfo, "flags").is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")),
        }
    }
}

/// The processors that this process may use, ascending. At least one.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => vec![0],
    }
}

/// How many processors' time this process may use at once, by the list and by a cgroup's quota.
pub(crate) fn usable_cpus() -> usize {
    let text = fs::read_to_string("/sys/fs/cgroup/cpu.max").unwrap_or_default();
    allowed_cpus().len().min(whole_cpus(&text).unwrap_or(usize::MAX))
}

/// Whole processors of a quota as the kernel writes it: microseconds of processor time in each so many. Nothing where there is none.
fn whole_cpus(quota: &str) -> Option<usize> {
    let mut words = quota.split_whitespace().map(str::parse::<usize>);
    let (Ok(quota), Ok(period)) = words.next().zip(words.next())? else { return None };
    quota.checked_div(period)
}

/// Raises the soft limit on file descriptors to the hard one and returns what is allowed then.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    allowed.unwrap_or(u64::MAX)
}

/// Descriptors that a process needs besides its peers: standard streams, polls, wakers, listeners, spares.
pub(crate) const SPARE_DESCRIPTORS: u64 = 64;

/// A number that is the same in every process since this machine was booted, and differs on every other machine.
pub(crate) fn boot_id() -> u64 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// Memory that this process has, of what it has asked for. Nothing where the system does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The processor time of some threads of this process.
///
/// The kernel's own account of each thread, to about a tick: the engine's counter is refreshed every 100 ms only, two percent of a
/// measurement of five seconds.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter {
    threads: Mutex<Vec<i32>>,
}

impl CpuMeter {
    /// Adds the calling thread.
    pub(crate) fn register(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// What the threads have had, in sum. Nothing where the kernel keeps no account or a thread has ended.
    pub(crate) fn read(&self) -> Option<CpuTime> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().try_fold(CpuTime::default(), |sum, thread| {
            let time = thread_time(*thread).ok()?;
            Some(CpuTime { ran_ns: sum.ran_ns + time.ran_ns, waited_ns: sum.waited_ns + time.waited_ns })
        })
    }
}

/// What threads have had of the processors, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) ran_ns: u64,
    /// Ready to run while somebody else ran: what makes a measurement worthless, and cannot be seen otherwise.
    pub(crate) waited_ns: u64,
}

fn thread_time(thread: i32) -> io::Result<CpuTime> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
    let mut fields = text.split_whitespace().map_while(|value| value.parse().ok());
    let both = fields.next().zip(fields.next());
    both.map(|(ran_ns, waited_ns)| CpuTime { ran_ns, waited_ns }).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_sees_the_work_of_its_thread() {
        let meter = CpuMeter::default();
        meter.register();
        let before = meter.read();
        let started = crate::clock::now_ns();
        while crate::clock::now_ns() - started < 50_000_000 {
            std::hint::spin_loop();
        }
        if let (Some(before), Some(after)) = (before, meter.read()) {
            assert!(after.ran_ns > before.ran_ns, "{before:?} to {after:?}");
        }
    }

    #[test]
    fn a_quota_is_a_number_of_processors() {
        let quotas = ["max 100000\n", "200000 100000\n", "150000 100000", "50000 100000", "", "1", "5 0"];
        assert_eq!(quotas.map(whole_cpus), [None, Some(2), Some(1), Some(0), None, None, None]);
        assert!(usable_cpus() <= allowed_cpus().len());
    }

    #[test]
    fn the_machine_has_a_processor() {
        assert!(!allowed_cpus().is_empty());
        assert!(!Machine::describe().kernel.is_empty());
    }
}

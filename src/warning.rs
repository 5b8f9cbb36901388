//! What an engine says at its start about where it runs.

use std::fmt;
use std::time::Duration;

/// Something at start that is not as it was asked for, or will not carry what was asked for. The engine runs.
///
/// The text of each says what follows from it, and what to change. They are logged, and returned by [`crate::Engine::warnings`]. What
/// cannot be found out (there is no `/proc`, or it says something else than expected) is not warned of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// `Config::cores`: the kernel, or this process's mask, does not give that processor. The core runs unpinned.
    PinRefused {
        /// The core.
        core: usize,
        /// The processor that it was to have.
        processor: usize,
    },
    /// `Config::cores`: one processor is named twice, so that two cores take turns on it.
    SameProcessor {
        /// The cores.
        cores: [usize; 2],
        /// The processor.
        processor: usize,
    },
    /// `Config::cores`: two processors are hyperthreads of one: each gets about half of it while both are busy.
    SharedProcessor {
        /// The cores.
        cores: [usize; 2],
        /// The processors that they are pinned to, in that order.
        processors: [usize; 2],
    },
    /// `Config::cores`: there are more than the process may use processors, by its affinity mask (`taskset`, a cpuset). They take turns.
    MoreCoresThanProcessors {
        /// How many cores there are.
        cores: usize,
        /// How many processors the process may use.
        processors: usize,
    },
    /// The process's control group limits its processor time (`cpu.max`, `cpu.cfs_quota_us`). When it is used up, all cores stand still
    /// until the next period. For that reason they also never spin ([`crate::Spin`]) unless that is forced.
    CpuQuota {
        /// How many cores there are.
        cores: usize,
        /// Processor time that all threads of the group have together in each period.
        quota: Duration,
        /// How long a period is.
        period: Duration,
    },
    /// The kernel keeps fewer connections that wait to be accepted than the engine asks for (`net.core.somaxconn`). Those beyond it have to
    /// try again, which takes a second for TCP; a Unix-domain socket refuses them (`WouldBlock`).
    Backlog {
        /// How many it asks for.
        wanted: u64,
        /// How many there may be.
        allowed: u64,
    },
    /// The process might open fewer files than `limits.max_peers` and `limits.max_half_open` need, so its limit was raised (`ulimit -Sn`;
    /// the hard limit allowed it). It is the whole process's.
    FileLimitRaised {
        /// How many it might open.
        from: u64,
        /// How many it may open now: just as many as are needed.
        to: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PinRefused { core, processor } => write!(
                f,
                "config.cores: core {core} could not be pinned to processor {processor} and runs unpinned; \
                 check that there is one of that number, and the process's affinity mask (taskset -p)"
            ),
            Self::SameProcessor { cores: [one, other], processor } => {
                write!(f, "config.cores: cores {one} and {other} are both pinned to processor {processor}; give each one of its own")
            }
            Self::SharedProcessor { cores: [one, other], processors: [first, second] } => write!(
                f,
                "config.cores: processors {first} and {second} of cores {one} and {other} are hyperthreads of one; \
                 pin one of them elsewhere (lscpu -e shows which share a core)"
            ),
            Self::MoreCoresThanProcessors { cores, processors } => write!(
                f,
                "config.cores: {cores} cores, but the process may use {processors} processors; \
                 lower config.cores, or widen its mask (taskset -p, cpuset.cpus)"
            ),
            Self::CpuQuota { cores, quota, period } => write!(
                f,
                "the control group gives {:.2} processors ({quota:?} in {period:?}) to {cores} cores, which stand still when that is used \
                 up and do not spin; remove the limit (cpu.max, a container's cpu limit) and give whole processors (cpuset.cpus) instead",
                quota.as_secs_f64() / period.as_secs_f64()
            ),
            Self::Backlog { wanted, allowed } => write!(
                f,
                "net.core.somaxconn is {allowed}: no more connections than that may wait to be accepted; \
                 sysctl -w net.core.somaxconn={wanted}"
            ),
            Self::FileLimitRaised { from, to } => {
                write!(f, "limits.max_peers and limits.max_half_open need {to} files: the process's limit was raised from {from} to that")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_to_change() {
        let says = |warning: Warning, words: &[&str]| {
            let text = warning.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        says(Warning::PinRefused { core: 1, processor: 9 }, &["core 1", "processor 9", "one of that number", "affinity mask"]);
        says(Warning::SameProcessor { cores: [0, 2], processor: 9 }, &["cores 0 and 2", "processor 9", "config.cores"]);
        says(Warning::SharedProcessor { cores: [0, 2], processors: [4, 5] }, &["4 and 5", "hyperthreads", "lscpu"]);
        says(Warning::MoreCoresThanProcessors { cores: 4, processors: 2 }, &["4 cores", "2 processors", "config.cores", "taskset"]);
        let (quota, period) = (Duration::from_millis(150), Duration::from_millis(100));
        says(Warning::CpuQuota { cores: 2, quota, period }, &["1.50 processors", "150ms in 100ms", "cpu.max"]);
        says(Warning::Backlog { wanted: 4096, allowed: 128 }, &["is 128", "sysctl -w net.core.somaxconn=4096"]);
        says(Warning::FileLimitRaised { from: 1024, to: 2000 }, &["from 1024", "2000 files"]);
    }
}

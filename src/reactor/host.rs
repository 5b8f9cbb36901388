//! What the host gives this process: processors, time on them, room for connections that wait.
//!
//! Read once at start, from `/proc` and `/sys`. What is not there, or is not as expected, is unknown, and nothing follows from it: other
//! systems have other ways, and a container may hide either.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::listener::BACKLOG;
use crate::config::{Config, Cores};
use crate::warning::Warning;

/// Most processors that a list is taken to name.
const MOST_PROCESSORS: usize = 1 << 16;

/// Where the host is looked at. Tests make up their own.
#[derive(Debug)]
pub(crate) struct Host {
    proc: PathBuf,
    sys: PathBuf,
}

/// Processor time of a control group: so much in each period, of all its threads together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quota {
    quota: Duration,
    period: Duration,
}

impl Quota {
    fn new(quota: u64, period: u64) -> Option<Self> {
        (period > 0).then(|| Self { quota: Duration::from_micros(quota), period: Duration::from_micros(period) })
    }

    /// The number of processors that it comes to.
    fn processors(&self) -> f64 {
        self.quota.as_secs_f64() / self.period.as_secs_f64()
    }
}

impl Host {
    /// The one that this process runs on.
    pub(crate) fn here() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }

    /// What will not carry what the configuration asks for.
    pub(crate) fn warnings(&self, config: &Config) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let cores = config.cores.count();
        if let Cores::Pinned(processors) = &config.cores {
            self.check_pins(processors, &mut warnings);
        }
        if let Some(processors) = self.processors().filter(|&processors| processors < cores) {
            warnings.push(Warning::MoreCoresThanProcessors { cores, processors });
        }
        if let Some(Quota { quota, period }) = self.quota() {
            warnings.push(Warning::CpuQuota { cores, quota, period });
        }
        let wanted = BACKLOG as u64;
        if let Some(allowed) = self.backlog().filter(|&allowed| allowed < wanted && !config.listen.is_empty()) {
            warnings.push(Warning::Backlog { wanted, allowed });
        }
        warnings
    }

    /// Whether a core may look for work instead of sleeping: only where somebody else can run meanwhile, and nobody counts the time.
    pub(crate) fn may_spin(&self, cores: usize) -> bool {
        let processors = self.processors().or_else(|| std::thread::available_parallelism().ok().map(std::num::NonZero::get));
        processors.is_some_and(|processors| processors > cores) && self.quota().is_none()
    }

    /// Each core that has the processor of one before it, or another thread of the same.
    fn check_pins(&self, processors: &[usize], warnings: &mut Vec<Warning>) {
        for (core, &processor) in processors.iter().enumerate() {
            let before = &processors[..core];
            if let Some(other) = before.iter().position(|&other| other == processor) {
                warnings.push(Warning::SameProcessor { cores: [other, core], processor });
                continue;
            }
            let siblings = self.siblings(processor);
            if let Some(other) = before.iter().position(|other| siblings.contains(other)) {
                warnings.push(Warning::SharedProcessor { cores: [other, core], processors: [before[other], processor] });
            }
        }
    }

    /// The threads of the same physical processor, this one included.
    fn siblings(&self, processor: usize) -> Vec<usize> {
        let file = self.sys.join(format!("devices/system/cpu/cpu{processor}/topology/thread_siblings_list"));
        read(&file).and_then(|list| parse_list(&list)).unwrap_or_default()
    }

    /// How many processors this process may use.
    fn processors(&self) -> Option<usize> {
        let status = read(&self.proc.join("self/status"))?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        parse_list(list).map(|list| list.len()).filter(|&count| count > 0)
    }

    /// How many connections may wait to be accepted.
    fn backlog(&self) -> Option<u64> {
        read(&self.proc.join("sys/net/core/somaxconn"))?.trim().parse().ok()
    }

    /// The tightest limit on processor time, of this process's control group and those around it, of version 2 and version 1.
    fn quota(&self) -> Option<Quota> {
        let groups = read(&self.proc.join("self/cgroup"))?;
        let root = self.sys.join("fs/cgroup");
        let mut tightest: Option<Quota> = None;
        for line in groups.lines() {
            // hierarchy:controllers:path
            let mut parts = line.splitn(3, ':');
            let (Some(hierarchy), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let (root, read): (_, fn(&Path) -> Option<Quota>) = if hierarchy == "0" && controllers.is_empty() {
                (root.clone(), version_2)
            } else if controllers.split(',').any(|name| name == "cpu") {
                (root.join("cpu"), version_1)
            } else {
                continue;
            };
            // Inside a container the path may be the host's, of which only the root is there.
            let groups = Path::new(path.trim_start_matches('/')).ancestors();
            for quota in groups.filter_map(|group| read(&root.join(group))) {
                if tightest.is_none_or(|tightest| quota.processors() < tightest.processors()) {
                    tightest = Some(quota);
                }
            }
        }
        tightest
    }
}

/// `cpu.max`: quota and period in microseconds, or `max` for no quota.
fn version_2(group: &Path) -> Option<Quota> {
    let text = read(&group.join("cpu.max"))?;
    let mut words = text.split_ascii_whitespace();
    Quota::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?)
}

/// The quota in microseconds, or -1 for none, and the period.
fn version_1(group: &Path) -> Option<Quota> {
    let number = |name: &str| read(&group.join(name))?.trim().parse().ok();
    Quota::new(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

/// Processors as the kernel lists them: `0-3,8`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST_PROCESSORS {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A host of files, gone with the test.
    struct Tree(PathBuf);

    impl Tree {
        /// Two processors for the process, no quota, room for as many as are asked for.
        fn new() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("corecast-host-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let tree = Self(std::env::temp_dir().join(name));
            tree.with("proc/self/status", "Name:\tx\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n")
                .with("proc/self/cgroup", "0::/\n")
                .with("proc/sys/net/core/somaxconn", "4096\n")
        }

        fn with(self, path: &str, text: &str) -> Self {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn host(&self) -> Host {
            Host { proc: self.0.join("proc"), sys: self.0.join("sys") }
        }

        fn warnings(&self, cores: Cores) -> Vec<Warning> {
            self.host().warnings(&Config::plaintext().listen("127.0.0.1:0".parse().unwrap()).cores(cores))
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn quota(quota: u64, period: u64) -> Option<Quota> {
        Quota::new(quota * 1000, period * 1000)
    }

    #[test]
    fn a_host_that_is_as_it_should_be_or_says_nothing_is_not_warned_of() {
        assert_eq!(Tree::new().warnings(Cores::Unpinned(2)), []);
        let nowhere = Host { proc: "/nowhere".into(), sys: "/nowhere".into() };
        assert_eq!(nowhere.warnings(&Config::plaintext().cores(Cores::Pinned(vec![0, 1]))), []);
        let odd = Tree::new()
            .with("proc/self/status", "Cpus_allowed_list:\tall of them\n")
            .with("proc/self/cgroup", "no\n0::/a\n:::\n")
            .with("proc/sys/net/core/somaxconn", "many")
            .with("sys/fs/cgroup/cpu.max", "100000")
            .with("sys/fs/cgroup/a/cpu.max", "1 0")
            .with("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-99999999999");
        assert_eq!(odd.warnings(Cores::Pinned(vec![0, 1])), []);
    }

    #[test]
    fn more_cores_than_processors() {
        let warning = Warning::MoreCoresThanProcessors { cores: 3, processors: 2 };
        assert_eq!(Tree::new().warnings(Cores::Unpinned(3)), [warning]);
        let wide = Tree::new().with("proc/self/status", "Cpus_allowed_list:\t0,2-3,8\n");
        assert_eq!(wide.warnings(Cores::Unpinned(4)), []);
        assert_eq!(wide.warnings(Cores::Unpinned(5)), [Warning::MoreCoresThanProcessors { cores: 5, processors: 4 }]);
    }

    #[test]
    fn pins_that_share_a_processor() {
        let siblings = |tree: Tree, list: &str, of: &[usize]| {
            of.iter().fold(tree, |tree, cpu| tree.with(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), list))
        };
        let tree = Tree::new().with("proc/self/status", "Cpus_allowed_list:\t0-7\n");
        let tree = siblings(siblings(tree, "0,4\n", &[0, 4]), "1-2\n", &[1, 2]);
        assert_eq!(tree.warnings(Cores::Pinned(vec![0, 1, 3])), []);
        assert_eq!(tree.warnings(Cores::Unpinned(8)), []);
        let shared = |cores, processors| Warning::SharedProcessor { cores, processors };
        assert_eq!(tree.warnings(Cores::Pinned(vec![4, 3, 0])), [shared([0, 2], [4, 0])]);
        let both = [shared([0, 1], [1, 2]), Warning::SameProcessor { cores: [1, 2], processor: 2 }];
        assert_eq!(tree.warnings(Cores::Pinned(vec![1, 2, 2])), both);
    }

    #[test]
    fn a_quota_of_either_version_and_of_any_group_around() {
        let read = |tree: &Tree| tree.host().quota();
        let tree = Tree::new().with("proc/self/cgroup", "0::/a/b\n").with("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        assert_eq!(read(&tree), None);
        assert!(tree.host().may_spin(1) && !tree.host().may_spin(2));
        let tree = tree.with("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
        assert_eq!(read(&tree), quota(150, 100));
        assert!(!tree.host().may_spin(1));
        let warning = Warning::CpuQuota { cores: 2, quota: Duration::from_millis(150), period: Duration::from_millis(100) };
        assert_eq!(tree.warnings(Cores::Unpinned(2)), [warning]);
        assert_eq!(read(&tree.with("sys/fs/cgroup/a/b/cpu.max", "20000 50000\n")), quota(20, 50));
        // Version 1, in a container that sees the host's path and has its own group for the root.
        let group = "12:pids:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/\n";
        let tree = Tree::new().with("proc/self/cgroup", group).with("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        assert_eq!(read(&tree), None);
        let tree = tree.with("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
        assert_eq!(read(&tree), None);
        assert_eq!(read(&tree.with("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n")), quota(50, 100));
    }

    #[test]
    fn a_short_backlog() {
        let tree = Tree::new().with("proc/sys/net/core/somaxconn", "128\n");
        assert_eq!(tree.warnings(Cores::Unpinned(1)), [Warning::Backlog { wanted: 4096, allowed: 128 }]);
        assert_eq!(tree.host().warnings(&Config::plaintext()), [], "who does not listen does not need it");
    }

    #[test]
    fn the_real_host_is_one_that_can_be_read() {
        let processors = Host::here().processors();
        assert_eq!(processors.is_some(), cfg!(target_os = "linux"));
        assert!(processors.is_none_or(|processors| processors >= std::thread::available_parallelism().unwrap().get()));
    }
}

//! The files of `/proc` and `/sys`, and how the kernel writes numbers, lists and control groups there.

use std::fs;
use std::path::{Path, PathBuf};

/// Most processors that a list is taken to name.
const MOST_PROCESSORS: usize = 1 << 16;

/// Where the machine is looked at. Tests make up their own.
#[derive(Debug)]
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    /// The one that this process runs on.
    pub(super) fn here() -> Self {
        Self { root: "/".into() }
    }

    /// The text of a file, without the blanks around it.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok().map(|text| text.trim().to_owned())
    }

    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// The words of a file, which are numbers.
    pub(super) fn numbers<const N: usize>(&self, path: impl AsRef<Path>) -> Option<[u64; N]> {
        let text = self.read(path)?;
        let numbers: Vec<_> = text.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        numbers.try_into().ok()
    }

    /// What a file of `name: value` lines says under a name.
    pub(super) fn field(&self, path: &str, name: &str) -> Option<String> {
        let text = self.read(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    /// The processors that this process may use.
    pub(super) fn allowed(&self) -> Option<Vec<usize>> {
        parse_list(&self.field("proc/self/status", "Cpus_allowed_list")?).filter(|list| !list.is_empty())
    }

    /// The control groups of this process that have `controller`, from its own one to the root, as paths below the root; and whether they
    /// are of version 2.
    pub(super) fn groups(&self, controller: &str) -> Option<Vec<(PathBuf, bool)>> {
        let text = self.read("proc/self/cgroup")?;
        let mut all = Vec::new();
        for line in text.lines() {
            // hierarchy:controllers:path
            let mut parts = line.splitn(3, ':');
            let (Some(hierarchy), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let root = Path::new("sys/fs/cgroup");
            let (root, version_2) = if hierarchy == "0" && controllers.is_empty() {
                (root.to_owned(), true)
            } else if controllers.split(',').any(|name| name == controller) {
                (root.join(controller), false)
            } else {
                continue;
            };
            // Inside a container the path may be the host's, of which only the root is there.
            all.extend(Path::new(path.trim_start_matches('/')).ancestors().map(|group| (root.join(group), version_2)));
        }
        (!all.is_empty()).then_some(all)
    }
}

/// Processors as the kernel lists them: `0-3,8`; none where there is nothing.
pub(super) fn parse_list(text: &str) -> Option<Vec<usize>> {
    let text = text.trim();
    if text.is_empty() || text == "(null)" {
        return Some(Vec::new());
    }
    let mut all = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST_PROCESSORS {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// Processors as a command takes them: `0,2`.
pub(super) fn list_text(processors: &[usize]) -> String {
    processors.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A machine of files, gone with the test.
    pub(in crate::doctor) struct Tree(PathBuf);

    impl Tree {
        pub(in crate::doctor) fn empty() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("corecast-doctor-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            Self(std::env::temp_dir().join(name))
        }

        /// Eight processors, of which the first four are isolated, nothing that limits, and nobody else there.
        pub(in crate::doctor) fn good() -> Self {
            let status = "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-7\n";
            let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                          Max open files            1024                 1048576              files     \n";
            let tree = Self::empty()
                .with("proc/self/status", status)
                .with("proc/self/limits", limits)
                .with("proc/self/cgroup", "0::/a\n")
                .with("proc/sys/net/core/somaxconn", "4096\n")
                .with("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n")
                .with("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n")
                .with("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
                .with("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n")
                .with("proc/sys/kernel/perf_event_paranoid", "1\n")
                .with("proc/sys/kernel/kptr_restrict", "0\n")
                .with("proc/loadavg", "0.02 0.10 0.20 1/100 1234\n")
                .with("proc/stat", "cpu  100 0 100 10000 0 0 0 0 0 0\ncpu0 100 0 100 10000 0 0 0 0 0 0\n")
                .with("proc/meminfo", "MemTotal:       16000000 kB\nMemAvailable:   12000000 kB\n")
                .with("sys/fs/cgroup/a/cpu.max", "max 100000\n")
                .with("sys/fs/cgroup/a/memory.max", "max\n")
                .with("sys/devices/system/cpu/isolated", "0-3\n")
                .with("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
                .with("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm\n")
                .with("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
            (0..8).fold(tree, |tree, cpu| {
                let place = format!("sys/devices/system/cpu/cpu{cpu}");
                tree.with(&format!("{place}/topology/thread_siblings_list"), &format!("{cpu}\n"))
                    .with(&format!("{place}/cpufreq/scaling_governor"), "performance\n")
            })
        }

        pub(in crate::doctor) fn with(self, path: &str, text: &str) -> Self {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        pub(in crate::doctor) fn host(&self) -> Host {
            Host { root: self.0.clone() }
        }

        /// Every file, by its path below the root.
        pub(in crate::doctor) fn files(&self) -> Vec<String> {
            let (mut files, mut folders) = (Vec::new(), vec![self.0.clone()]);
            while let Some(folder) = folders.pop() {
                for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        files.push(path.strip_prefix(&self.0).unwrap().to_str().unwrap().to_owned());
                    }
                }
            }
            files
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(parse_list("0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!((parse_list(""), parse_list("(null)")), (Some(vec![]), Some(vec![])));
        assert_eq!((parse_list("all"), parse_list("0-99999999999"), parse_list("0-99999")), (None, None, None));
        assert_eq!(list_text(&[0, 2]), "0,2");
    }

    #[test]
    fn groups_of_either_version_up_to_the_root() {
        let paths = |tree: &Tree| {
            let groups = tree.host().groups("cpu").unwrap_or_default();
            groups.iter().map(|(path, version_2)| (path.to_str().unwrap().trim_end_matches('/').to_owned(), *version_2)).collect::<Vec<_>>()
        };
        let two = |path: &str| (path.to_owned(), true);
        assert_eq!(paths(&Tree::empty()), []);
        let tree = Tree::empty().with("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(paths(&tree), [two("sys/fs/cgroup/a/b"), two("sys/fs/cgroup/a"), two("sys/fs/cgroup")]);
        let tree = tree.with("proc/self/cgroup", "3:memory:/c\n2:cpu,cpuacct:/c\nodd\n");
        assert_eq!(paths(&tree), [("sys/fs/cgroup/cpu/c".to_owned(), false), ("sys/fs/cgroup/cpu".to_owned(), false)]);
    }

    #[test]
    fn fields_and_numbers() {
        let tree = Tree::good();
        let host = tree.host();
        assert_eq!(host.numbers("proc/sys/net/ipv4/tcp_wmem"), Some([4096, 16384, 4_194_304]));
        assert_eq!(host.numbers::<2>("proc/sys/net/ipv4/tcp_wmem"), None);
        assert_eq!(host.field("proc/meminfo", "MemAvailable").as_deref(), Some("12000000 kB"));
        assert_eq!(host.field("proc/meminfo", "Mem"), None);
        assert_eq!(host.allowed(), Some((0..8).collect()));
    }
}

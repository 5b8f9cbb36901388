//! What connections need: file descriptors, ports, room to wait in and to be buffered.

use std::ops::RangeInclusive;

use corecast::Warning;

use super::host::Host;
use super::{Finding, Plan};
use crate::machine::SPARE_DESCRIPTORS;
use crate::report::group;

/// Connections that an engine lets wait to be accepted, where the kernel allows so many.
const BACKLOG: u64 = 4096;
/// What the kernel lets a connection's buffers grow to, unless it has little memory or somebody has set something else.
const RECEIVE_MAX: u64 = 6 << 20;
const SEND_MAX: u64 = 4 << 20;

pub(super) fn checks(host: &Host, plan: &Plan) -> Vec<Finding> {
    vec![files(host, plan), backlog(host), ports(host, plan), buffers(host), congestion(host)]
}

/// Soft and hard limit of open files; `unlimited` is one that no run reaches.
fn file_limits(host: &Host) -> Option<(u64, u64)> {
    let text = host.read("proc/self/limits")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = line.split_ascii_whitespace().map(|word| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() });
    words.next()?.zip(words.next()?)
}

fn files(host: &Host, plan: &Plan) -> Finding {
    let check = "files";
    let Some((soft, hard)) = file_limits(host) else { return Finding::cannot_read(check, "/proc/self/limits, `Max open files`") };
    let separate = plan.peers + SPARE_DESCRIPTORS;
    let needed = if plan.own_server { separate } else { plan.peers + separate };
    let limit = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { group(value) };
    let found = format!("RLIMIT_NOFILE {} soft, {} hard; {} are needed in one process", limit(soft), limit(hard), group(needed));
    if needed > hard {
        let means = format!("{} peers do not connect", group(plan.peers));
        let raise = format!("ulimit -n {needed} as root, or `* hard nofile {needed}` in /etc/security/limits.conf and a new login");
        let apart = ", or run the server in a process of its own (--own-server here; serve, then --target)";
        return Finding::fail(check, found, means, format!("{raise}{}", if separate <= hard && !plan.own_server { apart } else { "" }));
    }
    let raised = if needed > soft { "; the load generator raises the soft limit itself" } else { "" };
    Finding::ok(check, found + raised)
}

fn backlog(host: &Host) -> Finding {
    let check = "somaxconn";
    match host.number("proc/sys/net/core/somaxconn") {
        None => Finding::cannot_read(check, "/proc/sys/net/core/somaxconn"),
        Some(allowed) if allowed < BACKLOG => {
            let words = Warning::Backlog { wanted: BACKLOG, allowed }.to_string();
            // Its own words, of which the end is the command.
            let (means, command) = words.rsplit_once("; ").unwrap_or((&words, ""));
            Finding::warn(check, group(allowed), means, format!("sudo {command}"))
        }
        Some(allowed) => Finding::ok(check, group(allowed)),
    }
}

fn ports(host: &Host, plan: &Plan) -> Finding {
    let check = "ports";
    let Some([first, last]) = host.numbers("proc/sys/net/ipv4/ip_local_port_range").filter(|[first, last]| first <= last) else {
        return Finding::cannot_read(check, "/proc/sys/net/ipv4/ip_local_port_range");
    };
    let range: RangeInclusive<u64> = first..=last;
    let count = range.end() - range.start() + 1;
    let found = format!("{} ports, {first} to {last}, for connections to one address", group(count));
    let widen = "sudo sysctl -w net.ipv4.ip_local_port_range='1024 65535'";
    if plan.peers + 1 > count {
        let means = format!("{} peers do not connect to one address and port", group(plan.peers));
        return Finding::fail(check, found, means, format!("{widen}, or more than one --target, or --target NODE@unix:PATH"));
    }
    if 2 * plan.peers > count {
        let means = "a run right after another may find them taken: the port of an ended connection rests for a minute";
        return Finding::warn(check, found, means, widen);
    }
    Finding::ok(check, found)
}

fn buffers(host: &Host) -> Finding {
    let check = "tcp buffers";
    let most = |name: &str| host.numbers(format!("proc/sys/net/ipv4/{name}")).map(|[_, _, most]: [u64; 3]| most);
    let (Some(receive), Some(send)) = (most("tcp_rmem"), most("tcp_wmem")) else {
        return Finding::cannot_read(check, "/proc/sys/net/ipv4/tcp_rmem and tcp_wmem");
    };
    let found = format!("up to {} to receive, {} to send", size(receive), size(send));
    let small = [("tcp_rmem", receive, RECEIVE_MAX, "4096 131072"), ("tcp_wmem", send, SEND_MAX, "4096 16384")];
    let commands: Vec<_> = small.iter().filter(|(_, most, usual, _)| most < usual).collect();
    if commands.is_empty() {
        return Finding::ok(check, found);
    }
    let settings: Vec<_> = commands.iter().map(|(name, _, usual, others)| format!("net.ipv4.{name}='{others} {usual}'")).collect();
    let means = "long messages and many in flight wait for room in the kernel";
    Finding::warn(check, found, means, format!("sudo sysctl -w {}", settings.join(" ")))
}

/// What paces what it sends waits for a timer of each connection, which over loopback is most of what a message costs.
fn congestion(host: &Host) -> Finding {
    let check = "congestion";
    match host.read("proc/sys/net/ipv4/tcp_congestion_control").as_deref() {
        None | Some("") => Finding::cannot_read(check, "/proc/sys/net/ipv4/tcp_congestion_control"),
        Some(found @ ("bbr" | "bbr2" | "bbr3")) => {
            let means = "over loopback, timers pace what is sent: bulk and large fan-outs are up to half as fast, and more noisy";
            Finding::warn(check, found, means, "sudo sysctl -w net.ipv4.tcp_congestion_control=cubic, while you measure")
        }
        Some(found) => Finding::ok(check, found),
    }
}

/// Bytes, in the unit that they are a whole number of, or nearly.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::host::tests::Tree;
    use super::*;

    fn plan(peers: u64, own_server: bool) -> Plan {
        Plan { peers, own_server, server: vec![0], client: vec![1] }
    }

    fn limits(soft: &str, hard: &str) -> Tree {
        Tree::empty().with("proc/self/limits", &format!("Max open files            {soft}                 {hard}              files\n"))
    }

    fn change(finding: &Finding) -> &str {
        finding.change.as_deref().unwrap_or_default()
    }

    #[test]
    fn files_are_counted_for_one_process_or_two() {
        let check = |tree: &Tree, peers, own_server| files(&tree.host(), &plan(peers, own_server));
        let tree = limits("1024", "4096");
        assert_eq!(check(&tree, 400, false), Finding::ok("files", "RLIMIT_NOFILE 1,024 soft, 4,096 hard; 864 are needed in one process"));
        let raised = check(&tree, 2016, false);
        assert!(raised.status == Status::Ok && raised.found.ends_with("raises the soft limit itself"), "{raised:?}");
        let short = check(&tree, 2017, false);
        assert!(short.status == Status::Fail && change(&short).contains("ulimit -n 4098"), "{short:?}");
        assert!(change(&short).contains("--own-server"), "{short:?}");
        assert_eq!(check(&tree, 2017, true).status, Status::Ok);
        let far = check(&tree, 9000, true);
        assert!(far.status == Status::Fail && !change(&far).contains("--own-server"), "{far:?}");
        assert_eq!(check(&limits("1024", "unlimited"), 4_000_000, false).status, Status::Ok);
    }

    #[test]
    fn a_short_backlog_in_the_words_of_the_library() {
        let short = backlog(&Tree::empty().with("proc/sys/net/core/somaxconn", "128").host());
        assert_eq!((short.status, change(&short)), (Status::Warn, "sudo sysctl -w net.core.somaxconn=4096"));
        assert!(short.means.as_deref().is_some_and(|means| means.contains("is 128")), "{short:?}");
    }

    #[test]
    fn ports_for_one_address() {
        let check = |peers| ports(&Tree::good().host(), &plan(peers, false));
        assert_eq!(
            [1, 14_116, 14_117, 28_231, 28_232].map(|peers| check(peers).status),
            [Status::Ok, Status::Ok, Status::Warn, Status::Warn, Status::Fail]
        );
        assert!(change(&check(50_000)).contains("ip_local_port_range='1024 65535'"));
    }

    #[test]
    fn who_paces_is_named() {
        let check = |control: &str| congestion(&Tree::empty().with("proc/sys/net/ipv4/tcp_congestion_control", control).host());
        let paced = check("bbr\n");
        assert_eq!((paced.status, paced.found.as_str()), (Status::Warn, "bbr"));
        assert!(change(&paced).contains("tcp_congestion_control=cubic"), "{paced:?}");
        assert_eq!(check("cubic\n"), Finding::ok("congestion", "cubic"));
        assert_eq!(congestion(&Tree::empty().host()).status, Status::CannotRead);
    }

    #[test]
    fn small_buffers_are_named() {
        let tree = Tree::good().with("proc/sys/net/ipv4/tcp_wmem", "4096 16384 262144");
        let small = buffers(&tree.host());
        assert_eq!((small.status, change(&small)), (Status::Warn, "sudo sysctl -w net.ipv4.tcp_wmem='4096 16384 4194304'"));
        let tree = tree.with("proc/sys/net/ipv4/tcp_rmem", "4096 16384 262144");
        assert!(change(&buffers(&tree.host())).contains("tcp_rmem='4096 131072 6291456' net.ipv4.tcp_wmem="));
        assert_eq!([1, 2048, 6 << 20, 3 << 29].map(size), ["1 B", "2 KiB", "6 MiB", "1.5 GiB"]);
    }
}

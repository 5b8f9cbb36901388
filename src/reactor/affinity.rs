//! Which processors there are, and being on one of them.

use core_affinity::CoreId;

/// Pins the calling thread. Asks first whether the processor may be had at all, since a refusal by the kernel is silent in places.
pub(crate) fn pin(processor: usize) -> bool {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    allowed.iter().any(|id| id.id == processor) && core_affinity::set_for_current(CoreId { id: processor })
}

/// Whether a core may look for work instead of sleeping: only where somebody else can run meanwhile, and nobody counts the time.
pub(crate) fn may_spin(cores: usize) -> bool {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    processors > cores && !has_cpu_quota()
}

/// Whether this process's control group (version 2) limits its processor time. Unknown counts as no.
fn has_cpu_quota() -> bool {
    let Ok(groups) = std::fs::read_to_string("/proc/self/cgroup") else { return false };
    let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::")) else { return false };
    let quota = std::fs::read_to_string(format!("/sys/fs/cgroup{}/cpu.max", path.trim_end_matches('/')));
    quota.is_ok_and(|quota| !quota.starts_with("max"))
}

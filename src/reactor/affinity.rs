//! Being on one of the processors.

use core_affinity::CoreId;

/// Pins the calling thread. Asks first whether the processor may be had at all, since a refusal by the kernel is silent in places.
pub(crate) fn pin(processor: usize) -> bool {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    allowed.iter().any(|id| id.id == processor) && core_affinity::set_for_current(CoreId { id: processor })
}

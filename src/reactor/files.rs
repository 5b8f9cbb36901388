//! How many files this process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Sees to it that the process may open so many files. The soft limit is raised where that is enough, to what is needed and no further: it
/// is low by custom, for programs that use `select`. Says from where to where; the error is the limit that cannot be raised.
///
/// It is the whole process's limit, and what else the process has open is not looked at.
pub(crate) fn ensure(needed: u64) -> Result<Option<(u64, u64)>, u64> {
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current.filter(|&soft| soft < needed) else { return Ok(None) };
    if let Some(hard) = limit.maximum.filter(|&hard| hard < needed) {
        return Err(hard);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum }) {
        Ok(()) => Ok(Some((soft, needed))),
        // Systems have limits beside this one.
        Err(_) => Err(soft),
    }
}

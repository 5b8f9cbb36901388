//! Being woken at a deadline.
//!
//! A timeout given to `epoll_wait` starts a kernel timer before each sleep and cancels it after; on a virtual machine that reprograms the
//! clock each time. On Linux the deadline is a timerfd in the poll instead, armed only when the earliest deadline comes sooner than what
//! it is armed for. Most deadlines move away before they come, so it is hardly ever touched. Measured on an echo with sleeps in between
//! (`corecast-compare run --only echo-1 --contestants bare,corecast-block`): server CPU per answer went from 0.87 to 0.92-1.0 of the bare
//! loop's.
//! Elsewhere, and where no timerfd can be had, the poll's timeout does it.

use std::time::Duration;

use mio::Registry;

use crate::time::Timestamp;

/// See the module.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: Option<timer::Timer>,
    /// When it will go off.
    armed: Option<Timestamp>,
}

impl Alarm {
    pub(super) fn new(registry: &Registry) -> Self {
        Self { timer: timer::Timer::new(registry), armed: None }
    }

    /// Makes sure that a poll ends at `deadline` or before. Returns the timeout to give it.
    pub(super) fn set(&mut self, deadline: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
        let deadline = deadline?;
        let wait = deadline - now;
        let Some(timer) = self.timer.as_ref().filter(|_| !wait.is_zero()) else { return Some(wait) };
        if self.armed.is_some_and(|armed| armed > now && armed <= deadline) {
            return None;
        }
        self.armed = timer.arm(wait).then_some(deadline);
        if self.armed.is_some() { None } else { Some(wait) }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod timer {
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Interest, Registry};
    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

    use crate::reactor::ALARM;

    /// A timerfd. Its event only ends the poll; it is edge-triggered, so it need not be read.
    #[derive(Debug)]
    pub(super) struct Timer(OwnedFd);

    impl Timer {
        pub(super) fn new(registry: &Registry) -> Option<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC).ok()?;
            registry.register(&mut SourceFd(&timer.as_raw_fd()), ALARM, Interest::READABLE).ok()?;
            Some(Self(timer))
        }

        /// Goes off once, after `wait`, which is not zero: that would disarm it. Says whether it will.
        pub(super) fn arm(&self, wait: Duration) -> bool {
            let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once).is_ok()
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod timer {
    use std::time::Duration;

    use mio::Registry;

    /// There is none here.
    #[derive(Debug)]
    pub(super) struct Timer;

    impl Timer {
        pub(super) fn new(_: &Registry) -> Option<Self> {
            None
        }

        pub(super) fn arm(&self, _: Duration) -> bool {
            false
        }
    }
}

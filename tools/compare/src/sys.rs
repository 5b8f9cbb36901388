//! The system calls that std does not offer. The only file of this crate with `unsafe` in it.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What a registration waits for.
#[derive(Clone, Copy)]
pub(crate) enum Interest {
    /// Level-triggered, readable: listeners and signals.
    Level,
    /// Edge-triggered, both directions and the peer's end: connections. Registered once, never changed.
    EdgeBoth,
}

/// One readiness report.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) token: u64,
    flags: u32,
}

impl Event {
    pub(crate) fn readable(self) -> bool {
        self.flags & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }

    pub(crate) fn writable(self) -> bool {
        self.flags & libc::EPOLLOUT as u32 != 0
    }

    /// The peer ended its direction, or the connection broke: read to the end, because no further edge will come.
    pub(crate) fn ended(self) -> bool {
        self.flags & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }
}

/// An epoll instance with its result buffer.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Box<[libc::epoll_event]>,
}

impl Epoll {
    pub(crate) fn new(events_per_wait: usize) -> io::Result<Self> {
        // SAFETY: epoll_create1 takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` was just returned by the kernel and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; events_per_wait].into_boxed_slice();
        Ok(Self { fd, events })
    }

    pub(crate) fn add(&self, fd: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        let flags = match interest {
            Interest::Level => libc::EPOLLIN,
            Interest::EdgeBoth => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
        };
        let mut event = libc::epoll_event { events: flags as u32, u64: token };
        // SAFETY: both descriptors are open for the duration of the call, and `event` is a valid epoll_event.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_fd().as_raw_fd(), &mut event) })?;
        Ok(())
    }

    pub(crate) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        // SAFETY: both descriptors are open; the event pointer may be null for EPOLL_CTL_DEL.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_fd().as_raw_fd(), std::ptr::null_mut()) })?;
        Ok(())
    }

    /// Waits and returns the number of events; they are read with [`Epoll::event`]. An interrupted wait has none.
    /// `timeout_ms`: 0 returns at once, -1 waits for ever.
    pub(crate) fn wait(&mut self, timeout_ms: i32) -> io::Result<usize> {
        let room = self.events.len() as libc::c_int;
        // SAFETY: the kernel writes at most `room` entries into `events`, which has that many.
        match check(unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, timeout_ms) }) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn event(&self, index: usize) -> Event {
        let event = self.events[index];
        Event { token: event.u64, flags: event.events }
    }
}

/// Sets the accept backlog of a listener: std asks for 128, too little for a burst of dials.
pub(crate) fn set_backlog(listener: impl AsFd, backlog: i32) -> io::Result<()> {
    // SAFETY: listen on an open descriptor, no pointers. Calling it again on a listener changes its backlog.
    check(unsafe { libc::listen(listener.as_fd().as_raw_fd(), backlog) })?;
    Ok(())
}

/// Has the kernel acknowledge what comes when it is read, as for a connection that only listens. One that has answered something is in
/// "ping-pong mode": its acknowledgements wait for something to go with, and then leave from where the next segment comes in, which on
/// loopback is inside the other side's `send`.
pub(crate) fn only_listens(socket: impl AsFd) -> io::Result<()> {
    let (on, len) = (1 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `on` is a c_int, and `len` says how long one is.
    check(unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, (&raw const on).cast(), len) })?;
    Ok(())
}

/// Waits until `fd` is readable; false if the time passes first.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd, and the count says one.
    let ready = check(unsafe { libc::poll(&mut entry, 1, timeout.as_millis().min(i32::MAX as u128) as i32) })?;
    Ok(ready > 0)
}

/// A set of CPUs that a thread may run on.
#[derive(Clone, Copy)]
pub(crate) struct CpuSet(libc::cpu_set_t);

impl CpuSet {
    /// Where the calling thread may run now.
    pub(crate) fn current() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: the kernel writes at most the size given; an all-zero cpu_set_t is valid (the empty set).
        unsafe {
            check(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()))?;
            Ok(Self(set.assume_init()))
        }
    }

    pub(crate) fn only(core: usize) -> io::Result<Self> {
        if core >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: an all-zero cpu_set_t is the empty set, and `core` is inside it.
        unsafe {
            let mut set = std::mem::zeroed::<libc::cpu_set_t>();
            libc::CPU_SET(core, &mut set);
            Ok(Self(set))
        }
    }

    pub(crate) fn contains(&self, core: usize) -> bool {
        // SAFETY: `core` is inside the set's bounds.
        core < libc::CPU_SETSIZE as usize && unsafe { libc::CPU_ISSET(core, &self.0) }
    }

    /// Moves the calling thread onto this set.
    pub(crate) fn apply(&self) -> io::Result<()> {
        // SAFETY: the set is valid for the size given; 0 is the calling thread.
        check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.0) })?;
        Ok(())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = (0..libc::CPU_SETSIZE as usize).filter(|&core| self.contains(core));
        write!(f, "core {}", cores.map(|core| core.to_string()).collect::<Vec<_>>().join(", "))
    }
}

/// Starts a child that dies with this thread, so that no server outlives a cancelled run, and that may run on `cpus`
/// (it would inherit this thread's pinning otherwise).
pub(crate) fn spawn(command: &mut Command, cpus: CpuSet) -> io::Result<Child> {
    // SAFETY: the closure runs between fork and exec and makes only two system calls: no allocation, no locks.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            cpus.apply()
        });
    }
    command.spawn()
}

/// Moves the calling thread, and what it starts from now on, into a network of its own, in which there is nothing but a loopback interface
/// that is down. To be called while there is no other thread. It needs root, or a kernel that lets anybody have a user namespace; where it
/// fails, the thread is where it was.
pub(crate) fn own_network() -> io::Result<()> {
    // SAFETY: no pointers. What it changes is the calling thread's.
    let unshare = |flags| check(unsafe { libc::unshare(flags) });
    unshare(libc::CLONE_NEWNET).or_else(|_| unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET))?;
    Ok(())
}

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: no pointers.
    let socket = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `socket` was just returned by the kernel and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: an ifreq of zeros is valid: an empty name and no flags.
    let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq with a name that ends in zero, and flags.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) })?;
    Ok(())
}

/// Asks one process to end.
pub(crate) fn terminate(child: &Child) -> io::Result<()> {
    // SAFETY: no pointers. The child was not waited for (its owner would have dropped it), so the pid is still its own.
    check(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) })?;
    Ok(())
}

/// Blocks SIGTERM and SIGINT for this thread and returns a descriptor that becomes readable when one arrives. Unlike a
/// handler that sets a flag, it cannot fall between the look at the flag and the wait.
pub(crate) fn termination_signals() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigemptyset before it is used, and outlives every call that reads it.
    let fd = unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        check(libc::sigemptyset(set.as_mut_ptr()))?;
        let mut set = set.assume_init();
        check(libc::sigaddset(&mut set, libc::SIGTERM))?;
        check(libc::sigaddset(&mut set, libc::SIGINT))?;
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?
    };
    // SAFETY: `fd` was just returned by the kernel and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Raises the soft limit of open files to the hard one, and returns it.
pub(crate) fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for both calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
    }
    Ok(limit.rlim_cur)
}

/// The CPU clock of a process: the time of all its threads, in nanoseconds. `/proc/<pid>/stat` counts in steps of 10 ms,
/// and `/proc/<pid>/schedstat` covers only the main thread.
#[derive(Clone, Copy)]
pub(crate) struct CpuClock(libc::clockid_t);

impl CpuClock {
    pub(crate) fn of_process(pid: u32) -> io::Result<Self> {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: `clock` is a valid place for the result. The call returns its error instead of setting errno.
        match unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) } {
            0 => Ok(Self(clock)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    pub(crate) fn nanos(self) -> io::Result<u64> {
        clock_nanos(self.0)
    }
}

/// Nanoseconds of the monotonic clock. Only differences inside one process mean anything.
pub(crate) fn monotonic_nanos() -> u64 {
    clock_nanos(libc::CLOCK_MONOTONIC).expect("every Linux has a monotonic clock")
}

fn clock_nanos(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

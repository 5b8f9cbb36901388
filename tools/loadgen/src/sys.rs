//! Stacks of running threads, sampled by a timer's signal. The only file of this crate with `unsafe` in it.
//!
//! Each enrolled thread has a timer of its own, which counts that thread's processor time: a thread that sleeps is left alone. The signal's
//! handler walks the interrupted stack by frame pointers, with which this repository is built, and writes into memory that was there
//! before. It takes no lock, allocates nothing and calls nothing.

use std::cell::Cell;
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Samples that are kept: two minutes of one thread that never sleeps, where the kernel's clock ticks 250 times a second.
const SAMPLES: usize = 1 << 15;
/// Functions of a sample. Those beyond, which are nearest to the thread's first, are left out.
const DEPTH: usize = 60;

/// One sample: the thread's number, how many functions, their addresses.
type Sample = [AtomicUsize; DEPTH + 2];

/// Where samples go.
struct Store {
    samples: Box<[Sample]>,
    /// The place of the next one. Beyond the end: it is lost.
    next: AtomicUsize,
}

static STORE: OnceLock<Store> = OnceLock::new();

thread_local! {
    /// The end of this thread's stack; zero until it is enrolled. No destructor, so that a signal handler may look at it.
    static STACK_END: Cell<usize> = const { Cell::new(0) };
}

/// A thread that can be sampled.
pub(crate) struct Sampled {
    timer: libc::timer_t,
}

// SAFETY: a timer's id is a number of the process, whatever type it has.
unsafe impl Send for Sampled {}

/// A stack, the innermost function first. All but the first of the addresses are those that a call returns to.
pub(crate) struct Stack {
    pub(crate) thread: u32,
    pub(crate) addresses: Vec<usize>,
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The same for what returns the error itself.
fn check_code(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// Makes room for samples, and catches the signal. Once in a process; a second time is the first.
pub(crate) fn prepare() -> io::Result<()> {
    STORE.get_or_init(|| Store {
        samples: (0..SAMPLES).map(|_| [const { AtomicUsize::new(0) }; DEPTH + 2]).collect(),
        next: AtomicUsize::new(0),
    });
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
    // SAFETY: zeroes are a valid sigaction. The handler has the signature that SA_SIGINFO asks for and does what one may do: see there.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        check(libc::sigaction(libc::SIGPROF, &action, null_mut()))
    }
}

/// Makes the calling thread one that can be sampled. The timer of one that has ended counts nothing.
pub(crate) fn enroll() -> io::Result<Sampled> {
    STACK_END.set(stack_end()?);
    let (mut clock, mut timer) = (0, null_mut());
    // SAFETY: zeroes are a valid sigevent; all pointers are to values on this stack; the calling thread is alive.
    unsafe {
        check_code(libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock))?;
        let mut event: libc::sigevent = zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        event.sigev_notify_thread_id = libc::gettid();
        check(libc::timer_create(clock, &mut event, &mut timer))?;
    }
    Ok(Sampled { timer })
}

/// The address after the calling thread's stack.
fn stack_end() -> io::Result<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut base, mut size) = (null_mut(), 0);
    // SAFETY: the first call fills the attributes in, or fails and they are not read; they are given back once.
    unsafe {
        check_code(libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()))?;
        let code = libc::pthread_attr_getstack(attributes.as_ptr(), &mut base, &mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        check_code(code)?;
    }
    Ok(base as usize + size)
}

impl Sampled {
    /// A sample after each so many nanoseconds of the thread's processor time; none with zero.
    pub(crate) fn every(&self, nanos: i64) -> io::Result<()> {
        let interval = libc::timespec { tv_sec: 0, tv_nsec: nanos };
        let spec = libc::itimerspec { it_interval: interval, it_value: interval };
        // SAFETY: the timer is this value's own, and is deleted only when it is dropped.
        unsafe { check(libc::timer_settime(self.timer, 0, &spec, null_mut())) }
    }
}

impl Drop for Sampled {
    fn drop(&mut self) {
        // SAFETY: as above; nobody uses it afterwards.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// What was sampled so far, and how many samples found no room. For when no timer runs any more: a sample that is just being taken is torn
/// apart otherwise.
pub(crate) fn take() -> (Vec<Stack>, usize) {
    let Some(store) = STORE.get() else { return (Vec::new(), 0) };
    let count = store.next.swap(0, Relaxed);
    let stack = |sample: &Sample| {
        let [thread, depth, addresses @ ..] = sample;
        let depth = depth.swap(0, Relaxed).min(DEPTH);
        Stack { thread: thread.load(Relaxed) as u32, addresses: addresses[..depth].iter().map(|address| address.load(Relaxed)).collect() }
    };
    let stacks = store.samples[..count.min(SAMPLES)].iter().map(stack).filter(|stack| !stack.addresses.is_empty());
    (stacks.collect(), count.saturating_sub(SAMPLES))
}

/// Where a thread was interrupted: instruction, stack and frame pointer.
fn registers(context: &libc::ucontext_t) -> Option<[usize; 3]> {
    #[cfg(target_arch = "x86_64")]
    {
        let registers = &context.uc_mcontext.gregs;
        Some([libc::REG_RIP, libc::REG_RSP, libc::REG_RBP].map(|register| registers[register as usize] as usize))
    }
    #[cfg(target_arch = "aarch64")]
    {
        let registers = &context.uc_mcontext;
        Some([registers.pc as usize, registers.sp as usize, registers.regs[29] as usize])
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = context;
        None
    }
}

extern "C" fn on_signal(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let end = STACK_END.get();
    // SAFETY: with SA_SIGINFO the kernel passes a ucontext_t that lives until the handler returns.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() };
    let (Some(store), Some([instruction, stack, mut frame])) = (STORE.get(), context.and_then(registers)) else { return };
    let Some([thread, depth, addresses @ ..]) = store.samples.get(store.next.fetch_add(1, Relaxed)) else { return };
    let mut count = 0;
    let mut low = stack;
    let mut address = instruction;
    for place in addresses {
        place.store(address, Relaxed);
        count += 1;
        // A frame is two words: the caller's frame pointer and the address that it goes on at. Frames lie behind one another, all of them
        // between where the stack is now and its end; what is not so is no frame, but what a function without one keeps in the register.
        let fits = frame >= low && frame.is_multiple_of(size_of::<usize>()) && frame.checked_add(16).is_some_and(|after| after <= end);
        if !fits {
            break;
        }
        // SAFETY: both words lie within the stack of this very thread, above what it uses now, so they are mapped, and nobody else writes
        // them meanwhile.
        let [caller, goes_on] = unsafe { (frame as *const [usize; 2]).read_volatile() };
        if goes_on == 0 {
            break;
        }
        (low, frame, address) = (frame + 16, caller, goes_on);
    }
    // SAFETY: a system call that always succeeds and touches no memory.
    thread.store(unsafe { libc::gettid() } as usize, Relaxed);
    depth.store(count, Relaxed);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[inline(never)]
    fn spin(until: Instant) -> u64 {
        let mut sum = 0_u64;
        while Instant::now() < until {
            sum = (0..1000).fold(sum, |sum, value| std::hint::black_box(sum.wrapping_mul(31) ^ value));
        }
        sum
    }

    #[test]
    fn a_thread_that_works_is_sampled_and_one_that_sleeps_is_not() {
        prepare().unwrap();
        let mut threads = Vec::new();
        let (said, ids) = std::sync::mpsc::channel();
        for works in [true, false] {
            let said = said.clone();
            threads.push(std::thread::spawn(move || {
                let sampled = enroll().unwrap();
                sampled.every(1_000_000).unwrap();
                said.send((works, rustix::thread::gettid().as_raw_nonzero().get() as u32)).unwrap();
                let until = Instant::now() + Duration::from_millis(500);
                if works {
                    std::hint::black_box(spin(until))
                } else {
                    std::thread::sleep(until - Instant::now());
                    0
                };
                sampled.every(0).unwrap();
            }));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (stacks, lost) = take();
        for (works, id) in ids.iter().take(2) {
            let count = stacks.iter().filter(|stack| stack.thread == id).count();
            assert_eq!(count > 5, works, "{count} samples");
        }
        assert_eq!(lost, 0);
        let spins = |address: &usize| {
            let mut found = false;
            backtrace::resolve(*address as *mut _, |symbol| found |= symbol.name().is_some_and(|name| name.to_string().contains("spin")));
            found
        };
        let deep = stacks.iter().filter(|stack| stack.addresses.len() > 3 && stack.addresses.iter().any(spins)).count();
        assert!(deep > 0, "{} stacks", stacks.len());
    }
}

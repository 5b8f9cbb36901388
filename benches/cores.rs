//! What a delivery costs as cores are added: broadcasts of one core to the peers of all of them, without sockets.
//!
//! Each core is a thread on a processor of its own with as many peers as in every other row; they share what an engine's cores share: the
//! frame, its reference count, the inboxes and their credit. Nothing of that is touched per peer, so a delivery should cost the same on
//! sixteen cores as on one; what it costs is the time of the turns that wrote something, by the peers that it was written for. The numbers
//! of cores take turns, so that what else the machine does hits all of them. Cores beyond the processors that this process may use are left
//! out, and two of them may share one core of the machine: then both are slower whatever this crate does. Time is that of the thread on its
//! processor, which other programs can slow down but not take.

mod harness;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use corecast::Frame;
use corecast::bench::{Member, Mesh};
use harness::{Bench, human};
use rustix::time::{ClockId, clock_gettime};

/// A row: in each of its turns core 0 broadcasts so many frames of so many bytes.
struct Case {
    frames: usize,
    size: usize,
    peers: usize,
}

/// What one core's turns took that wrote something.
#[derive(Default)]
struct Busy {
    time: Duration,
    deliveries: usize,
}

impl Busy {
    fn nanos(&self) -> f64 {
        self.time.as_nanos() as f64 / self.deliveries.max(1) as f64
    }
}

/// One run on the first of these processors, as many as asked for. What each core needed for a delivery, in nanoseconds.
fn run(case: &Case, processors: &[CoreId], time: Duration) -> Vec<f64> {
    let mesh = Mesh::new(processors.len(), case.peers);
    let frame = Frame::new(1, &vec![7; case.size]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let start = |(index, &processor)| {
            let (mesh, frame, stop) = (&mesh, &frame, &stop);
            scope.spawn(move || {
                core_affinity::set_for_current(processor);
                let mut member = Member::new(mesh, index);
                // Warm: the first turns allocate.
                let busy = work(&mut member, case, frame, index == 0, stop, time);
                stop.store(true, Ordering::Relaxed);
                busy.nanos()
            })
        };
        let threads: Vec<_> = processors.iter().enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("a core panicked")).collect()
    })
}

fn work(member: &mut Member<'_>, case: &Case, frame: &Frame, casts: bool, stop: &AtomicBool, time: Duration) -> Busy {
    let (warm, end) = (Instant::now() + time / 5, Instant::now() + time);
    let mut busy = Busy::default();
    let mut began = thread_time();
    loop {
        let now = Instant::now();
        if now >= end || stop.load(Ordering::Relaxed) {
            return busy;
        }
        let written = member.turn(|core| {
            // Refused while another core has no room: it goes on when that has caught up.
            _ = casts && (0..case.frames).all(|_| core.try_broadcast(frame));
        });
        let ended = thread_time();
        if written > 0 && now > warm {
            busy.time += ended - began;
            busy.deliveries += written / frame.as_bytes().len();
        }
        began = ended;
    }
}

fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("time goes forward")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One, two, four and so on, and all.
fn counts(most: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = std::iter::successors(Some(1), |count| Some(2 * count)).take_while(|&count| count < most).collect();
    counts.push(most);
    counts
}

fn main() {
    let bench = Bench::new("cost of a delivery as cores are added");
    let processors = core_affinity::get_core_ids().unwrap_or_default();
    if processors.is_empty() || bench.is_counting() {
        println!("  not measured: this bench needs to know its processors, and counts nothing");
        return;
    }
    let (rounds, time) = if bench.is_quick() { (1, Duration::from_millis(50)) } else { (15, Duration::from_millis(300)) };
    for case in [(1, 128), (64, 128), (4, 8192)].map(|(frames, size)| Case { frames, size, peers: 1000 }) {
        let Case { frames, size, peers } = case;
        let name = format!("{frames} x {size} B to {peers}-peers of each core");
        if !bench.wants(&name) {
            continue;
        }
        let counts = counts(processors.len());
        // By count: the publishing core, and the slowest of the others.
        let mut rows = vec![(Vec::new(), Vec::new()); counts.len()];
        for _ in 0..rounds {
            for (&count, (first, others)) in counts.iter().zip(&mut rows) {
                let nanos = run(&case, &processors[..count], time);
                first.push(nanos[0]);
                others.extend(nanos[1..].iter().copied().max_by(f64::total_cmp));
            }
        }
        println!("  {name}");
        for (count, (first, others)) in counts.into_iter().zip(rows) {
            let others = if others.is_empty() { String::new() } else { format!(", the slowest other {}", human(median(others))) };
            println!("    {count:>3} cores: the publishing core {} a delivery{others}", human(median(first)));
        }
    }
}

//! `--flamegraph`: where the processor time of this process goes, sampled from inside, as an SVG that a browser shows and searches.
//!
//! Nobody's leave is needed for it. The kernel's functions are not in it: what they take is their caller's, as `send` or `epoll_wait`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use inferno::flamegraph::{Options, color};

use crate::error::Error;
use crate::output;
use crate::report::group;
use crate::sys::{self, Sampled, Stack};

/// Processor time of a thread from one sample to the next. The kernel looks at it when its own clock ticks, which may be less often.
const INTERVAL_NS: i64 = 1_000_000;

/// The threads that are sampled, by their number. Empty where nothing is profiled.
static THREADS: Mutex<Option<BTreeMap<u32, Thread>>> = Mutex::new(None);

struct Thread {
    name: String,
    /// Nothing when it is no longer sampled.
    sampled: Option<Sampled>,
}

/// Names the calling thread, as profiles and `top -H` show it, and samples it where this process is profiled. An engine names its cores by
/// number only, and there are several engines.
pub(crate) fn enter_thread(engine: &str, core: usize) {
    let name = format!("{engine}-{core}");
    if let Ok(name) = std::ffi::CString::new(name.as_str()) {
        // The kernel keeps fifteen bytes. A thread that keeps its name does as well.
        let _ = rustix::thread::set_name(&name);
    }
    if let Some(threads) = &mut *THREADS.lock().unwrap_or_else(PoisonError::into_inner) {
        let sampled = sys::enroll().inspect_err(|error| output::remark(format_args!("{name} is not profiled: {error}"))).ok();
        threads.insert(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs(), Thread { name, sampled });
    }
}

/// A profile to be made, and the file that is to have it.
pub(crate) struct Flamegraph {
    path: PathBuf,
    file: File,
    stacks: Vec<Stack>,
    lost: usize,
}

impl Flamegraph {
    /// Before the threads that are to be in it.
    pub(crate) fn prepare(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
        sys::prepare().map_err(failed)?;
        THREADS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
        Ok(Self { path: path.to_owned(), file, stacks: Vec::new(), lost: 0 })
    }

    /// Where the command line names a file.
    pub(crate) fn prepare_some(path: Option<&PathBuf>) -> Result<Option<Self>, Error> {
        path.map(|path| Self::prepare(path)).transpose()
    }

    /// From here on.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sampled = threads.iter().flatten().filter_map(|(_, thread)| thread.sampled.as_ref());
        sampled.try_for_each(|sampled| sampled.every(INTERVAL_NS)).map_err(failed)
    }

    /// Up to here.
    pub(crate) fn stop(&mut self) {
        let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter_mut().flatten().for_each(|(_, thread)| thread.sampled = None);
        (self.stacks, self.lost) = sys::take();
    }

    /// Writes the file. One without samples would be no SVG, and is said to be empty.
    pub(crate) fn finish(self, title: impl Into<String>) -> Result<(), Error> {
        if self.stacks.is_empty() {
            output::remark(format_args!("{}: no processor time was used, so there is nothing in it", self.path.display()));
            return Ok(());
        }
        let mut options = Options::default();
        options.title = title.into();
        let lost = if self.lost > 0 { format!(", {} more were not kept", group(self.lost as u64)) } else { String::new() };
        options.subtitle = Some(format!("{} samples of processor time{lost}, by thread", group(self.stacks.len() as u64)));
        options.colors = color::Palette::Multi(color::MultiPalette::Rust);
        options.deterministic = true;
        let mut svg = Vec::new();
        let folded = fold(&self.stacks);
        inferno::flamegraph::from_lines(&mut options, folded.iter().map(String::as_str), &mut svg).map_err(failed)?;
        let mut out = BufWriter::new(&self.file);
        out.write_all(&svg).and_then(|()| out.flush()).map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::System { what: "cannot profile this process", source: std::io::Error::other(source) }
}

/// One line for each way that a stack was found: thread and functions from the outermost on, and how often.
fn fold(stacks: &[Stack]) -> Vec<String> {
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let name = |thread: u32| threads.iter().flatten().find(|(id, _)| **id == thread).map_or("other", |(_, thread)| thread.name.as_str());
    let mut names = HashMap::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for stack in stacks {
        let mut line = name(stack.thread).to_owned();
        for (index, &address) in stack.addresses.iter().enumerate().rev() {
            // What a call returns to may be another function's first instruction, or another line's: the call itself is before it.
            let address = if index == 0 { address } else { address - 1 };
            for function in names.entry(address).or_insert_with(|| functions(address)).iter() {
                line.push(';');
                line.push_str(function);
            }
        }
        *counts.entry(line).or_default() += 1;
    }
    counts.into_iter().map(|(line, count)| format!("{line} {count}")).collect()
}

/// The function at an address, and those that the compiler has put into it there, the outermost first. Not those that only pass a call on.
fn functions(address: usize) -> Vec<String> {
    let mut all = Vec::new();
    backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
        let name = symbol.name().map(|name| format!("{name:#}"));
        all.push(full_name(name.as_deref().unwrap_or("?"), symbol.filename()));
    });
    all.reverse();
    all.retain(|name| !passes_on(name));
    all
}

/// A function by its module, as far as the file says it: line tables know only the last part of a name.
fn full_name(name: &str, file: Option<&Path>) -> String {
    // Semicolons and spaces have a meaning where this goes.
    let plain = |text: &str| text.replace(';', ":").replace(' ', "");
    // Those of the symbol table are whole.
    if name.starts_with('<') || name.contains("::") && !name.contains('<') {
        return plain(name);
    }
    let short = name.split('<').next().unwrap_or(name);
    let module = file.and_then(module).unwrap_or_default();
    plain(&if module.is_empty() { short.to_owned() } else { format!("{module}::{short}") })
}

/// `corecast::reactor::turn` of `.../src/reactor/turn.rs`.
fn module(file: &Path) -> Option<String> {
    let text = file.to_str()?;
    let (before, within) = text.rsplit_once("/src/")?;
    let within = within.strip_suffix(".rs")?;
    let within = within.strip_suffix("/mod").unwrap_or(within);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let folder = if Path::new(before) == root { "corecast" } else { before.rsplit('/').next()? };
    // Without the version: hdrhistogram of hdrhistogram-7.6.0.
    let is_version = |text: &str| text.starts_with(|char: char| char.is_ascii_digit());
    let name = folder.rsplit_once('-').filter(|(_, version)| is_version(version)).map_or(folder, |(name, _)| name);
    let parts = within.split('/').filter(|part| !matches!(*part, "lib" | "main"));
    Some(std::iter::once(name).chain(parts).collect::<Vec<_>>().join("::"))
}

/// Whether a function only calls another: closures' traits, catching panics, the beginnings of threads.
fn passes_on(name: &str) -> bool {
    let modules =
        ["core::ops::function", "core::panic", "std::panic", "std::panicking", "std::sys::backtrace", "std::thread", "alloc::boxed"];
    let outermost = ["start_thread", "clone", "__clone", "_start", "__libc_start", "?"];
    let starts = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    starts(&modules) || starts(&outermost) || name.contains("thread_start") || name.contains("ops::function::Fn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_with_its_module() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let name = |name, file: &str| full_name(name, Some(Path::new(file)));
        let ours = root.join("src/reactor/turn.rs");
        assert_eq!(name("turn<corecast_loadgen::server::Core>", ours.to_str().unwrap()), "corecast::reactor::turn::turn");
        assert_eq!(name("record", "/home/x/registry/src/index/hdrhistogram-7.6.0/src/lib.rs"), "hdrhistogram::record");
        assert_eq!(name("is_empty", "/x/crossbeam-queue-0.3.14/src/seg_queue.rs"), "crossbeam-queue::seg_queue::is_empty");
        assert_eq!(name("send", "/x/src/y/rustix-1.1.6/src/net/send_recv/mod.rs"), "rustix::net::send_recv::send");
        assert_eq!(name("fold", "/rustc/1234/library/core/src/iter/mod.rs"), "core::iter::fold");
        assert_eq!(name("start_thread", "./nptl/pthread_create.c"), "start_thread");
        assert_eq!(full_name("a; b", None), "a:b");
    }

    #[test]
    fn what_only_passes_calls_on_is_left_out() {
        for name in
            ["core::ops::function::call_once", "std::panicking::do_call", "clone3", "<Box<F>ascore::ops::function::FnOnce<()>>::call_once"]
        {
            assert!(passes_on(name), "{name}");
        }
        assert!(!passes_on("corecast::reactor::run") && !passes_on("core::iter::fold"));
    }

    #[test]
    fn equal_stacks_are_one_line() {
        // Nothing is at these addresses.
        let stack = |address| Stack { thread: 0, addresses: vec![address] };
        assert_eq!(fold(&[stack(1), stack(2)]), ["other 2"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = Flamegraph::prepare(Path::new("/nowhere/out.svg")).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("/nowhere/out.svg")));
    }
}

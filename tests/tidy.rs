//! Style, checked.
//!
//! Set-up: the sources of this workspace, read as text. Claim: the rules below hold; each failure names file, line and rule. They are words
//! and lengths only: what needs a parser is left to rustc and clippy.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Longest file, in lines, and longest line, in columns.
const MAX_LINES: usize = 700;
const MAX_COLUMNS: usize = 140;

/// What is sans-IO: no sockets, threads, locks, clock or randomness of its own.
const RING_0: [&str; 9] =
    ["src/wire/", "src/proto/", "src/shard/", "src/buffers.rs", "src/time.rs", "src/rng.rs", "src/rate.rs", "src/id.rs", "src/error.rs"];
const RING_0_NAMES_NOT: &[(&str, &[&str])] = &[
    ("a socket or a poll", &["mio", "socket2", "rustix", "libc", "TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener"]),
    ("a file", &["File", "stdin", "stdout", "stderr"]),
    ("a thread", &["thread", "thread_local", "JoinHandle"]),
    ("a lock", &["Mutex", "RwLock", "Condvar", "Barrier", "OnceLock", "LazyLock"]),
    ("a clock", &["Instant", "SystemTime", "UNIX_EPOCH"]),
    ("randomness", &["RandomState", "DefaultHasher", "rand", "getrandom", "fastrand"]),
];
/// Where nothing is logged: it would be a line for each frame or connection, on the core.
const SILENT: [&str; 4] = ["src/wire/", "src/proto/", "src/shard/", "src/reactor/"];
const LOG_MACROS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const STRAY_MACROS: [&str; 3] = ["dbg", "todo", "unimplemented"];
/// A library does not own its program's output. Its tests may print what they measure, or the seed that failed.
const PRINT_MACROS: [&str; 4] = ["print", "println", "eprint", "eprintln"];

/// A text file, by its path from the root of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Where the file's tests begin, as an index of lines: at the start where it is a file of tests.
    fn tests(&self) -> usize {
        if self.is_in(&["src/tests/", "src/proto/outbox/tests/"]) || self.path.ends_with("_tests.rs") {
            return 0;
        }
        self.text.lines().position(|line| line == "mod tests {").unwrap_or(usize::MAX)
    }
}

/// Every `.rs` and `.md` file under `place`, or none where there is no such folder: a packaged crate has no tools.
fn collect(root: &Path, place: &str, sources: &mut Vec<Source>) {
    let mut folders = vec![root.join(place)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.extend(path.file_name().is_some_and(|name| name != "target").then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
                sources.push(read(root, path));
            }
        }
    }
}

fn read(root: &Path, path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = path.strip_prefix(root).expect("collected below the root").to_str().expect("our names are ASCII");
    Source { path: name.replace('\\', "/"), text }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for place in ["src", "tests", "benches", "examples", "tools"] {
        collect(root, place, &mut sources);
    }
    for name in ["README.md", "CHANGELOG.md"] {
        sources.extend(Some(root.join(name)).filter(|path| path.exists()).map(|path| read(root, path)));
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 40, "the sources were not found under {}", root.display());
    sources
}

/// The code of a line: without its comment and the text of its string literals.
fn code(line: &str) -> String {
    let (mut code, mut quoted, mut escaped) = (String::new(), false, false);
    let mut rest = line.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '/' if !quoted && rest.peek() == Some(&'/') => break,
            '"' if !escaped => {
                quoted = !quoted;
                code.push(char);
            }
            _ if !quoted => code.push(char),
            _ => {}
        }
        escaped = quoted && char == '\\' && !escaped;
    }
    code
}

/// The identifiers of some code, and where they stand.
fn names(code: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin = at + code[at..].bytes().position(is_name)?;
        let end = code[begin..].bytes().position(|byte| !is_name(byte)).map_or(code.len(), |len| begin + len);
        at = end;
        Some((begin..end, &code[begin..end]))
    })
}

/// Whether a macro of this name is called or named there.
fn is_macro(code: &str, name: &Range<usize>) -> bool {
    code[name.end..].starts_with('!') && !code[name.end..].starts_with("!=")
}

/// Checks each line with `rule`, which says what is wrong with it.
fn check(applies: impl Fn(&Source) -> bool, rule: impl Fn(&Source, &str) -> Option<String>) {
    check_until(applies, |_| usize::MAX, rule);
}

/// The same, with the lines before `end` only.
fn check_until(applies: impl Fn(&Source) -> bool, end: impl Fn(&Source) -> usize, rule: impl Fn(&Source, &str) -> Option<String>) {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| applies(source)) {
        for (index, line) in source.text.lines().enumerate().take(end(source)) {
            broken.extend(rule(source, line).map(|what| format!("{}:{}: {what}", source.path, index + 1)));
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_pure_ring_names_nothing_from_outside() {
    check_until(
        |source| source.is_rust() && source.is_in(&RING_0),
        Source::tests,
        |_, line| {
            let code = code(line);
            names(&code).find_map(|(_, name)| {
                let (what, _) = RING_0_NAMES_NOT.iter().find(|(_, words)| words.contains(&name))?;
                Some(format!("ring 0 names {what}: `{name}`"))
            })
        },
    );
}

#[test]
fn nothing_stray_is_left() {
    check(Source::is_rust, |_, line| {
        let code = code(line);
        let stray = names(&code).find(|(at, name)| STRAY_MACROS.contains(name) && is_macro(&code, at));
        stray.map(|(_, name)| format!("`{name}!` is left over"))
    });
}

#[test]
fn the_library_does_not_print() {
    check_until(
        |source| source.is_rust() && source.is_in(&["src/"]),
        Source::tests,
        |_, line| {
            let code = code(line);
            let printed = names(&code).find(|(at, name)| PRINT_MACROS.contains(name) && is_macro(&code, at));
            printed.map(|(_, name)| format!("`{name}!` in the library"))
        },
    );
}

#[test]
fn cores_do_not_log() {
    check(
        |source| source.is_rust() && source.is_in(&SILENT),
        |_, line| {
            let code = code(line);
            let logged = names(&code).find(|(at, name)| LOG_MACROS.contains(name) && is_macro(&code, at));
            logged.map(|(_, name)| format!("`{name}!` where a core would log: count it instead"))
        },
    );
}

#[test]
fn lines_fit() {
    check(
        |_| true,
        |source, line| {
            let columns = line.chars().count();
            let exempt = !source.is_rust() && line.starts_with('|');
            (columns > MAX_COLUMNS && !exempt).then(|| format!("{columns} columns, more than {MAX_COLUMNS}"))
        },
    );
}

#[test]
fn no_line_ends_in_blanks() {
    check(|_| true, |_, line| line.ends_with([' ', '\t']).then(|| "blanks at the end of the line".to_owned()));
}

/// Checks each file with `rule`.
fn check_files(applies: impl Fn(&Source) -> bool, rule: impl Fn(&Source) -> Option<String>) {
    let sources = sources();
    let broken = sources.iter().filter(|source| applies(source));
    let broken: Vec<_> = broken.filter_map(|source| rule(source).map(|what| format!("{}:1: {what}", source.path))).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn files_stay_readable() {
    check_files(Source::is_rust, |source| {
        let lines = source.text.lines().count();
        (lines > MAX_LINES).then(|| format!("{lines} lines, more than {MAX_LINES}"))
    });
}

#[test]
fn files_begin_with_what_they_are() {
    check_files(Source::is_rust, |source| (!source.text.starts_with("//! ")).then(|| "begins without `//!` documentation".to_owned()));
}

#[test]
fn nothing_is_called_utils() {
    check_files(Source::is_rust, |source| {
        let vague = ["utils.rs", "util.rs", "helpers.rs", "misc.rs"].into_iter().find(|name| source.path.ends_with(name));
        vague.map(|name| format!("`{name}` says nothing about what is in it"))
    });
}

#[test]
fn the_checks_see_code_and_not_comments() {
    let code_of = |line| code(line).trim_end().to_owned();
    assert_eq!(code_of("let a = 1; // Mutex"), "let a = 1;");
    assert_eq!(code_of("/// Mutex"), "");
    assert_eq!(code_of(r#"let url = "http://Mutex \" Mutex"; lock()"#), r#"let url = ""; lock()"#);
    let line = "use std::sync::Mutex_2; dbg!(a != b)";
    assert_eq!(names(line).map(|(_, name)| name).collect::<Vec<_>>(), ["use", "std", "sync", "Mutex_2", "dbg", "a", "b"]);
    let macros: Vec<_> = names(line).filter(|(at, _)| is_macro(line, at)).map(|(_, name)| name).collect();
    assert_eq!(macros, ["dbg"]);
}

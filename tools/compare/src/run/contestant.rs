//! Who is compared: what each contestant is, how its server is started, and how to get one that is not there.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::client::{ClientConfig, Load, Protocol};
use crate::server::{Mode, Poll};
use crate::sys::CpuSet;

use super::process;
use super::work::{Row, Work, open_loop};

/// How long a program may take to say its version.
const VERSION_WITHIN: Duration = Duration::from_secs(10);

/// Which program serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// This program's own `serve-bare`.
    Bare,
    /// `corecast-contestant`, of this workspace.
    Corecast,
    /// A program of the workspace `contestants`, by its name.
    Own(&'static str),
    /// `nats-server`, as its package installs it.
    Nats,
    /// `redis-server`, as its package installs it.
    Redis,
}

/// How a server waits. Those that cannot choose sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Spin,
    Block,
    /// corecast's own policy: it looks for work for a while, then sleeps.
    Default,
}

impl Waiting {
    fn name(self) -> &'static str {
        match self {
            Waiting::Spin => "spin",
            Waiting::Block => "block",
            Waiting::Default => "default",
        }
    }
}

/// A contestant: a program, and what it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contestant {
    /// What `--contestants` and the tables call it.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) program: Program,
    pub(crate) protocol: Protocol,
    pub(crate) waiting: Waiting,
}

/// The limit, for servers that spin and for those that sleep.
pub(crate) const BARE_SPIN: &str = "bare-spin";
pub(crate) const BARE: &str = "bare";
/// Ours, as the library is without being told anything.
pub(crate) const CORECAST: &str = "corecast";
pub(crate) const CORECAST_SPIN: &str = "corecast-spin";
pub(crate) const CORECAST_BLOCK: &str = "corecast-block";
pub(crate) const CORECAST_NOISE: &str = "corecast-noise";
pub(crate) const NAIVE: &str = "naive";
const MONOIO_EPOLL: &str = "monoio-epoll";
/// The only program that needs a package before it can be built.
const ZMQ_SERVER: &str = "zmq-server";

const fn contestant(name: &'static str, what: &'static str, program: Program, protocol: Protocol, waiting: Waiting) -> Contestant {
    Contestant { name, what, program, protocol, waiting }
}

/// All of them, in the order of the tables.
pub(crate) const ALL: [Contestant; 15] = {
    use Program::{Bare, Corecast, Nats, Own, Redis};
    use Waiting::{Block, Default, Spin};
    [
        contestant(BARE_SPIN, "bare epoll loop, spinning: the limit", Bare, Protocol::Wire, Spin),
        contestant(BARE, "bare epoll loop, sleeping: the limit", Bare, Protocol::Wire, Block),
        contestant(CORECAST_SPIN, "corecast, plaintext, spinning", Corecast, Protocol::Wire, Spin),
        contestant(CORECAST_BLOCK, "corecast, plaintext, sleeping", Corecast, Protocol::Wire, Block),
        contestant(CORECAST, "corecast, plaintext, its default idle policy", Corecast, Protocol::Wire, Default),
        contestant(CORECAST_NOISE, "corecast, encrypted, its default idle policy", Corecast, Protocol::Noise, Default),
        contestant("monoio", "monoio over io_uring, as well as it can be used", Own("monoio-server"), Protocol::Wire, Block),
        contestant(MONOIO_EPOLL, "monoio over epoll, as well as it can be used", Own("monoio-server"), Protocol::Wire, Block),
        contestant("tokio-tuned", "tokio, as well as it can be used", Own("tokio-tuned"), Protocol::Wire, Block),
        contestant("tokio-idiomatic", "tokio, as its tutorials have it", Own("tokio-idiomatic"), Protocol::Wire, Block),
        contestant("message-io", "message-io, FramedTcp", Own("message-io-server"), Protocol::MessageIo, Block),
        contestant("zmq", "libzmq", Own(ZMQ_SERVER), Protocol::Zmtp, Block),
        contestant("nats", "NATS server", Nats, Protocol::Nats, Block),
        contestant("redis", "Redis pub/sub", Redis, Protocol::Redis, Block),
        contestant(
            NAIVE,
            "the start: JSON per peer, one lock, a flush per peer, a log line per message",
            Own("naive"),
            Protocol::Json,
            Block,
        ),
    ]
};

/// Bare once more. Its ratios are all 1 on a quiet machine, so their intervals say what this one can tell apart.
pub(crate) const BARE_AGAIN: Contestant =
    contestant("bare-again", "the same bare loop once more", Program::Bare, Protocol::Wire, Waiting::Block);

/// Where programs are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// This program.
    pub(crate) own: PathBuf,
    /// Folders with the programs that are built here, best first.
    pub(crate) folders: Vec<PathBuf>,
    /// Folders of the system's programs.
    pub(crate) system: Vec<PathBuf>,
}

impl Places {
    /// `extra`: what the command line names. Beside this program, and where the contestants' workspace is built with the same profile.
    pub(crate) fn find(extra: Option<&Path>) -> std::io::Result<Self> {
        let own = std::env::current_exe()?;
        let beside = own.parent().map(Path::to_path_buf).unwrap_or_default();
        let profile = beside.file_name().map(PathBuf::from).unwrap_or_default();
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("contestants/target").join(profile);
        let folders = extra.map(Path::to_path_buf).into_iter().chain([beside, workspace]).collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Debian's servers lie where only root looks.
        let system = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]).collect();
        Ok(Self { own, folders, system })
    }

    pub(crate) fn built(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    fn installed(&self, name: &str) -> Option<PathBuf> {
        self.system.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }
}

impl Contestant {
    /// Whether it is neither the limit nor ours: its failures are results.
    pub(crate) fn is_foreign(&self) -> bool {
        !matches!(self.program, Program::Bare | Program::Corecast)
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.program == Program::Bare
    }

    /// The limit that it is held against: the one that waits as it does.
    pub(crate) fn limit(&self, row: &Row) -> &'static str {
        if self.waiting == Waiting::Spin && row.distinguishes(Poll::Spin) { BARE_SPIN } else { BARE }
    }

    /// The file of its server; or, in one line, how to get it.
    pub(crate) fn locate(&self, places: &Places) -> Result<PathBuf, String> {
        let here = "cargo build --release -p corecast-contestant";
        let workspace = "cargo build --release --manifest-path tools/compare/contestants/Cargo.toml";
        let (found, missing) = match self.program {
            Program::Bare => (Some(places.own.clone()), String::new()),
            Program::Corecast => (places.built("corecast-contestant"), format!("not built: {here}")),
            Program::Own(ZMQ_SERVER) => {
                (places.built(ZMQ_SERVER), format!("not built: apt-get install libzmq3-dev && {workspace} -p {ZMQ_SERVER}"))
            }
            Program::Own(name) => (places.built(name), format!("not built: {workspace} -p {name}")),
            Program::Nats => (places.installed("nats-server"), "not installed: apt-get install nats-server".into()),
            Program::Redis => (places.installed("redis-server"), "not installed: apt-get install redis-server".into()),
        };
        found.ok_or(missing)
    }

    /// What its program says of its version; nothing where it is of this repository.
    pub(crate) fn version(&self, file: &Path) -> Option<String> {
        let option = match self.program {
            Program::Bare | Program::Corecast => return None,
            Program::Own(_) => "--help",
            Program::Nats | Program::Redis => "--version",
        };
        let output = process::output(Command::new(file).arg(option), CpuSet::current().ok()?, VERSION_WITHIN).ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().next()?.trim();
        match self.program {
            // `what it is (library version, ...)`
            Program::Own(_) => Some(line.strip_suffix(')')?.rsplit_once('(')?.1.to_owned()),
            _ => Some(line.to_owned()),
        }
    }

    /// Writes what is logged to a file: most log to standard error, and that goes there.
    pub(crate) fn log_to(&self, command: &mut Command, path: &Path) -> std::io::Result<()> {
        if self.name == NAIVE {
            command.arg("--log").arg(path);
        } else {
            command.stderr(std::fs::File::create(path)?);
        }
        Ok(())
    }

    /// Why it has no place in a row, if it has none.
    pub(crate) fn excuse(&self, row: &Row) -> Option<String> {
        if self.waiting == Waiting::Spin && !row.distinguishes(Poll::Spin) {
            return Some("so many connections keep it busy: it is the same as sleeping".into());
        }
        self.loads(row).into_iter().find_map(|load| self.refuses(load, row.body_len))
    }

    /// Every load that the row would run against it.
    fn loads(&self, row: &Row) -> Vec<Load> {
        match row.work {
            Work::Load(load) => vec![load],
            Work::Beside { load, without } => vec![load, without],
            Work::HalfRate { saturating } => vec![saturating, open_loop(saturating, 1)],
        }
    }

    /// Why the client cannot load it like this.
    pub(crate) fn refuses(&self, load: Load, body_len: usize) -> Option<String> {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let window = crate::client::meter::Window { warmup: Default::default(), measure: Default::default(), server_pid: Some(1) };
        let config = ClientConfig {
            protocol: self.protocol,
            server: nowhere,
            publishing: self.publishes_apart(load).then_some(nowhere),
            network: [0; 32],
            node: (self.protocol == Protocol::Noise).then_some([0; 32]),
            load,
            body_len,
            poll: Poll::Spin,
            window,
        };
        config.check().err()
    }

    /// Whether its subscribers connect to a port of their own.
    pub(crate) fn publishes_apart(&self, load: Load) -> bool {
        self.protocol == Protocol::Zmtp && load.mode() == Mode::Fanout
    }

    /// Whether it says in its first lines where it listens. Who does not is told a port.
    pub(crate) fn announces(&self) -> bool {
        !matches!(self.program, Program::Nats | Program::Redis)
    }

    /// Whether it pins itself. The others are put onto their core before they start; corecast would take that for a machine with one
    /// processor, where it never spins.
    pub(crate) fn pins_itself(&self) -> bool {
        !self.is_foreign()
    }

    /// The command that starts its server at `address`, with the port 0 where it may choose one.
    pub(crate) fn command(&self, file: &Path, mode: Mode, core: usize, address: SocketAddr) -> Command {
        let mut command = Command::new(file);
        match self.program {
            Program::Nats => {
                command.args(["--addr", &address.ip().to_string(), "--port", &address.port().to_string()]);
                // It asks how many processors there are, not on how many it may run.
                command.env("GOMAXPROCS", "1");
            }
            Program::Redis => {
                command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
                command.args(["--save", "", "--appendonly", "no", "--io-threads", "1", "--maxclients", "12000", "--loglevel", "warning"]);
            }
            Program::Bare | Program::Corecast | Program::Own(_) => {
                if self.is_bare() {
                    command.arg("serve-bare");
                }
                command.args(["--listen", &address.to_string(), "--mode", mode.name()]);
                command.args(["--poll", self.waiting.name(), "--core", &core.to_string()]);
                if self.protocol == Protocol::Noise {
                    command.arg("--noise");
                }
                if self.name == MONOIO_EPOLL {
                    command.args(["--driver", "epoll"]);
                }
            }
        }
        command
    }
}

/// A port that nobody listens on. Somebody else may take it before the server does; the server then says so and ends.
pub(crate) fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The contestants of a list such as `bare,corecast,nats`, in the order of the tables; all of them without one.
pub(crate) fn select(list: Option<&[String]>) -> Result<Vec<Contestant>, String> {
    let Some(list) = list else { return Ok(ALL.to_vec()) };
    let unknown = list.iter().find(|name| ALL.iter().all(|contestant| contestant.name != name.as_str()));
    match unknown {
        Some(name) => Err(format!("no contestant is called {name:?}; there are: {}", ALL.map(|contestant| contestant.name).join(", "))),
        None => Ok(ALL.into_iter().filter(|contestant| list.iter().any(|name| name == contestant.name)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Contestant {
        select(Some(&[name.into()])).unwrap()[0]
    }

    fn nowhere() -> Places {
        Places { own: "/own".into(), folders: vec!["/nowhere".into()], system: vec![] }
    }

    #[test]
    fn a_list_chooses_and_a_wrong_name_is_told_who_there_is() {
        let names = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|&name| name.into()).collect();
            select(Some(&list)).map(|chosen| chosen.iter().map(|contestant| contestant.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["nats", "bare"]).unwrap(), ["bare", "nats"]);
        let error = names(&["bare", "kafka"]).unwrap_err();
        assert!(error.contains("\"kafka\"") && error.contains("tokio-tuned"), "{error}");
        assert_eq!(select(None).unwrap().len(), ALL.len());
    }

    #[test]
    fn who_is_missing_says_how_to_get_it() {
        let hint = |name: &str| named(name).locate(&nowhere()).unwrap_err();
        assert_eq!(hint("redis"), "not installed: apt-get install redis-server");
        assert_eq!(hint("nats"), "not installed: apt-get install nats-server");
        assert!(hint("corecast").contains("cargo build --release -p corecast-contestant"));
        assert!(hint("monoio").contains("--manifest-path tools/compare/contestants/Cargo.toml -p monoio-server"));
        assert!(hint("zmq").starts_with("not built: apt-get install libzmq3-dev && cargo build "));
        assert_eq!(named("bare").locate(&nowhere()).unwrap(), PathBuf::from("/own"));
        for contestant in ALL.iter().filter(|contestant| !contestant.is_bare()) {
            assert_eq!(contestant.locate(&nowhere()).unwrap_err().lines().count(), 1, "{}", contestant.name);
        }
    }

    #[test]
    fn who_makes_no_sense_in_a_row_is_excused_with_a_reason() {
        let row = |name| super::super::work::select(Some(name)).unwrap()[0];
        assert!(named(CORECAST_SPIN).excuse(&row("echo-1000")).unwrap().contains("same as sleeping"));
        assert_eq!(named(CORECAST_SPIN).excuse(&row("echo-100")), None);
        assert!(named("redis").excuse(&row("sink-16-128B")).is_some());
        assert_eq!(named(BARE).excuse(&row("echo-1000")), None);
    }

    #[test]
    fn each_is_held_against_the_limit_that_waits_as_it_does() {
        let row = |name| super::super::work::select(Some(name)).unwrap()[0];
        assert_eq!(named(CORECAST_SPIN).limit(&row("echo-100")), BARE_SPIN);
        assert_eq!(named(CORECAST).limit(&row("echo-100")), BARE);
        assert_eq!(named("nats").limit(&row("echo-1000")), BARE);
    }

    #[test]
    fn servers_are_told_what_the_contract_says() {
        let command = |name: &str| {
            let command = named(name).command(Path::new("/x"), Mode::Fanout, 3, "127.0.0.1:0".parse().unwrap());
            command.get_args().map(|arg| arg.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(command("bare"), "serve-bare --listen 127.0.0.1:0 --mode fanout --poll block --core 3");
        assert_eq!(command("corecast-noise"), "--listen 127.0.0.1:0 --mode fanout --poll default --core 3 --noise");
        assert_eq!(command("naive"), "--listen 127.0.0.1:0 --mode fanout --poll block --core 3");
        assert!(command("redis").starts_with("--bind 127.0.0.1 --port 0 "));
    }
}

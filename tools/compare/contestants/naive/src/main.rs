//! What corecast replaces: a thread per connection with blocking sockets, one lock over all of them, JSON made anew for each peer, a flush
//! for each peer, a log line for each message.
//!
//! Nothing in it is slow on purpose, and nothing in it was thought about: it is how the first version of such a program looks.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};

use clap::Parser;
use contestant::{Mode, Options, tally::Tally};
use env_logger::{Builder, Target};
use log::{LevelFilter, info};
use serde::{Deserialize, Serialize};

/// Shown by `--help`, and checked against Cargo.lock by a test.
const ABOUT: &str = "The naive start: a server of the comparison (std threads and sockets, serde_json 1.0.154, env_logger 0.11.11)";
const NOTES: &str = "\
What corecast replaces. A thread per connection, blocking sockets, one RwLock over all connections,
a JSON object a line that is made anew for each peer, a flush for each peer, a log line for each
message. It writes to sockets under the lock, so a connection that does not read stops the whole
server until it reads or leaves.

A line is {\"kind\":\"Data\",\"sender\":1,\"sequence\":2,\"sent_at\":3,\"payload\":[4,5]}.

--poll  Taken and ignored: each thread sleeps in its own read.
--core  The process, with all its threads, runs on this core alone.";

#[derive(Parser)]
#[command(about = ABOUT, after_help = NOTES)]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// Where the log lines go
    #[arg(long, default_value = "/dev/null")]
    log: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Message {
    kind: String,
    sender: u64,
    sequence: u64,
    sent_at: u64,
    payload: Vec<u8>,
}

type Connections = Arc<RwLock<HashMap<u64, BufWriter<TcpStream>>>>;

fn main() -> ExitCode {
    let Cli { options, log } = Cli::parse();
    match start(options, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("naive: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Options, log: &PathBuf) -> io::Result<()> {
    options.prepare()?;
    let sink = OpenOptions::new().create(true).append(true).open(log);
    let sink = sink.map_err(|error| io::Error::new(error.kind(), format!("--log {}: {error}", log.display())))?;
    Builder::new().filter_level(LevelFilter::Info).target(Target::Pipe(Box::new(sink))).init();
    let mut stop = contestant::stop_signal()?;
    let listener = TcpListener::bind(options.listen)?;
    contestant::announce("listening", listener.local_addr()?)?;
    std::thread::spawn(move || accept(&listener, options.mode));
    // The threads end with the process, wherever they are.
    stop.read_exact(&mut [0])
}

fn accept(listener: &TcpListener, mode: Mode) {
    let connections = Connections::default();
    for (id, stream) in (0..).zip(listener.incoming()) {
        match stream.and_then(open) {
            Ok((reader, writer)) => {
                connections.write().unwrap().insert(id, BufWriter::new(writer));
                let connections = connections.clone();
                std::thread::spawn(move || {
                    if let Err(error) = serve(id, reader, mode, &connections) {
                        info!("peer {id}: {error}");
                    }
                    connections.write().unwrap().remove(&id);
                });
            }
            Err(error) => info!("not accepted: {error}"),
        }
    }
}

/// Both directions of a connection. Without TCP_NODELAY the comparison would be one of Nagle's algorithm.
fn open(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    stream.set_nodelay(true)?;
    Ok((stream.try_clone()?, stream))
}

fn serve(id: u64, stream: TcpStream, mode: Mode, connections: &Connections) -> io::Result<()> {
    let mut tally = Tally::default();
    for line in BufReader::new(stream).lines() {
        let message: Message = serde_json::from_str(&line?)?;
        info!("received {} {} from peer {id}: {} bytes", message.kind, message.sequence, message.payload.len());
        match mode {
            Mode::Echo => send(id, &message, connections)?,
            Mode::Fanout => broadcast(id, &message, connections),
            Mode::Sink if tally.count() => send(id, &message, connections)?,
            Mode::Sink => {}
        }
    }
    Ok(())
}

fn send(id: u64, message: &Message, connections: &Connections) -> io::Result<()> {
    match connections.write().unwrap().get_mut(&id) {
        Some(connection) => write(connection, message),
        None => Ok(()),
    }
}

fn broadcast(sender: u64, message: &Message, connections: &Connections) {
    for (id, connection) in connections.write().unwrap().iter_mut() {
        if *id != sender
            && let Err(error) = write(connection, message)
        {
            info!("peer {id}: {error}");
        }
    }
}

fn write(connection: &mut BufWriter<TcpStream>, message: &Message) -> io::Result<()> {
    let json = serde_json::to_string(message)?;
    connection.write_all(json.as_bytes())?;
    connection.write_all(b"\n")?;
    connection.flush()
}

//! A small HTTP endpoint for what is counted and measured, with the feature `prometheus`.
//!
//! One thread, apart from the cores: it takes one connection at a time, reads one request of at most 4 KiB, answers, and closes, all of it
//! within two seconds. So a client that dawdles costs others that time and nothing more, and what is in memory is one request and one
//! text. `httparse` says what is a request; what is done about it is decided here. Nothing of it is on any core's path but the copy of its
//! histograms, and that is made at most ten times a second, however often somebody asks.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Socket, Type};

use crate::handle::Handle;
use crate::metrics::Histograms;

/// Longest request, bytes, and how many headers it may have.
const MAX_REQUEST: usize = 4096;
const MAX_HEADERS: usize = 64;
/// From accept to close.
const DEADLINE: Duration = Duration::from_secs(2);
/// What cores have for answering: those that do not are shown as they were last.
const CORES_DEADLINE: Duration = Duration::from_millis(500);
/// Who asks sooner gets the same text again.
const FRESH: Duration = Duration::from_millis(100);
/// Connections that wait in the kernel for their turn; more are refused by it.
const BACKLOG: i32 = 16;
/// What is read after the answer, bytes, so that closing does not destroy it.
const MAX_LEFTOVER: usize = 64 << 10;
/// Where the process has no file descriptor left, and so that errors do not become a loop.
const PAUSE: Duration = Duration::from_millis(100);

const STOP: Token = Token(0);
const LISTENER: Token = Token(1);

/// Answers `GET /metrics` with [`crate::prometheus_text`] of an engine. Dropping it closes it; it may outlive its engine, and shows its
/// last counters then.
///
/// Bounds: one connection at a time, 16 more wait in the kernel; a request of 4 KiB with 64 headers; two seconds from accept to close;
/// one new reading in 100 ms. What is beyond is answered with 431 or 408, where it can be answered, and closed. There is no TLS and no
/// authentication: keep it on loopback, or have something before it.
///
/// ```
/// use corecast::{Config, Context, Engine, Handler, Message, PeerId, PrometheusEndpoint};
///
/// struct Quiet;
///
/// impl Handler for Quiet {
///     type Command = ();
///
///     fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, _: Message<'_>) {}
/// }
///
/// let engine = Engine::start(Config::plaintext(), |_core| Quiet)?;
/// let endpoint = PrometheusEndpoint::start(engine.handle(), "127.0.0.1:0".parse()?)?;
/// println!("http://{}/metrics", endpoint.local_addr());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PrometheusEndpoint {
    address: SocketAddr,
    stop: Waker,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no endpoint.
#[derive(Debug)]
#[non_exhaustive]
pub enum EndpointError {
    /// The address is not on loopback: [`PrometheusEndpoint::start_anywhere`] takes it.
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on, or there is no file descriptor or thread left.
    Io {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoopback { address } => {
                write!(f, "{address} is not on loopback, and the endpoint protects nothing; start_anywhere() takes it all the same")
            }
            Self::Io { address, source } => write!(f, "cannot serve metrics on {address}: {source}"),
        }
    }
}

impl std::error::Error for EndpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotLoopback { .. } => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

impl PrometheusEndpoint {
    /// Serves on a loopback address. Port 0 takes a free one: see [`PrometheusEndpoint::local_addr`].
    pub fn start<C: Send + 'static>(handle: Handle<C>, address: SocketAddr) -> Result<Self, EndpointError> {
        if address.ip().to_canonical().is_loopback() {
            Self::start_anywhere(handle, address)
        } else {
            Err(EndpointError::NotLoopback { address })
        }
    }

    /// Serves on any address, to whoever can reach it.
    pub fn start_anywhere<C: Send + 'static>(handle: Handle<C>, address: SocketAddr) -> Result<Self, EndpointError> {
        Self::open(handle, address).map_err(|source| EndpointError::Io { address, source })
    }

    fn open<C: Send + 'static>(handle: Handle<C>, address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let poll = Poll::new()?;
        let stop = Waker::new(poll.registry(), STOP)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let exporter = Exporter { histograms: vec![Histograms::default(); handle.cores()], handle, text: String::new(), made: None };
        let serve = move || serve(&listener, poll, exporter);
        let thread = std::thread::Builder::new().name("corecast-metrics".to_owned()).spawn(serve)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens, with the port that was given for 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Waits for the connection that is being answered, at most two seconds and a half.
impl Drop for PrometheusEndpoint {
    fn drop(&mut self) {
        // A wake fails only for lack of memory in the kernel; then the thread stays until the next connection, and is not waited for.
        if self.stop.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for PrometheusEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrometheusEndpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes the text, not too often.
struct Exporter<C: Send + 'static> {
    handle: Handle<C>,
    /// Of each core, as it answered last.
    histograms: Vec<Histograms>,
    text: String,
    made: Option<Instant>,
}

impl<C: Send + 'static> Exporter<C> {
    fn text(&mut self) -> &str {
        if self.made.is_none_or(|made| made.elapsed() >= FRESH) {
            self.handle.read_histograms(CORES_DEADLINE, &mut self.histograms);
            self.text = self.handle.exposition(&self.histograms);
            self.made = Some(Instant::now());
        }
        &self.text
    }
}

fn serve<C: Send + 'static>(listener: &mio::net::TcpListener, mut poll: Poll, mut exporter: Exporter<C>) {
    let mut events = Events::with_capacity(2);
    loop {
        if poll.poll(&mut events, None).is_err() {
            // Interrupted by a signal.
            continue;
        }
        if events.iter().any(|event| event.token() == STOP) {
            return;
        }
        // The edge is gone, so all of them; but a stop is not to wait for those that keep coming.
        loop {
            match listener.accept() {
                // Whoever goes away in the middle has nothing to be told.
                Ok((stream, _)) => drop(answer(stream.into(), &mut exporter)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => std::thread::sleep(PAUSE),
            }
            if poll.poll(&mut events, Some(Duration::ZERO)).is_ok() && events.iter().any(|event| event.token() == STOP) {
                return;
            }
        }
    }
}

/// What is to be done about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is not whole.
    Incomplete,
    /// The metrics, or for `HEAD` only how long they are.
    Metrics {
        body: bool,
    },
    Refuse(&'static str),
}

fn judge(request: &[u8]) -> Verdict {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Err(httparse::Error::TooManyHeaders) => return Verdict::Refuse("431 Request Header Fields Too Large"),
        Err(_) => return Verdict::Refuse("400 Bad Request"),
        Ok(httparse::Status::Partial) if request.len() >= MAX_REQUEST => return Verdict::Refuse("431 Request Header Fields Too Large"),
        Ok(httparse::Status::Partial) => return Verdict::Incomplete,
        Ok(httparse::Status::Complete(_)) => {}
    }
    let path = parsed.path.unwrap_or_default();
    match (parsed.method.unwrap_or_default(), path.split('?').next().unwrap_or_default()) {
        (method @ ("GET" | "HEAD"), "/metrics") => Verdict::Metrics { body: method == "GET" },
        ("GET" | "HEAD", _) => Verdict::Refuse("404 Not Found"),
        _ => Verdict::Refuse("405 Method Not Allowed"),
    }
}

fn answer<C: Send + 'static>(mut stream: TcpStream, exporter: &mut Exporter<C>) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    stream.set_nonblocking(false)?;
    let mut request = [0; MAX_REQUEST];
    let mut len = 0;
    let verdict = loop {
        match judge(&request[..len]) {
            Verdict::Incomplete => {}
            verdict => break verdict,
        }
        match read(&mut stream, &mut request[len..], deadline) {
            Ok(0) => return Ok(()),
            Ok(bytes) => len += bytes,
            Err(error) if is_timeout(&error) => break Verdict::Refuse("408 Request Timeout"),
            Err(error) => return Err(error),
        }
    };
    let (status, body, sent) = match verdict {
        Verdict::Metrics { body } => ("200 OK", exporter.text(), body),
        Verdict::Refuse(status) => (status, status, true),
        Verdict::Incomplete => unreachable!("it was read on"),
    };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    // A client that was too slow to ask has a little time for being told so.
    let deadline = deadline.max(Instant::now() + PAUSE);
    write(&mut stream, head.as_bytes(), deadline)?;
    if sent {
        write(&mut stream, body.as_bytes(), deadline)?;
    }
    stream.shutdown(Shutdown::Write)?;
    // Until the client has closed, so that nothing that is on its way to it is destroyed.
    let mut left = MAX_LEFTOVER;
    while left > 0 {
        match read(&mut stream, &mut request, deadline)? {
            0 => return Ok(()),
            bytes => left = left.saturating_sub(bytes),
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn read(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn write(stream: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(time_left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => bytes = &bytes[taken..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_judged_when_it_is_whole_and_never_later_than_at_its_bound() {
        let whole = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n";
        assert!((0..whole.len()).all(|len| judge(&whole[..len]) == Verdict::Incomplete));
        assert_eq!(judge(whole), Verdict::Metrics { body: true });
        assert_eq!(judge(b"GET /metrics?a=b HTTP/1.0\r\n\r\n"), Verdict::Metrics { body: true });
        assert_eq!(judge(b"HEAD /metrics HTTP/1.1\r\n\r\n"), Verdict::Metrics { body: false });
        assert_eq!(judge(b"GET / HTTP/1.1\r\n\r\n"), Verdict::Refuse("404 Not Found"));
        assert_eq!(judge(b"POST /metrics HTTP/1.1\r\n\r\n"), Verdict::Refuse("405 Method Not Allowed"));
        assert_eq!(judge(b"\x16\x03\x01\x02\x00"), Verdict::Refuse("400 Bad Request"));
        let mut endless = b"GET /metrics HTTP/1.1\r\nCookie: ".to_vec();
        endless.resize(MAX_REQUEST, b'a');
        assert_eq!(judge(&endless), Verdict::Refuse("431 Request Header Fields Too Large"));
        assert_eq!(judge(&endless[..MAX_REQUEST - 1]), Verdict::Incomplete);
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(judge(many.as_bytes()), Verdict::Refuse("431 Request Header Fields Too Large"));
    }
}

//! A peer written by hand from `WIRE.md`, over a blocking socket: it shares no code with the library, so that a mistake is not made on
//! both sides.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::LIVENESS;

pub(crate) const DATA: u8 = 1;
pub(crate) const REQUEST: u8 = 2;
pub(crate) const RESPONSE: u8 = 3;
pub(crate) const FRAGMENT: u8 = 4;
pub(crate) const ACKED: u8 = 5;
pub(crate) const READY: u8 = 16;
pub(crate) const PING: u8 = 17;
pub(crate) const PONG: u8 = 18;
pub(crate) const GOODBYE: u8 = 19;
pub(crate) const ACK: u8 = 20;
pub(crate) const SUBSCRIBE: u8 = 21;
pub(crate) const UNSUBSCRIBE: u8 = 22;
pub(crate) const GO_AWAY: u8 = 23;

pub(crate) const HIGH: u8 = 1;
pub(crate) const NORMAL: u8 = 2;
pub(crate) const BULK: u8 = 3;
pub(crate) const MORE: u8 = 4;

pub(crate) const PREAMBLE: [u8; 8] = [0xCC, 0x43, 0x52, 0x50, 1, 0, 0, 0];

/// What a side says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) network: [u8; 32],
    pub(crate) node: [u8; 32],
    pub(crate) instance: u64,
    /// Bit 0: understands `GoAway`.
    pub(crate) features: u64,
    pub(crate) max_message: u32,
    pub(crate) channel: u16,
}

impl Hello {
    /// A node whose id begins with this number.
    pub(crate) fn node(number: u32) -> Self {
        let mut node = [0xA5; 32];
        node[..4].copy_from_slice(&number.to_be_bytes());
        Self { network: [0; 32], node, instance: 7, features: 0, max_message: 1 << 20, channel: 0 }
    }

    /// The 88 bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.network);
        out.extend_from_slice(&self.node);
        out.extend_from_slice(&self.instance.to_le_bytes());
        out.extend_from_slice(&self.features.to_le_bytes());
        out.extend_from_slice(&self.max_message.to_le_bytes());
        out.extend_from_slice(&self.channel.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        assert_eq!(out.len(), 88);
        out
    }

    /// Preamble and hello, 96 bytes.
    pub(crate) fn greeting(&self) -> Vec<u8> {
        [&PREAMBLE[..], &self.encode()].concat()
    }

    fn decode(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), 88);
        assert_eq!(bytes[86..], [0, 0], "reserved");
        Self {
            network: bytes[..32].try_into().unwrap(),
            node: bytes[32..64].try_into().unwrap(),
            instance: u64::from_le_bytes(bytes[64..72].try_into().unwrap()),
            features: u64::from_le_bytes(bytes[72..80].try_into().unwrap()),
            max_message: u32::from_le_bytes(bytes[80..84].try_into().unwrap()),
            channel: u16::from_le_bytes(bytes[84..86].try_into().unwrap()),
        }
    }
}

/// The 16 bytes with which an acceptor refuses.
pub(crate) fn refusal(code: u16) -> [u8; 16] {
    refusal_for(code, 0)
}

/// The same, with a delay in milliseconds.
pub(crate) fn refusal_for(code: u16, delay: u32) -> [u8; 16] {
    let ([low, high], [d0, d1, d2, d3]) = (code.to_le_bytes(), delay.to_le_bytes());
    [0xCC, 0x43, 0x52, 0x50, 1, 255, low, high, 1, 1, d0, d1, d2, d3, 0, 0]
}

/// The eight bytes before a frame; the length is whatever is claimed.
pub(crate) fn header(len: u32, kind: u8, flags: u8, message_type: u16) -> Vec<u8> {
    let mut out = len.to_le_bytes().to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&message_type.to_le_bytes());
    out
}

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, message_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = header(payload.len() as u32, kind, flags, message_type);
    out.extend_from_slice(payload);
    out
}

/// A message in the normal lane, in one frame.
pub(crate) fn data(message_type: u16, body: &[u8]) -> Vec<u8> {
    frame(DATA, NORMAL, message_type, body)
}

/// The first fragment of a longer message.
pub(crate) fn first(lane: u8, message_type: u16, total: u32, body: &[u8]) -> Vec<u8> {
    frame(DATA, lane | MORE, message_type, &[&total.to_le_bytes(), body].concat())
}

/// A control frame with eight bytes of payload.
pub(crate) fn control(kind: u8, payload: u64) -> Vec<u8> {
    frame(kind, 0, 0, &payload.to_le_bytes())
}

pub(crate) fn goodbye(code: u16, detail: u16) -> Vec<u8> {
    goodbye_for(code, detail, 0)
}

/// The same, with a delay in milliseconds.
pub(crate) fn goodbye_for(code: u16, detail: u16, delay: u32) -> Vec<u8> {
    frame(GOODBYE, 0, 0, &[&code.to_le_bytes()[..], &detail.to_le_bytes(), &delay.to_le_bytes()].concat())
}

/// Goes within so many milliseconds, and asks to be left alone for so many after that.
pub(crate) fn go_away(within: u32, delay: u32, reason: u16) -> Vec<u8> {
    frame(GO_AWAY, 0, 0, &[&within.to_le_bytes()[..], &delay.to_le_bytes(), &reason.to_le_bytes(), &[0, 0]].concat())
}

/// A message to be acknowledged, in the normal lane.
pub(crate) fn acked(message_type: u16, id: u64, body: &[u8]) -> Vec<u8> {
    frame(ACKED, NORMAL, message_type, &[&id.to_le_bytes(), body].concat())
}

/// A received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawFrame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) message_type: u16,
    pub(crate) payload: Vec<u8>,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    pub(crate) hello: Hello,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIVENESS)).unwrap();
        stream.set_write_timeout(Some(LIVENESS)).unwrap();
        Self { stream, hello: Hello::node(0) }
    }

    /// Connects from this address of the loopback network.
    pub(crate) fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    /// Connects with a receive buffer so small that little hides in the kernel.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Self {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    /// Connects and ends the handshake well.
    pub(crate) fn establish(address: SocketAddr, hello: Hello) -> Self {
        Self::connect(address).shake(hello)
    }

    /// The dialler's whole handshake.
    pub(crate) fn shake(mut self, hello: Hello) -> Self {
        self.send(&hello.greeting());
        let theirs = self.read_greeting();
        assert_eq!(theirs.channel, hello.channel, "the acceptor repeats the channel");
        self.send(&header(0, READY, 0, 0));
        self.hello = hello;
        self
    }

    /// The acceptor's whole handshake: the dialler's hello.
    pub(crate) fn answer(&mut self, hello: Hello) -> Hello {
        let theirs = self.read_greeting();
        self.send(&Hello { channel: theirs.channel, ..hello }.greeting());
        assert_eq!(self.frame(), Some(RawFrame { kind: READY, flags: 0, message_type: 0, payload: Vec::new() }));
        theirs
    }

    /// The same, where the acceptor may close at once instead.
    pub(crate) fn try_shake(mut self, hello: Hello) -> Option<Self> {
        self.try_send(&hello.greeting());
        let mut bytes = [0; 96];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
            Err(error) => panic!("neither an answer nor the end: {error}"),
        }
        assert_eq!(bytes[..8], PREAMBLE);
        self.send(&header(0, READY, 0, 0));
        self.hello = hello;
        Some(self)
    }

    pub(crate) fn read_greeting(&mut self) -> Hello {
        let bytes = self.read(96);
        assert_eq!(bytes[..8], PREAMBLE);
        Hello::decode(&bytes[8..])
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as the other side takes; it may have closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Exactly so many bytes.
    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything to the end, and whether that was an orderly one (`false`: a reset).
    pub(crate) fn read_to_end(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => (bytes, true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, false),
            Err(error) => panic!("the other side did not close: {error}"),
        }
    }

    /// The other side closes and says nothing before.
    pub(crate) fn expect_silent_close(mut self) {
        let (bytes, _) = self.read_to_end();
        assert_eq!(bytes, [0; 0]);
    }

    /// The next frame; `None` at the end.
    pub(crate) fn frame(&mut self) -> Option<RawFrame> {
        let mut head = [0; 8];
        let mut at = 0;
        while at < 8 {
            match self.stream.read(&mut head[at..]).unwrap() {
                0 if at == 0 => return None,
                0 => panic!("the stream ends in a header"),
                bytes => at += bytes,
            }
        }
        let len = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        assert!(len <= 32_768, "a frame of {len} bytes");
        let message_type = u16::from_le_bytes([head[6], head[7]]);
        Some(RawFrame { kind: head[4], flags: head[5], message_type, payload: self.read(len) })
    }

    /// The next frame that is no keepalive; pings are answered.
    pub(crate) fn message_frame(&mut self) -> Option<RawFrame> {
        loop {
            let frame = self.frame()?;
            match frame.kind {
                PING => self.try_send(&super::raw::frame(PONG, 0, 0, &frame.payload)),
                PONG => {}
                _ => return Some(frame),
            }
        }
    }

    /// The next frame is a message that asks for an acknowledgement: its id and body.
    pub(crate) fn acked(&mut self) -> (u64, Vec<u8>) {
        let frame = self.message_frame().expect("a message, not the end");
        assert_eq!((frame.kind, frame.flags), (ACKED, NORMAL), "{frame:?}");
        let (id, body) = frame.payload.split_first_chunk().unwrap();
        (u64::from_le_bytes(*id), body.to_vec())
    }

    /// The next message, put together where it came in pieces: type, flags of its first frame without `MORE`, body. `None` at the end.
    pub(crate) fn message(&mut self) -> Option<(u16, u8, Vec<u8>)> {
        let begin = self.message_frame()?;
        assert_eq!(begin.kind, DATA, "{begin:?}");
        if begin.flags & MORE == 0 {
            return Some((begin.message_type, begin.flags, begin.payload));
        }
        let total = u32::from_le_bytes(begin.payload[..4].try_into().unwrap()) as usize;
        let mut body = begin.payload[4..].to_vec();
        loop {
            let next = self.message_frame().expect("the message goes on");
            assert_eq!((next.kind, next.flags & !MORE, next.message_type), (FRAGMENT, begin.flags & !MORE, begin.message_type));
            body.extend_from_slice(&next.payload);
            if next.flags & MORE == 0 {
                assert_eq!(body.len(), total);
                return Some((begin.message_type, begin.flags & !MORE, body));
            }
        }
    }

    /// The next frame is this message.
    pub(crate) fn expect_data(&mut self, message_type: u16, body: &[u8]) {
        let (got_type, _, got) = self.message().expect("a message, not the end");
        assert_eq!(got_type, message_type);
        assert!(got == body, "{} bytes that differ from the {} expected", got.len(), body.len());
    }

    /// Sends a message to an echoing engine and gets it back.
    pub(crate) fn echo(&mut self, message_type: u16, body: &[u8]) {
        self.send(&data(message_type, body));
        self.expect_data(message_type, body);
    }

    /// The other side says goodbye, with this code and detail, and closes in order. Messages and keepalives before it are skipped.
    pub(crate) fn expect_goodbye(&mut self, code: u16, detail: u16) {
        loop {
            let frame = self.message_frame().unwrap_or_else(|| panic!("the end, without goodbye {code}/{detail}"));
            if frame.kind == GOODBYE {
                let said =
                    (u16::from_le_bytes([frame.payload[0], frame.payload[1]]), u16::from_le_bytes([frame.payload[2], frame.payload[3]]));
                assert_eq!(said, (code, detail), "code and detail of the goodbye");
                break;
            }
        }
        self.expect_eof();
    }

    /// The other side has closed in order, and nothing is left to read.
    pub(crate) fn expect_eof(&mut self) {
        assert_eq!(self.read_to_end(), (Vec::new(), true));
    }

    /// Says that nothing more will come; reading goes on.
    pub(crate) fn shut(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A listening socket of a raw peer.
pub(crate) struct RawListener {
    listener: TcpListener,
}

impl RawListener {
    pub(crate) fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// A port that is taken but refuses connections until `listen`.
    pub(crate) fn deaf() -> (socket2::Socket, SocketAddr) {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    /// The port begins to answer.
    pub(crate) fn listen(socket: socket2::Socket) -> Self {
        socket.listen(16).unwrap();
        Self { listener: socket.into() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection, within the liveness deadline.
    pub(crate) fn accept(&self) -> Raw {
        self.listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        super::eventually("a connection", || match self.listener.accept() {
            Ok((stream, _)) => {
                accepted = Some(stream);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("accept: {error}"),
        });
        let stream = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        Raw::over(stream)
    }

    /// The next connection, established.
    pub(crate) fn establish(&self, hello: Hello) -> Raw {
        let mut raw = self.accept();
        raw.hello = hello;
        raw.answer(hello);
        raw
    }
}

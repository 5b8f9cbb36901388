//! WIRE.md encrypted: Noise XK with AES-GCM, and the frames of [`Wire`] in records.
//!
//! The ciphers are ring's, as in the server: with slower ones the client would be what is measured.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use snow::resolvers::{DefaultResolver, FallbackResolver, RingResolver};
use snow::{Builder, HandshakeState, TransportState};

use super::{Codec, Role, Scratch, Wire};
use crate::client::ClientConfig;
use crate::client::connection::invalid;
use crate::wire;

const PATTERN: &str = "Noise_XK_25519_AESGCM_SHA256";
/// Magic, version 1, suite 1, no flags.
const PREAMBLE: [u8; wire::PREAMBLE_LEN] = [0xCC, 0x43, 0x52, 0x53, 1, 1, 0, 0];
const TAG_LEN: usize = 16;
const MESSAGE_1_LEN: usize = 32 + TAG_LEN;
const HELLO_LEN: usize = 24;
const MESSAGE_2_LEN: usize = 32 + HELLO_LEN + TAG_LEN;
const MESSAGE_3_LEN: usize = 32 + TAG_LEN + HELLO_LEN + TAG_LEN;
/// The length in front of a record, and the most that it can say.
const RECORD_LEN: usize = 2;
const MOST_RECORD: usize = u16::MAX as usize;
/// Records of a direction after which its key is replaced.
const REKEY_EVERY: u64 = 4096;

/// The state of a connection.
pub(in crate::client) struct Noise {
    frames: Wire,
    transport: TransportState,
    /// The start of a frame whose rest is in records that have not come.
    opened: Vec<u8>,
    /// What leaves next.
    sealed: Vec<u8>,
}

impl Codec for Noise {
    fn greet(stream: &mut TcpStream, _index: usize, _role: Role, config: &ClientConfig) -> io::Result<Self> {
        let node = config.node.ok_or_else(|| invalid("the server's node id was not given"))?;
        let transport = shake_hands(stream, &config.network, &node)?;
        let mut noise = Self { frames: Wire::default(), transport, opened: Vec::new(), sealed: Vec::new() };
        noise.expect_ready(stream)?;
        let ready = noise.seal(&wire::ready()).to_vec();
        stream.write_all(&ready)?;
        Ok(noise)
    }

    fn most_undecided(_body_len: usize) -> usize {
        RECORD_LEN + MOST_RECORD
    }

    fn append(&self, frame: &[u8], out: &mut Vec<u8>) {
        self.frames.append(frame, out);
    }

    fn seal<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
        self.sealed.clear();
        for chunk in bytes.chunks(MOST_RECORD - TAG_LEN) {
            let at = self.sealed.len();
            self.sealed.extend_from_slice(&((chunk.len() + TAG_LEN) as u16).to_le_bytes());
            self.sealed.resize(at + RECORD_LEN + chunk.len() + TAG_LEN, 0);
            self.transport.write_message(chunk, &mut self.sealed[at + RECORD_LEN..]).expect("a record fits, and nonces do not run out");
            if self.transport.sending_nonce().is_multiple_of(REKEY_EVERY) {
                self.transport.rekey_outgoing();
            }
        }
        &self.sealed
    }

    fn decode(&mut self, bytes: &[u8], scratch: &mut Scratch, mut deliver: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut at = 0;
        // Taken out so that the frames' codec can have the rest of the scratch.
        let mut plain = std::mem::take(&mut scratch.plain);
        plain.clear();
        plain.extend_from_slice(&self.opened);
        while let Some(record) = whole_record(&bytes[at..]) {
            self.open(record, &mut plain)?;
            at += RECORD_LEN + record.len();
            let used = self.frames.decode(&plain, scratch, &mut deliver)?;
            plain.drain(..used);
        }
        self.opened.clear();
        self.opened.extend_from_slice(&plain);
        scratch.plain = plain;
        Ok(at)
    }

    fn farewell(&mut self) -> Vec<u8> {
        self.frames.farewell()
    }
}

impl Noise {
    /// Opens a record behind what is in `plain`.
    fn open(&mut self, record: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        let before = plain.len();
        plain.resize(before + record.len(), 0);
        let opened = self.transport.read_message(record, &mut plain[before..]).map_err(|_| invalid("a record does not decrypt"))?;
        plain.truncate(before + opened);
        if self.transport.receiving_nonce().is_multiple_of(REKEY_EVERY) {
            self.transport.rekey_incoming();
        }
        Ok(())
    }

    /// The server's first record, which stands alone.
    fn expect_ready(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let mut length = [0; RECORD_LEN];
        stream.read_exact(&mut length)?;
        let mut record = vec![0; usize::from(u16::from_le_bytes(length))];
        stream.read_exact(&mut record)?;
        let mut plain = Vec::new();
        self.open(&record, &mut plain)?;
        if plain == wire::ready() {
            return Ok(());
        }
        let code = (plain.get(4) == Some(&wire::GOODBYE)).then(|| wire::u16_at(&plain, wire::HEADER_LEN));
        Err(invalid(
            code.map_or("the server sent no Ready".into(), |code| format!("the server said goodbye instead of Ready: code {code}")),
        ))
    }
}

/// The record at the start of `bytes`, without its length.
fn whole_record(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::from(u16::from_le_bytes(*length)))
}

/// The three messages.
fn shake_hands(stream: &mut TcpStream, network: &[u8; 32], node: &[u8; 32]) -> io::Result<TransportState> {
    let failed = |what: &'static str| move |error: snow::Error| invalid(format!("{what}: {error}"));
    let mut handshake = initiator(network, node).map_err(failed("the handshake cannot begin"))?;
    let mut message = [0; MESSAGE_3_LEN];
    handshake.write_message(&[], &mut message).map_err(failed("message 1"))?;
    stream.write_all(&[&PREAMBLE[..], &message[..MESSAGE_1_LEN]].concat())?;

    let mut preamble = [0; wire::PREAMBLE_LEN];
    stream.read_exact(&mut preamble)?;
    if preamble != PREAMBLE {
        let refused = preamble[..4] == PREAMBLE[..4] && preamble[5] == wire::REFUSAL_MARKER;
        let code = wire::RefusalCode(wire::u16_at(&preamble, 6));
        return Err(if refused {
            io::Error::other(format!("the server refused the handshake: {}", code.name()))
        } else {
            invalid("the server does not speak WIRE.md with this suite")
        });
    }
    stream.read_exact(&mut message[..MESSAGE_2_LEN])?;
    let mut theirs = [0; MESSAGE_2_LEN];
    handshake.read_message(&message[..MESSAGE_2_LEN], &mut theirs).map_err(failed("message 2"))?;

    let (_, instance) = wire::random_identity()?;
    let mut hello = [0; HELLO_LEN];
    hello[..8].copy_from_slice(&instance.to_le_bytes());
    hello[16..20].copy_from_slice(&wire::MAX_MESSAGE.to_le_bytes());
    handshake.write_message(&hello, &mut message).map_err(failed("message 3"))?;
    stream.write_all(&message)?;
    handshake.into_transport_mode().map_err(failed("the handshake did not end"))
}

fn initiator(network: &[u8; 32], node: &[u8; 32]) -> Result<HandshakeState, snow::Error> {
    let builder = builder()?;
    // A key for each connection: to the server they are so many peers.
    let keys = builder.generate_keypair()?;
    let prologue = [&PREAMBLE[..], network].concat();
    builder.prologue(&prologue)?.local_private_key(&keys.private)?.remote_public_key(node)?.build_initiator()
}

/// ring has no Diffie-Hellman that snow could use.
fn builder() -> Result<Builder<'static>, snow::Error> {
    let resolver = FallbackResolver::new(Box::new(RingResolver), Box::new(DefaultResolver));
    Ok(Builder::with_resolver(PATTERN.parse()?, Box::new(resolver)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::JoinHandle;
    use std::time::Duration;

    use super::*;
    use crate::client::meter::Window;
    use crate::client::{Load, Protocol, measure};
    use crate::server::Poll;

    /// A server for one connection that returns the bytes of every frame, in records of any length, and so in many.
    fn echo(listener: TcpListener, secret: Vec<u8>) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut transport = accept(&mut stream, &secret);
            let mut sealed = Vec::new();
            seal(&mut transport, &wire::ready(), &mut sealed);
            stream.write_all(&sealed).unwrap();
            assert_eq!(open(&mut stream, &mut transport), Some(wire::ready().to_vec()));
            let mut lengths = [1, 37, 9, 2000].into_iter().cycle();
            while let Some(plain) = open(&mut stream, &mut transport) {
                sealed.clear();
                let mut rest = plain.as_slice();
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(lengths.next().unwrap().min(rest.len()));
                    seal(&mut transport, now, &mut sealed);
                    rest = later;
                }
                stream.write_all(&sealed).unwrap();
            }
        })
    }

    fn accept(stream: &mut TcpStream, secret: &[u8]) -> TransportState {
        let prologue = [&PREAMBLE[..], &[7; 32]].concat();
        let builder = builder().unwrap().prologue(&prologue).unwrap().local_private_key(secret).unwrap();
        let mut handshake = builder.build_responder().unwrap();
        let (mut first, mut second, mut third, mut payload) = ([0; 56], [0; MESSAGE_2_LEN], [0; MESSAGE_3_LEN], [0; 256]);
        stream.read_exact(&mut first).unwrap();
        assert_eq!(first[..8], PREAMBLE);
        assert_eq!(handshake.read_message(&first[8..], &mut payload).unwrap(), 0);
        assert_eq!(handshake.write_message(&[0; HELLO_LEN], &mut second).unwrap(), MESSAGE_2_LEN);
        stream.write_all(&[&PREAMBLE[..], &second].concat()).unwrap();
        stream.read_exact(&mut third).unwrap();
        assert_eq!(handshake.read_message(&third, &mut payload).unwrap(), HELLO_LEN);
        assert_eq!(payload[16..24], [0, 0, 16, 0, 0, 0, 0, 0], "max message, channel, reserved");
        handshake.into_transport_mode().unwrap()
    }

    fn seal(transport: &mut TransportState, plain: &[u8], out: &mut Vec<u8>) {
        let mut record = vec![0; plain.len() + TAG_LEN];
        transport.write_message(plain, &mut record).unwrap();
        if transport.sending_nonce().is_multiple_of(4096) {
            transport.rekey_outgoing();
        }
        out.extend_from_slice(&(record.len() as u16).to_le_bytes());
        out.extend_from_slice(&record);
    }

    /// None at the end.
    fn open(stream: &mut TcpStream, transport: &mut TransportState) -> Option<Vec<u8>> {
        let mut length = [0; RECORD_LEN];
        stream.read_exact(&mut length).ok()?;
        let mut record = vec![0; usize::from(u16::from_le_bytes(length))];
        stream.read_exact(&mut record).unwrap();
        Some(open_record(transport, &record))
    }

    fn open_record(transport: &mut TransportState, record: &[u8]) -> Vec<u8> {
        let mut plain = vec![0; record.len()];
        let opened = transport.read_message(record, &mut plain).unwrap();
        if transport.receiving_nonce().is_multiple_of(4096) {
            transport.rekey_incoming();
        }
        plain.truncate(opened);
        plain
    }

    fn config(listener: &TcpListener, node: &[u8], body_len: usize) -> ClientConfig {
        ClientConfig {
            protocol: Protocol::Noise,
            server: listener.local_addr().unwrap(),
            publishing: None,
            network: [7; 32],
            node: Some(node.try_into().unwrap()),
            load: Load::Echo { connections: 1, in_flight: 5 },
            body_len,
            poll: Poll::Block,
            window: Window { warmup: Duration::ZERO, measure: Duration::from_millis(150), server_pid: None },
        }
    }

    #[test]
    fn frames_in_pieces_come_back() {
        for body_len in [100, 70_000] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let keys = builder().unwrap().generate_keypair().unwrap();
            let config = config(&listener, &keys.public, body_len);
            let server = echo(listener, keys.private);
            let figures = measure(&config).unwrap();
            assert!(figures.faults.none() && figures.deliveries > 0, "{body_len}: {figures:?}");
            server.join().unwrap();
        }
    }

    #[test]
    fn keys_are_replaced_in_both_directions() {
        let (ours, mut theirs) = transports();
        let mut noise = established(ours);
        let ping = wire::control(wire::PING, [3; 8]);
        let mut scratch = Scratch::default();
        for number in 0..2 * REKEY_EVERY + 2 {
            let record = noise.seal(&number.to_le_bytes()).to_vec();
            assert_eq!(open_record(&mut theirs, &record[RECORD_LEN..]), number.to_le_bytes());
            let mut record = Vec::new();
            seal(&mut theirs, &ping, &mut record);
            let used = noise.decode(&record, &mut scratch, |_| panic!("a ping is no message")).unwrap();
            assert_eq!(used, record.len());
        }
        assert_eq!(scratch.replies.len() as u64, (2 * REKEY_EVERY + 2) * ping.len() as u64);
    }

    #[test]
    fn a_record_that_was_touched_ends_the_run() {
        let (ours, mut theirs) = transports();
        let mut record = Vec::new();
        seal(&mut theirs, &wire::control(wire::PING, [1; 8]), &mut record);
        record[5] ^= 1;
        let error = established(ours).decode(&record, &mut Scratch::default(), |_| panic!("nothing is delivered")).unwrap_err();
        assert!(error.to_string().contains("does not decrypt"));
    }

    fn established(transport: TransportState) -> Noise {
        Noise { frames: Wire::default(), transport, opened: Vec::new(), sealed: Vec::new() }
    }

    /// Both ends of a session.
    fn transports() -> (TransportState, TransportState) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let keys = builder().unwrap().generate_keypair().unwrap();
        let address = listener.local_addr().unwrap();
        let theirs = std::thread::spawn(move || accept(&mut listener.accept().unwrap().0, &keys.private));
        let ours = shake_hands(&mut TcpStream::connect(address).unwrap(), &[7; 32], &keys.public.try_into().unwrap()).unwrap();
        (ours, theirs.join().unwrap())
    }
}

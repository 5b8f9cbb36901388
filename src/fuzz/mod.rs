//! What the fuzzer feeds: each function takes any bytes and panics where something that must be true of all input is not. Behind the
//! feature `fuzz-internals`, no part of the API. The targets are in `tools/fuzz`; plain `cargo test` replays what they have collected.

mod shard;

use std::sync::Arc;

use crate::buffers::BufferPool;
use crate::codec::{Bincode, BincodeSerde, Codec};
use crate::config::Noise;
use crate::error::{DecodeError, HandshakeError};
use crate::id::{NetworkId, NodeId};
use crate::identity::Identity;
use crate::proto::{Handshake, Keys, Opened, Progress, Session};
use crate::wire::{FrameDecoder, GO_AWAY_LEN, GoAway, Goodbye, HEADER_LEN, HELLO_LEN, Header, Hello, Preamble, Refusal};

pub use shard::shard;

/// Bytes, cut as the first two of them say.
struct Chunks<'a> {
    seed: u64,
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    /// The first two bytes are the cut's.
    fn new(data: &'a [u8]) -> Self {
        let (head, rest) = data.split_at(data.len().min(2));
        let seed = head.iter().fold(1, |seed, &byte| seed << 8 | u64::from(byte));
        Self { seed, rest }
    }

    /// At most `most` bytes, at least one where there is one.
    fn next(&mut self, most: usize) -> &'a [u8] {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let len = (1 + (self.seed >> 33) as usize % 64).min(most).min(self.rest.len());
        let (now, later) = self.rest.split_at(len);
        self.rest = later;
        now
    }
}

/// What a stream was decoded to: its frames, and how it ended.
type Decoded = (Vec<(Header, Vec<u8>)>, Result<(), DecodeError>);

fn frames<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let (mut decoder, mut pool, mut frames) = (FrameDecoder::default(), BufferPool::new(0), Vec::new());
    for chunk in chunks {
        let mut at = 0;
        loop {
            match decoder.next(&mut pool, chunk, &mut at) {
                Ok(Some(frame)) => frames.push((frame.header, frame.payload.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        assert!(decoder.held() <= crate::buffers::MEDIUM, "an unfinished frame is no longer than a frame");
    }
    decoder.release(&mut pool);
    (frames, Ok(()))
}

/// However a stream is cut, it has the same frames and the same error.
pub fn decoder(data: &[u8]) {
    let mut chunks = Chunks::new(data);
    let whole = frames(std::iter::once(chunks.rest));
    let cut = frames(std::iter::from_fn(|| Some(chunks.next(usize::MAX)).filter(|chunk| !chunk.is_empty())));
    assert_eq!(whole, cut);
    for (header, payload) in whole.0 {
        assert_eq!(header.len as usize, payload.len());
        assert_eq!(Header::decode(header.encode()), Ok(header), "what was decoded is encoded the same");
    }
}

/// Payloads of fixed length: whatever they hold, they are read without a panic, and what is written again is read the same.
pub fn payloads(data: &[u8]) {
    if let Some(bytes) = data.first_chunk::<8>() {
        let goodbye = Goodbye::decode(*bytes);
        let again = *goodbye.encode().last_chunk().expect("a header and eight bytes");
        assert_eq!(Goodbye::decode(again), goodbye);
        for ours in [Preamble::PLAINTEXT, Preamble::encrypted(1), Preamble::encrypted(2)] {
            ours.judge(*bytes);
        }
    }
    if let Some(bytes) = data.first_chunk::<GO_AWAY_LEN>() {
        let away = GoAway::decode(*bytes);
        assert_eq!(GoAway::decode(*away.encode().last_chunk().expect("a header and the payload")), away);
    }
    if let Some(bytes) = data.first_chunk::<16>() {
        let refusal = Refusal::decode(bytes);
        assert_eq!(Refusal::decode(&refusal.answer(Preamble::PLAINTEXT, bytes)), refusal);
    }
    if let Some(hello) = data.first_chunk::<HELLO_LEN>().and_then(|bytes| Hello::decode(bytes).ok()) {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        assert_eq!(Hello::decode_proved(hello.network, hello.node, &hello.encode_proved()), Some(hello));
    }
}

const NETWORK: NetworkId = NetworkId([9; 32]);

fn keys(node: u8) -> Arc<Keys> {
    Arc::new(Keys::new(&Noise::new(Identity::from_secret([node; 32]))).expect("there is an identity"))
}

fn hello(keys: Option<&Arc<Keys>>, node: u8) -> Hello {
    let node = keys.map_or(NodeId([node; 32]), |keys| keys.identity.node_id());
    Hello { network: NETWORK, node, instance: 1, features: 0, max_message: 1000, channel: 3 }
}

/// A dialler and an acceptor that fit together.
fn pair(noise: bool) -> [Handshake; 2] {
    let (ours, theirs) = (noise.then(|| keys(1)), noise.then(|| keys(2)));
    let expected = theirs.as_ref().map(|keys| keys.identity.node_id());
    let mut dialler = Handshake::dialled(ours.as_ref(), hello(ours.as_ref(), 1), expected);
    dialler.connected(&[3; 32]);
    dialler.begin().expect("the key is no weak one");
    let mut acceptor = Handshake::accepted(theirs.as_ref(), hello(theirs.as_ref(), 2));
    acceptor.connected(&[4; 32]);
    [dialler, acceptor]
}

/// Hands `bytes` over in chunks; grants what is asked. The first word that is more than "go on".
fn hand(to: &mut Handshake, chunks: &mut Chunks<'_>) -> Option<Result<Progress, HandshakeError>> {
    while !chunks.rest.is_empty() && to.wanted() > 0 {
        let wanted = to.wanted();
        match to.handle_bytes(chunks.next(wanted)) {
            Ok(Progress::Pending) => {}
            other => return Some(other),
        }
    }
    None
}

/// Either side, in plaintext or encrypted, is told anything: at first what the other side would say, for as many steps as the input says,
/// with one byte changed where it says so, then the input itself.
pub fn handshake(data: &[u8]) {
    let [how, steps, at, change, rest @ ..] = data else { return };
    let noise = how & 1 != 0;
    let mut sides = pair(noise);
    let victim = usize::from(how & 2 != 0);
    for step in 0..steps % 6 {
        let from = usize::from(step % 2 != 0);
        let mut said = sides[from].output().to_vec();
        let len = said.len();
        sides[from].advance(len);
        let last = step + 1 == steps % 6;
        let changed = last && *change != 0 && !said.is_empty();
        if changed {
            let at = usize::from(*at) % len;
            said[at] ^= change;
        }
        let mut chunks = Chunks { seed: u64::from(*how), rest: &said };
        let told = hand(&mut sides[1 - from], &mut chunks);
        let agreed = matches!(told, Some(Ok(_)));
        assert!(!noise || !changed || !agreed, "a changed byte was taken for good");
        match told {
            Some(Ok(Progress::Ask(theirs))) if !changed => drop(sides[1 - from].grant(theirs.channel)),
            Some(Ok(Progress::Established)) | Some(Err(_)) => break,
            _ => {}
        }
    }
    let mut chunks = Chunks::new(rest);
    if hand(&mut sides[victim], &mut chunks).is_some_and(|told| matches!(told, Ok(Progress::Established))) {
        assert!(!noise || rest.is_empty(), "nobody without the key is let in");
    }
}

/// Two sessions of one connection.
fn sessions() -> (Session, Session) {
    let [mut dialler, mut acceptor] = pair(true);
    loop {
        let mut moved = false;
        for side in 0..2 {
            let (from, to) = if side == 0 { (&mut dialler, &mut acceptor) } else { (&mut acceptor, &mut dialler) };
            let len = from.output().len().min(to.wanted());
            if len == 0 {
                continue;
            }
            moved = true;
            let told = to.handle_bytes(&from.output()[..len]);
            from.advance(len);
            if let Ok(Progress::Ask(theirs)) = told {
                to.grant(theirs.channel);
            }
        }
        if !moved {
            let mut pool = BufferPool::new(0);
            return (dialler.take_session(&mut pool), acceptor.take_session(&mut pool));
        }
    }
}

/// A stream of records is changed as the input says: what is opened is always the beginning of what was sealed, and where anything was
/// changed it ends there. Under the fuzzer keys change every eight records.
pub fn records(data: &[u8]) {
    let [count, change, rest @ ..] = data else { return };
    let (Session::Noise(mut ours), Session::Noise(mut theirs)) = sessions() else { unreachable!("both have keys") };
    let (mut stream, mut sealed, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count % 24 {
        let plaintext = vec![number; 1 + usize::from(number) * 7 % 50];
        let mut record = [0; 100];
        let len = ours.seal(&plaintext, &mut record);
        stream.extend_from_slice(&record[..len]);
        sealed.extend_from_slice(&plaintext);
        ends.push((stream.len(), sealed.len()));
    }
    // Where it is changed, if at all.
    let mut touched = usize::MAX;
    if let ([low, high, ..], false) = (rest, stream.is_empty() || *change == 0) {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % stream.len();
        match change % 3 {
            0 => stream[at] ^= change,
            1 => drop(stream.remove(at)),
            _ => stream.insert(at, *change),
        }
        touched = at;
    }
    stream.extend_from_slice(rest);
    let (mut pool, mut opened, mut all) = (BufferPool::new(0), Opened::default(), Vec::new());
    let mut chunks = Chunks { seed: u64::from(*change), rest: &stream };
    let mut result = Ok(());
    while result.is_ok() && !chunks.rest.is_empty() {
        opened.clear();
        result = theirs.open(&mut pool, chunks.next(usize::MAX), &mut opened);
        all.extend_from_slice(opened.as_slice());
    }
    assert!(sealed.starts_with(&all), "what is opened is the beginning of what was sealed");
    // The records before the one that was touched.
    let good = ends.iter().take_while(|(end, _)| *end <= touched).last().map_or(0, |(_, opened)| *opened);
    assert!(all.len() >= good, "what came before is good");
    let inserted_same = touched != usize::MAX && change % 3 != 0;
    assert!(touched == usize::MAX || inserted_same || all.len() == good, "and nothing after");
    theirs.stop_reading(&mut pool);
    assert_eq!(pool.held(), 0, "what was lent is given back");
}

#[derive(bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize, PartialEq, Debug)]
struct Sample {
    number: u64,
    small: u8,
    flag: bool,
    name: String,
    hash: [u8; 32],
    list: Vec<Vec<u8>>,
    kind: Kind,
    maybe: Option<i32>,
}

#[derive(bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize, PartialEq, Debug)]
enum Kind {
    Nothing,
    One(u16),
    Two { left: Box<u64>, right: String },
}

fn codec_of<C: Codec<Sample>>(data: &[u8]) {
    let Ok(value) = C::decode(data) else { return };
    let mut bytes = Vec::new();
    C::encode(&value, &mut bytes).expect("what was decoded can be encoded");
    assert_eq!(C::decode(&bytes).expect("and decoded again"), value);
}

/// No bytes panic or take more memory than the limit; what is decoded is encoded and decoded to the same.
pub fn codec(data: &[u8]) {
    codec_of::<Bincode>(data);
    codec_of::<BincodeSerde>(data);
}

/// What is fed with bytes.
pub type Target = fn(&[u8]);

/// Everything, by the name of its folder.
pub const TARGETS: [(&str, Target); 6] =
    [("decoder", decoder), ("payloads", payloads), ("handshake", handshake), ("records", records), ("shard", shard), ("codec", codec)];

const _: () = assert!(HEADER_LEN == 8);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// What the fuzzer has collected, and what was made by hand, is gone through again.
    #[test]
    fn the_corpora_are_replayed() {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools");
        if !tools.exists() {
            // A packaged crate has none.
            return;
        }
        for (name, target) in TARGETS {
            let folder = tools.join("fuzz/corpus").join(name);
            let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let mut count = 0;
            for file in files {
                target(&fs::read(file.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count >= 5, "{name} has {count} files");
        }
    }

    /// A few thousand inputs of each, from a seed: what a fuzzer would try in its first second.
    #[test]
    fn random_input_is_borne() {
        let mut rng = crate::rng::Rng::new(1);
        for (_, target) in TARGETS {
            for _ in 0..300 {
                let mut data = vec![0; rng.below(300) as usize];
                rng.fill(&mut data);
                target(&data);
            }
        }
    }
}

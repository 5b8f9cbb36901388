//! The encrypted handshake of `WIRE.md` 3.2 and the records of 5.7, for either side, with every liberty: keys that are points of small
//! order, prologues and secrets of another network, records sealed under any nonce and not sent.

use std::hash::{BuildHasher, Hasher, RandomState};

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState, StatelessTransportState};
use x25519_dalek::{PublicKey, StaticSecret, x25519};

use crate::wire::MAGIC_NOISE;

/// Bytes of message 1, without the preamble.
pub const MESSAGE_1: usize = 48;
/// Bytes of message 2, without the preamble.
pub const MESSAGE_2: usize = 72;
/// Bytes of message 3.
pub const MESSAGE_3: usize = 88;
/// Bytes that sealing adds.
pub const TAG: usize = 16;
/// Most plaintext of a record.
pub const MAX_RECORD: usize = 65_535 - TAG;
/// Records between two rekeys.
pub const REKEY_EVERY: u64 = 4096;

/// What seals the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Suite 1.
    AesGcm,
    /// Suite 2.
    ChaChaPoly,
}

impl Suite {
    /// Its byte in the preamble.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::AesGcm => 1,
            Self::ChaChaPoly => 2,
        }
    }

    /// The preamble of both directions.
    #[must_use]
    pub fn preamble(self) -> [u8; 8] {
        let [m0, m1, m2, m3] = MAGIC_NOISE;
        [m0, m1, m2, m3, 1, self.byte(), 0, 0]
    }

    fn name(self, secret: bool) -> &'static str {
        match (self, secret) {
            (Self::AesGcm, false) => "Noise_XK_25519_AESGCM_SHA256",
            (Self::AesGcm, true) => "Noise_XKpsk0_25519_AESGCM_SHA256",
            (Self::ChaChaPoly, false) => "Noise_XK_25519_ChaChaPoly_SHA256",
            (Self::ChaChaPoly, true) => "Noise_XKpsk0_25519_ChaChaPoly_SHA256",
        }
    }
}

/// A key pair; of an attacker, or for once an honest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// X25519 secret.
    pub secret: [u8; 32],
    /// Its public key, or a point that has no secret: see [`Keys::weak`].
    pub public: [u8; 32],
}

impl Keys {
    /// The pair with this secret.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self { secret, public: PublicKey::from(&StaticSecret::from(secret)).to_bytes() }
    }

    /// The pair of this number, always the same.
    #[must_use]
    pub fn numbered(number: u64) -> Self {
        let mut secret = [0x6B; 32];
        // Away from both ends, whose bits are set and cleared before use.
        secret[8..16].copy_from_slice(&number.to_le_bytes());
        Self::from_secret(secret)
    }

    /// "Keys" whose public half is this point. Whoever multiplies a point of small order gets zero, and so does this pair: it knows every
    /// shared secret without knowing any.
    #[must_use]
    pub fn weak(point: [u8; 32]) -> Self {
        Self { secret: WEAK, public: point }
    }
}

/// What stands for the secret of a point that has none.
const WEAK: [u8; 32] = [0; 32];

/// Every encoding of a point whose shared secrets are all zero: the five of order 1, 2, 4 and 8 and the twist's, reduced or not.
#[must_use]
pub fn low_order_points() -> Vec<[u8; 32]> {
    let order_8 = [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ];
    let hex = |text: &str| std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal"));
    let mut points: Vec<[u8; 32]> = order_8.map(hex).to_vec();
    // 0, 1, and around p = 2^255 - 19: -1, 0 and 1 again.
    let small = |low: u8| std::array::from_fn(|at| if at == 0 { low } else { 0 });
    let near_p = |low: u8| std::array::from_fn(|at| [low, 0xFF, 0x7F][usize::from(at > 0) + usize::from(at == 31)]);
    points.extend([small(0), small(1), near_p(0xEC), near_p(0xED), near_p(0xEE)]);
    // The highest bit is not looked at.
    let with_top: Vec<[u8; 32]> = points
        .iter()
        .map(|point| {
            let mut point = *point;
            point[31] |= 0x80;
            point
        })
        .collect();
    points.extend(with_top);
    points
}

/// A side's view of the handshake: what has to be the same on both.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What seals the records.
    pub suite: Suite,
    /// The network's id, for the prologue.
    pub network: [u8; 32],
    /// The network's secret, if it has one.
    pub secret: Option<[u8; 32]>,
    /// The preamble that goes into the prologue: of the dialler.
    pub preamble: [u8; 8],
    /// Our own.
    pub keys: Keys,
    /// The key of this handshake alone. Drawn, where it is `None`.
    pub ephemeral: Option<Keys>,
}

impl Setup {
    /// An honest one.
    #[must_use]
    pub fn new(suite: Suite, network: [u8; 32], secret: Option<[u8; 32]>, keys: Keys) -> Self {
        Self { suite, network, secret, preamble: suite.preamble(), keys, ephemeral: None }
    }

    fn build(&self, remote: Option<[u8; 32]>) -> Handshake {
        let drawn = Keys::from_secret(random());
        let ephemeral = self.ephemeral.unwrap_or(drawn);
        let resolver = Resolver { weak: [self.keys, ephemeral].into_iter().find(|keys| keys.secret == WEAK).map(|keys| keys.public) };
        let prologue = [&self.preamble[..], &self.network].concat();
        let params = self.suite.name(self.secret.is_some()).parse().expect("a name of the protocol");
        let begun = || -> Result<HandshakeState, Error> {
            let mut builder = Builder::with_resolver(params, Box::new(resolver))
                .prologue(&prologue)?
                .local_private_key(&self.keys.secret)?
                .fixed_ephemeral_key_for_testing_only(&ephemeral.secret);
            if let Some(secret) = &self.secret {
                builder = builder.psk(0, secret)?;
            }
            match &remote {
                Some(remote) => builder.remote_public_key(remote)?.build_initiator(),
                None => builder.build_responder(),
            }
        };
        Handshake { state: begun().expect("all that the pattern needs is there") }
    }

    /// The side that dials the node with this key.
    #[must_use]
    pub fn dial(&self, remote: [u8; 32]) -> Handshake {
        self.build(Some(remote))
    }

    /// The side that accepts.
    #[must_use]
    pub fn accept(&self) -> Handshake {
        self.build(None)
    }
}

/// A handshake under way.
pub struct Handshake {
    state: HandshakeState,
}

/// Something did not decrypt, or came out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAuthentic;

impl From<Error> for NotAuthentic {
    fn from(_: Error) -> Self {
        Self
    }
}

impl Handshake {
    /// The next message of ours.
    pub fn write(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 256];
        let len = self.state.write_message(payload, &mut out).expect("it is our turn, and there is room");
        out.truncate(len);
        out
    }

    /// The next message of theirs; what was in it.
    pub fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let mut out = vec![0; 256];
        let len = self.state.read_message(message, &mut out)?;
        out.truncate(len);
        Ok(out)
    }

    /// The other side's key, once it is known.
    #[must_use]
    pub fn remote(&self) -> Option<[u8; 32]> {
        self.state.get_remote_static().and_then(|key| key.try_into().ok())
    }

    /// The keys that the three messages have led to.
    pub fn finish(self) -> Result<Records, NotAuthentic> {
        Ok(Records { state: self.state.into_stateless_transport_mode()?, sent: 0, received: 0 })
    }
}

/// Both directions of an established session. A record that is sealed need not be sent, nor one that is sent be sealed in turn.
pub struct Records {
    state: StatelessTransportState,
    sent: u64,
    received: u64,
}

impl Records {
    /// The next record of ours, with its length.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let record = self.seal_at(self.sent, plain);
        self.skip();
        record
    }

    /// A record under this nonce and the key of now; nothing goes on by it.
    #[must_use]
    pub fn seal_at(&self, nonce: u64, plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 2 + plain.len() + TAG];
        let len = self.state.write_message(nonce, plain, &mut out[2..]).expect("no longer than a record");
        out[..2].copy_from_slice(&(len as u16).to_le_bytes());
        out
    }

    /// Goes on as if a record had been sealed.
    pub fn skip(&mut self) {
        self.sent += 1;
        if self.sent.is_multiple_of(REKEY_EVERY) {
            self.state.rekey_outgoing();
        }
    }

    /// Changes the key for what we send, whether it is time or not.
    pub fn rekey_too_early(&mut self) {
        self.state.rekey_outgoing();
    }

    /// Opens the next record of theirs: what comes after its length.
    pub fn open(&mut self, ciphertext: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let mut out = vec![0; ciphertext.len()];
        let len = self.state.read_message(self.received, ciphertext, &mut out)?;
        out.truncate(len);
        self.received += 1;
        if self.received.is_multiple_of(REKEY_EVERY) {
            self.state.rekey_incoming();
        }
        Ok(out)
    }

    /// Records sealed so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Records opened so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }
}

/// Good enough for keys that protect nothing: different each time.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let state = RandomState::new();
    let mut out = [0; N];
    for (at, chunk) in out.chunks_mut(8).enumerate() {
        let mut hasher = state.build_hasher();
        hasher.write_usize(at);
        chunk.copy_from_slice(&hasher.finish().to_le_bytes()[..chunk.len()]);
    }
    out
}

/// RustCrypto's ciphers and hash, and a Diffie-Hellman that knows what comes of a weak point.
struct Resolver {
    weak: Option<[u8; 32]>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn))
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(Curve { keys: Keys { secret: WEAK, public: [0; 32] }, weak: self.weak }))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Drawn;

impl Random for Drawn {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        dest.chunks_mut(32).for_each(|chunk| chunk.copy_from_slice(&random::<32>()[..chunk.len()]));
        Ok(())
    }
}

struct Curve {
    keys: Keys,
    weak: Option<[u8; 32]>,
}

impl Dh for Curve {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        let secret: [u8; 32] = secret.try_into().expect("32 bytes");
        self.keys = match self.weak {
            Some(point) if secret == WEAK => Keys::weak(point),
            _ => Keys::from_secret(secret),
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = [0; 32];
        rng.try_fill_bytes(&mut secret)?;
        self.keys = Keys::from_secret(secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.keys.public
    }

    fn privkey(&self) -> &[u8] {
        &self.keys.secret
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public: [u8; 32] = public[..32].try_into().expect("32 bytes");
        let shared = if self.keys.secret == WEAK { [0; 32] } else { x25519(self.keys.secret, public) };
        out[..32].copy_from_slice(&shared);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Hello;

    fn pair(suite: Suite, secret: Option<[u8; 32]>) -> (Records, Records) {
        let (dialler, acceptor) = (Keys::numbered(1), Keys::numbered(2));
        let mut ours = Setup::new(suite, [9; 32], secret, dialler).dial(acceptor.public);
        let mut theirs = Setup::new(suite, [9; 32], secret, acceptor).accept();
        let hello = Hello::node(1).encode_sealed();
        let one = ours.write(&[]);
        assert_eq!((one.len(), theirs.read(&one).unwrap()), (MESSAGE_1, Vec::new()));
        let two = theirs.write(&hello);
        assert_eq!((two.len(), ours.read(&two).unwrap()), (MESSAGE_2, hello.to_vec()));
        let three = ours.write(&hello);
        assert_eq!((three.len(), theirs.read(&three).unwrap()), (MESSAGE_3, hello.to_vec()));
        assert_eq!(theirs.remote(), Some(dialler.public));
        (ours.finish().unwrap(), theirs.finish().unwrap())
    }

    #[test]
    fn both_sides_agree_in_every_suite_and_past_a_rekey() {
        for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
            for secret in [None, Some([5; 32])] {
                let (mut ours, mut theirs) = pair(suite, secret);
                for number in 0..2 * REKEY_EVERY + 2 {
                    let record = ours.seal(&number.to_le_bytes());
                    assert_eq!(u16::from_le_bytes([record[0], record[1]]) as usize, record.len() - 2);
                    assert_eq!(theirs.open(&record[2..]).unwrap(), number.to_le_bytes());
                }
                let record = theirs.seal(b"back");
                assert_eq!(ours.open(&record[2..]).unwrap(), b"back");
            }
        }
    }

    #[test]
    fn a_record_opens_once_and_in_its_turn() {
        let (mut ours, mut theirs) = pair(Suite::AesGcm, None);
        let (first, second) = (ours.seal(b"first"), ours.seal(b"second"));
        assert_eq!(theirs.open(&second[2..]), Err(NotAuthentic));
        assert_eq!(theirs.open(&first[2..]).unwrap(), b"first");
        assert_eq!(theirs.open(&first[2..]), Err(NotAuthentic));
        assert_eq!(theirs.open(&second[2..]).unwrap(), b"second");
    }

    #[test]
    fn weak_points_make_every_secret_zero() {
        for point in low_order_points() {
            let secret = Keys::numbered(7).secret;
            assert_eq!(x25519(secret, point), [0; 32], "{point:02x?}");
        }
    }

    #[test]
    fn whoever_does_not_check_shares_secrets_with_a_weak_point() {
        let point = low_order_points()[0];
        let acceptor = Keys::numbered(2);
        let mut setup = Setup::new(Suite::AesGcm, [0; 32], None, Keys::numbered(1));
        setup.ephemeral = Some(Keys::weak(point));
        let one = setup.dial(acceptor.public).write(&[]);
        assert_eq!(one[..32], point);
        // This acceptor does not look: the tag that needs no secret is right.
        let mut theirs = Setup::new(Suite::AesGcm, [0; 32], None, acceptor).accept();
        assert_eq!(theirs.read(&one), Ok(Vec::new()));
    }
}

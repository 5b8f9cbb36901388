//! Both kinds of handshake, each side against the other.

use super::*;
use crate::config::{Cipher, Noise as NoiseConfig};
use crate::error::Violation;
use crate::id::NetworkId;
use crate::identity::{Identity, NetworkSecret};
use crate::proto::noise::{MESSAGE_1, MESSAGE_2, MESSAGE_3, Opened, Prologue, Xk, forged_static};
use crate::wire::{Goodbye, HEADER_LEN, Header, Kind, PROVED_HELLO_LEN, Preamble, Refusal};

fn dialled(hello: Hello, expected: Option<NodeId>) -> Handshake {
    let mut handshake = Handshake::dialled(None, hello, expected);
    handshake.begin().unwrap();
    handshake
}

fn accepted(hello: Hello) -> Handshake {
    Handshake::accepted(None, hello)
}

fn hello(node: u8) -> Hello {
    Hello { network: NetworkId([9; 32]), node: NodeId([node; 32]), instance: node as u64, features: 0, max_message: 100, channel: 7 }
}

/// Moves bytes from one side to the other in steps of `step` until nothing moves; grants every question.
fn run(dialler: &mut Handshake, acceptor: &mut Handshake, step: usize) -> [Result<Progress, HandshakeError>; 2] {
    let mut last = [Ok(Progress::Pending), Ok(Progress::Pending)];
    loop {
        let mut moved = false;
        for side in 0..2 {
            let (from, to) = if side == 0 { (&mut *dialler, &mut *acceptor) } else { (&mut *acceptor, &mut *dialler) };
            let len = from.output().len().min(to.wanted()).min(step);
            if len == 0 || last[1 - side].is_err() {
                continue;
            }
            moved = true;
            let bytes = from.output()[..len].to_vec();
            from.advance(len);
            last[1 - side] = match to.handle_bytes(&bytes) {
                Ok(Progress::Ask(theirs)) => Ok(to.grant(theirs.channel)),
                Ok(Progress::Pending) => last[1 - side],
                other => other,
            };
        }
        if !moved {
            return last;
        }
    }
}

#[test]
fn both_sides_agree_however_the_bytes_are_cut() {
    for step in [1, 3, 8, 95, 96, 1000] {
        let mut dialler = dialled(hello(1), Some(NodeId([2; 32])));
        let mut acceptor = accepted(Hello { channel: 0, ..hello(2) });
        assert_eq!(run(&mut dialler, &mut acceptor, step), [Ok(Progress::Established); 2], "in steps of {step}");
        assert_eq!((dialler.wanted(), acceptor.wanted()), (0, 0));
    }
}

#[test]
fn another_network_is_refused_by_name_on_both_sides() {
    let mut dialler = dialled(Hello { network: NetworkId([8; 32]), ..hello(1) }, None);
    let mut acceptor = accepted(hello(2));
    let ends = run(&mut dialler, &mut acceptor, 1000);
    assert_eq!(
        ends,
        [Err(HandshakeError::RefusedByPeer(RefusalCode::WrongNetwork)), Err(HandshakeError::Refused(RefusalCode::WrongNetwork))]
    );
}

#[test]
fn oneself_and_another_node_than_dialled_are_refused() {
    let ends = run(&mut dialled(hello(1), None), &mut accepted(hello(1)), 1000);
    assert_eq!(ends[1], Err(HandshakeError::Refused(RefusalCode::SelfConnection)));
    let ends = run(&mut dialled(hello(1), Some(NodeId([3; 32]))), &mut accepted(hello(2)), 1000);
    assert_eq!(ends[0], Err(HandshakeError::WrongNode));
}

#[test]
fn wrong_magic_is_answered_with_silence_and_wrong_version_with_a_refusal() {
    let mut acceptor = accepted(hello(2));
    assert_eq!(acceptor.handle_bytes(b"GET / HT"), Err(HandshakeError::WrongMagic));
    assert!(acceptor.output().is_empty());
    let mut acceptor = accepted(hello(2));
    let mut preamble = Preamble::PLAINTEXT.encode();
    preamble[4] = 2;
    assert_eq!(acceptor.handle_bytes(&preamble), Err(HandshakeError::Refused(RefusalCode::Version)));
    assert_eq!(acceptor.output(), Refusal { code: RefusalCode::Version, delay_ms: 0 }.answer(Preamble::PLAINTEXT, &preamble));
}

#[test]
fn a_denied_dialler_withdraws_and_the_acceptor_hears_why() {
    let mut dialler = dialled(hello(1), None);
    let mut acceptor = accepted(hello(2));
    let greeting = dialler.output().to_vec();
    dialler.advance(greeting.len());
    assert_eq!(acceptor.handle_bytes(&greeting[..8]), Ok(Progress::Pending));
    assert!(matches!(acceptor.handle_bytes(&greeting[8..]), Ok(Progress::Ask(_))));
    acceptor.grant(7);
    let answer = acceptor.output().to_vec();
    acceptor.advance(answer.len());
    dialler.handle_bytes(&answer[..8]).unwrap();
    assert!(matches!(dialler.handle_bytes(&answer[8..]), Ok(Progress::Ask(_))));
    assert_eq!(dialler.deny(RefusalCode::Duplicate), HandshakeError::Refused(RefusalCode::Duplicate));
    let goodbye = dialler.output().to_vec();
    assert_eq!(acceptor.handle_bytes(&goodbye[..8]), Ok(Progress::Pending));
    assert_eq!(acceptor.handle_bytes(&goodbye[8..]), Err(HandshakeError::Goodbye(GoodbyeCode::Duplicate)));
}

#[test]
fn a_message_instead_of_ready_is_a_violation() {
    let mut acceptor = accepted(hello(2));
    let greeting = dialled(hello(1), None).output().to_vec();
    acceptor.handle_bytes(&greeting[..8]).unwrap();
    acceptor.handle_bytes(&greeting[8..]).unwrap();
    acceptor.grant(7);
    let ping = Header::control(Kind::Ping).encode();
    assert_eq!(acceptor.handle_bytes(&ping), Err(HandshakeError::Violation(Violation::ExpectedReady)));
}

const NETWORK: NetworkId = NetworkId([9; 32]);

fn identity(node: u8) -> Identity {
    Identity::from_secret([node; 32])
}

/// The keys of a node, as a change to the configuration leaves them.
fn keys(node: u8, change: impl FnOnce(&mut NoiseConfig)) -> Arc<Keys> {
    let mut config = NoiseConfig::new(identity(node));
    change(&mut config);
    Arc::new(Keys::new(&config).unwrap())
}

fn sealed_hello(node: u8) -> Hello {
    Hello { node: identity(node).node_id(), network: NETWORK, ..hello(node) }
}

fn noise_dialled(keys: &Arc<Keys>, expected: u8) -> Handshake {
    let mut handshake = Handshake::dialled(Some(keys), sealed_hello(1), Some(identity(expected).node_id()));
    begin(&mut handshake, 0xD1).unwrap();
    handshake
}

fn begin(handshake: &mut Handshake, entropy: u8) -> Result<(), HandshakeError> {
    handshake.connected(&[entropy; 32]);
    assert_eq!(handshake.wanted(), 0, "nothing is read before the first word is said");
    handshake.begin()
}

fn noise_accepted(keys: &Arc<Keys>) -> Handshake {
    let mut handshake = Handshake::accepted(Some(keys), sealed_hello(2));
    handshake.connected(&[0xAC; 32]);
    handshake
}

/// Two that fit together.
fn pair() -> (Handshake, Handshake) {
    (noise_dialled(&keys(1, |_| {}), 2), noise_accepted(&keys(2, |_| {})))
}

/// Hands everything that `from` has to say to `to`, in what it wants at a time. Returns the last word.
fn give(from: &mut Handshake, to: &mut Handshake) -> Result<Progress, HandshakeError> {
    let mut last = Ok(Progress::Pending);
    while last == Ok(Progress::Pending) && !from.output().is_empty() && to.wanted() > 0 {
        let len = from.output().len().min(to.wanted());
        let bytes = from.output()[..len].to_vec();
        from.advance(len);
        last = to.handle_bytes(&bytes);
    }
    last
}

#[test]
fn both_sides_agree_in_private_however_the_bytes_are_cut() {
    for cipher in [Cipher::AesGcm, Cipher::ChaChaPoly] {
        for secret in [None, Some(NetworkSecret::new([7; 32]))] {
            for step in [1, 3, 8, 47, 80, 1000] {
                let with = |config: &mut NoiseConfig| {
                    config.cipher = cipher;
                    config.secret = secret.clone();
                };
                let mut dialler = noise_dialled(&keys(1, with), 2);
                let mut acceptor = noise_accepted(&keys(2, with));
                let ends = run(&mut dialler, &mut acceptor, step);
                assert_eq!(ends, [Ok(Progress::Established); 2], "{cipher:?} in steps of {step}");
                assert_eq!((dialler.wanted(), acceptor.wanted()), (0, 0));
            }
        }
    }
}

#[test]
fn the_acceptor_is_asked_first_and_each_learns_who_the_other_is() {
    let (mut dialler, mut acceptor) = pair();
    assert_eq!(dialler.output().len(), PREAMBLE_LEN + MESSAGE_1);
    assert_eq!(give(&mut dialler, &mut acceptor), Ok(Progress::Pending));
    assert_eq!(acceptor.output().len(), PREAMBLE_LEN + MESSAGE_2);
    assert_eq!(give(&mut acceptor, &mut dialler), Ok(Progress::Pending));
    assert_eq!(dialler.output().len(), MESSAGE_3);
    let asked = give(&mut dialler, &mut acceptor);
    assert_eq!(asked, Ok(Progress::Ask(sealed_hello(1))));
    assert_eq!((acceptor.wanted(), acceptor.output().len()), (0, 0), "nothing before the directory's word");
    assert_eq!(acceptor.grant(7), Progress::Pending);
    assert_eq!(acceptor.output().len(), 26);
    assert_eq!(give(&mut acceptor, &mut dialler), Ok(Progress::Ask(sealed_hello(2))));
    assert_eq!(dialler.grant(7), Progress::Established);
    assert_eq!(give(&mut dialler, &mut acceptor), Ok(Progress::Established));
}

#[test]
fn a_session_goes_on_where_the_handshake_ended() {
    let (mut dialler, mut acceptor) = pair();
    assert_eq!(run(&mut dialler, &mut acceptor, 1000), [Ok(Progress::Established); 2]);
    let (mut pool, mut opened) = (BufferPool::new(0), Opened::default());
    let (Session::Noise(mut ours), Session::Noise(mut theirs)) = (dialler.take_session(&mut pool), acceptor.take_session(&mut pool)) else {
        panic!("not encrypted")
    };
    let mut record = vec![0; 100];
    for round in 0..3 {
        let len = ours.seal(&[round; 5], &mut record);
        opened.clear();
        theirs.open(&mut pool, &record[..len], &mut opened).unwrap();
        assert_eq!(opened.as_slice(), [round; 5]);
        let len = theirs.seal(&[round; 9], &mut record);
        opened.clear();
        ours.open(&mut pool, &record[..len], &mut opened).unwrap();
        assert_eq!(opened.as_slice(), [round; 9]);
    }
}

#[test]
fn another_network_secret_cipher_or_key_gets_no_further_than_message_1() {
    let refused = |mut dialler: Handshake, mut acceptor: Handshake| {
        let ends = run(&mut dialler, &mut acceptor, 1000);
        (ends[1], ends[0])
    };
    let auth = (Err(HandshakeError::AuthFailed), Err(HandshakeError::RefusedByPeer(RefusalCode::AuthFailed)));
    let secret = |config: &mut NoiseConfig| config.secret = Some(NetworkSecret::new([7; 32]));
    let other = |config: &mut NoiseConfig| config.secret = Some(NetworkSecret::new([8; 32]));
    let plain = |_: &mut NoiseConfig| {};
    assert_eq!(refused(noise_dialled(&keys(1, plain), 3), noise_accepted(&keys(2, plain))), auth, "another node was meant");
    assert_eq!(refused(noise_dialled(&keys(1, secret), 2), noise_accepted(&keys(2, other))), auth, "another secret");
    assert_eq!(refused(noise_dialled(&keys(1, secret), 2), noise_accepted(&keys(2, plain))), auth, "a secret, and none");
    assert_eq!(refused(noise_dialled(&keys(1, plain), 2), noise_accepted(&keys(2, secret))), auth, "none, and a secret");
    let mut foreign = Handshake::accepted(Some(&keys(2, plain)), Hello { network: NetworkId([8; 32]), ..sealed_hello(2) });
    foreign.connected(&[1; 32]);
    assert_eq!(refused(noise_dialled(&keys(1, plain), 2), foreign), auth, "another network");
    let suite = (Err(HandshakeError::Refused(RefusalCode::Suite)), Err(HandshakeError::RefusedByPeer(RefusalCode::Suite)));
    let chacha = |config: &mut NoiseConfig| config.cipher = Cipher::ChaChaPoly;
    assert_eq!(refused(noise_dialled(&keys(1, plain), 2), noise_accepted(&keys(2, chacha))), suite);
    assert_eq!(refused(noise_dialled(&keys(1, plain), 2), accepted(sealed_hello(2))), suite);
    assert_eq!(refused(dialled(sealed_hello(1), None), noise_accepted(&keys(2, plain))), suite);
}

/// Every bit of everything that is said, flipped: nobody ever agrees, nobody panics.
#[test]
fn no_bit_can_be_changed() {
    let steps = [(0, PREAMBLE_LEN + MESSAGE_1), (1, PREAMBLE_LEN + MESSAGE_2), (0, MESSAGE_3), (1, 26), (0, 26)];
    let (dialler_keys, acceptor_keys) = (keys(1, |_| {}), keys(2, |_| {}));
    for (step, (side, len)) in steps.into_iter().enumerate() {
        // Each byte, and in each another bit: every bit takes half a minute.
        for bit in (0..len).map(|byte| 8 * byte + byte % 8) {
            let (mut dialler, mut acceptor) = (noise_dialled(&dialler_keys, 2), noise_accepted(&acceptor_keys));
            for (at, (from_side, _)) in steps.into_iter().enumerate() {
                let (from, to) = if from_side == 0 { (&mut dialler, &mut acceptor) } else { (&mut acceptor, &mut dialler) };
                let mut bytes = from.output().to_vec();
                from.advance(bytes.len());
                if at == step {
                    assert_eq!((from_side, bytes.len()), (side, len));
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                let mut last = Ok(Progress::Pending);
                let mut rest = &bytes[..];
                while !rest.is_empty() && to.wanted() > 0 && last == Ok(Progress::Pending) {
                    let (now, later) = rest.split_at(to.wanted().min(rest.len()));
                    last = to.handle_bytes(now);
                    rest = later;
                }
                let agreed = matches!(last, Ok(Progress::Ask(_) | Progress::Established));
                assert!(at < step || !agreed, "step {step}, bit {bit}: taken for good");
                if agreed && to.wanted() == 0 && at < steps.len() - 1 {
                    to.grant(7);
                }
                if last.is_err() {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_granted_is_said_in_private() {
    let codes =
        [RefusalCode::Duplicate, RefusalCode::Full, RefusalCode::ShuttingDown, RefusalCode::NotAllowed, RefusalCode::SelfConnection];
    for code in codes {
        // The acceptor does not want it.
        let (mut dialler, mut acceptor) = pair();
        give(&mut dialler, &mut acceptor).unwrap();
        give(&mut acceptor, &mut dialler).unwrap();
        give(&mut dialler, &mut acceptor).unwrap();
        assert_eq!(acceptor.deny(code), HandshakeError::Refused(code));
        assert_eq!(acceptor.output().len(), 34);
        assert_eq!(give(&mut acceptor, &mut dialler), Err(HandshakeError::RefusedByPeer(code)));
        // The dialler does not want it after all.
        let (mut dialler, mut acceptor) = pair();
        give(&mut dialler, &mut acceptor).unwrap();
        give(&mut acceptor, &mut dialler).unwrap();
        give(&mut dialler, &mut acceptor).unwrap();
        acceptor.grant(7);
        give(&mut acceptor, &mut dialler).unwrap();
        assert_eq!(dialler.deny(code), HandshakeError::Refused(code));
        assert!(matches!(give(&mut dialler, &mut acceptor), Err(HandshakeError::Goodbye(_))));
    }
}

#[test]
fn the_same_identity_on_the_other_side_is_oneself() {
    let mut dialler = Handshake::dialled(Some(&keys(2, |_| {})), sealed_hello(2), Some(identity(2).node_id()));
    begin(&mut dialler, 1).unwrap();
    let mut acceptor = noise_accepted(&keys(2, |_| {}));
    let ends = run(&mut dialler, &mut acceptor, 1000);
    assert_eq!(ends[1], Err(HandshakeError::Refused(RefusalCode::SelfConnection)));
    assert_eq!(ends[0], Err(HandshakeError::RefusedByPeer(RefusalCode::SelfConnection)));
}

#[test]
fn another_frame_than_ready_is_a_violation_and_said_so() {
    let (mut dialler, mut acceptor) = pair();
    give(&mut dialler, &mut acceptor).unwrap();
    give(&mut acceptor, &mut dialler).unwrap();
    give(&mut dialler, &mut acceptor).unwrap();
    acceptor.grant(7);
    give(&mut acceptor, &mut dialler).unwrap();
    // A dialler that goes on without Ready.
    dialler.grant(7);
    dialler.advance(26);
    let Session::Noise(mut session) = dialler.take_session(&mut BufferPool::new(0)) else { panic!("not encrypted") };
    let mut record = [0; 100];
    let len = session.seal(&[0; 100 - 18 - HEADER_LEN], &mut record);
    assert_eq!(acceptor.handle_bytes(&record[..2]), Err(HandshakeError::Violation(Violation::ExpectedReady)));
    assert_eq!(acceptor.output().len(), 34, "a goodbye in a record");
    assert!(len > 2);
}

/// The points of small order, as RFC 7748 and the curve's literature list them, with the encodings that are not reduced.
const WEAK: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

#[test]
fn a_key_of_small_order_is_refused_by_both_sides() {
    for weak in WEAK {
        let point: NodeId = weak.parse().unwrap();
        for high_bit in [0, 0x80] {
            let mut bytes = *point.as_bytes();
            bytes[31] |= high_bit;
            // As the dialler's ephemeral key. The acceptor does not get as far as the tag.
            let mut acceptor = noise_accepted(&keys(2, |_| {}));
            let mut opening = Preamble::encrypted(1).encode().to_vec();
            opening.extend_from_slice(&bytes);
            opening.extend_from_slice(&[0; 16]);
            assert_eq!(acceptor.handle_bytes(&opening), Err(HandshakeError::WeakKey), "{weak}");
            // As the acceptor's.
            let (mut dialler, _) = pair();
            let len = dialler.output().len();
            dialler.advance(len);
            dialler.handle_bytes(&Preamble::encrypted(1).encode()).unwrap();
            let mut answer = bytes.to_vec();
            answer.extend_from_slice(&[0; MESSAGE_2 - 32]);
            assert_eq!(dialler.handle_bytes(&answer), Err(HandshakeError::WeakKey), "{weak}");
            // As the node that is dialled: nothing is said to it.
            let mut dialler = Handshake::dialled(Some(&keys(1, |_| {})), sealed_hello(1), Some(NodeId(bytes)));
            assert_eq!(begin(&mut dialler, 1), Err(HandshakeError::WeakKey), "{weak}");
            assert!(dialler.output().is_empty());
        }
    }
}

#[test]
fn without_the_node_that_is_meant_nothing_is_said() {
    let mut dialler = Handshake::dialled(Some(&keys(1, |_| {})), sealed_hello(1), None);
    begin(&mut dialler, 1).unwrap();
    assert!(dialler.output().is_empty(), "and least of all in plaintext");
}

#[test]
fn an_acceptor_that_has_agreed_may_take_it_back() {
    for (code, told) in [
        (GoodbyeCode::ShuttingDown, RefusalCode::ShuttingDown),
        (GoodbyeCode::Duplicate, RefusalCode::Duplicate),
        (GoodbyeCode::NotAllowed, RefusalCode::NotAllowed),
    ] {
        // Its Ready has not left yet, and the goodbye follows it.
        let (mut dialler, mut acceptor) = pair();
        give(&mut dialler, &mut acceptor).unwrap();
        give(&mut acceptor, &mut dialler).unwrap();
        give(&mut dialler, &mut acceptor).unwrap();
        acceptor.grant(7);
        acceptor.withdraw(code);
        assert_eq!((acceptor.output().len(), acceptor.wanted()), (26 + 34, 0));
        let last = acceptor.output()[26..].to_vec();
        assert!(matches!(give(&mut acceptor, &mut dialler), Ok(Progress::Ask(_))));
        dialler.grant(7);
        let Session::Noise(mut session) = dialler.take_session(&mut BufferPool::new(0)) else { panic!("not encrypted") };
        let mut opened = Opened::default();
        session.open(&mut BufferPool::new(0), &last, &mut opened).unwrap();
        assert_eq!(opened.as_slice(), Goodbye::new(code, 0).encode());
        // Instead of its Ready, cut anywhere.
        for step in [1, 2, 3, 33, 34] {
            let (mut dialler, mut acceptor) = pair();
            give(&mut dialler, &mut acceptor).unwrap();
            give(&mut acceptor, &mut dialler).unwrap();
            give(&mut dialler, &mut acceptor).unwrap();
            acceptor.withdraw(code);
            let mut rest = &acceptor.output().to_vec()[..];
            let mut last = Ok(Progress::Pending);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(dialler.wanted().min(step).min(rest.len()));
                assert_eq!(last, Ok(Progress::Pending));
                last = dialler.handle_bytes(now);
                rest = later;
            }
            assert_eq!(last, Err(HandshakeError::RefusedByPeer(told)), "in steps of {step}");
        }
    }
}

/// A dialler that does everything right but has a weak static key, which is no one's: its proof would be a shared secret of zero.
#[test]
fn a_static_key_of_small_order_proves_nothing() {
    for weak in WEAK {
        let point: NodeId = weak.parse().unwrap();
        for high_bit in [0, 0x80] {
            let mut bytes = *point.as_bytes();
            bytes[31] |= high_bit;
            let keys = keys(2, |_| {});
            let mut acceptor = noise_accepted(&keys);
            let prologue = Prologue::new(Preamble::encrypted(1).encode(), NETWORK);
            let mut forger = forged_static(&prologue, identity(2).node_id(), bytes);
            let mut first = [0; MESSAGE_1];
            forger.write_message(&[], &mut first).unwrap();
            assert_eq!(acceptor.handle_bytes(&[&Preamble::encrypted(1).encode()[..], &first].concat()), Ok(Progress::Pending));
            let answer = acceptor.output().to_vec();
            acceptor.advance(answer.len());
            let mut hello = [0; 100];
            forger.read_message(&answer[PREAMBLE_LEN..], &mut hello).unwrap();
            let mut third = [0; MESSAGE_3];
            forger.write_message(&sealed_hello(1).encode_proved(), &mut third).unwrap();
            assert_eq!(acceptor.handle_bytes(&third), Err(HandshakeError::WeakKey), "{weak}");
            assert!(acceptor.output().is_empty(), "and nothing is said");
        }
    }
}

#[test]
fn no_handshake_prints_what_its_keys_are_made_from() {
    // 0xAC, as the acceptor's entropy is in these tests.
    let acceptor = noise_accepted(&keys(2, |_| {}));
    assert_eq!(format!("{acceptor:?}"), "Noise(Noise { state: Opening, dialled: false, .. })");
}

/// As much as is wanted at a time. What the last of them led to.
fn give_bytes(handshake: &mut Handshake, bytes: &[u8]) -> Result<Progress, HandshakeError> {
    let (mut last, mut rest) = (Ok(Progress::Pending), bytes);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(handshake.wanted().min(rest.len()));
        (last, rest) = (handshake.handle_bytes(now), later);
    }
    last
}

/// An acceptor that proves who it is and then says a hello that is none.
#[test]
fn the_dialler_says_which_rule_a_hello_broke_after_all_that_it_had_to_say() {
    let mut dialler = noise_dialled(&keys(1, |_| {}), 2);
    let first = dialler.output().to_vec();
    dialler.advance(first.len());
    let mut xk = Xk::acceptor(&keys(2, |_| {}), &Prologue::new(Preamble::encrypted(1).encode(), NETWORK), &[2; 32]);
    xk.read(&first[PREAMBLE_LEN..], &mut []).unwrap();
    let (mut malformed, mut message) = (sealed_hello(2).encode_proved(), [0; MESSAGE_2]);
    // `max_message` of zero.
    malformed[16..20].fill(0);
    xk.write(&malformed, &mut message).unwrap();
    let answer = [&Preamble::encrypted(1).encode()[..], &message].concat();
    assert_eq!(give_bytes(&mut dialler, &answer), Err(HandshakeError::Violation(Violation::MalformedHello)));
    let said = dialler.output().to_vec();
    assert_eq!(said.len(), MESSAGE_3 + 34, "message 3, which is part of the keys, and the goodbye");
    let mut hello = [0; PROVED_HELLO_LEN];
    xk.read(&said[..MESSAGE_3], &mut hello).unwrap();
    let mut goodbye = [0; 32];
    xk.finish().open_whole(&said[MESSAGE_3 + 2..], &mut goodbye).unwrap();
    assert_eq!(goodbye[..16], Goodbye::new(GoodbyeCode::Violation, Violation::MalformedHello.code()).encode());
}

/// Whoever stands on the way can write a refusal in the clear. It ends the dial, and says nothing of what the node thinks.
#[test]
fn nobody_else_can_say_that_the_node_does_not_want_us() {
    for (code, believed) in [
        (RefusalCode::NotAllowed, RefusalCode::Unknown),
        (RefusalCode::Duplicate, RefusalCode::Unknown),
        (RefusalCode::Full, RefusalCode::Unknown),
        (RefusalCode::SelfConnection, RefusalCode::Unknown),
        (RefusalCode::ShuttingDown, RefusalCode::ShuttingDown),
        (RefusalCode::AuthFailed, RefusalCode::AuthFailed),
    ] {
        let mut dialler = noise_dialled(&keys(1, |_| {}), 2);
        let refusal = Refusal { code, delay_ms: 0 }.answer(Preamble::encrypted(1), &[]);
        assert_eq!(give_bytes(&mut dialler, &refusal), Err(HandshakeError::RefusedByPeer(believed)), "{code:?}");
    }
}

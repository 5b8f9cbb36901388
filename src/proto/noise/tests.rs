//! Records, between two that have agreed.

use snow::params::CipherChoice;
use snow::resolvers::{CryptoResolver, RingResolver};

use super::records::{MAX_PLAINTEXT, MAX_RECORD, Opened, Records};
use super::{Keys, MESSAGE_1, MESSAGE_2, MESSAGE_3, Prologue, Xk};
use crate::buffers::BufferPool;
use crate::config::{Cipher, Noise};
use crate::error::Violation;
use crate::id::NetworkId;
use crate::identity::Identity;
use crate::proto::session::{SESSION, Sealed};
use crate::rng::Rng;
use crate::tests::nonces;
use crate::wire::{PROVED_HELLO_LEN, Preamble};

/// The dialler's and the acceptor's side of one session.
fn session(cipher: Cipher) -> (Records, Records) {
    let keys = |secret| {
        let mut config = Noise::new(Identity::from_secret([secret; 32]));
        config.cipher = cipher;
        Keys::new(&config).unwrap()
    };
    let (ours, theirs) = (keys(1), keys(2));
    let prologue = Prologue::new(Preamble::encrypted(ours.suite()).encode(), NetworkId([9; 32]));
    let mut dialler = Xk::dialler(&ours, theirs.identity.node_id(), &prologue, &[3; 32]);
    let mut acceptor = Xk::acceptor(&theirs, &prologue, &[4; 32]);
    let (mut first, mut second, mut third) = ([0; MESSAGE_1], [0; MESSAGE_2], [0; MESSAGE_3]);
    let mut hello = [0; PROVED_HELLO_LEN];
    dialler.write(&[], &mut first).unwrap();
    acceptor.read(&first, &mut []).unwrap();
    acceptor.write(&[5; PROVED_HELLO_LEN], &mut second).unwrap();
    dialler.read(&second, &mut hello).unwrap();
    dialler.write(&[6; PROVED_HELLO_LEN], &mut third).unwrap();
    acceptor.read(&third, &mut hello).unwrap();
    assert_eq!(acceptor.remote(), Some(ours.identity.node_id()));
    (dialler.finish(), acceptor.finish())
}

fn seal(records: &mut Records, plaintext: &[u8]) -> Vec<u8> {
    let mut record = vec![0; MAX_RECORD];
    let len = records.seal(plaintext, &mut record);
    record.truncate(len);
    record
}

/// Opens one read. What was opened, and how it ended.
fn open(records: &mut Records, pool: &mut BufferPool, input: &[u8]) -> (Vec<u8>, Result<(), Violation>) {
    let mut opened = Opened::default();
    let result = records.open(pool, input, &mut opened);
    (opened.as_slice().to_vec(), result)
}

#[test]
fn what_was_sealed_is_opened_however_the_bytes_are_cut() {
    let lens = [1, 8, 136, 5000, MAX_PLAINTEXT, 1];
    let whole: Vec<u8> = lens.iter().enumerate().flat_map(|(index, &len)| vec![index as u8; len]).collect();
    for cipher in [Cipher::AesGcm, Cipher::ChaChaPoly] {
        for cut in [1, 2, 3, 17, 1000, 65_537, 1 << 20] {
            let (mut ours, mut theirs) = session(cipher);
            let mut pool = BufferPool::new(0);
            let wire: Vec<u8> = lens.iter().enumerate().flat_map(|(index, &len)| seal(&mut ours, &vec![index as u8; len])).collect();
            let mut opened = Vec::new();
            for piece in wire.chunks(cut) {
                let (bytes, result) = open(&mut theirs, &mut pool, piece);
                assert_eq!(result, Ok(()));
                opened.extend(bytes);
            }
            assert!(opened == whole, "cut at {cut}");
            assert!(!theirs.is_partial());
            assert_eq!(pool.lent(), 0);
        }
    }
}

#[test]
fn both_directions_change_keys_after_4096_records_and_nonces_go_on() {
    let (mut ours, mut theirs) = session(Cipher::AesGcm);
    let mut pool = BufferPool::new(0);
    for index in 0..9000_u32 {
        let record = seal(&mut ours, &index.to_le_bytes());
        assert_eq!(open(&mut theirs, &mut pool, &record), (index.to_le_bytes().to_vec(), Ok(())), "record {index}");
        if index < 10 {
            let answer = seal(&mut theirs, b"back");
            assert_eq!(open(&mut ours, &mut pool, &answer), (b"back".to_vec(), Ok(())));
        }
    }
}

/// Records up to number 4,095 have the first key, and the one after it has the second: in each direction, by its own count.
#[test]
fn a_side_that_does_not_change_its_key_is_not_understood_after_4096_records() {
    for keeper in ["sender", "receiver", "both", "neither"] {
        for cipher in [Cipher::AesGcm, Cipher::ChaChaPoly] {
            let (mut dialler, mut acceptor) = session(cipher);
            for from_dialler in [true, false] {
                let (ours, theirs) = if from_dialler { (&mut dialler, &mut acceptor) } else { (&mut acceptor, &mut dialler) };
                ours.keeps_keys = matches!(keeper, "sender" | "both");
                theirs.keeps_keys = matches!(keeper, "receiver" | "both");
                let mut pool = BufferPool::new(0);
                for index in 0..4098_u32 {
                    let record = seal(ours, &index.to_le_bytes());
                    let (opened, result) = open(theirs, &mut pool, &record);
                    if index >= 4096 && matches!(keeper, "sender" | "receiver") {
                        assert_eq!((opened, result), (Vec::new(), Err(Violation::RecordNotAuthentic)), "record {index}");
                        break;
                    }
                    assert_eq!((opened, result), (index.to_le_bytes().to_vec(), Ok(())), "record {index}, {keeper}");
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "seals a second byte string")]
fn two_sessions_from_the_same_randomness_are_noticed() {
    nonces::begin();
    let (mut ours, _) = session(Cipher::AesGcm);
    let (mut again, _) = session(Cipher::AesGcm);
    seal(&mut ours, b"one");
    assert!(nonces::count() > 0);
    seal(&mut again, b"one");
    seal(&mut ours, b"two");
    seal(&mut again, b"another");
}

/// `snow` and ring do not name the types of which a session consists; what stands in their boxes can be asked.
#[test]
fn a_session_takes_no_more_memory_than_is_counted_for_it() {
    let ciphers = [CipherChoice::AESGCM, CipherChoice::ChaChaPoly].map(|choice| RingResolver.resolve_cipher(&choice).unwrap());
    let largest = ciphers.iter().map(|cipher| size_of_val(&**cipher)).max().unwrap();
    let session = size_of::<Sealed>() + 2 * largest;
    assert!(session <= SESSION, "{session} bytes, and {SESSION} are counted");
    assert!(session <= 2 << 10, "{session} bytes, besides the peer's own");
}

/// Everything that can be done to a stream of records on its way.
#[test]
fn whatever_is_changed_on_the_way_is_found_out() {
    let mut rng = Rng::new(7);
    let (mut ours, _) = session(Cipher::AesGcm);
    let stream: Vec<Vec<u8>> = (0..6_u8).map(|index| seal(&mut ours, &[index; 20])).collect();
    let judge = |records: &[Vec<u8>], good: usize| {
        let (_, mut theirs) = session(Cipher::AesGcm);
        let (opened, result) = open(&mut theirs, &mut BufferPool::new(0), &records.concat());
        let sent: Vec<u8> = (0..good as u8).flat_map(|index| [index; 20]).collect();
        assert_eq!((opened, result), (sent, Err(Violation::RecordNotAuthentic)), "what came before is good, and nothing after");
    };
    for (at, record) in stream.iter().enumerate() {
        for byte in 2..record.len() {
            let mut changed = stream.clone();
            changed[at][byte] ^= 1 << rng.below(8);
            judge(&changed, at);
        }
        let mut repeated = stream.clone();
        repeated.insert(at, record.clone());
        judge(&repeated, at + 1);
    }
    for at in 0..5 {
        let mut swapped = stream.clone();
        swapped.swap(at, at + 1);
        judge(&swapped, at);
        let mut missing = stream.clone();
        missing.remove(at);
        judge(&missing, at);
        // One byte less, and what follows moves up.
        let mut cut = stream.clone();
        cut[at].pop();
        judge(&cut, at);
    }
}

#[test]
fn a_record_too_short_to_hold_anything_is_refused_before_it_is_there() {
    for len in 0..=16_u16 {
        let (_, mut theirs) = session(Cipher::AesGcm);
        let mut pool = BufferPool::new(0);
        assert_eq!(open(&mut theirs, &mut pool, &len.to_le_bytes()).1, Err(Violation::RecordTooShort));
        // The length in two pieces.
        let (_, mut theirs) = session(Cipher::AesGcm);
        assert_eq!(open(&mut theirs, &mut pool, &len.to_le_bytes()[..1]).1, Ok(()));
        assert_eq!(open(&mut theirs, &mut pool, &len.to_le_bytes()[1..]).1, Err(Violation::RecordTooShort));
        theirs.release(&mut pool);
        assert_eq!(pool.lent(), 0);
    }
}

#[test]
fn a_record_that_has_begun_takes_memory_as_it_arrives() {
    let (mut ours, mut theirs) = session(Cipher::AesGcm);
    let mut pool = BufferPool::new(0);
    let record = seal(&mut ours, &[1; MAX_PLAINTEXT]);
    assert_eq!(open(&mut theirs, &mut pool, &record[..100]).1, Ok(()));
    assert!(theirs.is_partial());
    assert_eq!((theirs.partial_len(), theirs.held()), (MAX_RECORD, crate::buffers::SMALL));
    assert_eq!(open(&mut theirs, &mut pool, &record[100..]).0.len(), MAX_PLAINTEXT);
    assert_eq!(pool.lent(), 0);
}

//! What a block costs as JSON and in corecast's default codec: bytes, and the time to encode and to decode it.
//!
//! One round does each of the four things once, in turn, so that both ways see the same machine. What is printed is every round's
//! figure; `corecast-compare setout` makes medians of them.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use corecast::{Bincode, Codec};
use serde::{Deserialize, Serialize};

/// Measures JSON against the binary codec, and prints JSON.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
}

const TRANSACTIONS: usize = 5_000;
/// Of the block in binary, exactly.
const BLOCK_BYTES: usize = 1 << 20;
/// Height and the number of transactions.
const BLOCK_HEAD: usize = 16;
/// The fields of a transaction but for its data: two keys, two numbers, a signature, two lengths.
const TRANSACTION_HEAD: usize = 32 + 32 + 8 + 8 + (8 + 64) + 8;

#[derive(PartialEq, Debug, bincode::Encode, bincode::Decode, Serialize, Deserialize)]
struct Transaction {
    sender: [u8; 32],
    receiver: [u8; 32],
    amount: u64,
    nonce: u64,
    signature: Vec<u8>,
    data: Vec<u8>,
}

#[derive(PartialEq, Debug, bincode::Encode, bincode::Decode, Serialize, Deserialize)]
struct Block {
    height: u64,
    transactions: Vec<Transaction>,
}

/// What the starting point sends between two peers: one such object in a line.
#[derive(Serialize)]
struct Ping {
    kind: &'static str,
    sender: u64,
    sequence: u64,
    sent_at: u64,
    payload: Vec<u8>,
}

/// One codec's figures, one of each in a round.
#[derive(Default, Serialize)]
struct Codecs {
    block_bytes: usize,
    encode_ns: Vec<u64>,
    decode_ns: Vec<u64>,
}

#[derive(Serialize)]
struct Report {
    transactions: usize,
    json: Codecs,
    binary: Codecs,
    json_ping_bytes: usize,
}

/// Bytes that look like keys and signatures: every value is as likely as the others, as it matters to JSON's digits.
fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn transaction(index: usize) -> Transaction {
    const DATA: usize = BLOCK_BYTES - BLOCK_HEAD - TRANSACTIONS * TRANSACTION_HEAD;
    let key = |seed| noise(seed, 32).try_into().expect("32 bytes");
    Transaction {
        sender: key(index),
        receiver: key(index + TRANSACTIONS),
        amount: 1_000 + index as u64,
        nonce: index as u64,
        signature: noise(index * 7, 64),
        data: noise(index * 11, (index + 1) * DATA / TRANSACTIONS - index * DATA / TRANSACTIONS),
    }
}

fn timed<T>(times: &mut Vec<u64>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = black_box(work());
    times.push(start.elapsed().as_nanos() as u64);
    outcome
}

fn measure(rounds: u32) -> Result<Report, Box<dyn std::error::Error>> {
    let block = Block { height: 1_000_000, transactions: (0..TRANSACTIONS).map(transaction).collect() };
    let (mut json, mut binary) = (Codecs::default(), Codecs::default());
    // Kept between the rounds, as a sender keeps them.
    let (mut text, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        text.clear();
        bytes.clear();
        timed(&mut json.encode_ns, || serde_json::to_writer(&mut text, black_box(&block)))?;
        timed(&mut binary.encode_ns, || Bincode::encode(black_box(&block), &mut bytes))?;
        let from_json: Block = timed(&mut json.decode_ns, || serde_json::from_slice(black_box(&text)))?;
        let from_binary: Block = timed(&mut binary.decode_ns, || Bincode::decode(black_box(&bytes)))?;
        if from_json != block || from_binary != block {
            return Err("a block came back as another one".into());
        }
    }
    for codec in [&mut json, &mut binary] {
        // The first round touches memory for the first time.
        codec.encode_ns.remove(0);
        codec.decode_ns.remove(0);
    }
    (json.block_bytes, binary.block_bytes) = (text.len(), bytes.len());
    let ping =
        Ping { kind: "Ping", sender: 1, sequence: 1_000, sent_at: 1_700_000_000_000_000_000, payload: 1_000_u64.to_le_bytes().into() };
    // A line: the object and its end.
    Ok(Report { transactions: TRANSACTIONS, json, binary, json_ping_bytes: serde_json::to_vec(&ping)?.len() + 1 })
}

fn main() -> ExitCode {
    match measure(Args::parse().rounds).and_then(|report| Ok(serde_json::to_string(&report)?)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("corecast-codecs: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_one_mebibyte_and_both_codecs_return_it() {
        let report = measure(2).unwrap();
        assert_eq!(report.binary.block_bytes, BLOCK_BYTES);
        assert!(report.json.block_bytes > 2 * BLOCK_BYTES);
        for codec in [&report.json, &report.binary] {
            assert_eq!((codec.encode_ns.len(), codec.decode_ns.len()), (2, 2));
        }
    }
}

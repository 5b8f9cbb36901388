//! Typed messages to bytes and back: a block of 500 transactions of 200 bytes, and a vote of 104 bytes, by each way that there is.
//!
//! JSON is no codec of this crate. It is here because it is what people compare with.

mod harness;

use std::hint::black_box;

use corecast::{Bincode, BincodeSerde, Codec, Frame, Typed};
use harness::Bench;

#[derive(Clone, bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize)]
struct Block {
    height: u64,
    transactions: Vec<Vec<u8>>,
}

#[derive(Clone, bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize)]
struct Vote {
    height: u64,
    block: [u8; 32],
    first: [u8; 32],
    second: [u8; 32],
}

impl Typed for Vote {
    const TYPE: u16 = 1;
    type Codec = Bincode;
}

impl Typed for Block {
    const TYPE: u16 = 2;
    type Codec = Bincode;
}

/// JSON in the shape of a codec.
struct Json;

impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for Json {
    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), corecast::CodecError> {
        serde_json::to_writer(out, value).map_err(|_| corecast::CodecError::Encode)
    }

    fn decode(bytes: &[u8]) -> Result<T, corecast::CodecError> {
        serde_json::from_slice(bytes).map_err(|_| corecast::CodecError::Decode)
    }
}

fn both<T, C: Codec<T>>(bench: &Bench, name: &str, value: &T) {
    let mut bytes = Vec::new();
    C::encode(value, &mut bytes).unwrap();
    let len = bytes.len();
    bench.case(&format!("{name}: encode, {len} B"), 1, "value", || {
        bytes.clear();
        C::encode(black_box(value), &mut bytes).unwrap();
        black_box(&bytes);
    });
    bench.case(&format!("{name}: decode"), 1, "value", || {
        black_box(C::decode(black_box(&bytes)).unwrap());
    });
}

fn main() {
    let bench = Bench::new("codec: a value to bytes and back");
    let transaction = |index: usize| (0..200).map(|byte| (index * 31 + byte * 7) as u8).collect();
    let block = Block { height: 1_000_000, transactions: (0..500).map(transaction).collect() };
    let vote = Vote { height: 1_000_000, block: [1; 32], first: [2; 32], second: [3; 32] };
    both::<_, Bincode>(&bench, "block, Bincode", &block);
    both::<_, BincodeSerde>(&bench, "block, BincodeSerde", &block);
    both::<_, Json>(&bench, "block, JSON", &block);
    both::<_, Bincode>(&bench, "vote, Bincode", &vote);
    both::<_, BincodeSerde>(&bench, "vote, BincodeSerde", &vote);
    both::<_, Json>(&bench, "vote, JSON", &vote);
    bench.case("vote to frame", 1, "value", || drop(black_box(Frame::typed(black_box(&vote)).unwrap())));
    bench.case("block to frame", 1, "value", || drop(black_box(Frame::typed(black_box(&block)).unwrap())));
}

//! See `corecast::fuzz::handshake`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corecast::fuzz::handshake(data));

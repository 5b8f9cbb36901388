//! See `corecast::fuzz::codec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corecast::fuzz::codec(data));

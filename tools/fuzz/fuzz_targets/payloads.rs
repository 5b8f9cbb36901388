//! See `corecast::fuzz::payloads`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corecast::fuzz::payloads(data));

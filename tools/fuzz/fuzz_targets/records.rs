//! See `corecast::fuzz::records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corecast::fuzz::records(data));

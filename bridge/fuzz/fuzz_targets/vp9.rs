#![no_main]

#[path = "../media.rs"]
#[allow(dead_code)]
mod media;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| media::vp9(bytes));

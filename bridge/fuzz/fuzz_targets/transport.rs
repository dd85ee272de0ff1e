#![no_main]

#[path = "../transport.rs"]
mod transport;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| transport::conversation(bytes));

#![no_main]

#[path = "../data_channel.rs"]
mod data_channel;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| data_channel::conversation(bytes));

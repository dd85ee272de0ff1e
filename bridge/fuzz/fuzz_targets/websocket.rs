#![no_main]

#[path = "../../tests/server/mod.rs"]
#[allow(dead_code)]
mod server;
#[path = "../websocket.rs"]
mod websocket;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| websocket::session(bytes));

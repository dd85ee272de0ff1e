//! The world: connections, HTTP, time. Nothing is decided here.

pub mod http;
pub mod program;

//! Start-up of `viaduct-bridge`.

fn main() {}

//! Start-up of `viaduct-loadtest`.

fn main() {}

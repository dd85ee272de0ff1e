//! Start-up of `viaduct-focus`.

fn main() {}

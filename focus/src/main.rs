//! Start-up of `viaduct-focus`: command line, configuration, then everything
//! that binds or connects; and the end. Exit codes:
//! [`viaduct_signalling::program`].

use std::process::ExitCode;

use viaduct_focus::config::Config;
use viaduct_focus::io::program;
use viaduct_signalling::program::Program;

const FOCUS: Program = Program {
    name: "viaduct-focus",
    version: env!("CARGO_PKG_VERSION"),
    about: "The conference focus for Jitsi Meet.",
    config: "/etc/jitsi/jicofo/jicofo.conf",
    config_help: "HOCON file with jicofo's keys; ours stand under `viaduct`",
};

fn main() -> ExitCode {
    FOCUS.main(Config::load, |config| Ok(128 + program::run(config)?))
}

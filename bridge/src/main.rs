//! Start-up of `viaduct-bridge`: command line, configuration, then everything
//! that binds, in an order in which whatever is wrong shows before the fleet
//! hears of this bridge; and the end. Exit codes: [`viaduct_signalling::program`].

use std::process::ExitCode;

use viaduct_bridge::config::Config;
use viaduct_bridge::io::program;
use viaduct_signalling::program::Program;

const BRIDGE: Program = Program {
    name: "viaduct-bridge",
    version: env!("CARGO_PKG_VERSION"),
    about: "A selective forwarding unit for Jitsi Meet.",
    config: "/etc/jitsi/videobridge/jvb.conf",
    config_help: "HOCON file with JVB's keys; ours stand under `viaduct`",
};

fn main() -> ExitCode {
    BRIDGE.main(Config::load, program::run)
}

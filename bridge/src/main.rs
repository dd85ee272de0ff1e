//! Start-up of `viaduct-bridge`: command line, configuration, then everything
//! that binds, in an order in which whatever is wrong shows before the fleet
//! hears of this bridge; and the end.
//!
//! Exit codes: 0 clean, 1 a port or address that cannot be had, 64 wrong
//! command line, 78 wrong configuration, 128 + n on signal n (143 for SIGTERM).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use viaduct_bridge::config::Config;
use viaduct_bridge::io::program;

/// sysexits.h: EX_USAGE and EX_CONFIG.
const WRONG_COMMAND_LINE: u8 = 64;
const WRONG_CONFIGURATION: u8 = 78;

/// A selective forwarding unit for Jitsi Meet.
#[derive(Parser)]
#[command(
    name = "viaduct-bridge",
    version,
    args_conflicts_with_subcommands = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Run the bridge; the default.
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// HOCON file with JVB's keys; ours stand under `viaduct`.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/jitsi/videobridge/jvb.conf"
    )]
    config: PathBuf,
}

fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            // Standard output and no failure for --help and --version.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                WRONG_COMMAND_LINE
            } else {
                0
            });
        }
    };
    let run = match command_line.command {
        Some(Command::Run(run)) => run,
        None => command_line.run,
    };
    let config = match Config::load(&run.config) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("viaduct-bridge: {faults}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    program::log();
    match program::run(config) {
        Ok(code) => ExitCode::from(code),
        Err(program::Failure::Configuration(fault)) => {
            eprintln!("viaduct-bridge: {fault}");
            ExitCode::from(WRONG_CONFIGURATION)
        }
        Err(program::Failure::Start(error)) => {
            eprintln!("viaduct-bridge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

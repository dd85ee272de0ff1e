//! Start-up of `viaduct-focus`: command line, configuration, then everything
//! that binds or connects; and the end.
//!
//! Exit codes: 0 clean, 1 an address that cannot be had, 64 wrong command line,
//! 78 wrong configuration, 128 + n on signal n (143 for SIGTERM).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use viaduct_focus::config::Config;
use viaduct_focus::io::program;

/// sysexits.h: EX_USAGE and EX_CONFIG.
const WRONG_COMMAND_LINE: u8 = 64;
const WRONG_CONFIGURATION: u8 = 78;

/// The conference focus for Jitsi Meet.
#[derive(Parser)]
#[command(
    name = "viaduct-focus",
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
    /// Run the focus; the default.
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// HOCON file with jicofo's keys; ours stand under `viaduct`.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/jitsi/jicofo/jicofo.conf"
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
    program::log();
    let config = match Config::load(&run.config) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("viaduct-focus: {faults}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    match program::run(config) {
        Ok(signal) => ExitCode::from(128 + signal),
        Err(error) => {
            eprintln!("viaduct-focus: {error:#}");
            ExitCode::FAILURE
        }
    }
}

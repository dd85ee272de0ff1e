//! How a server of Viaduct starts and ends: `NAME [run] [--config FILE]`, a log
//! on standard error, and an exit code that says whose fault it was.
//!
//! | code | meaning |
//! |---|---|
//! | 0, 128 + n | ended as asked, or by signal n |
//! | 1 | a port or address that cannot be had, now |
//! | 64 | wrong command line |
//! | 78 | wrong configuration: the same again at the next start |

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};
use tracing_subscriber::EnvFilter;

use crate::config::Faults;

/// sysexits.h: EX_USAGE and EX_CONFIG.
const WRONG_COMMAND_LINE: u8 = 64;
const WRONG_CONFIGURATION: u8 = 78;

/// What the log says unless `RUST_LOG` asks for more. `sctp-proto` takes for an
/// error what a peer did wrong, which is counted and no reason to wake anybody.
const LOG: &str = "info,sctp_proto=off";

/// A server, as its command line presents it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub name: &'static str,
    pub version: &'static str,
    pub about: &'static str,
    /// Where the configuration lies, and of whose keys it is made.
    pub config: &'static str,
    pub config_help: &'static str,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration's fault.
    #[error("{0}")]
    Configuration(String),
    /// A port or address that cannot be had.
    #[error("{0:#}")]
    Start(#[from] anyhow::Error),
}

impl Program {
    /// Loads the configuration and runs to the end; `run` answers an exit code.
    pub fn main<C>(
        &self,
        load: impl FnOnce(&Path) -> Result<C, Faults>,
        run: impl FnOnce(C) -> Result<u8, Failure>,
    ) -> ExitCode {
        let path = match self.command_line(std::env::args_os()) {
            Ok(path) => path,
            Err(error) => {
                // Standard output and no failure for --help and --version.
                let _ = error.print();
                return ExitCode::from(match error.use_stderr() {
                    true => WRONG_COMMAND_LINE,
                    false => 0,
                });
            }
        };
        log();
        let config = match load(&path) {
            Ok(config) => config,
            Err(faults) => return self.fail(&faults, WRONG_CONFIGURATION),
        };
        match run(config) {
            Ok(code) => ExitCode::from(code),
            Err(fault @ Failure::Configuration(_)) => self.fail(&fault, WRONG_CONFIGURATION),
            Err(error @ Failure::Start(_)) => self.fail(&error, 1),
        }
    }

    /// The configuration file that a command line names.
    fn command_line(
        &self,
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<PathBuf, clap::Error> {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .help(self.config_help)
            .value_parser(value_parser!(PathBuf))
            .default_value(self.config);
        let run = Command::new("run")
            .about("Run it; the default")
            .arg(config.clone());
        let matches = Command::new(self.name)
            .version(self.version)
            .about(self.about)
            .args_conflicts_with_subcommands(true)
            .arg(config)
            .subcommand(run)
            .try_get_matches_from(arguments)?;
        let matches = matches.subcommand().map_or(&matches, |(_, run)| run);
        let path = matches.get_one::<PathBuf>("config");
        Ok(path.expect("it has a default").clone())
    }

    fn fail(&self, reason: &dyn Display, code: u8) -> ExitCode {
        eprintln!("{}: {reason}", self.name);
        ExitCode::from(code)
    }
}

/// Logs to standard error; `RUST_LOG` chooses what.
fn log() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(LOG))
        // It writes whole files, with their passwords.
        .add_directive("hocon_rs=off".parse().expect("a directive"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_name_a_file_or_take_the_default() {
        let program = Program {
            name: "server",
            version: "1",
            about: "Serves",
            config: "/etc/server.conf",
            config_help: "A file",
        };
        for (line, expected) in [
            ("server", Some("/etc/server.conf")),
            ("server run", Some("/etc/server.conf")),
            ("server --config a", Some("a")),
            ("server run --config a", Some("a")),
            ("server --config a run", None),
            ("server walk", None),
            ("server --port 1", None),
            ("server --help", None),
            ("server --version", None),
        ] {
            let arguments = line.split(' ').map(Into::into);
            let path = program.command_line(arguments).ok();
            assert_eq!(path, expected.map(PathBuf::from), "{line}");
        }
    }
}

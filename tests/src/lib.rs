//! Starts real peers for the end-to-end tests: a deployment of our own programs
//! round a stock Prosody, and headless Chromium to call through it.
//!
//! A deployment is set up by `deploy/quickstart`, as a newcomer would, on ports
//! and in a folder of its own; it ends with the value that stands for it.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the repository")
        .to_path_buf()
}

/// Where cargo put the programs under test: beside the running test.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    test.ancestors()
        .nth(2)
        .expect("tests lie in deps/ below the programs")
        .to_path_buf()
}

/// A running deployment.
#[derive(Debug)]
pub struct Deployment {
    folder: PathBuf,
    ports: Vec<(&'static str, u16)>,
}

impl Deployment {
    /// Sets up Prosody, a focus, `bridges` bridges and the meeting page.
    pub fn up(bridges: u8) -> Result<Self> {
        // A block of ports that is free now and lies below the ephemeral range.
        let base = free_block()?;
        let names = [
            "PAGE_PORT",
            "C2S_PORT",
            "XMPP_HTTP_PORT",
            "COMPONENT_PORT",
            "FOCUS_PORT",
        ];
        let mut ports: Vec<_> = names.into_iter().zip(base..).collect();
        ports.extend(
            ["BRIDGE_UDP_PORT", "BRIDGE_HTTP_PORT", "BRIDGE_WS_PORT"]
                .into_iter()
                .zip((base + 10..).step_by(10)),
        );
        // Prosody runs as a user of its own and has to reach the folder.
        let folder =
            std::env::temp_dir().join(format!("viaduct-test-{}-{base}", std::process::id()));
        let deployment = Self { folder, ports };
        let out = deployment.quickstart(&["up", "--bridges", &bridges.to_string()])?;
        ensure!(
            out.status.success(),
            "quickstart up: {}\n{}",
            text(&out.stdout),
            text(&out.stderr)
        );
        Ok(deployment)
    }

    /// Runs `deploy/quickstart` with these arguments on this deployment.
    pub fn quickstart(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)
            .output()
            .context("deploy/quickstart did not start")
    }

    /// Gives the page another client library than npm's.
    pub fn use_library(&self, path: &str) -> Result<()> {
        let out = self
            .command(&["up"])
            .env("LJM", path)
            .output()
            .context("deploy/quickstart did not start")?;
        ensure!(out.status.success(), "LJM={path}: {}", text(&out.stderr));
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(repository().join("deploy/quickstart"));
        command
            .args(arguments)
            .env_remove("LJM")
            .env("QUICKSTART_DIR", &self.folder)
            .env("PROGRAMS", programs())
            .envs(
                self.ports
                    .iter()
                    .map(|(name, port)| (name, port.to_string())),
            );
        command
    }

    /// What `deploy/quickstart env` prints.
    pub fn env(&self) -> Result<BTreeMap<String, String>> {
        let out = self.quickstart(&["env"])?;
        ensure!(
            out.status.success(),
            "quickstart env: {}",
            text(&out.stderr)
        );
        Ok(text(&out.stdout)
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
            .collect())
    }

    /// A file below the deployment's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs a script of `tests/browser` and returns what it printed.
    pub fn browse(&self, script: &str, arguments: &[&str]) -> Result<String> {
        let out = Command::new("node")
            .arg(repository().join("tests/browser").join(script))
            .args(arguments)
            .output()
            .context("node did not start")?;
        let printed = text(&out.stdout);
        if !out.status.success() {
            bail!(
                "{script} {}\n{printed}{}\n{}",
                arguments.join(" "),
                text(&out.stderr),
                self.last_words()
            );
        }
        Ok(printed)
    }

    /// The ends of all logs, for a failed test.
    fn last_words(&self) -> String {
        let Ok(logs) = std::fs::read_dir(self.folder.join("log")) else {
            return String::new();
        };
        logs.flatten()
            .map(|log| {
                let whole = std::fs::read_to_string(log.path()).unwrap_or_default();
                let lines: Vec<_> = whole.lines().collect();
                let tail = lines[lines.len().saturating_sub(25)..].join("\n");
                format!("--- {}\n{tail}\n", log.path().display())
            })
            .collect()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = self.quickstart(&["down"]);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Forty TCP ports in a row that nobody listens on.
fn free_block() -> Result<u16> {
    let start = 20_000 + u16::try_from(std::process::id() % 200).expect("below 200") * 40;
    (start..32_000)
        .step_by(40)
        .find(|base| (*base..base + 40).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
        .context("no forty free ports in a row")
}

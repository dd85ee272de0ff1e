//! Start-up of `viaduct-loadtest`: the command line.
//!
//! Exit code 0: every verdict passed; 1: one failed, or nothing could be
//! measured; 64: the command line is wrong.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use viaduct_loadtest::io::{load, roofline, run};
use viaduct_loadtest::load::plan::{self, Machine, Meetings};
use viaduct_loadtest::load::report::Report;
use viaduct_loadtest::scenario::{ChannelKind, Rate, Scenario, Server};
use viaduct_loadtest::source::Codec;
use viaduct_signalling::jid::{BareJid, Jid};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

/// Synthetic Jitsi participants.
#[derive(Parser)]
#[command(name = "viaduct-loadtest", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join one room of a deployment, send and receive, and judge what arrived.
    Join(JoinArguments),
    /// Put a load on a server, and measure what it does to it.
    Run(RunArguments),
    /// Put the same load on two servers in turn, and say their ratios.
    Compare(CompareArguments),
    /// From a report of `run` and the meetings to be held, to bridges, cores and
    /// network.
    Plan(PlanArguments),
    /// Measure the least that forwarding a packet costs on this machine; one
    /// line of JSON.
    Roofline(roofline::Options),
}

#[derive(clap::Args)]
struct JoinArguments {
    /// XMPP domain that takes anonymous logins.
    #[arg(long)]
    domain: String,
    /// Domain of the rooms [default: conference.DOMAIN].
    #[arg(long)]
    muc: Option<String>,
    /// Address of the focus, a component or a full JID [default: focus.DOMAIN].
    #[arg(long)]
    focus: Option<String>,
    /// XMPP over WebSocket, for instance ws://127.0.0.1:5280/xmpp-websocket.
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "c2s",
        conflicts_with = "c2s"
    )]
    ws: Option<String>,
    /// XMPP over TCP.
    #[arg(long, value_name = "HOST:PORT")]
    c2s: Option<String>,
    /// Name of the room, or its whole address.
    #[arg(long)]
    room: String,
    #[arg(long, default_value_t = 3)]
    participants: u16,
    /// How many of them send [default: all].
    #[arg(long)]
    senders: Option<u16>,
    #[arg(long, value_enum, default_value = "vp8")]
    codec: Codec,
    /// Say layers in payloads only, as clients without the extension do.
    #[arg(long)]
    no_dependency_descriptor: bool,
    /// What carries the bridge channel.
    #[arg(long, value_enum, default_value = "websocket")]
    channel: ChannelKind,
    /// Length of the test once all are connected.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Picture heights to ask for, one after the other.
    #[arg(
        long,
        value_name = "LINES",
        value_delimiter = ',',
        default_value = "720"
    )]
    height: Vec<u16>,
    /// How many senders share a screen as well [default with the flag: 1].
    #[arg(
        long,
        value_name = "SENDERS",
        num_args = 0..=1,
        default_value_t = 0,
        default_missing_value = "1"
    )]
    share: u16,
    /// Height to ask of shared screens; 0 for none.
    #[arg(long, value_name = "LINES", default_value_t = 720)]
    share_height: u16,
    /// Let senders mute and unmute microphone and camera by turns.
    #[arg(long)]
    mute: bool,
    /// Participants that leave, and others that come in their place, a second.
    #[arg(long, value_name = "N/s", default_value = "0/s")]
    churn: Rate,
    /// Milliseconds from one join to the next.
    #[arg(long, default_value_t = 50)]
    join_interval: u64,
    /// Seconds within which all must be connected.
    #[arg(long, default_value_t = 60.0)]
    join_timeout: f64,
    /// Lost packets that still pass.
    #[arg(long, default_value_t = 0)]
    max_lost: u64,
    /// Process of the bridge, whose CPU time and memory are reported.
    #[arg(long)]
    bridge_pid: Option<u32>,
    /// Take part as a client that cannot read JSON sources.
    #[arg(long)]
    xml_sources: bool,
    /// Seed of all random choices [default: another one each time].
    #[arg(long)]
    seed: Option<u64>,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct RunArguments {
    /// colibri2+http://HOST:PORT, the private HTTP port of a bridge, or a whole
    /// deployment: xmpp+ws://HOST:PORT/xmpp-websocket, xmpp+tcp://HOST:PORT, with
    /// --domain.
    target: load::Target,
    #[command(flatten)]
    load: load::Options,
    /// Share of packets that must be delivered.
    #[arg(long, default_value_t = 0.999)]
    min_delivered: f64,
    #[command(flatten)]
    files: Files,
}

/// Where a report goes.
#[derive(clap::Args)]
struct Files {
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as one page of HTML with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Files {
    fn write(
        &self,
        json: impl FnOnce() -> String,
        html: impl FnOnce() -> String,
    ) -> Result<(), String> {
        let write = |path: &PathBuf, text: String| {
            std::fs::write(path, text)
                .map_err(|error| format!("writing {}: {error}", path.display()))
        };
        if let Some(path) = &self.json {
            write(path, json())?;
        }
        if let Some(path) = &self.html {
            write(path, html())?;
        }
        Ok(())
    }
}

#[derive(clap::Args)]
struct CompareArguments {
    /// The one, as for `run`.
    #[arg(long)]
    a: load::Target,
    /// The other.
    #[arg(long)]
    b: load::Target,
    /// Process of the one.
    #[arg(long)]
    a_pid: Option<u32>,
    /// Process of the other.
    #[arg(long)]
    b_pid: Option<u32>,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    #[command(flatten)]
    load: load::Options,
    #[command(flatten)]
    files: Files,
}

#[derive(clap::Args)]
struct PlanArguments {
    /// JSON of a run with --pid.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// COUNTxPEOPLE[:CAMERAS][@LINES], several with commas: 50x10:3@360.
    #[arg(long, value_delimiter = ',', required = true)]
    meetings: Vec<Meetings>,
    #[command(flatten)]
    machine: Machine,
    /// Write the plan as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "viaduct_loadtest=warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            // Nothing is left to do if even that cannot be written.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match arguments.command {
        Command::Join(arguments) => join(&arguments),
        Command::Run(arguments) => ended(load(&arguments)),
        Command::Compare(arguments) => ended(compare(&arguments)),
        Command::Plan(arguments) => ended(plan(&arguments)),
        Command::Roofline(options) => match roofline::measure(&options) {
            Ok(roofline) => {
                let line = serde_json::to_string(&roofline).expect("plain data has a JSON form");
                println!("{line}");
                match (roofline.lost, roofline.bad) {
                    (0, 0) => ExitCode::SUCCESS,
                    _ => ExitCode::FAILURE,
                }
            }
            Err(error) => {
                eprintln!("viaduct-loadtest: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Says what went wrong; whether all is well is the exit status.
fn ended(result: Result<bool, String>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("viaduct-loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load(arguments: &RunArguments) -> Result<bool, String> {
    let report = load::run(&arguments.target, &arguments.load);
    let report = report.map_err(|error| format!("{error:#}"))?;
    print!("{}", report.to_table());
    let files = &arguments.files;
    files.write(|| report.to_json(), || report.to_html())?;
    Ok(report.passed(arguments.min_delivered))
}

fn compare(arguments: &CompareArguments) -> Result<bool, String> {
    let (targets, pids) = (
        [&arguments.a, &arguments.b],
        [arguments.a_pid, arguments.b_pid],
    );
    let comparison = load::compare(targets, pids, arguments.rounds.max(1), &arguments.load);
    let comparison = comparison.map_err(|error| format!("{error:#}"))?;
    print!("{}", comparison.to_table());
    let files = &arguments.files;
    files.write(|| comparison.to_json(), || comparison.to_html())?;
    Ok(comparison.invalid().is_empty())
}

fn plan(arguments: &PlanArguments) -> Result<bool, String> {
    arguments.machine.check()?;
    let path = arguments.report.display();
    let text = std::fs::read_to_string(&arguments.report);
    let text = text.map_err(|error| format!("--report {path}: {error}"))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| format!("--report {path}: not a report of `run`: {error}"))?;
    let plan = plan::plan(&report, &arguments.meetings, arguments.machine);
    let plan = plan.map_err(|error| format!("--report {path}: {error}"))?;
    print!("{}", plan.to_table());
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&plan).expect("plain data has a JSON form");
        std::fs::write(path, json)
            .map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    Ok(plan.too_large.is_empty())
}

fn join(arguments: &JoinArguments) -> ExitCode {
    let scenario = match scenario(arguments) {
        Ok(scenario) => scenario,
        Err(error) => {
            eprintln!("viaduct-loadtest: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let report = match run::join(scenario) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("viaduct-loadtest: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    print!("{}", report.to_table());
    if let Some(path) = &arguments.json
        && let Err(error) = std::fs::write(path, report.to_json())
    {
        eprintln!("viaduct-loadtest: writing {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    if report.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn scenario(arguments: &JoinArguments) -> Result<Scenario, String> {
    let jid = |option: &str, text: &str| {
        BareJid::new(text).map_err(|error| format!("--{option} {text}: {error}"))
    };
    let seconds = |option: &str, value: f64| {
        Duration::try_from_secs_f64(value).map_err(|error| format!("--{option} {value}: {error}"))
    };
    let domain = jid("domain", &arguments.domain)?;
    let muc = arguments
        .muc
        .clone()
        .unwrap_or_else(|| format!("conference.{domain}"));
    let room = if arguments.room.contains('@') {
        arguments.room.clone()
    } else {
        format!("{}@{muc}", arguments.room)
    };
    let focus = arguments
        .focus
        .clone()
        .unwrap_or_else(|| format!("focus.{domain}"));
    let server = match (&arguments.ws, &arguments.c2s) {
        (Some(url), _) => Server::WebSocket(url.clone()),
        (None, Some(address)) => Server::Tcp(address.clone()),
        (None, None) => return Err("--ws or --c2s is needed".to_owned()),
    };
    let scenario = Scenario {
        server,
        domain,
        room: jid("room", &room)?,
        focus: Jid::new(&focus).map_err(|error| format!("--focus {focus}: {error}"))?,
        participants: arguments.participants,
        senders: arguments.senders.unwrap_or(arguments.participants),
        codec: arguments.codec,
        descriptors: !arguments.no_dependency_descriptor,
        channel: arguments.channel,
        duration: seconds("seconds", arguments.seconds)?,
        heights: arguments.height.clone(),
        shares: arguments.share,
        share_height: arguments.share_height,
        mute: arguments.mute,
        churn: arguments.churn.0,
        join_interval: Duration::from_millis(arguments.join_interval),
        join_timeout: seconds("join-timeout", arguments.join_timeout)?,
        max_lost: arguments.max_lost,
        bridge_pid: arguments.bridge_pid,
        xml_sources: arguments.xml_sources,
        seed: arguments.seed.unwrap_or_else(run::random_seed),
    };
    scenario.check().map_err(|error| error.to_string())?;
    Ok(scenario)
}

//! Our focus and our bridge, a stock Prosody and real Chromium: a newcomer's
//! first call. One deployment serves all tests of this file's single test
//! function, since setting it up is what takes the time.

use anyhow::{Context, Result, ensure};
use viaduct_tests::Deployment;

/// Two tabs of the meeting page, with the client library from npm, see and hear
/// each other, and pictures follow the layer picked.
fn two_tabs_see_and_hear_each_other(deployment: &Deployment, page: &str) -> Result<()> {
    let table = deployment.browse(
        "drive.mjs",
        &[
            "--page",
            page,
            "--room",
            "tabs",
            "--clients",
            "2",
            "--seconds",
            "15",
        ],
    )?;
    println!("{table}");
    Ok(())
}

/// Two tabs of Chromium and one of Debian's Firefox, all six ways.
fn firefox_and_chromium_see_and_hear(deployment: &Deployment, page: &str) -> Result<()> {
    let table = deployment.browse(
        "drive.mjs",
        &[
            "--page",
            page,
            "--room",
            "firefox",
            "--clients",
            "3",
            "--firefox",
            "1",
            "--seconds",
            "20",
        ],
    )?;
    println!("{table}");
    Ok(())
}

/// AV1 with spatial layers between bare peer connections: heights follow the
/// constraints, and the SRTP profile Chromium ends up with is a GCM one
/// (CM_SHA1_80, which Chromium lists first, costs 4.7 times the time).
fn bare_av1_follows_constraints(deployment: &Deployment) -> Result<()> {
    let env = deployment.env()?;
    let get = |name: &str| {
        env.get(name)
            .with_context(|| format!("{name} in quickstart env"))
    };
    let secrets = std::fs::read_to_string(deployment.file("config/quickstart.env"))?;
    let password = secrets
        .lines()
        .find_map(|line| line.strip_prefix("JVB_PASSWORD="))
        .context("a password in quickstart.env")?;
    let auth = get("AUTH_DOMAIN")?;
    let printed = deployment.browse(
        "bare.mjs",
        &[
            "--ws",
            get("XMPP_WS")?,
            "--domain",
            auth,
            "--user",
            "jvb",
            "--password",
            password,
            "--brewery",
            &format!("jvbbrewery@internal.{auth}"),
        ],
    )?;
    println!("{printed}");
    Ok(())
}

/// `deploy/quickstart check`: three synthetic participants.
fn synthetic_participants_pass(deployment: &Deployment) -> Result<()> {
    let out = deployment.quickstart(&["check"])?;
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    println!("{printed}");
    ensure!(
        out.status.success(),
        "quickstart check: {printed}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

/// `up` while up is quick and harmless, `env` names what runs, and a part that
/// was killed comes back under `restart`.
fn quickstart_keeps_its_word(deployment: &Deployment) -> Result<()> {
    let before = deployment.env()?;
    let out = deployment.quickstart(&["up"])?;
    ensure!(out.status.success(), "up while up");
    ensure!(before == deployment.env()?, "up while up changed what runs");
    let out = deployment.quickstart(&["restart", "bridge-1"])?;
    ensure!(out.status.success(), "restart bridge-1");
    let after = deployment.env()?;
    ensure!(
        before["BRIDGE_1_PID"] != after["BRIDGE_1_PID"],
        "bridge-1 was not restarted"
    );
    ensure!(
        before["FOCUS_PID"] == after["FOCUS_PID"],
        "the focus was disturbed"
    );
    Ok(())
}

/// The same two tabs with a current client library, where `LJM` names one.
fn current_library_sees_and_hears(deployment: &Deployment, page: &str) -> Result<()> {
    match std::env::var("LJM") {
        Ok(path) if !path.is_empty() => {
            deployment.use_library(&path)?;
            two_tabs_see_and_hear_each_other(deployment, page)
        }
        _ => {
            println!("SKIP: LJM names no current lib-jitsi-meet.min.js, so only npm's was tried");
            Ok(())
        }
    }
}

#[test]
fn first_call() -> Result<()> {
    let deployment = Deployment::up(1)?;
    let page = deployment.env()?["PAGE_URL"].clone();
    two_tabs_see_and_hear_each_other(&deployment, &page)?;
    firefox_and_chromium_see_and_hear(&deployment, &page)?;
    bare_av1_follows_constraints(&deployment)?;
    synthetic_participants_pass(&deployment)?;
    quickstart_keeps_its_word(&deployment)?;
    // A bridge that was just restarted takes the next call.
    two_tabs_see_and_hear_each_other(&deployment, &page)?;
    current_library_sees_and_hears(&deployment, &page)
}

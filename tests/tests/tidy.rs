//! What of the project's style a program can check.

use std::path::{Path, PathBuf};

use viaduct_tests::repository;

fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below)
        .expect("a readable folder")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            if path
                .file_name()
                .is_some_and(|n| n != "target" && n != "node_modules")
            {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn crate_sources() -> Vec<(String, String)> {
    let root = repository();
    let mut found = Vec::new();
    for name in ["bridge/src", "focus/src", "signalling/src", "loadtest/src"] {
        sources(&root.join(name), &mut found);
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("UTF-8 source");
            let name = path.strip_prefix(&root).expect("below the root");
            (name.to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// The part of a file in front of its tests; nothing of one that holds a
/// module's tests only.
fn without_tests<'a>(name: &str, text: &'a str) -> &'a str {
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
        return "";
    }
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

/// A reader opens a file at its head and finds what it is for.
#[test]
fn every_file_says_what_it_is_for() {
    for (name, text) in crate_sources() {
        assert!(
            text.starts_with("//!"),
            "{name} has no module documentation"
        );
    }
}

/// Only `io/` (and the start of a program) names a socket, a clock, a task or
/// a random source, so that everything else runs in virtual time.
#[test]
fn the_cores_cannot_touch_the_world() {
    let worldly = [
        "Instant::now",
        "SystemTime::now",
        "std::net::UdpSocket",
        "std::net::TcpStream",
        "tokio::",
        "std::thread",
        "rand::rng(",
        "thread_rng",
        "getrandom",
    ];
    for (name, text) in crate_sources() {
        if name.contains("/io/") || name.ends_with("/main.rs") {
            continue;
        }
        for line in without_tests(&name, &text)
            .lines()
            .filter(|l| !l.trim_start().starts_with("//"))
        {
            for word in worldly {
                assert!(!line.contains(word), "{name} names {word}: {line}");
            }
        }
    }
}

/// `unsafe` lives where the system calls are.
#[test]
fn unsafe_code_lives_in_io_only() {
    for (name, text) in crate_sources() {
        let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        for line in code {
            let uses = line.contains("unsafe {")
                || line.contains("unsafe fn")
                || line.contains("unsafe impl");
            assert!(
                !uses || name.starts_with("bridge/src/io/"),
                "{name}: {line}"
            );
        }
    }
}

/// The bridge's media modules know nothing of XMPP or JSON; the focus knows
/// nothing of RTP.
#[test]
fn rooms_keep_to_themselves() {
    let media = [
        "rtp/",
        "rtcp/",
        "transport/",
        "receive/",
        "send/",
        "projection/",
        "allocation/",
    ];
    for (name, text) in crate_sources() {
        let code = without_tests(&name, &text);
        if media
            .iter()
            .any(|m| name.starts_with(&format!("bridge/src/{m}")))
        {
            for word in ["viaduct_signalling", "serde_json"] {
                assert!(!code.contains(word), "{name} names {word}");
            }
        }
        if name.starts_with("focus/") {
            assert!(
                !code.contains("viaduct_bridge"),
                "{name} names the bridge's crate"
            );
        }
    }
}

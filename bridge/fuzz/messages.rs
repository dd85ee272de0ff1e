//! What must hold of any text on a bridge channel: it is read or refused, what
//! is passed on is one JSON object that names its true sender, and constraints
//! stay within their bounds. The fuzz target and the tests that replay its
//! corpus both include this file.

use viaduct_bridge::allocation::Constraints;
use viaduct_bridge::channel::{Incoming, MAX_MESSAGE, parse};
use viaduct_bridge::id::EndpointId;
use viaduct_bridge::settings::ShardSettings;

/// All that is read of a message that is passed on. Its other strings may be
/// what JavaScript takes for one and Rust does not: half a surrogate pair.
#[derive(serde::Deserialize)]
struct Passed {
    from: String,
}

/// Reads a text as a message, and does with it what a conference does.
pub(crate) fn message(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let from = EndpointId::from("caf0ac19");
    match parse(text, &from) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(_) if text.len() > MAX_MESSAGE => panic!("{} octets were taken", text.len()),
        Ok(Incoming::EndpointMessage { text, .. } | Incoming::EndpointStats { text }) => {
            let passed: Passed = serde_json::from_str(&text).expect("a JSON object");
            assert_eq!(passed.from, "caf0ac19", "{text}");
            // What it has become is read as what it was.
            assert!(parse(&text, &from).is_ok() || text.len() > MAX_MESSAGE);
        }
        Ok(Incoming::VideoConstraints(message)) => {
            let settings = ShardSettings::default();
            let mut constraints = Constraints::initial(&settings);
            message.apply(&mut constraints, &settings);
            assert!(constraints.spoken);
            assert!(constraints.constraints.len() <= 1000);
            assert!(constraints.on_stage.len() <= 1000 && constraints.selected.len() <= 1000);
        }
        Ok(Incoming::AudioSubscription(subscription)) => {
            assert!(subscription.include.len() <= 1000 && subscription.exclude.len() <= 1000);
        }
        Ok(_) => {}
    }
}

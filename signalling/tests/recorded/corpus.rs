//! Replays what the fuzz targets have collected, and each recorded stanza cut
//! short or with an octet changed.

use std::fs;
use std::path::Path;

use viaduct_signalling::xml;

use crate::{checks, testdata};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files: Vec<_> = fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| fs::read(entry.expect("a file").path()).expect("a file"))
        .collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn the_corpus_of_stanzas_holds() {
    corpus("stanza")
        .iter()
        .for_each(|bytes| checks::stanza(bytes));
}

#[test]
fn the_corpus_of_json_holds() {
    corpus("json").iter().for_each(|bytes| checks::json(bytes));
}

#[test]
fn the_corpus_of_streams_holds_and_so_do_damaged_ones() {
    for mut bytes in corpus("stream") {
        checks::stream(&bytes);
        damage(&mut bytes, checks::stream);
    }
}

#[test]
fn the_corpus_of_configurations_holds_and_so_do_damaged_ones() {
    for mut bytes in corpus("config") {
        checks::config(&bytes);
        damage(&mut bytes, checks::config);
    }
}

/// Each octet in turn replaced, and the text cut short there.
fn damage(bytes: &mut [u8], check: fn(&[u8])) {
    for at in 0..bytes.len() {
        check(&bytes[..at]);
        for octet in *b"7x\"{}[]<&-,$" {
            let old = std::mem::replace(&mut bytes[at], octet);
            check(bytes);
            bytes[at] = old;
        }
    }
}

#[test]
fn recorded_stanzas_hold_and_so_do_damaged_ones() {
    for (_, stanza) in testdata() {
        let mut bytes = xml::write(&stanza).into_bytes();
        checks::stanza(&bytes);
        // Deterministic damage, spread over the stanza; digits and letters make
        // values that are still XML.
        for step in 1..40 {
            let at = bytes.len() * step / 40;
            let octet = std::mem::replace(&mut bytes[at], b"7x\"<-"[step % 5]);
            checks::stanza(&bytes);
            checks::stanza(&bytes[..at]);
            bytes[at] = octet;
        }
    }
}

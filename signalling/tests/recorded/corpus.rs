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

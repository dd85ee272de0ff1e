//! Tests with the stanzas that real programs wrote, and what they share.

#[path = "../../fuzz/checks.rs"]
mod checks;
mod corpus;
mod stanzas;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use viaduct_signalling::xml::{self, Element, ns};

/// All recorded stanzas, each with the name of its file.
fn testdata() -> Vec<(String, Element)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the folder testdata")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|e| e == "xml"))
        .collect();
    files.sort();
    let mut stanzas = Vec::new();
    for path in files {
        let name = path.file_name().expect("a name").to_string_lossy();
        // Comments are no part of XMPP, and the parser refuses them.
        let text = fs::read_to_string(&path).expect("a file");
        let lines = text.lines().filter(|line| !line.starts_with("<!--"));
        let document = xml::parse(lines.collect::<String>().as_bytes()).expect("XML");
        let all = document.children().map(|s| (name.to_string(), s.clone()));
        stanzas.extend(all);
    }
    assert!(stanzas.len() > 50, "only {} stanzas", stanzas.len());
    stanzas
}

/// An element as text in which neither the order of attributes nor that of
/// children with different names shows, and nothing that is ignored.
fn canonical(element: &Element, ignored: &[&str]) -> String {
    let mut text = format!("<{{{}}}{}", element.ns(), element.name());
    let attributes: BTreeMap<String, &str> = element
        .attrs()
        .iter()
        .map(|((_, name), value)| (name.to_string(), value.as_str()))
        .collect();
    for (name, value) in attributes {
        let full = format!("{}@{name}", element.name());
        // Inherited by everything and of no meaning to programs.
        if name != "lang" && !ignored.contains(&full.as_str()) {
            text += &format!(" {name}={value:?}");
        }
    }
    text += ">";
    let own_text = element.text();
    if !own_text.trim().is_empty() {
        text += &format!("{:?}", own_text.trim());
    }
    let mut children: Vec<&Element> = element
        .children()
        .filter(|child| !ignored.contains(&child.name()))
        .collect();
    children.sort_by_key(|child| (child.ns(), child.name().to_owned()));
    for child in children {
        text += &canonical(child, ignored);
    }
    text + "</>"
}

/// Written as the client library needs it: no prefix anywhere, and `xmlns` on
/// exactly the elements whose namespace differs from their parent's.
fn check_writing(element: &Element) {
    let mut stanza = Element::bare("iq", ns::CLIENT);
    stanza.append_child(element.clone());
    let text = xml::write(&stanza);
    assert!(!text.contains("xmlns:"), "a prefix is declared in {text}");
    let mut open: Vec<String> = Vec::new();
    for tag in text.split('<').skip(1) {
        let tag = tag.split('>').next().expect("split yields one");
        if tag.starts_with('/') {
            open.pop();
            continue;
        }
        let name = tag.split([' ', '/']).next().expect("split yields one");
        assert!(!name.contains(':'), "a prefix in {text}");
        let declared = [" xmlns=\"", " xmlns='"].iter().find_map(|start| {
            let from = tag.find(start)? + start.len();
            let quote = start.chars().last()?;
            Some(tag[from..].split(quote).next()?.to_owned())
        });
        let outer = open.last().cloned();
        let inner = declared.clone().or(outer.clone()).expect("a namespace");
        assert!(
            declared.is_none() || outer.as_ref() != Some(&inner),
            "{name} repeats its parent's namespace in {text}"
        );
        if !tag.ends_with('/') {
            open.push(inner);
        }
    }
    let read = xml::parse(text.as_bytes()).expect("XML");
    assert_eq!(canonical(&read, &[]), canonical(&stanza, &[]));
}

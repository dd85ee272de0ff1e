//! Reading HOCON files, for both programs.
//!
//! A program asks for each key with a default; what is missing takes the
//! default, what is wrong takes it too and is noted. At the end `check`
//! lists every fault at once. Keys nobody asks for are ignored, as Jitsi
//! does, except under `viaduct { }`: those are ours alone, so an unknown one
//! is a typing error.

mod fault;
mod units;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use hocon_rs::Value;

pub use fault::{Fault, Faults};
pub use units::{parse_bandwidth, parse_duration, parse_fraction, parse_octets};

/// The block whose every key must be known.
const OURS: &str = "viaduct";
/// Values whose key ends so are not shown.
const SECRETS: [&str; 2] = ["password", "secret"];

/// A configuration, or a section of one. Sections share their faults.
#[derive(Clone)]
pub struct Config {
    /// Keys from the root to here, with a dot after each.
    prefix: String,
    value: Option<Rc<Value>>,
    ignore_case: bool,
    notes: Rc<Notes>,
}

#[derive(Default)]
struct Notes {
    faults: RefCell<Vec<Fault>>,
    asked: RefCell<BTreeSet<String>>,
}

impl Config {
    /// Reads a file, with what it includes. Substitutions not found in it
    /// are taken from the environment.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let fault = |problem: String, remedy: &str| {
            Faults(vec![Fault {
                key: String::new(),
                value: Some(path.display().to_string()),
                problem,
                remedy: remedy.to_owned(),
            }])
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            fault(
                format!("cannot be read: {error}"),
                "name a readable file with --config",
            )
        })?;
        // The reader knows a file's language by its extension, and includes
        // are found relative to a file only; other names are read as text.
        let known = path
            .extension()
            .is_some_and(|extension| extension == "conf" || extension == "json");
        let read = if known {
            hocon_rs::Config::parse_file::<Value>(path, None)
        } else {
            hocon_rs::Config::parse_str::<Value>(&text, None)
        };
        let value = read.map_err(|error| {
            fault(
                format!("is not HOCON: {}", describe(&error)),
                "correct the file",
            )
        })?;
        if let Some(line) = unclosed(&text) {
            let remedy = "close it; what follows would be read as part of it";
            return Err(fault(
                format!("line {line} opens what nothing closes"),
                remedy,
            ));
        }
        Ok(Self::new(value))
    }

    /// Reads HOCON from a text.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        match hocon_rs::Config::parse_str::<Value>(text, None) {
            Ok(value) => Ok(Self::new(value)),
            Err(error) => Err(Faults(vec![Fault {
                key: String::new(),
                value: None,
                problem: format!("not HOCON: {}", describe(&error)),
                remedy: "correct the text".to_owned(),
            }])),
        }
    }

    fn new(value: Value) -> Self {
        Self {
            prefix: String::new(),
            value: Some(Rc::new(value)),
            ignore_case: false,
            notes: Rc::default(),
        }
    }

    /// All faults found so far and, when called on the root after everything
    /// was asked for, the unknown keys under `viaduct`.
    pub fn check(&self) -> Result<(), Faults> {
        let mut faults = self.notes.faults.borrow().clone();
        if self.prefix.is_empty()
            && let Some(Value::Object(root)) = self.value.as_deref()
            && let Some(ours) = root.get(OURS)
        {
            let asked = self.notes.asked.borrow();
            let mut leaves = BTreeMap::new();
            collect_leaves(OURS, ours, &mut leaves);
            faults.extend(
                leaves
                    .into_iter()
                    .filter(|(key, _)| !asked.contains(key))
                    .map(|(key, value)| Fault {
                        value: Some(show(&key, value)),
                        key,
                        problem: "unknown key".to_owned(),
                        remedy: "correct its spelling or remove it".to_owned(),
                    }),
            );
        }
        if faults.is_empty() {
            Ok(())
        } else {
            faults.sort_by(|a, b| a.key.cmp(&b.key));
            Err(Faults(faults))
        }
    }

    /// Notes a fault that only the program can see, such as two keys that
    /// contradict each other. `path` is relative to this section.
    pub fn fault(&self, path: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let (key, value) = self.find(path);
        let value = value.map(|value| show(&key, &value));
        self.note(key, value, problem.into(), remedy.into());
    }

    /// Whether the file has anything there.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).1.is_some()
    }

    /// The section there; an empty one if the file has none.
    pub fn section(&self, path: &str) -> Self {
        let (key, value) = self.find(path);
        if let Some(value) = &value
            && !matches!(**value, Value::Object(_))
        {
            self.refuse(&key, value, "a section in braces", "{ key = value }");
        }
        self.at(key, value)
    }

    /// The named sections there, in the order of their names: of
    /// `configs { a { } b { } }`, `a` and `b`.
    pub fn sections(&self, path: &str) -> Vec<(String, Self)> {
        let parent = self.section(path);
        let Some(Value::Object(object)) = parent.value.as_deref() else {
            return Vec::new();
        };
        let mut names: Vec<&String> = object.keys().collect();
        names.sort();
        names
            .into_iter()
            .map(|name| {
                let value = &object[name];
                let key = format!("{}{name}", parent.prefix);
                if !matches!(value, Value::Object(_)) {
                    self.refuse(&key, value, "a section in braces", "{ key = value }");
                }
                (name.clone(), self.at(key, Some(Rc::new(value.clone()))))
            })
            .collect()
    }

    /// The names in the section there, in order.
    pub fn names(&self, path: &str) -> Vec<String> {
        match self.section(path).value.as_deref() {
            Some(Value::Object(object)) => {
                let mut names: Vec<String> = object.keys().cloned().collect();
                names.sort();
                names
            }
            _ => Vec::new(),
        }
    }

    /// The sections of the list there: of `[ { a = 1 }, { a = 2 } ]`, both.
    pub fn items(&self, path: &str) -> Vec<Self> {
        let (key, value) = self.find(path);
        let Some(value) = value else {
            return Vec::new();
        };
        let Some(list) = elements(&value) else {
            self.refuse(&key, &value, "a list", "[ { key = value } ]");
            return Vec::new();
        };
        list.into_iter()
            .enumerate()
            .map(|(index, item)| {
                let key = format!("{key}[{index}]");
                if !matches!(item, Value::Object(_)) {
                    self.refuse(&key, item, "a section in braces", "{ key = value }");
                }
                self.at(key, Some(Rc::new(item.clone())))
            })
            .collect()
    }

    /// The same section, in which the case of keys does not matter, as in
    /// Jitsi's connection blocks.
    pub fn ignoring_case(mut self) -> Self {
        self.ignore_case = true;
        self
    }

    pub fn boolean(&self, path: &str, default: bool) -> bool {
        self.value_of(path, "true or false", "true", |value| match value {
            Value::Boolean(value) => Some(*value),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "on" | "yes" => Some(true),
                "false" | "off" | "no" => Some(false),
                _ => None,
            },
            _ => None,
        })
        .unwrap_or(default)
    }

    /// A whole number within `range`.
    pub fn integer<T>(&self, path: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        self.optional_integer(path, range).unwrap_or(default)
    }

    /// As `integer`, without a default.
    pub fn optional_integer<T>(&self, path: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        self.value_of(path, &what, range.start(), |value| {
            scalar(value)?
                .trim()
                .parse()
                .ok()
                .filter(|number| range.contains(number))
        })
    }

    /// A number within `range`.
    pub fn number(&self, path: &str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let what = format!("a number from {} to {}", range.start(), range.end());
        self.value_of(path, &what, range.start(), |value| {
            scalar(value)?
                .trim()
                .parse()
                .ok()
                .filter(|number| range.contains(number))
        })
        .unwrap_or(default)
    }

    /// A share from nothing to all: `75%` or `0.75`.
    pub fn fraction(&self, path: &str, default: f64) -> f64 {
        self.value_of(path, "a share from 0% to 100%", "75%", |value| {
            parse_fraction(&scalar(value)?).filter(|share| (0.0..=1.0).contains(share))
        })
        .unwrap_or(default)
    }

    /// A text; numbers and truth values count as one. An empty text is
    /// `None`: it is what an environment variable without content leaves.
    pub fn text(&self, path: &str) -> Option<String> {
        self.value_of(path, "a text", "\"text\"", scalar)
            .filter(|text| !text.is_empty())
    }

    pub fn text_or(&self, path: &str, default: &str) -> String {
        self.text(path).unwrap_or_else(|| default.to_owned())
    }

    /// A text without which the section makes no sense: it is a fault if it
    /// is missing. `remedy` says what to write there.
    pub fn required_text(&self, path: &str, remedy: &str) -> Option<String> {
        let faults = self.notes.faults.borrow().len();
        let text = self.text(path);
        if text.is_none() && self.notes.faults.borrow().len() == faults {
            let (key, _) = self.find(path);
            self.note(key, None, "missing".to_owned(), remedy.to_owned());
        }
        text
    }

    /// A list of texts, or one text that lists them with commas.
    pub fn texts(&self, path: &str) -> Option<Vec<String>> {
        self.value_of(path, "a list of texts", "[\"a\", \"b\"]", |value| {
            if let Some(list) = elements(value) {
                return list.into_iter().map(scalar).collect();
            }
            let texts = scalar(value)?;
            let texts = texts.split(',').map(str::trim);
            Some(
                texts
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned)
                    .collect(),
            )
        })
    }

    /// A list of lists of texts.
    pub fn text_lists(&self, path: &str) -> Option<Vec<Vec<String>>> {
        self.value_of(
            path,
            "a list of lists",
            "[[\"a\", \"b\"], [\"c\"]]",
            |value| {
                let texts = |list: &Value| elements(list)?.into_iter().map(scalar).collect();
                elements(value)?.into_iter().map(texts).collect()
            },
        )
    }

    pub fn duration(&self, path: &str, default: Duration) -> Duration {
        self.optional_duration(path).unwrap_or(default)
    }

    pub fn optional_duration(&self, path: &str) -> Option<Duration> {
        self.value_of(path, "a duration", "5 seconds", |value| {
            parse_duration(&scalar(value)?)
        })
    }

    /// A bandwidth in bit/s.
    pub fn bandwidth(&self, path: &str, default: u64) -> u64 {
        self.optional_bandwidth(path).unwrap_or(default)
    }

    pub fn optional_bandwidth(&self, path: &str) -> Option<u64> {
        self.value_of(path, "a bandwidth", "500 kbps", |value| {
            parse_bandwidth(&scalar(value)?)
        })
    }

    /// A size in octets.
    pub fn octets(&self, path: &str, default: u64) -> u64 {
        self.value_of(path, "a size", "10 MiB", |value| {
            parse_octets(&scalar(value)?)
        })
        .unwrap_or(default)
    }

    /// An IP address.
    pub fn address(&self, path: &str) -> Option<IpAddr> {
        self.parsed(path, "an IP address", "192.0.2.1")
    }

    /// IP addresses.
    pub fn addresses(&self, path: &str) -> Option<Vec<IpAddr>> {
        self.parsed_list(path, "a list of IP addresses", "[\"192.0.2.1\"]")
    }

    /// An IP address and a port.
    pub fn socket_address(&self, path: &str) -> Option<SocketAddr> {
        self.parsed(path, "an IP address and a port", "192.0.2.1:10000")
    }

    /// The path of a file or folder.
    pub fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(PathBuf::from)
    }

    /// One of some words, whose case does not matter.
    pub fn choice<T: Copy>(&self, path: &str, default: T, choices: &[(&str, T)]) -> T {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let what = format!("one of {}", words.join(", "));
        let example = words.first().copied().unwrap_or_default();
        self.value_of(path, &what, example, |value| {
            let text = scalar(value)?;
            choices
                .iter()
                .find(|(word, _)| word.eq_ignore_ascii_case(text.trim()))
                .map(|(_, choice)| *choice)
        })
        .unwrap_or(default)
    }

    /// Anything with a reader of its own. `what` names it in a fault
    /// ("a JID"), `example` shows one.
    pub fn parsed<T: FromStr>(&self, path: &str, what: &str, example: &str) -> Option<T> {
        self.value_of(path, what, example, |value| {
            scalar(value)?.trim().parse().ok()
        })
    }

    /// As `parsed`, for a list, or a text that lists them with commas.
    pub fn parsed_list<T: FromStr>(&self, path: &str, what: &str, example: &str) -> Option<Vec<T>> {
        let texts = self.texts(path)?;
        self.value_of(path, what, example, |_| {
            texts.iter().map(|text| text.trim().parse().ok()).collect()
        })
    }

    /// The value there as `read` sees it; a fault if it sees none.
    fn value_of<T>(
        &self,
        path: &str,
        what: &str,
        example: impl Display,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let (key, value) = self.find(path);
        let value = value?;
        let read = read(&value);
        if read.is_none() {
            self.refuse(&key, &value, what, example);
        }
        read
    }

    fn refuse(&self, key: &str, value: &Value, what: &str, example: impl Display) {
        self.note(
            key.to_owned(),
            Some(show(key, value)),
            format!("not {what}"),
            format!("write for example {example}"),
        );
    }

    fn note(&self, key: String, value: Option<String>, problem: String, remedy: String) {
        let fault = Fault {
            key,
            value,
            problem,
            remedy,
        };
        let mut faults = self.notes.faults.borrow_mut();
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    fn at(&self, key: String, value: Option<Rc<Value>>) -> Self {
        Self {
            prefix: key + ".",
            value,
            ignore_case: self.ignore_case,
            notes: Rc::clone(&self.notes),
        }
    }

    /// The whole key, spelled as in the file, and what the file has there.
    fn find(&self, path: &str) -> (String, Option<Rc<Value>>) {
        let mut key = self.prefix.clone();
        let mut value = self.value.as_deref();
        for (depth, step) in path.split('.').enumerate() {
            let mut name = step;
            value = match value {
                Some(Value::Object(object)) => match self.entry(object, step) {
                    Some((found, value)) => {
                        name = found;
                        Some(value)
                    }
                    None => None,
                },
                _ => None,
            };
            if depth > 0 {
                key.push('.');
            }
            key.push_str(name);
        }
        self.notes.asked.borrow_mut().insert(key.clone());
        let value = value.filter(|value| !matches!(value, Value::Null));
        (key, value.map(|value| Rc::new(value.clone())))
    }

    fn entry<'a>(
        &self,
        object: &'a HashMap<String, Value>,
        step: &str,
    ) -> Option<(&'a str, &'a Value)> {
        if let Some((key, value)) = object.get_key_value(step) {
            return Some((key, value));
        }
        // Of keys that differ in case alone the first in order is taken, so
        // that two runs agree.
        object
            .iter()
            .filter(|(key, _)| self.ignore_case && key.eq_ignore_ascii_case(step))
            .min_by_key(|(key, _)| key.as_str())
            .map(|(key, value)| (key.as_str(), value))
    }
}

/// A single value as a text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Boolean(value) => Some(value.to_string()),
        Value::Object(_) | Value::Array(_) | Value::Null => None,
    }
}

/// The elements of a list, or of an object whose keys are their places
/// (HOCON, "Conversion of numerically-indexed objects to arrays").
fn elements(value: &Value) -> Option<Vec<&Value>> {
    match value {
        Value::Array(list) => Some(list.iter().collect()),
        Value::Object(object) => {
            let places: BTreeMap<u32, &Value> = object
                .iter()
                .filter_map(|(key, value)| Some((key.parse().ok()?, value)))
                .collect();
            (!places.is_empty()).then(|| places.into_values().collect())
        }
        _ => None,
    }
}

/// Every key below that has a value of its own.
fn collect_leaves<'a>(key: &str, value: &'a Value, leaves: &mut BTreeMap<String, &'a Value>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                collect_leaves(&format!("{key}.{name}"), value, leaves);
            }
        }
        Value::Array(list) if list.iter().any(|item| matches!(item, Value::Object(_))) => {
            for (index, value) in list.iter().enumerate() {
                collect_leaves(&format!("{key}[{index}]"), value, leaves);
            }
        }
        Value::Null => {}
        leaf => {
            leaves.insert(key.to_owned(), leaf);
        }
    }
}

/// A value as a fault shows it.
fn show(key: &str, value: &Value) -> String {
    let key = key.to_ascii_lowercase();
    if SECRETS.iter().any(|secret| key.ends_with(secret)) {
        return "(not shown)".to_owned();
    }
    match value {
        Value::Object(_) => "{...}".to_owned(),
        Value::Array(list) => {
            let shown: Vec<String> = list.iter().map(|item| show(&key, item)).collect();
            format!("[{}]", shown.join(", "))
        }
        value => scalar(value).map_or("null".to_owned(), |text| format!("\"{text}\"")),
    }
}

/// The line of the last brace or bracket that is left open: the reader takes
/// the end of the file for its end, and a section that lost its brace would
/// swallow the ones after it.
fn unclosed(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '"' => {
                let quote = if rest.starts_with("\"\"\"") {
                    "\"\"\""
                } else {
                    "\""
                };
                quote.len() + end_of_text(&rest[quote.len()..], quote)
            }
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '{' | '[' => {
                open.push(line);
                1
            }
            '}' | ']' => {
                open.pop();
                1
            }
            _ => next.len_utf8(),
        };
        let (passed, after) = rest.split_at(length);
        line += passed.matches('\n').count();
        rest = after;
    }
    open.pop()
}

/// Where a quoted text is over, its closing quote included.
fn end_of_text(text: &str, quote: &str) -> usize {
    let mut escaped = false;
    for (place, octet) in text.bytes().enumerate() {
        if escaped {
            escaped = false;
        } else if octet == b'\\' && quote.len() == 1 {
            escaped = true;
        } else if text.as_bytes()[place..].starts_with(quote.as_bytes()) {
            return place + quote.len();
        }
    }
    text.len()
}

/// The reader's own words, made readable.
fn describe(error: &hocon_rs::Error) -> String {
    match error {
        hocon_rs::Error::Eof => "it ends too early; is a brace or quote left open?".to_owned(),
        hocon_rs::Error::UnexpectedToken {
            expected,
            found_beginning,
        } => format!(
            "'{}' where {expected} should be",
            char::from(*found_beginning).escape_default()
        ),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text).expect("HOCON")
    }

    fn faults(config: &Config) -> Vec<String> {
        match config.check() {
            Ok(()) => Vec::new(),
            Err(Faults(faults)) => faults.iter().map(Fault::to_string).collect(),
        }
    }

    #[test]
    fn reads_lists_of_lists_and_names_that_nobody_knows_before() {
        let config = config("groups = [[a, b], [c]], bad = [a], delays { 50 = 500, 100 = 1000 }");
        assert_eq!(
            config.text_lists("groups"),
            Some(vec![
                vec!["a".to_owned(), "b".to_owned()],
                vec!["c".to_owned()]
            ])
        );
        assert_eq!(config.text_lists("bad"), None);
        assert_eq!(faults(&config).len(), 1);
        assert_eq!(config.names("delays"), ["100", "50"]);
        assert!(config.names("absent").is_empty());
    }

    #[test]
    fn reads_what_jitsi_writes() {
        let config = config(
            r#"
            videobridge {
              ice.udp.port = 10000
              ice { tcp { enabled = off } }
              cc { max-oversend-bitrate = 500 kbps, bwe-change-threshold = 15% }
              entity-expiration.timeout = 1 minute
              websockets { domains = ["a.example:443", b.example], tls = "yes" }
            }
            ice4j.harvest.mapping.static-mappings = [
              { local-address = "10.0.0.1", public-address = 192.0.2.1 }
            ]
            base = 5
            derived = ${base}"00"
            missing = ${?NO_SUCH_VARIABLE_ANYWHERE}
            path = ${PATH}
            "#,
        );
        let bridge = config.section("videobridge");
        assert_eq!(bridge.integer("ice.udp.port", 1u16, 1..=u16::MAX), 10000);
        assert!(!bridge.boolean("ice.tcp.enabled", true));
        assert_eq!(bridge.bandwidth("cc.max-oversend-bitrate", 0), 500_000);
        assert_eq!(bridge.fraction("cc.bwe-change-threshold", 0.0), 0.15);
        let timeout = bridge.duration("entity-expiration.timeout", Duration::ZERO);
        assert_eq!(timeout, Duration::from_secs(60));
        let domains = bridge.texts("websockets.domains").expect("a list");
        assert_eq!(domains, ["a.example:443", "b.example"]);
        assert!(bridge.boolean("websockets.tls", false));
        let mappings = config.items("ice4j.harvest.mapping.static-mappings");
        assert_eq!(mappings.len(), 1);
        assert_eq!(
            mappings[0].address("public-address"),
            "192.0.2.1".parse().ok()
        );
        assert_eq!(config.integer("derived", 0, 0..=1000), 500);
        assert_eq!(config.text("missing"), None);
        assert_eq!(config.text("path"), std::env::var("PATH").ok());
        assert_eq!(config.integer("not.there", 7, 0..=9), 7);
        assert_eq!(faults(&config), [""; 0]);
    }

    #[test]
    fn connection_blocks_do_not_care_for_case() {
        let config = config(
            "configs { b { Hostname = h2 }, a { HOSTNAME = h1, port = \"5222\", muc_jids = \"x@y, z@y\" } }",
        );
        let blocks = config.sections("configs");
        let read: Vec<_> = blocks
            .into_iter()
            .map(|(name, block)| {
                let block = block.ignoring_case();
                let port = block.integer("PORT", 5222u16, 1..=u16::MAX);
                (name, block.text("HOSTNAME"), port, block.texts("MUC_JIDS"))
            })
            .collect();
        let rooms = vec!["x@y".to_owned(), "z@y".to_owned()];
        assert_eq!(
            read,
            [
                ("a".to_owned(), Some("h1".to_owned()), 5222, Some(rooms)),
                ("b".to_owned(), Some("h2".to_owned()), 5222, None)
            ]
        );
        assert_eq!(faults(&config), [""; 0]);
    }

    #[test]
    fn every_fault_is_listed_with_key_value_and_remedy() {
        let config = config(
            "a { port = 99999, wait = soon, rate = fast, flag = maybe, ip = 300.1.1.1 }\n\
             a.mode = odd\n a.list = { x = 1 }\n a.section = 5\n a.password = []",
        );
        let a = config.section("a");
        assert_eq!(a.integer("port", 10u32, 1..=65535), 10);
        assert_eq!(a.duration("wait", Duration::ZERO), Duration::ZERO);
        assert_eq!(a.bandwidth("rate", 3), 3);
        assert!(a.boolean("flag", true));
        assert_eq!(a.address("ip"), None);
        assert_eq!(a.choice("mode", 1, &[("one", 1), ("two", 2)]), 1);
        assert_eq!(a.texts("list"), None);
        a.section("section");
        assert_eq!(a.required_text("password", "give the password"), None);
        assert_eq!(a.required_text("user", "give the account"), None);
        a.fault("port", "taken by mode", "choose another");
        assert_eq!(
            faults(&config),
            [
                "a.flag = \"maybe\": not true or false; write for example true",
                "a.ip = \"300.1.1.1\": not an IP address; write for example 192.0.2.1",
                "a.list = {...}: not a list of texts; write for example [\"a\", \"b\"]",
                "a.mode = \"odd\": not one of one, two; write for example one",
                "a.password = (not shown): not a text; write for example \"text\"",
                "a.port = \"99999\": not a whole number from 1 to 65535; write for example 1",
                "a.port = \"99999\": taken by mode; choose another",
                "a.rate = \"fast\": not a bandwidth; write for example 500 kbps",
                "a.section = \"5\": not a section in braces; write for example { key = value }",
                "a.user: missing; give the account",
                "a.wait = \"soon\": not a duration; write for example 5 seconds",
            ]
        );
    }

    #[test]
    fn unknown_keys_matter_under_viaduct_only() {
        let config = config(
            "videobridge.no-such = 1\n\
             viaduct { bridge { workers = 2, wrokers = 3 }, list = [{ a = 1, b = 2 }], names = [x] }",
        );
        let ours = config.section("viaduct");
        assert_eq!(ours.integer("bridge.workers", 1, 1..=64), 2);
        assert_eq!(ours.items("list")[0].integer("a", 0, 0..=9), 1);
        assert_eq!(ours.texts("names").map(|names| names.len()), Some(1));
        assert_eq!(
            faults(&config),
            [
                "viaduct.bridge.wrokers = \"3\": unknown key; correct its spelling or remove it",
                "viaduct.list[0].b = \"2\": unknown key; correct its spelling or remove it",
            ]
        );
    }

    #[test]
    fn files_include_files_beside_them() {
        let folder = std::env::temp_dir().join(format!("viaduct-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        write("other.conf", "b = 2, c = 3");
        let main = write("main.conf", "a = 1\ninclude \"other.conf\"\nc = 4");
        let config = Config::load(&main).expect("HOCON");
        let read = ["a", "b", "c"].map(|key| config.integer(key, 0, 0..=9));
        assert_eq!(read, [1, 2, 4]);
        let odd = write("main.cfg", "a = 5");
        let config = Config::load(&odd).expect("HOCON");
        assert_eq!(config.integer("a", 0, 0..=9), 5);

        let broken = write("broken.conf", "a = [1, }");
        let open = write(
            "open.conf",
            "a {\n b { c = \"}\" # }\n } \n d = ${?e} // }\n",
        );
        for (path, said) in [
            (broken, "is not HOCON"),
            (open, "line 1 opens what nothing closes"),
            (folder.join("none.conf"), "cannot be read"),
        ] {
            let Err(error) = Config::load(&path) else {
                panic!("{path:?} was read");
            };
            let error = error.to_string();
            assert!(
                error.contains(said) && error.contains(&*path.to_string_lossy()),
                "{error}"
            );
        }
        std::fs::remove_dir_all(&folder).expect("the folder");
    }
}

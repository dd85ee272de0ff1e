//! Who this bridge is in the fleet: an id made once and kept on disk, and the
//! XMPP resource and nicknames that follow from it.
//!
//! All bridges of a deployment share one XMPP account, and most are copies of
//! one disk image. Two that bind the same resource throw each other out for
//! ever; two that share a nickname are one occupant to the room and neither
//! gets a call (`focus-bridge` §1.2). So
//!
//! - the id is random, one for each media port of a host, in a file of its own;
//! - the resource hangs on id, machine id and media port, never on the nickname;
//! - a bridge that was replaced by another takes a new id and a suffixed
//!   nickname, both kept on disk, and never takes the old name back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Where systemd, D-Bus and most of Linux keep the id of an installation.
const MACHINE_ID: &str = "/etc/machine-id";

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// 64 random bits, hexadecimal.
    id: String,
    /// The nickname used where the configuration gives none.
    nickname: String,
    /// Names given up to another bridge, each with what took its place here.
    #[serde(default)]
    given_up: BTreeMap<String, String>,
}

impl Kept {
    fn new() -> Self {
        let id = random_id();
        Self {
            nickname: format!("viaduct-{}", &id[..12]),
            id,
            given_up: BTreeMap::new(),
        }
    }
}

/// The kept id and the names made from it.
#[derive(Debug)]
pub struct Identity {
    kept: Kept,
    /// `None` when nothing can be kept: then the id lasts as long as the process.
    path: Option<PathBuf>,
    machine_id: String,
    media_port: u16,
}

/// The state directory cannot serve.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct IdentityError {
    pub path: PathBuf,
    pub error: io::Error,
}

impl Identity {
    /// Reads the id kept in `dir` for `media_port`, or makes and keeps one.
    pub fn load(dir: &Path, media_port: u16) -> Result<Self, IdentityError> {
        let path = dir.join(format!("bridge-{media_port}.json"));
        let at = |error| IdentityError {
            path: path.clone(),
            error,
        };
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| at(io::Error::new(io::ErrorKind::InvalidData, e)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(dir).map_err(at)?;
                let kept = Kept::new();
                write(&path, &kept).map_err(at)?;
                kept
            }
            Err(error) => return Err(at(error)),
        };
        Ok(Self::new(kept, Some(path), media_port))
    }

    /// An id that nothing keeps.
    pub fn transient(media_port: u16) -> Self {
        Self::new(Kept::new(), None, media_port)
    }

    fn new(kept: Kept, path: Option<PathBuf>, media_port: u16) -> Self {
        // Absent in some containers; then the id alone tells bridges apart.
        let machine_id = fs::read_to_string(MACHINE_ID).unwrap_or_default();
        Self {
            kept,
            path,
            machine_id: machine_id.trim().to_owned(),
            media_port,
        }
    }

    /// The XMPP resource: the same at every start, and no other bridge's.
    pub fn resource(&self) -> String {
        format!("viaduct-{}", &self.digest("resource")[..16])
    }

    /// The nickname to join with: `configured` or our own, unless given up.
    pub fn nickname(&self, configured: Option<&str>) -> String {
        let mut name = configured.unwrap_or(&self.kept.nickname);
        // Every name given up leads to a later one, so this ends; the count
        // guards against an edited file.
        for _ in 0..self.kept.given_up.len() {
            match self.kept.given_up.get(name) {
                Some(next) => name = next,
                None => break,
            }
        }
        name.to_owned()
    }

    /// What to append to a nickname that another bridge has.
    pub fn suffix(&self) -> String {
        self.digest("suffix")[..4].to_owned()
    }

    /// Another bridge bound our resource: takes a new id and gives `nickname`
    /// up for good. Answers the name that takes its place; an error means that
    /// it will not outlast the process.
    pub fn give_up(&mut self, nickname: &str) -> (String, Result<(), IdentityError>) {
        self.kept.id = random_id();
        let next = format!("{nickname}-{}", self.suffix());
        self.kept.given_up.insert(nickname.to_owned(), next.clone());
        let written = match &self.path {
            Some(path) => write(path, &self.kept).map_err(|error| IdentityError {
                path: path.clone(),
                error,
            }),
            None => Ok(()),
        };
        (next, written)
    }

    /// Hexadecimal digest of all that makes this bridge another than its like.
    fn digest(&self, purpose: &str) -> String {
        let input = format!(
            "{purpose}\n{}\n{}\n{}",
            self.kept.id, self.machine_id, self.media_port
        );
        digest(&SHA256, input.as_bytes())
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

fn random_id() -> String {
    format!("{:016x}", super::rng::generator().random::<u64>())
}

/// Replaces the file as a whole, so that a crash leaves the old or the new one.
fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(kept).expect("strings and a map of strings");
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("viaduct-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn an_id_is_made_once_and_kept() {
        let dir = directory("identity-kept");
        let first = Identity::load(&dir, 10_000).expect("a fresh directory");
        let again = Identity::load(&dir, 10_000).expect("a kept id");
        let beside = Identity::load(&dir, 10_001).expect("another bridge beside it");
        assert_eq!(first.resource(), again.resource());
        assert_eq!(first.nickname(None), again.nickname(None));
        assert_eq!(first.nickname(Some("jvb")), "jvb");
        assert_ne!(first.resource(), beside.resource());
        assert_ne!(first.nickname(None), beside.nickname(None));
        fs::remove_dir_all(&dir).expect("a directory of ours");
    }

    #[test]
    fn a_name_given_up_is_never_taken_back() {
        let dir = directory("identity-given-up");
        let mut bridge = Identity::load(&dir, 10_000).expect("a fresh directory");
        let resource = bridge.resource();
        let (second, written) = bridge.give_up("jvb");
        written.expect("a directory of ours");
        assert!(second.starts_with("jvb-") && second.len() == 8, "{second}");
        assert_ne!(bridge.resource(), resource);
        let (third, written) = bridge.give_up(&second);
        written.expect("a directory of ours");
        let restarted = Identity::load(&dir, 10_000).expect("a kept id");
        assert_eq!(restarted.nickname(Some("jvb")), third);
        assert_eq!(restarted.resource(), bridge.resource());
        fs::remove_dir_all(&dir).expect("a directory of ours");
    }

    #[test]
    fn copies_of_one_disk_image_differ_by_machine() {
        let dir = directory("identity-copies");
        let one = Identity::load(&dir, 10_000).expect("a fresh directory");
        let mut two = Identity::load(&dir, 10_000).expect("a kept id");
        two.machine_id.push('x');
        assert_ne!(one.resource(), two.resource());
        assert_ne!(one.suffix(), two.suffix());
        fs::remove_dir_all(&dir).expect("a directory of ours");
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let dir = directory("identity-broken");
        fs::create_dir_all(&dir).expect("a temporary directory");
        fs::write(dir.join("bridge-1.json"), "{").expect("a temporary file");
        let error = Identity::load(&dir, 1).expect_err("broken JSON");
        assert!(error.to_string().contains("bridge-1.json"), "{error}");
        fs::remove_dir_all(&dir).expect("a directory of ours");
    }
}

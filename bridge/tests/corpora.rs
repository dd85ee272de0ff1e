//! Replays the corpora of the fuzz targets.

#[path = "../fuzz/data_channel.rs"]
mod data_channel;
#[path = "../fuzz/media.rs"]
mod media;
#[path = "../fuzz/messages.rs"]
mod messages;

fn replay(target: &str, test: fn(&[u8])) {
    let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{folder} is thin");
    for file in files {
        println!("{}", file.display());
        test(&std::fs::read(file).expect("a readable file"));
    }
}

#[test]
fn rtp() {
    replay("rtp", media::rtp);
}

#[test]
fn rtcp() {
    replay("rtcp", media::rtcp);
}

#[test]
fn dependency_descriptor() {
    replay("dependency_descriptor", media::dependency_descriptor);
}

#[test]
fn vp8() {
    replay("vp8", media::vp8);
}

#[test]
fn vp9() {
    replay("vp9", media::vp9);
}

#[test]
fn h264() {
    replay("h264", media::h264);
}

#[test]
fn red() {
    replay("red", media::red);
}

#[test]
fn srtp_open() {
    replay("srtp_open", media::srtp_open);
}

#[test]
fn projection() {
    replay("projection", media::projection);
}

#[test]
fn data_channel() {
    replay("data_channel", data_channel::conversation);
}

#[test]
fn messages() {
    replay("messages", messages::message);
}

//! Pictures from packets: payloads put together as a receiver does, and decoded
//! by ffmpeg (Debian's package of that name).

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use viaduct_bridge::command::Codec;
use viaduct_bridge::rtp::{vp8, vp9};

/// What the decoder made of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) checksum: u32,
}

/// Whether there is a decoder; if not, says so where nobody can miss it.
pub(crate) fn available() -> bool {
    let found = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !found {
        // Not by a macro: those of a test that passes are not shown.
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "\nSKIP: no ffmpeg here, nothing is decoded\n");
    }
    found
}

/// The bit stream of one picture from its payloads, in order.
pub(crate) fn picture(codec: &Codec, payloads: &[&[u8]]) -> Vec<u8> {
    match codec {
        Codec::Vp8 => vp8_picture(payloads),
        Codec::Vp9 => vp9_picture(payloads),
        Codec::Av1 => av1_picture(payloads),
        Codec::H264 => h264_picture(payloads),
        _ => unreachable!("the recordings have four codecs"),
    }
}

fn vp8_picture(payloads: &[&[u8]]) -> Vec<u8> {
    let data = payloads.iter().map(|payload| {
        let descriptor = vp8::Descriptor::parse(payload).expect("valid");
        &payload[descriptor.len..]
    });
    data.collect::<Vec<_>>().concat()
}

/// The frames of all spatial layers, behind them their sizes (VP9 bit stream
/// specification, annex B).
fn vp9_picture(payloads: &[&[u8]]) -> Vec<u8> {
    let mut picture = Vec::new();
    let mut sizes: Vec<u32> = Vec::new();
    for payload in payloads {
        let descriptor = vp9::Descriptor::parse(payload).expect("valid");
        if descriptor.start_of_frame {
            sizes.push(0);
        }
        let data = &payload[descriptor.len..];
        *sizes.last_mut().expect("a frame has begun") += data.len() as u32;
        picture.extend_from_slice(data);
    }
    if sizes.len() > 1 {
        let marker = 0xc0 | 3 << 3 | (sizes.len() - 1) as u8;
        picture.push(marker);
        for size in sizes {
            picture.extend_from_slice(&size.to_le_bytes());
        }
        picture.push(marker);
    }
    picture
}

/// A temporal unit: the OBU elements joined, with a size each (AV1 RTP payload
/// format §4.4, AV1 specification §5.3).
fn av1_picture(payloads: &[&[u8]]) -> Vec<u8> {
    let mut elements: Vec<Vec<u8>> = Vec::new();
    for payload in payloads {
        let (header, mut rest) = payload.split_first().expect("an aggregation header");
        let (continues, count) = (header & 0x80 != 0, usize::from(header >> 4 & 3));
        let mut n = 0;
        while !rest.is_empty() {
            n += 1;
            let len = if count > 0 && n == count {
                rest.len()
            } else {
                read_leb128(&mut rest)
            };
            let (element, tail) = rest.split_at(len);
            rest = tail;
            match elements.last_mut() {
                Some(last) if n == 1 && continues => last.extend_from_slice(element),
                _ => elements.push(element.to_vec()),
            }
        }
    }
    // A temporal delimiter, which is not sent.
    let mut unit = vec![0x12, 0x00];
    for element in elements {
        let header = 1 + usize::from(element[0] & 0x04 != 0);
        assert_eq!(element[0] & 0x02, 0, "an OBU with a size");
        unit.push(element[0] | 0x02);
        unit.extend_from_slice(&element[1..header]);
        let mut size = element.len() - header;
        while size >= 0x80 {
            unit.push(size as u8 | 0x80);
            size >>= 7;
        }
        unit.push(size as u8);
        unit.extend_from_slice(&element[header..]);
    }
    unit
}

fn read_leb128(rest: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (octet, tail) = rest.split_first().expect("a length");
        *rest = tail;
        value |= usize::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            break;
        }
    }
    value
}

/// NAL units behind start codes (RFC 6184 §5.6 to 5.8).
fn h264_picture(payloads: &[&[u8]]) -> Vec<u8> {
    let mut picture = Vec::new();
    for payload in payloads {
        match payload[0] & 0x1f {
            24 => {
                let mut rest = &payload[1..];
                while let Some((len, tail)) = rest.split_first_chunk::<2>() {
                    let (unit, tail) = tail.split_at(u16::from_be_bytes(*len).into());
                    picture.extend_from_slice(&[0, 0, 0, 1]);
                    picture.extend_from_slice(unit);
                    rest = tail;
                }
            }
            28 => {
                if payload[1] & 0x80 != 0 {
                    picture.extend_from_slice(&[0, 0, 0, 1]);
                    picture.push(payload[0] & 0xe0 | payload[1] & 0x1f);
                }
                picture.extend_from_slice(&payload[2..]);
            }
            _ => {
                picture.extend_from_slice(&[0, 0, 0, 1]);
                picture.extend_from_slice(payload);
            }
        }
    }
    picture
}

/// Decodes pictures, one after another. Panics if the decoder has anything to
/// complain of, or makes another number of pictures of them.
pub(crate) fn decode(codec: &Codec, pictures: &[Vec<u8>]) -> Vec<Picture> {
    let (decoder, four_cc) = match codec {
        Codec::Vp8 => ("libvpx", b"VP80"),
        Codec::Vp9 => ("libvpx-vp9", b"VP90"),
        Codec::Av1 => ("libdav1d", b"AV01"),
        _ => ("h264", b"H264"),
    };
    let mut stream = Vec::new();
    if *codec == Codec::H264 {
        stream = pictures.concat();
    } else {
        // IVF: a header, then each picture behind its size and number.
        stream.extend_from_slice(b"DKIF\0\0\x20\0");
        stream.extend_from_slice(four_cc);
        stream.extend_from_slice(&[0, 5, 0xd0, 2, 15, 0, 0, 0, 1, 0, 0, 0]);
        stream.extend_from_slice(&(pictures.len() as u32).to_le_bytes());
        stream.extend_from_slice(&[0; 4]);
        for (picture, n) in pictures.iter().zip(0u64..) {
            stream.extend_from_slice(&(picture.len() as u32).to_le_bytes());
            stream.extend_from_slice(&n.to_le_bytes());
            stream.extend_from_slice(picture);
        }
    }
    let file = Scratch::new(&stream);
    let format = if *codec == Codec::H264 { "h264" } else { "ivf" };
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostats", "-loglevel", "level+info"])
        .args(["-threads", "1", "-f", format, "-c:v", decoder, "-i"])
        .arg(&file.0)
        .args([
            "-fps_mode",
            "passthrough",
            "-vf",
            "showinfo",
            "-f",
            "null",
            "-",
        ])
        .output()
        .expect("ffmpeg runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let mut decoded = Vec::new();
    for line in text.lines() {
        let complaint = ["[error]", "[fatal]"]
            .iter()
            .any(|level| line.contains(level));
        assert!(!complaint, "{line}");
        if !line.contains("Parsed_showinfo") || !line.contains("checksum:") {
            continue;
        }
        let word = |name: &str| {
            let found = line.split(name).nth(1).expect("showinfo tells it");
            found.split_whitespace().next().expect("a value")
        };
        let (width, height) = word(" s:").split_once('x').expect("two sides");
        decoded.push(Picture {
            width: width.parse().expect("a number"),
            height: height.parse().expect("a number"),
            checksum: u32::from_str_radix(word(" checksum:"), 16).expect("a checksum"),
        });
    }
    assert_eq!(decoded.len(), pictures.len(), "{text}");
    decoded
}

/// A file that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(contents: &[u8]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("viaduct-pictures-{}-{n}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, contents).expect("room for a file");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

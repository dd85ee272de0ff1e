//! Load: as many participants as one core can bear, to measure what they do to a
//! server, not to verify every octet as [`crate::client::participant`] does.
//!
//! A [`member`] has the transport, the sender and the sources of any other
//! participant. What it receives it reads by the clear headers ([`stream`]), all
//! of it; a stated share of the packets it opens and holds against the tag
//! inside. Whose a packet is says its SSRC ([`layout`]).
//!
//! Elsewhere: driving them (`io/load`), what becomes of the figures ([`report`]).

pub mod colibri;
pub mod compare;
pub mod found;
pub mod html;
pub mod layout;
pub mod member;
pub mod plan;
pub mod plot;
pub mod report;
pub mod stream;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::client::jingle::Formats;
use crate::source::Codec;
use crate::source::video::{Picture, Profile};
use layout::{Layout, Seat};

/// What carries the bridge channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    Websocket,
    Datachannel,
    /// Nothing: a bridge then forwards what it does without being asked.
    None,
}

/// What receivers tell the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Feedback {
    /// Nothing, and no transport-wide numbers are agreed on.
    None,
    /// What a client does: transport-cc, NACK and RTX, receiver reports.
    Full,
}

/// What all members of a run have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    pub layout: Layout,
    /// In all tags.
    pub run: u32,
    pub picture: Picture,
    pub channel: Channel,
    pub feedback: Feedback,
    pub height: u16,
    pub last_n: i32,
    /// One of so many packets is opened.
    pub open_every: u32,
    /// Share of what arrives that members throw away, as a bad network would,
    /// and bits a second beyond which they throw all away; 0 for no limit.
    pub loss: f64,
    pub limit: u64,
    pub seed: u64,
}

/// Payload types and extensions of a run, as Jitsi's clients number them.
pub fn formats(codec: Codec, feedback: Feedback) -> Formats {
    let (video, rtx) = match codec {
        Codec::Vp8 => (100, 96),
        Codec::Vp9 => (101, 97),
        Codec::Av1 => (41, 42),
        Codec::H264 => (107, 99),
    };
    let full = feedback == Feedback::Full;
    Formats {
        audio: 111,
        video,
        video_rtx: full.then_some(rtx),
        audio_level: Some(1),
        transport_cc: full.then_some(5),
        // Without it VP8 says its layers in the payload.
        dependency_descriptor: codec.is_svc().then_some(11),
    }
}

impl Settings {
    /// A camera as `codec` and `profile` have it. `kilobits`: of each layer, from
    /// the lowest up.
    pub fn picture(codec: Codec, profile: Profile, rate: u32, kilobits: &[u32]) -> Picture {
        let mut picture = Picture::camera(codec, codec.is_svc()).with_profile(profile);
        picture.rate = rate;
        for (layer, kilobits) in picture.layers.iter_mut().zip(kilobits) {
            layer.bits_per_second = kilobits * 1000;
        }
        picture
    }

    /// What is used of what a session agreed on.
    pub fn agreed(&self, offered: &Formats) -> Formats {
        let full = self.feedback == Feedback::Full;
        Formats {
            video_rtx: offered.video_rtx.filter(|_| full),
            transport_cc: offered.transport_cc.filter(|_| full),
            dependency_descriptor: offered
                .dependency_descriptor
                .filter(|_| self.picture.descriptors),
            ..offered.clone()
        }
    }

    pub fn frame_time(&self) -> Duration {
        Duration::from_secs(1) / self.picture.rate.max(1)
    }

    /// Whether receivers want the pictures of all others.
    pub fn wants_all(&self) -> bool {
        self.pictures_wanted(self.layout.shape.senders) == self.layout.shape.senders
    }

    /// Of how many of so many others they want pictures.
    pub fn pictures_wanted(&self, others: u32) -> u32 {
        u32::try_from(self.last_n).map_or(others, |last_n| last_n.min(others))
    }

    /// A pause between two pictures that is a freeze. Where not all are wanted, the
    /// server may choose others at any time, and none is.
    pub fn freeze_after(&self) -> Duration {
        match self.wants_all() {
            true => stream::freeze_after(self.frame_time()),
            false => Duration::MAX,
        }
    }

    /// The layer that a receiver is to get; `None` for no picture.
    pub fn wanted_layer(&self, height: u16) -> Option<usize> {
        let height = self.picture.height_for(height)?;
        self.picture.layers.iter().rposition(|l| l.height == height)
    }

    /// The layer that is due of every other's picture; `None` for none, or where not
    /// all are wanted: of whom pictures come is then the server's choice.
    pub fn due_layer(&self, height: u16) -> Option<usize> {
        self.wanted_layer(height).filter(|_| self.wants_all())
    }
}

/// Packets that a place sent: of its microphone, of each layer of its camera.
pub type Sent = [u32; 4];

/// What was sent, by place, for receivers to know what to expect; read and
/// written by all threads. Two generations each, so that a successor does not
/// change what its predecessor sent.
#[derive(Debug)]
pub struct SentBoard(Vec<Place>);

#[derive(Debug, Default)]
struct Place {
    /// The generation that is there, or was last, plus one; 0 before the first.
    newest: AtomicU32,
    /// When it began, in nanoseconds since the epoch of the run.
    began: AtomicU64,
    generations: [Entry; 2],
}

#[derive(Debug, Default)]
struct Entry {
    packets: [AtomicU32; 4],
    left: AtomicBool,
}

impl Place {
    fn entry(&self, generation: u16) -> &Entry {
        &self.generations[usize::from(generation & 1)]
    }
}

impl SentBoard {
    pub fn new(places: u32) -> Self {
        Self((0..places).map(|_| Default::default()).collect())
    }

    fn entry(&self, seat: Seat) -> Option<&Entry> {
        let place = self.0.get(seat.place as usize)?;
        Some(place.entry(seat.generation))
    }

    /// Counts one packet: 0 of the microphone, else of a layer, plus one.
    pub fn count(&self, seat: Seat, kind: usize) {
        let entry = self.entry(seat);
        if let Some(count) = entry.and_then(|entry| entry.packets.get(kind)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A generation begins, so long after the epoch of the run.
    pub fn begin(&self, seat: Seat, after: Duration) {
        let Some(place) = self.0.get(seat.place as usize) else {
            return;
        };
        let entry = place.entry(seat.generation);
        for count in &entry.packets {
            count.store(0, Ordering::Relaxed);
        }
        entry.left.store(false, Ordering::Relaxed);
        place
            .began
            .store(after.as_nanos() as u64, Ordering::Relaxed);
        let newest = u32::from(seat.generation) + 1;
        place.newest.store(newest, Ordering::Relaxed);
    }

    /// Which generation is at a place, and since when after the epoch of the run.
    pub fn present(&self, place: u32) -> Option<(Seat, Duration)> {
        let here = self.0.get(place as usize)?;
        let newest = here.newest.load(Ordering::Relaxed).checked_sub(1)?;
        let seat = Seat {
            place,
            generation: newest as u16,
        };
        let began = Duration::from_nanos(here.began.load(Ordering::Relaxed));
        (!self.has_left(seat)).then_some((seat, began))
    }

    /// A generation ends.
    pub fn end(&self, seat: Seat) {
        if let Some(entry) = self.entry(seat) {
            entry.left.store(true, Ordering::Relaxed);
        }
    }

    pub fn has_left(&self, seat: Seat) -> bool {
        self.entry(seat)
            .is_some_and(|entry| entry.left.load(Ordering::Relaxed))
    }

    pub fn of(&self, seat: Seat) -> Sent {
        self.entry(seat).map_or([0; 4], |entry| {
            std::array::from_fn(|kind| entry.packets[kind].load(Ordering::Relaxed))
        })
    }
}

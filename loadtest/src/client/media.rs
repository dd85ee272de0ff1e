//! What a participant has to send: its microphone, camera and, once it shares
//! it, its screen; each may be muted.

use std::time::Instant;

use crate::source::SourcePacket;
use crate::source::audio::AudioSource;
use crate::source::tag::Kind;
use crate::source::video::{Picture, VideoSource};

/// Who sends, for the tags.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub run: u32,
    pub number: u16,
    /// How many take turns in talking.
    pub senders: u16,
}

/// The sources of a participant, over all its sessions.
#[derive(Debug)]
pub struct Media {
    owner: Owner,
    audio: AudioSource,
    videos: Vec<VideoSource>,
    muted: [bool; 3],
}

impl Media {
    /// A microphone and a camera; `seed` for their numbers.
    pub fn new(owner: Owner, camera: Picture, seed: u64, now: Instant) -> Self {
        let Owner {
            run,
            number,
            senders,
        } = owner;
        let timestamp = (seed >> 32) as u32;
        Self {
            owner,
            audio: AudioSource::new(run, number, senders, timestamp, now),
            videos: vec![VideoSource::new(run, number, camera, seed, now)],
            muted: [false; 3],
        }
    }

    /// Begins to share a screen.
    pub fn share(&mut self, screen: Picture, seed: u64, now: Instant) {
        let (run, number) = (self.owner.run, self.owner.number);
        self.videos
            .push(VideoSource::new(run, number, screen, seed, now));
    }

    /// The kinds of sources there are.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        std::iter::once(Kind::Audio).chain(self.videos.iter().map(|v| v.picture().kind))
    }

    /// Begins to send at `now`, after a pause of everything.
    pub fn resume(&mut self, now: Instant) {
        self.audio.resume(now);
        for video in &mut self.videos {
            video.resume(now);
            if self.muted[video.picture().kind as usize] {
                video.pause();
            }
        }
    }

    /// A muted source makes no packets, but sends the picture it has begun.
    pub fn set_muted(&mut self, now: Instant, kind: Kind, muted: bool) {
        let before = std::mem::replace(&mut self.muted[kind as usize], muted);
        if before == muted {
            return;
        }
        match (kind, muted) {
            (Kind::Audio, true) => {}
            (Kind::Audio, false) => self.audio.resume(now),
            (Kind::Camera | Kind::Desktop, _) => match self.video(kind) {
                Some(video) if muted => video.pause(),
                Some(video) => video.resume(now),
                None => {}
            },
        }
    }

    pub fn is_muted(&self, kind: Kind) -> bool {
        self.muted[kind as usize]
    }

    /// Whether a muted source still has packets of its last picture.
    pub fn ends_picture(&self, kind: Kind) -> bool {
        let mut videos = self.videos.iter().filter(|v| v.picture().kind == kind);
        self.is_muted(kind) && videos.any(|video| video.next_due().is_some())
    }

    /// The camera or the screen.
    pub fn video(&mut self, kind: Kind) -> Option<&mut VideoSource> {
        self.videos
            .iter_mut()
            .find(|video| video.picture().kind == kind)
    }

    /// Packets of audio made so far.
    pub fn audio_sent(&self) -> u32 {
        self.audio.sent()
    }

    /// When [`Self::poll`] has something again.
    pub fn next_due(&self) -> Option<Instant> {
        let audio = (!self.is_muted(Kind::Audio)).then(|| self.audio.next_due());
        let videos = self.videos.iter().filter_map(VideoSource::next_due);
        audio.into_iter().chain(videos).min()
    }

    /// A packet that is due at `now`, and of which source. Call until `None`.
    pub fn poll(&mut self, now: Instant, epoch: Instant) -> Option<(Kind, SourcePacket)> {
        if !self.muted[Kind::Audio as usize]
            && let Some(packet) = self.audio.poll(now, epoch)
        {
            return Some((Kind::Audio, packet));
        }
        self.videos.iter_mut().find_map(|video| {
            let packet = video.poll(now, epoch)?;
            Some((video.picture().kind, packet))
        })
    }
}

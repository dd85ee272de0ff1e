//! SRTP and SRTCP (RFC 3711, RFC 7714): opens and seals packets where they lie.
//!
//! Ciphers, key schedules and the hash's keyed state are made once for a peer
//! and direction; a packet costs no allocation. What has to survive a process
//! (keys, rollover counters, replay windows) is plain data of its own:
//! [`MasterKey`], [`InboundState`], [`OutboundState`].
//!
//! Nothing is remembered of a packet, not even its SSRC, before its tag has
//! been verified, and every RTCP packet is authenticated, encrypted or not.

use std::fmt;

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{aead, constant_time, hmac};
use serde::{Deserialize, Serialize};

use crate::rtp::{self, PacketIndex, RtpError, Ssrc};

/// SSRCs remembered of one peer (`jitsi-videobridge` keeps as many); the one
/// that has been silent longest makes room for a new one.
pub const MAX_STREAMS: usize = 1024;
/// Packets that may come out of order, RTP and RTCP.
const RTP_WINDOW: u64 = 1024;
const RTCP_WINDOW: u64 = 128;

const GCM_TAG: usize = 16;
const HMAC_TAG: usize = 10;
/// The E bit and the index at the end of an SRTCP packet.
const RTCP_TRAILER: usize = 4;
/// The part of an RTCP packet that is never encrypted.
const RTCP_HEADER: usize = 8;
/// Indices of SRTCP are 31 bits; no key may see one twice.
const RTCP_INDICES: u32 = 1 << 31;

/// Protection profiles of DTLS-SRTP (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    AeadAes256Gcm,
    AeadAes128Gcm,
    Aes128CmSha1_80,
}

impl Profile {
    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
            Self::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Self::Aes128CmSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
        }
    }

    /// Octets of a master key.
    pub fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
        }
    }

    /// Octets of a master salt.
    pub fn salt_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }

    /// Octets by which a sealed RTP packet is longer.
    pub fn rtp_overhead(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => GCM_TAG,
            Self::Aes128CmSha1_80 => HMAC_TAG,
        }
    }

    /// Octets by which a sealed RTCP packet is longer.
    pub fn rtcp_overhead(self) -> usize {
        self.rtp_overhead() + RTCP_TRAILER
    }
}

/// Master key and salt of one direction.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterKey {
    profile: Profile,
    key: Vec<u8>,
    salt: Vec<u8>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl MasterKey {
    /// `None` if key or salt have not the lengths of the profile.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Self> {
        (key.len() == profile.key_len() && salt.len() == profile.salt_len()).then(|| Self {
            profile,
            key: key.to_vec(),
            salt: salt.to_vec(),
        })
    }

    /// The profile the key is for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The key derivation of RFC 3711 §4.3, with a derivation rate of 0. For
    /// AEAD profiles the salt counts as if zeros followed it (RFC 7714 §11).
    fn derive(&self, label: u8, out: &mut [u8]) {
        let mut block = [0; 16];
        block[..self.salt.len()].copy_from_slice(&self.salt);
        block[7] ^= label;
        out.fill(0);
        counter_mode(&self.key).apply(block, out);
    }
}

/// What a DTLS handshake gives for SRTP: a key for each direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyingMaterial {
    /// What the DTLS client sends with.
    pub client: MasterKey,
    /// What the DTLS server sends with.
    pub server: MasterKey,
}

impl KeyingMaterial {
    /// Octets to ask the exporter `EXTRACTOR-dtls_srtp` for (RFC 5764 §4.2).
    pub fn exported_len(profile: Profile) -> usize {
        2 * (profile.key_len() + profile.salt_len())
    }

    /// Divides the exporter's octets; `None` if there are too few.
    pub fn from_exporter(profile: Profile, exported: &[u8]) -> Option<Self> {
        let (client_key, rest) = exported.split_at_checked(profile.key_len())?;
        let (server_key, rest) = rest.split_at_checked(profile.key_len())?;
        let (client_salt, rest) = rest.split_at_checked(profile.salt_len())?;
        let server_salt = rest.get(..profile.salt_len())?;
        Some(Self {
            client: MasterKey::new(profile, client_key, client_salt)?,
            server: MasterKey::new(profile, server_key, server_salt)?,
        })
    }
}

/// Why a packet was refused. The peer's doing, or an attacker's, never ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// Too short for header and tag.
    #[error("too short for its header and tag")]
    Truncated,
    /// Not RTP at all.
    #[error("{0}")]
    Header(#[from] RtpError),
    /// Its index has been accepted before, or lies below the replay window
    /// (RFC 3711 §3.3.2). Says nothing about authenticity.
    #[error("replay of {ssrc:?} at {index:?}")]
    Replayed { ssrc: Ssrc, index: PacketIndex },
    /// The tag does not match.
    #[error("authentication failed")]
    Forged,
}

/// AES in counter mode with its key schedule made.
struct CounterMode(EncryptingKey);

fn counter_mode(key: &[u8]) -> CounterMode {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    let key = UnboundCipherKey::new(algorithm, key).expect("the length fits the algorithm");
    CounterMode(EncryptingKey::ctr(key).expect("AES has a counter mode"))
}

impl CounterMode {
    fn apply(&self, iv: [u8; 16], data: &mut [u8]) {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.0
            .less_safe_encrypt(data, context)
            .expect("counter mode takes any length");
    }
}

/// The session keys for RTP, or those for RTCP, of one direction.
enum Cipher {
    Gcm {
        key: aead::LessSafeKey,
        salt: [u8; 12],
    },
    Cm(Box<CmKeys>),
}

struct CmKeys {
    key: CounterMode,
    salt: [u8; 14],
    authentication: hmac::Key,
}

impl Cipher {
    /// `label` is that of the encryption key: 0 for RTP, 3 for RTCP.
    fn new(master: &MasterKey, label: u8) -> Self {
        let mut key = [0; 32];
        let key = &mut key[..master.profile.key_len()];
        master.derive(label, key);
        let gcm = |algorithm| {
            let key = aead::UnboundKey::new(algorithm, key).expect("the length fits");
            let mut salt = [0; 12];
            master.derive(label + 2, &mut salt);
            Self::Gcm {
                key: aead::LessSafeKey::new(key),
                salt,
            }
        };
        match master.profile {
            Profile::AeadAes256Gcm => gcm(&aead::AES_256_GCM),
            Profile::AeadAes128Gcm => gcm(&aead::AES_128_GCM),
            Profile::Aes128CmSha1_80 => {
                let mut authentication = [0; 20];
                master.derive(label + 1, &mut authentication);
                let mut salt = [0; 14];
                master.derive(label + 2, &mut salt);
                Self::Cm(Box::new(CmKeys {
                    key: counter_mode(key),
                    salt,
                    authentication: hmac::Key::new(
                        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                        &authentication,
                    ),
                }))
            }
        }
    }

    /// Decrypts `packet[header_len..]` and answers the length without tag.
    fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: PacketIndex,
        header_len: usize,
        packet: &mut [u8],
    ) -> Result<usize, SrtpError> {
        match self {
            Self::Gcm { key, salt } => {
                let (header, body) = packet.split_at_mut(header_len);
                let nonce = gcm_nonce(salt, ssrc, index.0);
                let plain = key
                    .open_in_place(nonce, aead::Aad::from(&*header), body)
                    .map_err(|_| SrtpError::Forged)?
                    .len();
                Ok(header_len + plain)
            }
            Self::Cm(cm) => {
                let len = packet
                    .len()
                    .checked_sub(HMAC_TAG)
                    .filter(|len| *len >= header_len)
                    .ok_or(SrtpError::Truncated)?;
                let mut tag = [0; HMAC_TAG];
                tag.copy_from_slice(&packet[len..]);
                // The rollover counter is authenticated behind the packet, just
                // where the tag was.
                packet[len..len + 4].copy_from_slice(&index.rollover_counter().to_be_bytes());
                verify(&cm.authentication, &packet[..len + 4], &tag)?;
                cm.key
                    .apply(cm_iv(&cm.salt, ssrc, index.0), &mut packet[header_len..len]);
                Ok(len)
            }
        }
    }

    /// Encrypts what follows the header in `packet[start..]` and appends the tag.
    fn seal_rtp(
        &self,
        ssrc: Ssrc,
        index: PacketIndex,
        header_len: usize,
        packet: &mut Vec<u8>,
        start: usize,
    ) {
        match self {
            Self::Gcm { key, salt } => {
                let (header, body) = packet[start..].split_at_mut(header_len);
                let nonce = gcm_nonce(salt, ssrc, index.0);
                let tag = key
                    .seal_in_place_separate_tag(nonce, aead::Aad::from(&*header), body)
                    .expect("a packet is shorter than GCM's limit");
                packet.extend_from_slice(tag.as_ref());
            }
            Self::Cm(cm) => {
                cm.key.apply(
                    cm_iv(&cm.salt, ssrc, index.0),
                    &mut packet[start + header_len..],
                );
                let end = packet.len();
                packet.extend_from_slice(&index.rollover_counter().to_be_bytes());
                let tag = hmac::sign(&cm.authentication, &packet[start..]);
                packet.truncate(end);
                packet.extend_from_slice(&tag.as_ref()[..HMAC_TAG]);
            }
        }
    }

    /// Decrypts an RTCP packet, if it is encrypted, and answers the length
    /// without tag and trailer. It is at least as long as header, tag and
    /// trailer together.
    fn open_rtcp(&self, ssrc: Ssrc, packet: &mut [u8]) -> Result<usize, SrtpError> {
        match self {
            Self::Gcm { key, salt } => {
                let (sealed, trailer) = packet
                    .split_last_chunk_mut::<RTCP_TRAILER>()
                    .ok_or(SrtpError::Truncated)?;
                let trailer = *trailer;
                let (encrypted, index) = read_trailer(trailer);
                let nonce = gcm_nonce(salt, ssrc, index);
                if encrypted {
                    let (header, body) = sealed.split_at_mut(RTCP_HEADER);
                    let mut aad = [0; RTCP_HEADER + RTCP_TRAILER];
                    aad[..RTCP_HEADER].copy_from_slice(header);
                    aad[RTCP_HEADER..].copy_from_slice(&trailer);
                    let plain = key
                        .open_in_place(nonce, aead::Aad::from(aad), body)
                        .map_err(|_| SrtpError::Forged)?
                        .len();
                    Ok(RTCP_HEADER + plain)
                } else {
                    // All is associated data, the trailer right behind the
                    // packet: move it there, over the tag.
                    let len = sealed.len() - GCM_TAG;
                    let mut tag = [0; GCM_TAG];
                    tag.copy_from_slice(&sealed[len..]);
                    let aad = &mut packet[..len + RTCP_TRAILER];
                    aad[len..].copy_from_slice(&trailer);
                    key.open_in_place(nonce, aead::Aad::from(&*aad), &mut tag)
                        .map_err(|_| SrtpError::Forged)?;
                    Ok(len)
                }
            }
            Self::Cm(cm) => {
                let (authenticated, tag) = packet.split_at_mut(packet.len() - HMAC_TAG);
                verify(&cm.authentication, authenticated, tag)?;
                let (plain, trailer) = authenticated
                    .split_last_chunk_mut::<RTCP_TRAILER>()
                    .ok_or(SrtpError::Truncated)?;
                let (encrypted, index) = read_trailer(*trailer);
                if encrypted {
                    cm.key
                        .apply(cm_iv(&cm.salt, ssrc, index), &mut plain[RTCP_HEADER..]);
                }
                Ok(plain.len())
            }
        }
    }

    /// Encrypts `packet[start..]` and appends tag and trailer.
    fn seal_rtcp(&self, ssrc: Ssrc, index: u32, packet: &mut Vec<u8>, start: usize) {
        let trailer = (1 << 31 | index).to_be_bytes();
        match self {
            Self::Gcm { key, salt } => {
                let (header, body) = packet[start..].split_at_mut(RTCP_HEADER);
                let mut aad = [0; RTCP_HEADER + RTCP_TRAILER];
                aad[..RTCP_HEADER].copy_from_slice(header);
                aad[RTCP_HEADER..].copy_from_slice(&trailer);
                let nonce = gcm_nonce(salt, ssrc, u64::from(index));
                let tag = key
                    .seal_in_place_separate_tag(nonce, aead::Aad::from(aad), body)
                    .expect("a packet is shorter than GCM's limit");
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&trailer);
            }
            Self::Cm(cm) => {
                cm.key.apply(
                    cm_iv(&cm.salt, ssrc, u64::from(index)),
                    &mut packet[start + RTCP_HEADER..],
                );
                packet.extend_from_slice(&trailer);
                let tag = hmac::sign(&cm.authentication, &packet[start..]);
                packet.extend_from_slice(&tag.as_ref()[..HMAC_TAG]);
            }
        }
    }
}

fn verify(key: &hmac::Key, data: &[u8], tag: &[u8]) -> Result<(), SrtpError> {
    let expected = hmac::sign(key, data);
    constant_time::verify_slices_are_equal(&expected.as_ref()[..HMAC_TAG], tag)
        .map_err(|_| SrtpError::Forged)
}

/// RFC 7714 §8.1 and §9.1: the SSRC and 48 bits of index, over the salt. An
/// RTCP index is shorter and stands at the same end.
fn gcm_nonce(salt: &[u8; 12], ssrc: Ssrc, index: u64) -> aead::Nonce {
    let mut nonce = *salt;
    for (octet, ssrc) in nonce[2..6].iter_mut().zip(ssrc.0.to_be_bytes()) {
        *octet ^= ssrc;
    }
    for (octet, index) in nonce[6..].iter_mut().zip(&index.to_be_bytes()[2..]) {
        *octet ^= index;
    }
    aead::Nonce::assume_unique_for_key(nonce)
}

/// RFC 3711 §4.1.1: salt, SSRC and index, above 16 bits of block counter.
fn cm_iv(salt: &[u8; 14], ssrc: Ssrc, index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    for (octet, ssrc) in iv[4..8].iter_mut().zip(ssrc.0.to_be_bytes()) {
        *octet ^= ssrc;
    }
    for (octet, index) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
        *octet ^= index;
    }
    iv
}

/// The E bit, and the index.
fn read_trailer(trailer: [u8; RTCP_TRAILER]) -> (bool, u64) {
    let word = u32::from_be_bytes(trailer);
    (word >> 31 == 1, u64::from(word & (RTCP_INDICES - 1)))
}

/// The indices of one stream that have been accepted, as a ring of bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    highest: u64,
    /// One bit for each of the last indices, at the index modulo their number.
    seen: Vec<u64>,
}

impl Window {
    fn new(size: u64) -> Self {
        Self {
            highest: 0,
            seen: vec![0; (size / 64) as usize],
        }
    }

    fn size(&self) -> u64 {
        64 * self.seen.len() as u64
    }

    fn bit(&mut self, index: u64) -> (&mut u64, u64) {
        let at = index % self.size();
        (&mut self.seen[(at / 64) as usize], 1 << (at % 64))
    }

    fn is_replay(&mut self, index: u64) -> bool {
        if index > self.highest {
            return false;
        }
        if self.highest - index >= self.size() {
            return true;
        }
        let (word, bit) = self.bit(index);
        *word & bit != 0
    }

    fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= self.size() {
                self.seen.fill(0);
            } else {
                for skipped in self.highest + 1..index {
                    let (word, bit) = self.bit(skipped);
                    *word &= !bit;
                }
            }
            self.highest = index;
        }
        let (word, bit) = self.bit(index);
        *word |= bit;
    }
}

/// What is remembered of an SSRC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stream {
    window: Window,
    /// Of all authenticated packets of the peer, the number of its last one.
    last_used: u64,
}

/// Streams by SSRC, at most [`MAX_STREAMS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Streams {
    /// Sorted, and apart: a peer has few, and they lie together.
    ssrcs: Vec<Ssrc>,
    /// Each at the place of its SSRC.
    streams: Vec<Stream>,
    used: u64,
}

impl Streams {
    fn find(&self, ssrc: Ssrc) -> Option<usize> {
        self.ssrcs.binary_search(&ssrc).ok()
    }

    /// Notes an authenticated packet of an SSRC that was found at `at`.
    fn accept(&mut self, at: Option<usize>, ssrc: Ssrc, index: u64, window: u64) {
        self.used += 1;
        let at = at.unwrap_or_else(|| self.begin(ssrc, window));
        let stream = &mut self.streams[at];
        stream.last_used = self.used;
        stream.window.accept(index);
    }

    /// Makes room for an SSRC that is not here.
    #[cold]
    fn begin(&mut self, ssrc: Ssrc, window: u64) -> usize {
        if self.ssrcs.len() >= MAX_STREAMS {
            let streams = self.streams.iter().enumerate();
            let oldest = streams.min_by_key(|(_, stream)| stream.last_used);
            let (oldest, _) = oldest.expect("there are many");
            self.ssrcs.remove(oldest);
            self.streams.remove(oldest);
        }
        let at = self.ssrcs.partition_point(|known| *known < ssrc);
        let stream = Stream {
            window: Window::new(window),
            last_used: self.used,
        };
        self.ssrcs.insert(at, ssrc);
        self.streams.insert(at, stream);
        at
    }
}

/// What has been received: rollover counters and replay windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundState {
    rtp: Streams,
    rtcp: Streams,
}

/// Opens what a peer sends.
pub struct Inbound {
    rtp: Cipher,
    rtcp: Cipher,
    overhead: usize,
    state: InboundState,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").finish_non_exhaustive()
    }
}

impl Inbound {
    /// From what the peer sends with, and what has been received with it
    /// before: nothing, by default.
    pub fn new(master: &MasterKey, state: InboundState) -> Self {
        Self {
            rtp: Cipher::new(master, 0),
            rtcp: Cipher::new(master, 3),
            overhead: master.profile.rtp_overhead(),
            state,
        }
    }

    /// What has been received, to be written down.
    pub fn state(&self) -> &InboundState {
        &self.state
    }

    /// Opens an RTP packet in place. Answers its index and its length without
    /// the tag. After an error the octets are of no use.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<(PacketIndex, usize), SrtpError> {
        let header_len = rtp::header_len(packet)?;
        if packet.len() < header_len + self.overhead {
            return Err(SrtpError::Truncated);
        }
        let ssrc = Ssrc(rtp::be32(&packet[8..]));
        let sequence_number = u16::from_be_bytes([packet[2], packet[3]]);
        let streams = &mut self.state.rtp;
        let at = streams.find(ssrc);
        let index = match at {
            Some(at) => {
                let window = &mut streams.streams[at].window;
                let index = PacketIndex(window.highest).nearest(sequence_number);
                if window.is_replay(index.0) {
                    return Err(SrtpError::Replayed { ssrc, index });
                }
                index
            }
            // RFC 3711 §3.3.1: a stream's rollover counter starts at zero.
            None => PacketIndex(u64::from(sequence_number)),
        };
        let len = self.rtp.open_rtp(ssrc, index, header_len, packet)?;
        streams.accept(at, ssrc, index.0, RTP_WINDOW);
        Ok((index, len))
    }

    /// Opens a compound RTCP packet in place and answers its length. After an
    /// error the octets are of no use.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        if packet.len() < RTCP_HEADER + self.overhead + RTCP_TRAILER {
            return Err(SrtpError::Truncated);
        }
        let ssrc = Ssrc(rtp::be32(&packet[4..]));
        // With GCM the trailer comes last, with CM the tag does.
        let after = match self.rtcp {
            Cipher::Gcm { .. } => 0,
            Cipher::Cm(_) => HMAC_TAG,
        };
        let at = packet.len() - after - RTCP_TRAILER;
        let mut trailer = [0; RTCP_TRAILER];
        trailer.copy_from_slice(&packet[at..at + RTCP_TRAILER]);
        let (_, index) = read_trailer(trailer);
        let streams = &mut self.state.rtcp;
        let at = streams.find(ssrc);
        if at.is_some_and(|at| streams.streams[at].window.is_replay(index)) {
            let index = PacketIndex(index);
            return Err(SrtpError::Replayed { ssrc, index });
        }
        let len = self.rtcp.open_rtcp(ssrc, packet)?;
        streams.accept(at, ssrc, index, RTCP_WINDOW);
        Ok(len)
    }
}

/// What has been sent: the next SRTCP index. RTP indices belong to those who
/// number the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundState {
    next_rtcp_index: u32,
}

impl OutboundState {
    /// The state to go on with when some of what was sent since it was written
    /// down is not in it: so many indices further on.
    pub fn skip(self, indices: u32) -> Self {
        Self {
            next_rtcp_index: self.next_rtcp_index.saturating_add(indices),
        }
    }
}

/// Seals what is sent to a peer: RTP above all.
#[repr(C)]
pub struct Outbound {
    rtp: Cipher,
    rtcp: Cipher,
    state: OutboundState,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").finish_non_exhaustive()
    }
}

impl Outbound {
    /// From what is sent with, and what has been sent with it before: nothing,
    /// by default.
    pub fn new(master: &MasterKey, state: OutboundState) -> Self {
        Self {
            rtp: Cipher::new(master, 0),
            rtcp: Cipher::new(master, 3),
            state,
        }
    }

    /// What has been sent, to be written down.
    pub fn state(&self) -> OutboundState {
        self.state
    }

    /// Seals the RTP packet that is `packet[start..]`. Its sequence number must
    /// be that of `index`, and no SSRC may have an index twice with different
    /// octets: both would break the cipher.
    pub fn seal_rtp(&self, index: PacketIndex, packet: &mut Vec<u8>, start: usize) {
        let plain = &packet[start..];
        let header_len = rtp::header_len(plain).expect("the packet is one of ours");
        let ssrc = Ssrc(rtp::be32(&plain[8..]));
        debug_assert_eq!(plain[2..4], index.sequence_number().to_be_bytes());
        self.rtp.seal_rtp(ssrc, index, header_len, packet, start);
    }

    /// Seals the compound RTCP packet that is `packet[start..]`. Nothing is
    /// left of it once the indices are used up: after 2^31 packets.
    pub fn seal_rtcp(&mut self, packet: &mut Vec<u8>, start: usize) {
        let index = self.state.next_rtcp_index;
        if index >= RTCP_INDICES {
            packet.truncate(start);
            return;
        }
        self.state.next_rtcp_index += 1;
        let ssrc = Ssrc(rtp::be32(&packet[start + 4..]));
        self.rtcp.seal_rtcp(ssrc, index, packet, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROFILES: [Profile; 3] = [
        Profile::AeadAes256Gcm,
        Profile::AeadAes128Gcm,
        Profile::Aes128CmSha1_80,
    ];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter_map(|c| char::from(c).to_digit(16))
            .map(|digit| digit as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    fn array<const N: usize>(text: &str) -> [u8; N] {
        hex(text).try_into().expect("of that length")
    }

    fn master(profile: Profile) -> MasterKey {
        let octets: Vec<u8> = (1..=46).collect();
        let (key, salt) = octets.split_at(32);
        MasterKey::new(
            profile,
            &key[..profile.key_len()],
            &salt[..profile.salt_len()],
        )
        .expect("of the profile's lengths")
    }

    fn pair(profile: Profile) -> (Outbound, Inbound) {
        let master = master(profile);
        (
            Outbound::new(&master, OutboundState::default()),
            Inbound::new(&master, InboundState::default()),
        )
    }

    fn rtp(ssrc: u32, index: u64) -> Vec<u8> {
        let mut packet = vec![0x90, 100];
        packet.extend_from_slice(&(index as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 9]);
        packet.extend_from_slice(&ssrc.to_be_bytes());
        packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 5, 0, 0]);
        packet.extend_from_slice(b"the payload");
        packet
    }

    fn sealed(outbound: &Outbound, ssrc: u32, index: u64) -> Vec<u8> {
        let mut packet = rtp(ssrc, index);
        outbound.seal_rtp(PacketIndex(index), &mut packet, 0);
        packet
    }

    /// RFC 3711 B.3.
    #[test]
    fn keys_are_derived_as_in_rfc_3711() {
        let master = MasterKey::new(
            Profile::Aes128CmSha1_80,
            &hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
            &hex("0EC675AD498AFEEBB6960B3AABE6"),
        )
        .expect("of the profile's lengths");
        let derived = |label, len: usize| {
            let mut out = vec![0; len];
            master.derive(label, &mut out);
            out
        };
        assert_eq!(derived(0, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(derived(2, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(
            derived(1, 20),
            hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4")
        );
    }

    /// RFC 3711 B.2: the key stream for SSRC 0 and index 0.
    #[test]
    fn the_key_stream_is_that_of_rfc_3711() {
        let key = counter_mode(&hex("2B7E151628AED2A6ABF7158809CF4F3C"));
        let salt = array("F0F1F2F3F4F5F6F7F8F9FAFBFCFD");
        let mut stream = [0; 48];
        key.apply(cm_iv(&salt, Ssrc(0), 0), &mut stream);
        assert_eq!(
            stream[..],
            hex("E03EAD0935C95E80E166B16DD92B4EB4
                 D23513162B02D0F72A43A2FE4A5F97AB
                 41E95B3BB0A2E8DD477901E4FCA894C0")
        );
    }

    fn gcm(algorithm: &'static aead::Algorithm, key: &[u8]) -> Cipher {
        Cipher::Gcm {
            key: aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).expect("its length")),
            salt: array("517569642070726f2071756f"),
        }
    }

    /// RFC 7714 §16.1.1 and §16.2.1.
    #[test]
    fn rtp_is_sealed_as_in_rfc_7714() {
        let plain = hex(
            "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973
             20646976 69736120 696e2070 61727465 73207472 6573",
        );
        let octets: Vec<u8> = (0..32).collect();
        for (algorithm, key, expected) in [
            (
                &aead::AES_128_GCM,
                &octets[..16],
                "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca
                 be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1
                 6a9152cf 765ee439 0cce",
            ),
            (
                &aead::AES_256_GCM,
                &octets[..],
                "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa
                 b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff
                 d6b0f9bb 7878d7a7 6c13",
            ),
        ] {
            let cipher = gcm(algorithm, key);
            let index = PacketIndex(0xf17b);
            let mut packet = plain.clone();
            cipher.seal_rtp(Ssrc(0x5501_a0b2), index, 12, &mut packet, 0);
            assert_eq!(packet, hex(expected));
            let len = cipher.open_rtp(Ssrc(0x5501_a0b2), index, 12, &mut packet);
            assert_eq!(len, Ok(plain.len()));
            assert_eq!(packet[..plain.len()], plain);
        }
    }

    #[test]
    fn what_is_sealed_opens_and_what_is_touched_does_not() {
        for profile in PROFILES {
            let (outbound, mut inbound) = pair(profile);
            let good = sealed(&outbound, 7, 1000);
            assert_eq!(good.len(), rtp(7, 1000).len() + profile.rtp_overhead());
            for at in 0..good.len() {
                for bit in 0..8 {
                    let mut packet = good.clone();
                    packet[at] ^= 1 << bit;
                    assert!(inbound.open_rtp(&mut packet).is_err(), "{profile:?} {at}");
                }
            }
            for len in 0..good.len() {
                assert!(inbound.open_rtp(&mut good[..len].to_vec()).is_err());
            }
            assert_eq!(inbound.state, InboundState::default());
            let mut packet = good.clone();
            let plain = rtp(7, 1000);
            assert_eq!(
                inbound.open_rtp(&mut packet),
                Ok((PacketIndex(1000), plain.len()))
            );
            assert_eq!(packet[..plain.len()], plain);
        }
    }

    #[test]
    fn rtcp_is_authenticated_encrypted_or_not() {
        for profile in PROFILES {
            let (mut outbound, mut inbound) = pair(profile);
            let plain = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
            let mut first = plain.to_vec();
            outbound.seal_rtcp(&mut first, 0);
            assert_eq!(first.len(), plain.len() + profile.rtcp_overhead());
            for at in 0..first.len() {
                let mut packet = first.clone();
                packet[at] ^= 0x80;
                assert_eq!(
                    inbound.open_rtcp(&mut packet),
                    Err(SrtpError::Forged),
                    "{profile:?} {at}"
                );
            }
            for len in 0..first.len() {
                assert!(inbound.open_rtcp(&mut first[..len].to_vec()).is_err());
            }
            assert_eq!(inbound.state, InboundState::default());
            let mut packet = first.clone();
            assert_eq!(inbound.open_rtcp(&mut packet), Ok(plain.len()));
            assert_eq!(packet[..plain.len()], plain);
            let replay = Err(SrtpError::Replayed {
                ssrc: Ssrc(1),
                index: PacketIndex(0),
            });
            assert_eq!(inbound.open_rtcp(&mut first.clone()), replay);

            let mut unencrypted = sealed_in_the_clear(&outbound, profile, &plain, 1);
            let mut forged = unencrypted.clone();
            forged[11] ^= 1;
            assert_eq!(inbound.open_rtcp(&mut forged), Err(SrtpError::Forged));
            assert_eq!(inbound.open_rtcp(&mut unencrypted), Ok(plain.len()));
            assert_eq!(unencrypted[..plain.len()], plain);
        }
    }

    /// An SRTCP packet with the E bit clear, which a peer may send and we do not.
    fn sealed_in_the_clear(
        outbound: &Outbound,
        profile: Profile,
        plain: &[u8],
        index: u32,
    ) -> Vec<u8> {
        let trailer = index.to_be_bytes();
        let mut packet = [plain, &trailer].concat();
        match &outbound.rtcp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, Ssrc(1), u64::from(index));
                let tag = key
                    .seal_in_place_separate_tag(nonce, aead::Aad::from(&packet), &mut [])
                    .expect("short enough");
                packet.splice(plain.len()..plain.len(), tag.as_ref().iter().copied());
            }
            Cipher::Cm(cm) => {
                let tag = hmac::sign(&cm.authentication, &packet);
                packet.extend_from_slice(&tag.as_ref()[..HMAC_TAG]);
            }
        }
        assert_eq!(packet.len(), plain.len() + profile.rtcp_overhead());
        packet
    }

    #[test]
    fn the_first_packets_may_straddle_the_middle_of_the_number_space() {
        for profile in PROFILES {
            let (outbound, mut inbound) = pair(profile);
            for index in [0x7fff, 0x8001, 0x8000, 3, 0xffff, 0x1_0002, 0x1_0000] {
                let mut packet = sealed(&outbound, 7, index);
                let opened = inbound.open_rtp(&mut packet).map(|(index, _)| index.0);
                // 3 lies beyond the window by then.
                assert_eq!(opened.ok(), (index != 3).then_some(index), "{index:#x}");
            }
        }
    }

    #[test]
    fn streams_are_bounded_and_the_stalest_is_forgotten() {
        let (outbound, mut inbound) = pair(Profile::AeadAes128Gcm);
        for ssrc in 0..MAX_STREAMS as u32 + 10 {
            let mut first = sealed(&outbound, 0, u64::from(ssrc));
            inbound.open_rtp(&mut first).expect("authentic");
            let mut packet = sealed(&outbound, ssrc + 1, 5);
            inbound.open_rtp(&mut packet).expect("authentic");
        }
        assert_eq!(inbound.state.rtp.streams.len(), MAX_STREAMS);
        assert!(inbound.state.rtp.find(Ssrc(0)).is_some());
        assert!(inbound.state.rtp.find(Ssrc(1)).is_none());
    }

    #[test]
    fn the_last_rtcp_index_is_used_once() {
        let state = OutboundState::default().skip(RTCP_INDICES - 1);
        let mut outbound = Outbound::new(&master(Profile::AeadAes128Gcm), state);
        let mut packet = vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        outbound.seal_rtcp(&mut packet, 0);
        let len = packet.len();
        assert!(len > 12);
        packet.extend_from_slice(&[0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        outbound.seal_rtcp(&mut packet, len);
        assert_eq!(packet.len(), len);
    }

    #[test]
    fn exported_keys_lie_as_in_rfc_5764() {
        for profile in PROFILES {
            let len = KeyingMaterial::exported_len(profile);
            let octets: Vec<u8> = (0..len as u8).collect();
            let keys = KeyingMaterial::from_exporter(profile, &octets).expect("enough");
            let (key, salt) = (profile.key_len(), profile.salt_len());
            assert_eq!(keys.client.key, octets[..key]);
            assert_eq!(keys.server.key, octets[key..2 * key]);
            assert_eq!(keys.client.salt, octets[2 * key..2 * key + salt]);
            assert_eq!(keys.server.salt, octets[2 * key + salt..]);
            assert_eq!(KeyingMaterial::from_exporter(profile, &octets[1..]), None);
        }
    }

    proptest! {
        /// Each index is accepted once, as long as it is within the window, in
        /// whatever order packets come; also by a copy made from written state.
        #[test]
        fn replays_are_refused(
            steps in prop::collection::vec(-1100i64..600, 1..200), copy_at in 0usize..200,
        ) {
            let (outbound, mut inbound) = pair(Profile::AeadAes128Gcm);
            let mut seen = std::collections::HashSet::new();
            let mut highest = 40_000u64;
            inbound.open_rtp(&mut sealed(&outbound, 7, highest)).expect("authentic");
            seen.insert(highest);
            for (n, step) in steps.into_iter().enumerate() {
                if n == copy_at {
                    let written = serde_json::to_string(inbound.state()).expect("plain data");
                    let state = serde_json::from_str(&written).expect("as written");
                    inbound = Inbound::new(&master(Profile::AeadAes128Gcm), state);
                }
                let index = highest.saturating_add_signed(step);
                let fresh = !seen.contains(&index) && highest.saturating_sub(index) < RTP_WINDOW;
                let opened = inbound.open_rtp(&mut sealed(&outbound, 7, index));
                prop_assert_eq!(opened.ok().map(|(index, _)| index.0), fresh.then_some(index));
                if fresh {
                    seen.insert(index);
                    highest = highest.max(index);
                }
            }
        }

        #[test]
        fn any_octets_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for profile in PROFILES {
                let (_, mut inbound) = pair(profile);
                prop_assert!(inbound.open_rtp(&mut bytes.clone()).is_err());
                prop_assert!(inbound.open_rtcp(&mut bytes.clone()).is_err());
                prop_assert_eq!(inbound.state(), &InboundState::default());
            }
        }
    }
}

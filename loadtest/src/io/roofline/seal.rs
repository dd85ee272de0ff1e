//! AEAD_AES_128_GCM of SRTP (RFC 7714 §8, §9) for one peer, as far as it costs
//! time: one key, nonces made of the index.

use anyhow::{Result, anyhow};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::HEADER;

/// Octets of an authentication tag.
pub(super) const TAG: usize = 16;

/// Seals and opens the packets of a peer.
pub(super) struct Peer {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Peer {
    /// A peer with keys of its own.
    pub(super) fn new(number: u32) -> Result<Self> {
        let mut key = [0x5a; 16];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let key = UnboundKey::new(&AES_128_GCM, &key).map_err(|_| anyhow!("AES key"))?;
        let mut salt = [0xc3; 12];
        salt[8..].copy_from_slice(&number.to_be_bytes());
        Ok(Self {
            key: LessSafeKey::new(key),
            salt,
        })
    }

    fn nonce(&self, index: u64) -> Nonce {
        let mut nonce = self.salt;
        for (octet, part) in nonce[4..].iter_mut().zip(index.to_be_bytes()) {
            *octet ^= part;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals a packet that has its header and its payload in place, and room
    /// for the tag behind.
    pub(super) fn seal(&self, index: u64, packet: &mut [u8]) -> Result<()> {
        let (header, rest) = packet.split_at_mut(HEADER);
        let (payload, room) = rest.split_at_mut(rest.len() - TAG);
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(index), Aad::from(&*header), payload)
            .map_err(|_| anyhow!("a packet could not be sealed"))?;
        room.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens a packet in place. False if it is not authentic.
    pub(super) fn open(&self, index: u64, packet: &mut [u8]) -> bool {
        let (header, rest) = packet.split_at_mut(HEADER);
        let aad = Aad::from(&*header);
        self.key.open_in_place(self.nonce(index), aad, rest).is_ok()
    }
}

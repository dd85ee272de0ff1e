//! What this bridge seals is what an independent implementation seals, octet
//! for octet, and each opens what the other sealed.

use proptest::prelude::*;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use viaduct_bridge::rtp::PacketIndex;
use viaduct_bridge::transport::srtp::{
    Inbound, InboundState, MasterKey, Outbound, OutboundState, Profile,
};

const PROFILES: [(Profile, ProtectionProfile); 3] = [
    (Profile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm),
    (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (
        Profile::Aes128CmSha1_80,
        ProtectionProfile::Aes128CmHmacSha1_80,
    ),
];

struct Peers {
    outbound: Outbound,
    inbound: Inbound,
    sealer: Context,
    opener: Context,
}

fn peers((profile, theirs): (Profile, ProtectionProfile), key: &[u8; 46]) -> Peers {
    let (key, salt) = key.split_at(32);
    let (key, salt) = (&key[..profile.key_len()], &salt[..profile.salt_len()]);
    let master = MasterKey::new(profile, key, salt).expect("of the profile's lengths");
    let provider = rtc_srtp::crypto::default_provider().expect("built in");
    let context =
        || Context::new(key, salt, theirs, None, None, provider.crypto()).expect("a valid key");
    Peers {
        outbound: Outbound::new(&master, OutboundState::default()),
        inbound: Inbound::new(&master, InboundState::default()),
        sealer: context(),
        opener: context(),
    }
}

proptest! {
    #[test]
    fn rtp(
        key: [u8; 46], profile in 0..PROFILES.len(), ssrc: u32, first in 0u64..0x8000,
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        // Steps as large as loss may make them, so that rollovers are met.
        step in 1u64..20_000,
    ) {
        let mut peers = peers(PROFILES[profile], &key);
        let mut index = first;
        for payload in payloads {
            let mut plain = vec![0x90, 0xe4];
            plain.extend_from_slice(&(index as u16).to_be_bytes());
            plain.extend_from_slice(&[1, 2, 3, 4]);
            plain.extend_from_slice(&ssrc.to_be_bytes());
            plain.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 5, 0, 0]);
            plain.extend_from_slice(&payload);

            let mut ours = plain.clone();
            peers.outbound.seal_rtp(PacketIndex(index), &mut ours, 0);
            let theirs = peers.sealer.encrypt_rtp(&plain).expect("they seal it");
            prop_assert_eq!(&ours[..], &theirs[..]);
            prop_assert_eq!(&peers.opener.decrypt_rtp(&ours).expect("they open it")[..], &plain[..]);
            let (opened, len) = peers.inbound.open_rtp(&mut ours).expect("we open it");
            prop_assert_eq!(opened, PacketIndex(index));
            prop_assert_eq!(&ours[..len], &plain[..]);
            index += step;
        }
    }

    #[test]
    fn rtcp(
        key: [u8; 46], profile in 0..PROFILES.len(),
        reports in prop::collection::vec(prop::collection::vec(any::<u32>(), 1..30), 1..10),
    ) {
        let mut peers = peers(PROFILES[profile], &key);
        for words in reports {
            let mut plain = vec![0x80, 205, 0, words.len() as u8];
            plain.extend(words.iter().flat_map(|word| word.to_be_bytes()));

            let mut ours = plain.clone();
            peers.outbound.seal_rtcp(&mut ours, 0);
            prop_assert_eq!(&peers.opener.decrypt_rtcp(&ours).expect("they open it")[..], &plain[..]);
            let len = peers.inbound.open_rtcp(&mut ours).expect("we open it");
            prop_assert_eq!(&ours[..len], &plain[..]);

            let mut theirs = peers.sealer.encrypt_rtcp(&plain).expect("they seal it").to_vec();
            // Their indices may start elsewhere: not a replay of ours.
            let mut fresh = self::peers(PROFILES[profile], &key);
            let len = fresh.inbound.open_rtcp(&mut theirs).expect("we open theirs");
            prop_assert_eq!(&theirs[..len], &plain[..]);
        }
    }
}

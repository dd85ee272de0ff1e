//! Media that the bridge cannot look into.

use super::vp8::vp8_sender;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whole encodings whose key frames are known, or not known at all.
    #[test]
    fn opaque_media_is_one_stream(
        pictures in pictures(9), fates in fates(), known: bool,
    ) {
        let delivery = deliver(vp8_sender(&pictures, [(70_000, 0, 0); 3]), &fates);
        let start = Instant::now();
        let mut projection = Projection::new(OUTPUT);
        let mut given = HashMap::new();
        for (at, target, media) in &delivery.arrivals {
            projection.set_target(target.map(LayerIndex));
            let Media::Vp8(packet) = media else { unreachable!() };
            let incoming = IncomingVideo {
                codec: CodecView::Opaque { key: known.then_some(packet.key) },
                ..packet.incoming(start + *at)
            };
            if let Some(rewrite) = projection.project(&incoming) {
                let twice = given.insert(rewrite.index, media.place());
                prop_assert!(twice.is_none(), "{:?} given twice", rewrite.index);
                prop_assert_eq!(rewrite.codec, CodecRewrite::None);
            }
        }
    }
}

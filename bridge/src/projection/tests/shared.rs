//! Receivers who share projections get what each would get from one of its own.

use super::vp8::vp8_sender;
use super::*;
use crate::send::rendition::Renditions;

/// Time between two looks for renditions that have come to the same.
const TIDY: Duration = Duration::from_millis(500);

/// What a receiver does at an arrival of that number: takes a target, or none.
type Wish = (usize, usize, Option<u16>);

const RECEIVERS: usize = 4;

fn wishes(targets: u16) -> impl Strategy<Value = Vec<Wish>> {
    let target = prop_oneof![6 => (0..targets).prop_map(Some), 1 => Just(None)];
    let wish = (0usize..1200, 0..RECEIVERS, target);
    let first = (0usize..300, 0..RECEIVERS, Just(Some(targets - 1)));
    let wishes = prop::collection::vec(wish, 0..6);
    (prop::collection::vec(first, 3..6), wishes).prop_map(|(first, more)| {
        let mut wishes = [first, more].concat();
        wishes.sort_unstable();
        wishes
    })
}

/// A receiver by itself.
struct Lone {
    projection: Projection,
    /// Numbers that it was given, and those that it got with others.
    own: Vec<PacketIndex>,
    shared: Vec<PacketIndex>,
}

/// Plays a delivery to receivers that share and to lone ones that wish for the
/// same. How many times renditions became one.
fn compare(delivery: &mut Delivery, wishes: &[Wish]) -> Result<usize, TestCaseError> {
    let mut renditions = Renditions::new(OUTPUT);
    let mut lone: [Option<Lone>; RECEIVERS] = Default::default();
    let (mut at, mut merged, mut tidied) = (0, 0, None);
    let mut result = Ok(());
    each_arrival(delivery, |media, incoming, _| {
        let now = incoming.arrival;
        for (_, receiver, target) in wishes.iter().filter(|(when, ..)| *when == at) {
            let target = target.map(LayerIndex);
            match (&mut lone[*receiver], target) {
                (Some(lone), _) => {
                    lone.projection.set_target(target);
                    renditions.aim(now, *receiver, target);
                }
                (none, Some(wanted)) => {
                    let mut projection = Projection::new(OUTPUT);
                    projection.set_target(target);
                    let (own, shared) = (Vec::new(), Vec::new());
                    *none = Some(Lone {
                        projection,
                        own,
                        shared,
                    });
                    renditions.add(now, *receiver, wanted, None);
                }
                (None, None) => {}
            }
        }
        at += 1;
        if now.duration_since(*tidied.get_or_insert(now)) >= TIDY {
            tidied = Some(now);
            let before = renditions.count();
            renditions.tidy(now);
            merged += before - renditions.count();
        }
        let mut got: [Option<Rewrite>; RECEIVERS] = [None; RECEIVERS];
        for rendition in renditions.awake(incoming) {
            if let (Some(rewrite), _) = rendition.project(incoming) {
                for recipient in rendition.recipients_mut() {
                    got[recipient.slot] = recipient.rewrite(&rewrite);
                }
            }
        }
        for (receiver, (lone, got)) in lone.iter_mut().zip(got).enumerate() {
            let Some(lone) = lone else { continue };
            let own = lone.projection.project(incoming);
            if result.is_ok() {
                result = lone.agrees(own, got, media);
            }
            let view = renditions.view(receiver).expect("it was added");
            let needs = lone.projection.needs_keyframe();
            if result.is_ok() && view.needs_keyframe() != needs {
                result = Err(TestCaseError::fail(format!(
                    "{needs} at {:?}",
                    media.place()
                )));
            }
        }
    });
    result.map(|()| merged)
}

impl Lone {
    /// What came late of before renditions became one may be had alone, or
    /// together with others, only; nothing else, and no number twice.
    fn agrees(
        &mut self,
        own: Option<Rewrite>,
        shared: Option<Rewrite>,
        media: &Media,
    ) -> Result<(), TestCaseError> {
        let newest = self.own.iter().chain(&self.shared).max().copied();
        if own != shared {
            let late = |rewrite: Option<Rewrite>| {
                rewrite.is_none_or(|rewrite| Some(rewrite.index) < newest)
            };
            let place = media.place();
            prop_assert!(
                (own.is_none() || shared.is_none()) && late(own) && late(shared),
                "{place:?}: {own:?} alone, {shared:?} together"
            );
        }
        self.own.extend(own.map(|rewrite| rewrite.index));
        if let Some(rewrite) = shared {
            let twice = self.shared.contains(&rewrite.index);
            prop_assert!(!twice, "{:?} given twice", rewrite.index);
            let first = self.own.iter().chain(&self.shared).min();
            prop_assert!(
                first.is_none_or(|first| *first <= rewrite.index),
                "{:?} is of before the receiver came",
                rewrite.index
            );
            self.shared.push(rewrite.index);
        }
        Ok(())
    }
}

fn encoding_layers(wishes: &[Wish]) -> Vec<Wish> {
    let layer = |target: u16| ((target / 3) << 6) | (target % 3);
    wishes
        .iter()
        .map(|(at, receiver, target)| (*at, *receiver, target.map(layer)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn vp8_together_is_as_alone(
        pictures in pictures(9), fates in fates(), firsts: [(u32, u16, u8); 3],
        wishes in wishes(9),
    ) {
        let firsts = firsts.map(|(index, id, tl0)| (0x1_0000 + u64::from(index), id, tl0));
        let mut delivery = deliver(vp8_sender(&pictures, firsts), &fates);
        compare(&mut delivery, &encoding_layers(&wishes))?;
    }

    #[test]
    fn descriptors_together_are_as_alone(
        pictures in pictures(9), fates in fates(), (modes, recorded) in descriptor::modes(),
        firsts: [(u32, u16); 3], wishes in wishes(9),
    ) {
        let sent = descriptor::sender(&pictures, &modes, recorded, firsts);
        let wishes = match modes.len() {
            1 => wishes,
            _ => encoding_layers(&wishes),
        };
        compare(&mut deliver(sent, &fates), &wishes)?;
    }

    #[test]
    fn vp9_together_is_as_alone(
        pictures in pictures(9), fates in fates(), mode in vp9::modes(),
        firsts: [(u32, u16, u8); 3], wishes in wishes(9),
    ) {
        let (sent, _) = vp9::sender(&pictures, mode, firsts);
        let layer = |target: u16| LayerIndex::new(0, (target / 3) as u8, (target % 3) as u8).0;
        let wishes = wishes.iter().map(|(at, r, target)| (*at, *r, target.map(layer)));
        compare(&mut deliver(sent, &fates), &wishes.collect::<Vec<_>>())?;
    }
}

/// Ten seconds of pictures, a key picture at each second: receivers that come
/// one after the other, one that goes down for a while and one that pauses.
#[test]
fn receivers_of_the_same_come_to_share_it() {
    let pictures: Vec<Picture> = (0..300)
        .map(|n| Picture {
            packets: 2,
            key: n % 30 == 0,
            target: None,
        })
        .collect();
    // Nine packets a picture: 270 a second.
    let top = Some(LayerIndex::new(2, 0, 2).0);
    let low = Some(LayerIndex::new(0, 0, 2).0);
    let calm = [(0, 0, top), (100, 1, top), (300, 2, top), (301, 3, top)];
    let restless = [
        (1200, 1, low),
        (1350, 1, top),
        (1250, 2, None),
        (1400, 2, top),
    ];
    for (wishes, least) in [(&calm[..], 2), (&[calm, restless].concat(), 4)] {
        let sent = vp8_sender(
            &pictures,
            [(70_000, 5, 9), (99, 0x7ff0, 250), (1 << 20, 1, 1)],
        );
        let merged = compare(&mut deliver(sent, &[]), wishes).expect("all agree");
        assert!(merged >= least, "{merged} of {least}");
    }
}

/// A packet of the lowest encoding comes four seconds late, when the one who got
/// that encoding shares the highest with one who came after it.
#[test]
fn nobody_gets_what_was_before_it_came() {
    let pictures = vec![
        Picture {
            packets: 2,
            key: false,
            target: None,
        };
        220
    ];
    let mut pictures = pictures;
    pictures[40].key = true;
    let (low, top) = (LayerIndex::new(0, 0, 2).0, LayerIndex::new(2, 0, 2).0);
    let wishes = [(0, 0, Some(low)), (300, 0, Some(top)), (301, 1, Some(top))];
    let sent = vp8_sender(&pictures, [(70_000, 5, 9); 3]);
    let merged = compare(&mut deliver(sent, &[(181, Fate::Late(1500))]), &wishes);
    assert_eq!(merged.expect("all agree"), 1);
}

/// One who was there when the source had another codec has frame numbers to come
/// back to, which nobody else has.
#[test]
fn one_with_a_past_keeps_nobody_apart() {
    let pictures: Vec<Picture> = (0..250)
        .map(|n| Picture {
            packets: 2,
            key: n % 30 == 0,
            target: None,
        })
        .collect();
    let (modes, recorded) = (vec![descriptor::mode(1, 3, false)], false);
    let mut sent = descriptor::sender(&pictures[..10], &modes, recorded, [(5, 5); 3]);
    let before = Duration::from_millis(330);
    let later = vp8_sender(&pictures, [(0x2_0000, 5, 9); 3]);
    sent.extend(
        later
            .into_iter()
            .map(|(at, target, media)| (at + before, target, media)),
    );
    let low = Some(LayerIndex::new(0, 0, 2).0);
    let wishes = [(0, 0, low), (300, 1, low), (600, 2, low)];
    let merged = compare(&mut deliver(sent, &[]), &wishes);
    assert_eq!(merged.expect("all agree"), 1);
}

//! Who is told of whose sources (client-focus §4.5).
//!
//! Each member has a record of what it was told. What differs from what is true
//! goes out as one source-remove and one source-add: so sources queue by
//! themselves until a session is accepted, changes within a delay are one
//! message, and an add that is followed by its remove is none.

use std::collections::BTreeSet;

use viaduct_signalling::jingle::Action;
use viaduct_signalling::sources::ConferenceSources;

use super::sources::{announced, difference};
use super::{Conference, Session};
use crate::context::Context;
use crate::jingle::offer;

impl Conference {
    /// Tells everybody in a session what has changed, now or when the delay for
    /// a conference of this size is over.
    pub(super) fn signal(&mut self, ctx: &mut Context<'_>) {
        if self.ended() {
            return;
        }
        let stale = |member: &super::Member| {
            member.told_stale && matches!(member.session, Session::Active { .. })
        };
        if self.changed.is_empty() && !self.members.values().any(stale) {
            self.signal_due = None;
            return;
        }
        let size = self.members.len();
        let delays = &ctx.settings.conference.source_delays;
        let delay = delays
            .iter()
            .filter(|(from, _)| size >= *from)
            .map(|(_, delay)| *delay)
            .max();
        if let Some(delay) = delay.filter(|delay| !delay.is_zero()) {
            let due = *self.signal_due.get_or_insert(ctx.now + delay);
            if due > ctx.now {
                return;
            }
        }
        self.signal_due = None;
        let changed = std::mem::take(&mut self.changed);
        let strip = ctx.settings.conference.strip_simulcast;
        let nicks: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| matches!(member.session, Session::Active { .. }))
            .map(|(nick, _)| nick.clone())
            .collect();
        for nick in nicks {
            let features = self.features(&nick);
            let member = self.members.get_mut(&nick).expect("listed above");
            let owners: BTreeSet<String> = if std::mem::take(&mut member.told_stale) {
                let known = self.sources.iter().map(|(owner, _)| owner);
                known.chain(member.told.0.keys()).cloned().collect()
            } else {
                changed.clone()
            };
            let (mut gone, mut come) = (ConferenceSources::default(), ConferenceSources::default());
            for owner in owners.into_iter().filter(|owner| *owner != nick) {
                let new = self
                    .sources
                    .get(&owner)
                    .map(|set| announced(set, strip).only(|media| features.media(media)))
                    .unwrap_or_default();
                let old = member.told.0.remove(&owner).unwrap_or_default();
                gone.merge(&owner, &difference(&old, &new));
                come.merge(&owner, &difference(&new, &old));
                member.told.merge(&owner, &new);
            }
            let Some(sid) = member.session.sid().map(str::to_owned) else {
                continue;
            };
            let json = features.json_sources && ctx.settings.conference.json_sources;
            for (action, sources) in [(Action::SourceRemove, gone), (Action::SourceAdd, come)] {
                if !sources.is_empty() {
                    let jingle = offer::source_change(action, &sid, &sources, json, &self.name);
                    self.send_jingle(ctx, &nick, &jingle, Some((sid.clone(), false)));
                }
            }
        }
    }
}

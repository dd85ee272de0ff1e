//! A conference's stays on bridges: how they begin, how far a failure reaches, and
//! when they end or go on.

use std::time::Duration;

use serde_json::{Value, json};
use viaduct_signalling::jid::FullJid;
use viaduct_signalling::jingle::{Jingle, ReasonCondition};
use viaduct_signalling::sources::EndpointSources;

use super::invite::RETRY;
use super::{Conference, NO_BRIDGE_RETRY, Session};
use crate::bridges::registry::Bridge;
use crate::bridges::select::{Choice, InUse};
use crate::bridges::session::{self as colibri, Scope};
use crate::context::Context;
use crate::outbox::{Answer, Failure, RoomRequest};

/// A bridge that failed a conference is its last choice for that long.
const AVOID: Duration = Duration::from_secs(60);
/// Failures of a bridge session in a row that are mended at once.
const FREE_SETBACKS: u32 = 2;

/// A conference's stay on one bridge.
#[derive(Debug)]
pub(super) struct BridgeSession {
    pub number: u32,
    pub bridge: FullJid,
    /// The id clients know the stay by.
    pub id: String,
    pub region: Option<String>,
    pub version: Option<String>,
    /// Of the bridge, when it was chosen.
    pub tenure: u64,
    pub feedback: Option<EndpointSources>,
    /// The bridge was told to create the conference.
    pub created: bool,
    /// The bridge is gone and there was no other: its media may still flow.
    pub stranded: bool,
    /// The bridge does not answer and there was no better: the conference goes
    /// on there, and leaves for the first better one unless an answer comes.
    pub unanswered: bool,
    /// Asked whether it still has the conference.
    pub probing: bool,
    pub why: &'static str,
}

impl BridgeSession {
    pub(super) fn debug(&self) -> Value {
        json!({
            "number": self.number,
            "bridge": self.bridge.to_string(),
            "bridge-session": self.id,
            "chosen-because": self.why,
            "stranded": self.stranded,
            "unanswered": self.unanswered,
        })
    }
}

impl Conference {
    pub(super) fn in_use(&self) -> Vec<InUse> {
        self.bridges
            .iter()
            .filter(|session| !session.stranded)
            .map(|session| {
                let participants = self.on_session(session.number).count();
                InUse {
                    bridge: session.bridge.clone(),
                    participants,
                    recently_added: 0,
                }
            })
            .collect()
    }

    pub(super) fn on_session(&self, number: u32) -> impl Iterator<Item = &String> {
        self.members
            .iter()
            .filter(move |(_, member)| member.session.bridge() == Some(number))
            .map(|(nick, _)| nick)
    }

    pub(super) fn session_on(&self, bridge: &FullJid) -> Option<u32> {
        self.bridges
            .iter()
            .find(|session| session.bridge == *bridge && !session.stranded)
            .map(|session| session.number)
    }

    pub(super) fn bridge_session(&mut self, number: u32) -> &mut BridgeSession {
        self.bridges
            .iter_mut()
            .find(|session| session.number == number)
            .expect("a participant's bridge session exists")
    }

    pub(super) fn find_session(&self, number: u32) -> Option<&BridgeSession> {
        self.bridges.iter().find(|session| session.number == number)
    }

    /// A participant's stay on a bridge.
    pub(super) fn session_of(&self, nick: &str) -> Option<&BridgeSession> {
        self.find_session(self.members.get(nick)?.session.bridge()?)
    }

    pub(super) fn open_session(&mut self, ctx: &mut Context<'_>, choice: &Choice) -> u32 {
        if self.id_known_to.contains(&choice.bridge) && self.bridges.is_empty() {
            // The bridge may not have forgotten the earlier stay yet: under
            // another id nothing of it can be in the way.
            self.meeting_id = ctx.random.uuid();
            self.id_known_to.clear();
        }
        self.id_known_to.insert(choice.bridge.clone());
        self.next_bridge += 1;
        let known = ctx.registry.get(&choice.bridge);
        tracing::info!(
            room = %self.name,
            bridge = %choice.bridge.resource(),
            because = choice.why,
            "conference placed"
        );
        self.bridges.push(BridgeSession {
            number: self.next_bridge,
            bridge: choice.bridge.clone(),
            id: ctx.random.uuid(),
            region: known.and_then(|bridge| bridge.region().map(str::to_owned)),
            version: known.and_then(|bridge| bridge.full_version()),
            tenure: known.map_or(0, |bridge| bridge.tenure()),
            feedback: None,
            created: false,
            stranded: false,
            unanswered: false,
            probing: false,
            why: choice.why,
        });
        self.next_bridge
    }

    /// A request about `nick` failed on that session; act within `scope`.
    pub(super) fn bridge_failed(
        &mut self,
        ctx: &mut Context<'_>,
        number: u32,
        nick: Option<&str>,
        scope: &Scope,
    ) {
        let Some(bridge) = self
            .find_session(number)
            .map(|session| session.bridge.clone())
        else {
            return;
        };
        if !matches!(scope, Scope::Endpoint | Scope::Unknown) {
            // A bridge that fails at once each time must not be asked in a circle.
            if self.setbacks >= FREE_SETBACKS {
                let wait = (self.setbacks - FREE_SETBACKS) as usize;
                self.pause = Some(ctx.now + RETRY[wait.min(RETRY.len() - 1)]);
            }
            self.setbacks = self.setbacks.saturating_add(1);
        }
        match scope {
            Scope::Endpoint | Scope::Unknown => {
                if let Some(nick) = nick {
                    self.endpoint_failed(ctx, nick);
                }
            }
            Scope::Session => self.leave_bridge(ctx, number, "the bridge lost the conference"),
            Scope::Taken => {
                // Not ours to end: another conference may have that id there.
                self.leave_bridge_silently(ctx, number, "its id is taken on the bridge");
                self.meeting_id = ctx.random.uuid();
                self.id_known_to.clear();
            }
            Scope::Graceful => {
                ctx.registry.graceful(&bridge);
                self.leave_bridge(ctx, number, "the bridge takes nothing new");
            }
            Scope::Bridge => {
                ctx.counters.bridges_removed += 1;
                self.avoided.insert(bridge.clone(), ctx.now + AVOID);
                self.leave_bridge(ctx, number, "the bridge cannot serve it");
                ctx.suspect(&bridge);
            }
            Scope::Silence => {
                ctx.counters.bridges_removed += 1;
                self.avoided.insert(bridge.clone(), ctx.now + AVOID);
                self.leave_bridge(ctx, number, "the bridge does not answer");
                ctx.suspect(&bridge);
            }
            Scope::Gone => {
                let gone = ctx.registry.gone(&bridge);
                ctx.lost.extend(gone);
                self.lose_bridge(ctx, &bridge, "it is not in the brewery");
            }
        }
        self.invite_all(ctx);
    }

    /// Everybody on that stay gets another place; the bridge is told, if it is
    /// still there.
    pub(super) fn leave_bridge(&mut self, ctx: &mut Context<'_>, number: u32, why: &'static str) {
        if let Some(session) = self.find_session(number) {
            ctx.expire(
                &session.bridge,
                colibri::expire_conference(&self.meeting_id),
            );
        }
        self.leave_bridge_silently(ctx, number, why);
    }

    fn leave_bridge_silently(&mut self, ctx: &mut Context<'_>, number: u32, why: &'static str) {
        let Some(at) = self
            .bridges
            .iter()
            .position(|session| session.number == number)
        else {
            return;
        };
        let session = self.bridges.remove(at);
        let moved: Vec<String> = self.on_session(number).cloned().collect();
        tracing::warn!(
            room = %self.name,
            bridge = %session.bridge.resource(),
            participants = moved.len(),
            why,
            "conference leaves its bridge"
        );
        ctx.counters.participants_moved += moved.len() as u64;
        for nick in moved {
            ctx.registry.release(&session.bridge, session.tenure);
            let member = self.members.get_mut(&nick).expect("listed above");
            let sid = member.end_session(Session::Idle);
            member.invite_after = None;
            if self.sources.forget(&nick) {
                self.changed.insert(nick.clone());
            }
            if let Some(sid) = sid {
                let terminate = Jingle::terminate(sid, ReasonCondition::Success, "moving");
                self.send_jingle(ctx, &nick, &terminate, None);
            }
        }
    }

    /// A bridge is dead or gone. With another one the conference moves at once;
    /// without, it stays as it is, since the media may flow on. One that merely
    /// does not answer is left for a bridge that is well, and for no other.
    pub(super) fn lose_bridge(
        &mut self,
        ctx: &mut Context<'_>,
        bridge: &FullJid,
        why: &'static str,
    ) {
        let Some(number) = self.session_on(bridge) else {
            return;
        };
        let silent = ctx.registry.get(bridge).is_some_and(Bridge::silent);
        if silent && !ctx.registry.better_than(bridge) {
            let session = self.bridge_session(number);
            if !std::mem::replace(&mut session.unanswered, true) {
                tracing::warn!(room = %self.name, bridge = %bridge.resource(), why,
                    "the conference stays, there is no better bridge");
            }
            return;
        }
        ctx.counters.bridges_removed += 1;
        if ctx.registry.other_than(bridge) {
            self.leave_bridge(ctx, number, why);
            self.invite_all(ctx);
            return;
        }
        tracing::warn!(room = %self.name, bridge = %bridge.resource(), why,
            "the conference's bridge is lost and there is no other");
        self.bridge_session(number).stranded = true;
        self.retry_due = Some(ctx.now + NO_BRIDGE_RETRY);
    }

    /// Bridges have changed: stranded calls may go on or move.
    pub(super) fn resettle(&mut self, ctx: &mut Context<'_>) {
        let unanswered = |session: &&BridgeSession| session.unanswered && !session.stranded;
        let unanswered = self.bridges.iter().filter(unanswered);
        for (number, bridge) in unanswered
            .map(|session| (session.number, session.bridge.clone()))
            .collect::<Vec<_>>()
        {
            if ctx.registry.get(&bridge).is_some_and(Bridge::usable) {
                self.bridge_session(number).unanswered = false;
            } else if ctx.registry.better_than(&bridge) {
                self.leave_bridge(ctx, number, "its bridge does not answer");
            }
        }
        let stranded: Vec<(u32, FullJid, bool)> = self
            .bridges
            .iter()
            .filter(|session| session.stranded)
            .map(|session| (session.number, session.bridge.clone(), session.probing))
            .collect();
        for (number, bridge, probing) in stranded {
            if ctx
                .registry
                .get(&bridge)
                .is_some_and(|known| known.usable())
            {
                if !probing {
                    self.probe_session(ctx, number);
                }
            } else if ctx.registry.other_than(&bridge) {
                self.leave_bridge(ctx, number, "its bridge was lost");
            } else {
                self.retry_due = Some(ctx.now + NO_BRIDGE_RETRY);
            }
        }
    }

    /// The process behind the bridge may be another: does it have the conference?
    pub(super) fn probe_bridge(&mut self, ctx: &mut Context<'_>, bridge: &FullJid) {
        let numbers: Vec<u32> = self
            .bridges
            .iter()
            .filter(|session| session.bridge == *bridge && session.created && !session.probing)
            .map(|session| session.number)
            .collect();
        for number in numbers {
            self.probe_session(ctx, number);
        }
    }

    fn probe_session(&mut self, ctx: &mut Context<'_>, number: u32) {
        let session = self.bridge_session(number);
        session.probing = true;
        let bridge = session.bridge.clone();
        let request = colibri::probe(&self.meeting_id);
        let (deadline, expected) = (ctx.reply_deadline(), RoomRequest::Probe { session: number });
        self.ask_bridge(ctx, bridge, request, deadline, expected);
    }

    pub(super) fn probed(&mut self, ctx: &mut Context<'_>, number: u32, answer: Answer) {
        if self.find_session(number).is_none() {
            return;
        }
        let name = self.name.clone();
        let participants = self.on_session(number).count();
        let session = self.bridge_session(number);
        session.probing = false;
        let bridge = session.bridge.clone();
        match answer {
            Ok(_) => {
                session.tenure = ctx
                    .registry
                    .adopt(&session.bridge, session.tenure, participants);
                if std::mem::take(&mut session.stranded) {
                    tracing::info!(room = %name, bridge = %session.bridge.resource(),
                        "the bridge came back with the conference");
                }
            }
            Err(Failure::Lost) => {}
            Err(Failure::Timeout) if !ctx.registry.better_than(&bridge) => {
                self.retry_due = Some(ctx.now + NO_BRIDGE_RETRY);
            }
            Err(_) => {
                self.leave_bridge(ctx, number, "the bridge came back without the conference");
            }
        }
        self.invite_all(ctx);
    }

    /// All bridges forget the conference.
    pub(super) fn drop_bridges(&mut self, ctx: &mut Context<'_>) {
        for session in std::mem::take(&mut self.bridges) {
            for _ in self
                .members
                .values()
                .filter(|m| m.session.bridge() == Some(session.number))
            {
                ctx.registry.release(&session.bridge, session.tenure);
            }
            ctx.expire(
                &session.bridge,
                colibri::expire_conference(&self.meeting_id),
            );
        }
        for member in self.members.values_mut() {
            member.end_session(Session::Idle);
        }
    }
}

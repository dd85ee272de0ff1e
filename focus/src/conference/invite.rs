//! Placing participants on bridges and offering them a call, again and again if
//! need be.

use std::time::{Duration, Instant};

use serde_json::json;
use viaduct_signalling::jid::FullJid;
use viaduct_signalling::jingle::{Jingle, ReasonCondition};
use viaduct_signalling::sources::{BRIDGE_OWNER, ConferenceSources};
use viaduct_signalling::xml::{Element, to_element};

use super::{Conference, NO_BRIDGE_RETRY, Session, sources};
use crate::bridges::registry::Bridge;
use crate::bridges::select::{Choice, NoBridge, Request};
use crate::bridges::session::{self as colibri, Allocation, Scope, Update};
use crate::context::Context;
use crate::jingle::features::Features;
use crate::jingle::offer::{self, Offer};
use crate::outbox::{Answer, Expected, Failure, Link, Place, RoomRequest};

/// Waits between attempts for a participant whom the bridge or the client
/// refused; the last one repeats.
pub(super) const RETRY: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// After so many failures the wait for a place no longer doubles.
const MAX_PATIENCE: u32 = 2;
/// A bridge that owes too many answers is tried again after that.
const BUSY_RETRY: Duration = Duration::from_millis(500);
/// Placements kept for `/debug`.
const MAX_PLACEMENTS: usize = 16;

impl Conference {
    /// Invites everybody who may be invited.
    pub(super) fn invite_all(&mut self, ctx: &mut Context<'_>) {
        if !self.ready() || self.members.len() < ctx.settings.conference.min_participants {
            return;
        }
        if self.bridges.iter().any(|session| session.probing) {
            // The answer tells whether the conference is still there to join.
            return;
        }
        if let Some(until) = self.pause.filter(|until| *until > ctx.now) {
            self.retry_due = Some(until);
            return;
        }
        while let Some(nick) = self.next_to_invite(ctx.now) {
            if !self.invite(ctx, &nick) {
                break;
            }
        }
        self.publish_bridges(ctx);
    }

    fn next_to_invite(&self, now: Instant) -> Option<String> {
        self.members
            .iter()
            .filter(|(_, member)| {
                member.session == Session::Idle
                    && member.features.is_some()
                    && member.invite_after.is_none_or(|after| after <= now)
            })
            .min_by_key(|(_, member)| member.order)
            .map(|(nick, _)| nick.clone())
    }

    /// Asks a bridge for a place. `false`: there is none now.
    fn invite(&mut self, ctx: &mut Context<'_>, nick: &str) -> bool {
        let Some(choice) = self.place(ctx, nick) else {
            return false;
        };
        let number = match self.session_on(&choice.bridge) {
            Some(number) => number,
            None => {
                if !ctx.settings.bridge.select.octo {
                    // Its bridge no longer serves: the whole conference moves.
                    let old: Vec<u32> = self.bridges.iter().map(|bridge| bridge.number).collect();
                    for number in old {
                        self.leave_bridge(ctx, number, "its bridge takes nobody any more");
                    }
                }
                self.open_session(ctx, &choice)
            }
        };
        let session = self.bridge_session(number);
        let create_conference = !session.created;
        session.created = true;
        let bridge = session.bridge.clone();
        let attempt = ctx.random.id();
        let member = self.members.get_mut(nick).expect("a member is invited");
        let features = member.features.unwrap_or(Features::ASSUMED);
        let failures = member.failures;
        member.invite_after = None;
        member.session = Session::Allocating {
            bridge: number,
            attempt,
            suspect_at: Some(ctx.now + ctx.settings.conference.slow_allocation),
        };
        let request = colibri::create(&colibri::Create {
            meeting_id: &self.meeting_id,
            create_conference: create_conference.then_some(&self.name),
            endpoint: nick,
            stats_id: member.occupant.stats_id.as_deref(),
            features: &features,
            codecs: &ctx.settings.codecs,
            sctp: ctx.settings.sctp && features.sctp,
            visitor: member.is_visitor(),
        });
        let tenure = ctx.registry.get(&bridge).map(Bridge::tenure);
        let expected = RoomRequest::Allocation(Place {
            session: number,
            nick: nick.to_owned(),
            attempt,
            bridge: bridge.clone(),
            tenure: tenure.expect("it was just chosen"),
            meeting_id: self.meeting_id.clone(),
            asked: ctx.now,
            overdue: 0,
        });
        let patience = ctx.settings.reply_timeout * (1 << failures.min(MAX_PATIENCE));
        let deadline = ctx.now + patience;
        self.ask_bridge(ctx, bridge, request, deadline, expected);
        true
    }

    pub(super) fn ask_bridge(
        &self,
        ctx: &mut Context<'_>,
        bridge: FullJid,
        request: Element,
        deadline: Instant,
        expected: RoomRequest,
    ) {
        let expected = Expected::Room(self.name.clone(), expected);
        ctx.out.get(
            ctx.settings.brewery_link,
            bridge,
            request,
            deadline,
            expected,
        );
    }

    fn place(&mut self, ctx: &mut Context<'_>, nick: &str) -> Option<Choice> {
        let in_use = self.in_use();
        let version = self
            .bridges
            .iter()
            .find(|b| !b.stranded)
            .and_then(|b| b.version.clone());
        let avoided: Vec<FullJid> = self
            .avoided
            .iter()
            .filter(|(_, until)| **until > ctx.now)
            .map(|(bridge, _)| bridge.clone())
            .collect();
        let member = &self.members[nick];
        let request = Request {
            in_use: &in_use,
            region: member.occupant.region.as_deref(),
            version: version.as_deref(),
            avoided: &avoided,
        };
        let candidates = self.bridges.is_empty().then(|| ctx.registry.summary());
        match ctx.registry.place(ctx.now, &request) {
            Ok(choice) => {
                if self
                    .no_bridge
                    .take()
                    .is_some_and(|why| why != NoBridge::Busy)
                {
                    tracing::info!(room = %self.name, "a bridge is there again");
                }
                if self.session_on(&choice.bridge).is_none() {
                    if self.placements.len() >= MAX_PLACEMENTS {
                        self.placements.pop_front();
                    }
                    self.placements.push_back(json!({
                        "for": nick,
                        "bridge": choice.bridge.to_string(),
                        "because": choice.why,
                        "candidates": candidates,
                    }));
                }
                Some(choice)
            }
            Err(why) => {
                let retry = if why == NoBridge::Busy {
                    BUSY_RETRY
                } else {
                    NO_BRIDGE_RETRY
                };
                self.retry_due = Some(ctx.now + retry);
                if self.no_bridge != Some(why) && why != NoBridge::Busy {
                    tracing::warn!(room = %self.name, %why, "no bridge for the conference, waiting for one");
                }
                self.no_bridge = Some(why);
                None
            }
        }
    }

    /// The bridge answered a request for a place, or was to answer by now.
    pub(super) fn allocated(&mut self, ctx: &mut Context<'_>, place: &Place, answer: Answer) {
        let (number, nick, bridge) = (place.session, place.nick.as_str(), &place.bridge);
        let current = self.members.get(nick).is_some_and(|member| {
            matches!(&member.session, Session::Allocating { bridge, attempt, .. }
                if *bridge == number && *attempt == place.attempt)
        });
        if !current {
            if answer.is_ok() && place.overdue > 0 {
                self.give_back(ctx, place);
            }
            return;
        }
        if matches!(answer, Err(Failure::Timeout)) {
            self.unanswered(ctx, place, place.is_over(&answer));
            return;
        }
        let sctp = ctx.settings.sctp && self.features(nick).sctp;
        let allocation = match colibri::allocation(answer, nick, sctp) {
            Ok(allocation) => allocation,
            Err((scope, error)) => {
                tracing::warn!(room = %self.name, nick, bridge = %bridge.resource(), error,
                    "no place on the bridge");
                self.bridge_failed(ctx, number, Some(nick), &scope);
                return;
            }
        };
        let session = self.bridge_session(number);
        session.unanswered = false;
        if let Some(feedback) = &allocation.feedback
            && !feedback.is_empty()
        {
            session.feedback = Some(feedback.clone());
        }
        if session.feedback.is_none() {
            // Without them the client's own sending breaks at the first leave.
            tracing::warn!(room = %self.name, nick, "the bridge named no feedback sources");
            self.endpoint_failed(ctx, nick);
            return;
        }
        self.setbacks = 0;
        self.offer(ctx, number, nick, &allocation);
        if self.no_bridge == Some(NoBridge::Busy) {
            self.invite_all(ctx);
        }
    }

    /// A place should have been given by now. Where there is a better bridge the
    /// conference goes there; else its answer is waited for, unless the bridge
    /// has answered later questions, and so will not answer this one.
    fn unanswered(&mut self, ctx: &mut Context<'_>, place: &Place, over: bool) {
        let (nick, bridge) = (place.nick.as_str(), &place.bridge);
        ctx.registry.slow(bridge);
        if ctx.registry.better_than(bridge) {
            self.bridge_failed(ctx, place.session, Some(nick), &Scope::Silence);
        } else if over || ctx.registry.heard_since(bridge, place.asked) {
            tracing::warn!(room = %self.name, nick, bridge = %bridge.resource(),
                "no answer to a request for a place, asking again");
            self.endpoint_failed(ctx, nick);
        } else {
            tracing::debug!(room = %self.name, nick, bridge = %bridge.resource(),
                "no answer to a request for a place, and no better bridge: waiting on");
            ctx.suspect(bridge);
        }
    }

    /// An answer so late that nobody wants it. What was asked for had been ended
    /// meanwhile; a bridge that takes its time may also mix up the order.
    fn give_back(&mut self, ctx: &mut Context<'_>, place: &Place) {
        let (number, nick) = (place.session, place.nick.as_str());
        if self.find_session(number).is_none() {
            let again = self.session_on(&place.bridge).is_some();
            if !(again && self.meeting_id == place.meeting_id) {
                let request = colibri::expire_conference(&place.meeting_id);
                ctx.expire(&place.bridge, request);
            }
        } else if self.session_of(nick).is_none_or(|s| s.number != number) {
            let request = colibri::expire_endpoint(&place.meeting_id, nick);
            ctx.expire(&place.bridge, request);
        }
    }

    pub(super) fn features(&self, nick: &str) -> Features {
        self.members
            .get(nick)
            .and_then(|member| member.features)
            .unwrap_or(Features::ASSUMED)
    }

    fn offer(&mut self, ctx: &mut Context<'_>, number: u32, nick: &str, allocation: &Allocation) {
        let features = self.features(nick);
        let told = self.sources_for(ctx, nick);
        let mut all = told.clone();
        let session = self.find_session(number).expect("it just answered");
        if let Some(feedback) = &session.feedback {
            all.merge(BRIDGE_OWNER, &feedback.only(|media| features.media(media)));
        }
        let sid = ctx.random.sid();
        let jingle = offer::session_initiate(&Offer {
            room: &self.name,
            sid: &sid,
            initiator: ctx.me,
            features: &features,
            codecs: &ctx.settings.codecs,
            allocation,
            bridge_session: &session.id,
            region: session.region.as_deref(),
            sources: &all,
            json_sources: features.json_sources && ctx.settings.conference.json_sources,
        });
        let member = self
            .members
            .get_mut(nick)
            .expect("a member is offered a call");
        member.told = told;
        member.told_stale = true;
        member.session = Session::Offered {
            bridge: number,
            sid: sid.clone(),
            due: ctx.now + ctx.settings.conference.accept_timeout,
        };
        self.send_jingle(ctx, nick, &jingle, Some((sid, true)));
    }

    /// Sends a Jingle request; `watched` is the session whose loss an error shows.
    pub(super) fn send_jingle(
        &self,
        ctx: &mut Context<'_>,
        nick: &str,
        jingle: &Jingle,
        watched: Option<(String, bool)>,
    ) {
        ctx.counters.sent(jingle.action.as_str());
        let to = self.occupant(nick);
        match watched {
            None => ctx.out.tell(Link::Client, to, to_element(jingle)),
            Some((sid, initiate)) => {
                let request = RoomRequest::Jingle {
                    nick: nick.to_owned(),
                    sid,
                    initiate,
                };
                let expected = Expected::Room(self.name.clone(), request);
                let deadline = ctx.reply_deadline();
                ctx.out
                    .set(Link::Client, to, to_element(jingle), deadline, expected);
            }
        }
    }

    /// What all others send, as this member is to be told.
    pub(super) fn sources_for(&self, ctx: &Context<'_>, nick: &str) -> ConferenceSources {
        let features = self.features(nick);
        let strip = ctx.settings.conference.strip_simulcast;
        let mut all = ConferenceSources::default();
        for (owner, set) in self.sources.iter().filter(|(owner, _)| *owner != nick) {
            all.merge(
                owner,
                &sources::announced(set, strip).only(|media| features.media(media)),
            );
        }
        all
    }

    /// Tells the bridge what changed about an endpoint.
    pub(super) fn update_endpoint(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        update: &Update<'_>,
    ) {
        let Some(session) = self.session_of(nick).filter(|session| !session.stranded) else {
            return;
        };
        let request = colibri::update(&self.meeting_id, nick, update);
        let expected = RoomRequest::Update {
            session: session.number,
            nick: nick.to_owned(),
        };
        let deadline = ctx.reply_deadline();
        self.ask_bridge(ctx, session.bridge.clone(), request, deadline, expected);
    }

    pub(super) fn updated(
        &mut self,
        ctx: &mut Context<'_>,
        number: u32,
        nick: &str,
        answer: Answer,
    ) {
        let Err(failure) = answer else { return };
        let on_it = self
            .members
            .get(nick)
            .is_some_and(|m| m.session.bridge() == Some(number));
        let Some(session) = self.find_session(number) else {
            return;
        };
        tracing::warn!(room = %self.name, nick, bridge = %session.bridge.resource(), %failure,
            "the bridge did not take a change");
        match colibri::scope(&failure) {
            // It may yet come: ask how the bridge is.
            Scope::Silence => ctx.suspect(&session.bridge.clone()),
            Scope::Unknown => {}
            Scope::Endpoint if !on_it => {}
            scope => self.bridge_failed(ctx, number, Some(nick), &scope),
        }
    }

    /// This participant's place is no good: it gets another, after a while.
    pub(super) fn endpoint_failed(&mut self, ctx: &mut Context<'_>, nick: &str) {
        self.end_call(ctx, nick, Some("moving"));
        let Some(member) = self.members.get_mut(nick) else {
            return;
        };
        let wait = RETRY[(member.failures as usize).min(RETRY.len() - 1)];
        member.failures = member.failures.saturating_add(1);
        member.invite_after = Some(ctx.now + wait);
    }

    /// Ends a participant's call here and on the bridge, so that it can be
    /// invited anew. `tell`: the reason for the client, if it does not know.
    pub(super) fn end_call(&mut self, ctx: &mut Context<'_>, nick: &str, tell: Option<&str>) {
        self.expire_endpoint(ctx, nick);
        let Some(member) = self.members.get_mut(nick) else {
            return;
        };
        let sid = member.end_session(Session::Idle);
        if let (Some(sid), Some(text)) = (sid, tell) {
            let terminate = Jingle::terminate(sid, ReasonCondition::Success, text);
            self.send_jingle(ctx, nick, &terminate, None);
        }
        if self.sources.forget(nick) {
            self.changed.insert(nick.to_owned());
        }
    }

    /// The bridge forgets an endpoint, or with the last one the conference.
    pub(super) fn expire_endpoint(&mut self, ctx: &mut Context<'_>, nick: &str) {
        let Some(session) = self.session_of(nick) else {
            return;
        };
        let (number, bridge) = (session.number, session.bridge.clone());
        let last = self.on_session(number).count() == 1;
        ctx.registry.release(&bridge, session.tenure);
        let request = if last {
            colibri::expire_conference(&self.meeting_id)
        } else {
            colibri::expire_endpoint(&self.meeting_id, nick)
        };
        ctx.expire(&bridge, request);
        if last {
            self.bridges.retain(|session| session.number != number);
        }
    }

    /// Too few are left for a call.
    pub(super) fn disband(&mut self, ctx: &mut Context<'_>) {
        if self.members.len() >= ctx.settings.conference.min_participants {
            return;
        }
        let nicks: Vec<String> = self.members.keys().cloned().collect();
        for nick in nicks {
            self.expire_endpoint(ctx, &nick);
            let member = self.members.get_mut(&nick).expect("listed above");
            if let Some(sid) = member.end_session(Session::Idle) {
                let terminate =
                    Jingle::terminate(sid, ReasonCondition::Expired, "Idle session timeout");
                self.send_jingle(ctx, &nick, &terminate, None);
            }
            self.sources.forget(&nick);
        }
        self.publish_bridges(ctx);
    }

    /// Sessions whose time has come: slow allocations, offers nobody accepted.
    pub(super) fn sessions_due(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        let mut suspects = Vec::new();
        let mut unanswered = Vec::new();
        for (nick, member) in &mut self.members {
            match &mut member.session {
                Session::Allocating {
                    bridge, suspect_at, ..
                } if suspect_at.is_some_and(|at| at <= now) => {
                    *suspect_at = None;
                    suspects.push(*bridge);
                }
                Session::Offered { due, .. } if *due <= now => unanswered.push(nick.clone()),
                Session::Idle if member.invite_after.is_some_and(|after| after <= now) => {
                    member.invite_after = None;
                }
                _ => {}
            }
        }
        suspects.dedup();
        for number in suspects {
            if let Some(bridge) = self.find_session(number).map(|s| s.bridge.clone()) {
                tracing::warn!(room = %self.name, bridge = %bridge.resource(), "a slow allocation: asking the bridge how it is");
                ctx.suspect(&bridge);
            }
        }
        for nick in unanswered {
            tracing::warn!(room = %self.name, nick, "the client did not accept its offer, it gets another");
            self.endpoint_failed(ctx, &nick);
        }
    }
}

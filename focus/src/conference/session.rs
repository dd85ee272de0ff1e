//! Jingle requests of clients (client-focus §4.3-4.8), and what clients answer to
//! ours.
//!
//! An error on session-accept or on a request for a restart makes the
//! application leave, so whatever can be mended is answered with a result: a
//! request about a session that just ended, an accept that crossed a move.

use viaduct_signalling::iq::{Condition, Iq, Kind, StanzaError};
use viaduct_signalling::jingle::{Action, Jingle, ReasonCondition, unknown_session};
use viaduct_signalling::sources::{EndpointSources, MediaType};
use viaduct_signalling::xml::{from_element, ns};

use super::{Conference, Member, Session, is_gone};
use crate::bridges::session::Update;
use crate::context::Context;
use crate::outbox::{Answer, Failure, Link};

impl Conference {
    /// Any request of a member.
    pub(super) fn handle_iq(&mut self, ctx: &mut Context<'_>, nick: &str, iq: &Iq) {
        let Some(payload) = iq.request() else { return };
        let answer = if payload.has_ns(ns::JINGLE) {
            match from_element::<Jingle>(payload) {
                Ok(jingle) => {
                    let known = !matches!(jingle.action, Action::Other(_));
                    ctx.counters.received(jingle.action.as_str(), known);
                    if !self.members.contains_key(nick) {
                        Err(unknown_session())
                    } else {
                        // Restarts answer for themselves, before they act.
                        match self.jingle(ctx, nick, iq, &jingle) {
                            Some(answer) => answer,
                            None => return,
                        }
                    }
                }
                Err(error) => {
                    ctx.counters.bad_stanzas += 1;
                    Err(StanzaError::new(Condition::BadRequest).with_text(error.to_string()))
                }
            }
        } else {
            match self.moderate(ctx, nick, iq, payload) {
                Some(answer) => answer,
                None => return,
            }
        };
        let kind = match answer {
            Ok(()) => Kind::Result(None),
            Err(error) => {
                tracing::debug!(room = %self.name, nick, %error, "request refused");
                Kind::Error(error)
            }
        };
        ctx.out.iq(Link::Client, iq.answer(kind));
    }

    /// `None`: answered already.
    fn jingle(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        iq: &Iq,
        jingle: &Jingle,
    ) -> Option<Result<(), StanzaError>> {
        let member = &self.members[nick];
        let current = member.session.sid() == Some(jingle.sid.as_str());
        let ended = member.ended.contains(&jingle.sid);
        match jingle.action {
            Action::SessionTerminate => {
                ctx.out.iq(Link::Client, iq.done());
                self.terminated(ctx, nick, jingle, current, ended);
                None
            }
            Action::SessionAccept
            | Action::SessionInfo
            | Action::TransportInfo
            | Action::TransportAccept
            | Action::TransportReject
            | Action::SourceAdd
            | Action::SourceRemove => Some(if current {
                self.in_session(ctx, nick, iq, jingle)?
            } else if ended {
                // It crossed our own terminate, which the client has by now.
                Ok(())
            } else {
                Err(unknown_session())
            }),
            _ => Some(Err(StanzaError::new(Condition::FeatureNotImplemented))),
        }
    }

    /// `None`: answered already.
    fn in_session(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        iq: &Iq,
        jingle: &Jingle,
    ) -> Option<Result<(), StanzaError>> {
        Some(match jingle.action {
            Action::SessionAccept => self.accepted(ctx, nick, jingle),
            Action::SourceAdd => self.source_add(ctx, nick, jingle),
            Action::SourceRemove => self.source_remove(ctx, nick, jingle),
            Action::TransportInfo => match jingle.transport() {
                Some(transport) => {
                    let transport = Some(transport);
                    self.update_endpoint(
                        ctx,
                        nick,
                        &Update {
                            transport,
                            ..Update::default()
                        },
                    );
                    Ok(())
                }
                None => Err(StanzaError::new(Condition::BadRequest).with_text("no transport")),
            },
            Action::SessionInfo => {
                let restart_ice = jingle
                    .bridge_session
                    .as_ref()
                    .is_some_and(|s| s.ice_restart == Some(true));
                let failed = jingle
                    .ice_state
                    .as_ref()
                    .is_some_and(|ice| ice.state == "failed");
                if restart_ice {
                    // The client then asks for a new session.
                    Err(StanzaError::new(Condition::FeatureNotImplemented))
                } else if failed {
                    ctx.out.iq(Link::Client, iq.done());
                    self.restart(ctx, nick, true, Some("restart required"));
                    return None;
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        })
    }

    fn accepted(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        jingle: &Jingle,
    ) -> Result<(), StanzaError> {
        let member = self.members.get_mut(nick).expect("checked by the caller");
        let Session::Offered { bridge, sid, .. } = &member.session else {
            return Err(StanzaError::new(Condition::UnexpectedRequest));
        };
        let active = Session::Active {
            bridge: *bridge,
            sid: sid.clone(),
        };
        let announced = EndpointSources::from_contents(&jingle.contents);
        if let Err(error) = self.take_sources(ctx, nick, &announced) {
            // To the client the session is dead now.
            self.endpoint_failed(ctx, nick);
            return Err(error);
        }
        let member = self.members.get_mut(nick).expect("checked by the caller");
        member.session = active;
        member.failures = 0;
        tracing::debug!(room = %self.name, nick, "session accepted");
        let own = self.sources.get(nick).cloned().unwrap_or_default();
        let visitor = self.members[nick].is_visitor();
        let last_n = jingle
            .contents
            .iter()
            .find_map(|content| content.initial_last_n?.value);
        let stats_id = self.members[nick].occupant.stats_id.clone();
        self.update_endpoint(
            ctx,
            nick,
            &Update {
                stats_id: stats_id.as_deref(),
                transport: jingle.transport(),
                sources: (!visitor).then_some(&own),
                last_n,
            },
        );
        Ok(())
    }

    fn source_add(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        jingle: &Jingle,
    ) -> Result<(), StanzaError> {
        let announced = EndpointSources::from_contents(&jingle.contents);
        self.take_sources(ctx, nick, &announced)?;
        if !announced.is_empty() {
            self.update_sources(ctx, nick);
        }
        Ok(())
    }

    fn source_remove(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        jingle: &Jingle,
    ) -> Result<(), StanzaError> {
        let listed = EndpointSources::from_contents(&jingle.contents);
        if listed.is_empty() {
            return Ok(());
        }
        self.sources.remove(nick, &listed).map_err(bad_request)?;
        self.changed.insert(nick.to_owned());
        self.update_sources(ctx, nick);
        Ok(())
    }

    fn update_sources(&mut self, ctx: &mut Context<'_>, nick: &str) {
        let all = self.sources.get(nick).cloned().unwrap_or_default();
        let stats_id = self.members[nick].occupant.stats_id.clone();
        let update = Update {
            stats_id: stats_id.as_deref(),
            sources: Some(&all),
            ..Update::default()
        };
        self.update_endpoint(ctx, nick, &update);
    }

    fn take_sources(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        announced: &EndpointSources,
    ) -> Result<(), StanzaError> {
        if announced.is_empty() {
            return Ok(());
        }
        if self.members[nick].is_visitor() {
            return Err(StanzaError::new(Condition::Forbidden).with_text("visitors send nothing"));
        }
        let settings = &ctx.settings.conference;
        let limits = [
            (MediaType::Audio, settings.max_audio_senders),
            (MediaType::Video, settings.max_video_senders),
        ];
        for (media, limit) in limits {
            let adds = announced
                .sources
                .iter()
                .any(|source| source.media_type == media);
            if adds && self.senders(media, nick) >= limit {
                return Err(StanzaError::new(Condition::ResourceConstraint)
                    .with_text(format!("no more than {limit} may send {}", media.as_str())));
            }
        }
        self.sources
            .add(nick, announced, settings.limits)
            .map_err(bad_request)?;
        self.changed.insert(nick.to_owned());
        Ok(())
    }

    /// Others who send that medium now, by their own word.
    fn senders(&self, media: MediaType, except: &str) -> usize {
        let sends = |member: &Member| match &member.occupant.source_info {
            Some(info) => info
                .0
                .values()
                .any(|state| !state.muted && state.media_type == Some(media)),
            None => {
                let muted = match media {
                    MediaType::Audio => member.occupant.audio_muted,
                    MediaType::Video => member.occupant.video_muted,
                };
                muted == Some(false)
            }
        };
        self.members
            .iter()
            .filter(|(nick, member)| *nick != except && sends(member))
            .count()
    }

    /// The client ended a session; the result has been sent before.
    fn terminated(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        jingle: &Jingle,
        current: bool,
        ended: bool,
    ) {
        let restart = jingle
            .bridge_session
            .as_ref()
            .is_some_and(|session| session.restart == Some(true));
        let reason = jingle.reason.as_ref().and_then(|reason| reason.condition);
        let ice_failed = reason == Some(ReasonCondition::ConnectivityError);
        if current && restart {
            self.restart(ctx, nick, ice_failed, None);
        } else if current {
            tracing::debug!(room = %self.name, nick, ?reason, "the client ended its session");
            self.end_call(ctx, nick, None);
            if let Some(member) = self.members.get_mut(nick) {
                member.session = Session::Closed;
            }
        } else if restart && self.members[nick].session.sid().is_some() {
            // It crossed a new offer of ours. Our result makes the client forget
            // whatever session it has, which by now is the new one.
            if !ended {
                tracing::debug!(room = %self.name, nick, "restart of an unknown session");
            }
            self.restart(ctx, nick, false, Some("moving"));
        } else if restart && self.members[nick].session == Session::Closed {
            self.members.get_mut(nick).expect("a member asks").session = Session::Idle;
            self.invite_all(ctx);
        }
    }

    /// Invites anew, as soon as the rate allows: a refusal would make the
    /// application reload.
    fn restart(&mut self, ctx: &mut Context<'_>, nick: &str, ice_failed: bool, tell: Option<&str>) {
        ctx.counters.restart_requested += 1;
        let bridge = self.session_of(nick).map(|session| session.bridge.clone());
        tracing::info!(room = %self.name, nick, ice_failed, "the client wants a new session");
        self.end_call(ctx, nick, tell);
        let settings = &ctx.settings.conference;
        let member = self.members.get_mut(nick).expect("a member asks");
        let window = settings.restart_interval;
        while member
            .restarts
            .front()
            .is_some_and(|at| *at + window <= ctx.now)
        {
            member.restarts.pop_front();
        }
        let spaced = member
            .restarts
            .back()
            .map(|last| *last + settings.restart_min_interval);
        let counted = (member.restarts.len() >= settings.restart_max)
            .then(|| member.restarts.front().map(|first| *first + window))
            .flatten();
        member.invite_after = spaced.max(counted).filter(|after| *after > ctx.now);
        if member.restarts.len() >= settings.restart_max {
            member.restarts.pop_front();
        }
        member
            .restarts
            .push_back(member.invite_after.unwrap_or(ctx.now));
        if ice_failed {
            ctx.counters.ice_failed += 1;
            if let Some(bridge) = bridge {
                ctx.suspect(&bridge);
            }
        }
        self.signal(ctx);
        self.invite_all(ctx);
    }

    /// A client's answer to one of our Jingle requests.
    pub(super) fn jingle_answered(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        sid: &str,
        initiate: bool,
        answer: Answer,
    ) {
        let Err(failure) = answer else { return };
        let current = self
            .members
            .get(nick)
            .is_some_and(|m| m.session.sid() == Some(sid));
        if !current {
            return;
        }
        match &failure {
            Failure::Refused(error) if initiate => {
                tracing::warn!(room = %self.name, nick, %error, "the client refused its offer");
                let recipient_gone =
                    is_gone(&failure) && !error.has_detail("unknown-session", ns::JINGLE_ERRORS);
                self.expire_endpoint(ctx, nick);
                let member = self.members.get_mut(nick).expect("checked above");
                member.end_session(Session::Idle);
                // An occupant that is gone will be seen to leave.
                let wait = if recipient_gone {
                    30
                } else {
                    2u64 << member.failures.min(5)
                };
                member.failures = member.failures.saturating_add(1);
                member.invite_after = Some(ctx.now + std::time::Duration::from_secs(wait));
            }
            Failure::Refused(_) if is_gone(&failure) => {
                tracing::warn!(room = %self.name, nick, "the client has lost its session, it gets another");
                self.end_call(ctx, nick, None);
                self.invite_all(ctx);
            }
            Failure::Refused(error) => {
                tracing::warn!(room = %self.name, nick, %error, "the client refused a change of sources");
            }
            // The session stays: the client may only be away for a moment.
            Failure::Timeout | Failure::Lost => {}
        }
    }
}

fn bad_request(error: super::sources::SourceError) -> StanzaError {
    StanzaError::new(Condition::BadRequest).with_text(error.to_string())
}

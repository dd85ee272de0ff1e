//! Owners, mute, and requests for services that are not there (client-focus §5).

use viaduct_signalling::iq::{Condition, Iq, StanzaError};
use viaduct_signalling::jid::{self, Jid};
use viaduct_signalling::jitsi::{Mute, feature};
use viaduct_signalling::muc::AdminQuery;
use viaduct_signalling::xml::{Element, from_element, to_element};

use super::{Conference, Member};
use crate::FOCUS_NICK;
use crate::context::Context;
use crate::outbox::{Answer, Expected, Failure, Link, RoomRequest};

/// Recording and SIP gateways.
const JIBRI: &str = "http://jitsi.org/protocol/jibri";
/// Dial-out and transcription.
const RAYO: &str = "urn:xmpp:rayo:1";

impl Conference {
    /// Any request that is not Jingle. `None`: answered already.
    pub(super) fn moderate(
        &mut self,
        ctx: &mut Context<'_>,
        nick: &str,
        iq: &Iq,
        payload: &Element,
    ) -> Option<Result<(), StanzaError>> {
        if let Ok(mute) = from_element::<Mute>(payload) {
            return match self.mute(ctx, nick, &mute) {
                Ok(target) => {
                    // First the one who asked, then the one concerned.
                    ctx.out.iq(Link::Client, iq.done());
                    if let Some(target) = target {
                        let actor = self.occupant(nick).to_string();
                        let mute = Mute {
                            jid: None,
                            actor: Some(actor),
                            ..mute
                        };
                        ctx.out.tell(Link::Client, target, to_element(&mute));
                    }
                    None
                }
                Err(error) => Some(Err(error)),
            };
        }
        let service = payload.is("jibri", JIBRI) || payload.is("dial", RAYO);
        let condition = match service {
            true if !self.may_moderate(ctx, nick) => Condition::Forbidden,
            true => Condition::ServiceUnavailable,
            false => Condition::FeatureNotImplemented,
        };
        Some(Err(StanzaError::new(condition)))
    }

    fn may_moderate(&self, ctx: &Context<'_>, nick: &str) -> bool {
        !ctx.settings.conference.moderator_checks
            || self.members.get(nick).is_some_and(Member::is_moderator)
    }

    /// Who is to be told, if anybody; or why not.
    fn mute(
        &self,
        ctx: &Context<'_>,
        nick: &str,
        mute: &Mute,
    ) -> Result<Option<jid::FullJid>, StanzaError> {
        let refused = |condition| Err(StanzaError::new(condition));
        let (Some(jid), Some(on)) = (&mute.jid, mute.mute) else {
            return refused(Condition::BadRequest);
        };
        let target = Jid::new(jid).ok().and_then(|jid| jid.try_into_full().ok());
        let Some(target) = target else {
            return refused(Condition::BadRequest);
        };
        if target.to_bare() != self.name {
            return refused(Condition::ItemNotFound);
        }
        let target_nick = target.resource().as_str();
        let own = target_nick == nick;
        if !own && !self.may_moderate(ctx, nick) {
            return refused(Condition::NotAllowed);
        }
        if !own && !on {
            return refused(Condition::NotAllowed);
        }
        let (Some(_), Some(member)) = (self.members.get(nick), self.members.get(target_nick))
        else {
            return refused(Condition::InternalServerError);
        };
        let features = &member.occupant.features;
        let has = |name: &str| features.iter().any(|feature| feature == name);
        let gateway_refuses =
            has(feature::JIGASI) && !member.features.is_some_and(|f| f.audio_mute);
        if member.is_visitor() || has(feature::JIBRI) || gateway_refuses {
            return refused(Condition::NotAllowed);
        }
        Ok((!own).then_some(target))
    }

    /// Without an owner the first who may be one becomes it (auto-owner).
    pub(super) fn elect_owner(&mut self, ctx: &mut Context<'_>) {
        if !ctx.settings.conference.auto_owner || self.breakout || !self.ready() {
            return;
        }
        if self.members.values().any(Member::is_owner) {
            self.granted = None;
            return;
        }
        if self.granted.is_some() {
            return;
        }
        let service = |member: &Member| {
            member
                .occupant
                .features
                .iter()
                .any(|f| f == feature::JIBRI || f == feature::JIGASI)
        };
        let elected = self
            .members
            .iter()
            .filter(|(_, member)| !member.is_visitor() && !service(member))
            .filter_map(|(nick, member)| Some((member.order, nick, member.real()?)))
            .min_by_key(|(order, _, _)| *order);
        let Some((_, nick, real)) = elected else {
            return;
        };
        tracing::debug!(room = %self.name, nick, "made owner");
        let query = AdminQuery::grant_owner(real.to_bare());
        let request = RoomRequest::Grant { nick: nick.clone() };
        ctx.out.set(
            Link::Client,
            self.name.clone(),
            to_element(&query),
            ctx.reply_deadline(),
            Expected::Room(self.name.clone(), request),
        );
        self.granted = Some(nick.clone());
    }

    pub(super) fn grant_answered(&mut self, nick: &str, answer: &Answer) {
        let Err(failure) = answer else { return };
        let denied = matches!(failure, Failure::Refused(error) if matches!(
            error.condition,
            Condition::Forbidden | Condition::NotAllowed | Condition::NotAuthorized
        ));
        if denied {
            // Kept as granted: asking again would be refused again.
            tracing::warn!(room = %self.name, nick, %failure, as_nick = FOCUS_NICK,
                "the focus may not make owners: make its account an admin of the room service");
            return;
        }
        tracing::info!(room = %self.name, nick, %failure, "not made owner yet");
        // The next change in the room has another elected, or the same again.
        self.granted.take_if(|granted| granted == nick);
    }
}

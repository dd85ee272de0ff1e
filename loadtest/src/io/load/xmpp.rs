//! Members that come as clients do: login, room, the focus's offer. Only the
//! media is a load's; signalling is that of any other participant.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::Notify;
use viaduct_signalling::jid::{BareJid, Jid};
use viaduct_signalling::jitsi::SourceState;
use viaduct_signalling::sources::VideoType;

use super::super::xmpp::Wire;
use super::thread::Message;
use super::{Doors, bind};
use crate::client::jingle::Offer;
use crate::client::room::{Event, Room, RoomSettings};
use crate::client::source_name;
use crate::load::Channel;
use crate::load::colibri::redirect;
use crate::load::layout::Seat;
use crate::load::member::Member;
use crate::scenario::Server;
use crate::source::tag::Kind;

/// Where the rooms are.
#[derive(Clone, Debug)]
pub(super) struct Deployment {
    pub(super) server: Server,
    pub(super) domain: BareJid,
    pub(super) muc: String,
    pub(super) focus: Jid,
}

impl Deployment {
    fn room(&self, run: u32, conference: u32) -> Result<BareJid> {
        let room = format!("load-{run:08x}-{conference}@{}", self.muc);
        BareJid::new(&room).with_context(|| format!("--muc {}", self.muc))
    }
}

/// Takes part until `leave` is told.
pub(super) async fn take_part(
    doors: Arc<Doors>,
    deployment: Arc<Deployment>,
    seat: Seat,
    leave: Arc<Notify>,
) -> Result<()> {
    let asked = Instant::now();
    let settings = &doors.settings;
    let endpoint = settings.layout.endpoint(seat);
    let conference = settings.layout.conference(seat.place);
    let (mut wire, _) = Wire::login(&deployment.server, deployment.domain.as_str()).await?;
    let seed = settings.seed ^ u64::from(seat.place) << 16 ^ u64::from(seat.generation);
    let room = RoomSettings {
        domain: deployment.domain.clone(),
        room: deployment.room(settings.run, conference)?,
        focus: deployment.focus.clone(),
        name: format!("load-{endpoint}"),
        codecs: vec![settings.picture.codec.name().to_lowercase()],
        xml_sources: false,
        data_channel: settings.channel == Channel::Datachannel,
        endpoint,
    };
    let mut session = Session {
        room: Room::new(room, seed).map_err(anyhow::Error::msg)?,
        doors: &doors,
        seat,
        asked,
        invited: false,
    };
    session.room.start(asked);
    let ended = loop {
        if let Err(error) = session.settle(&mut wire).await {
            break Err(error);
        }
        let due = session.room.next_timeout();
        let timeout = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stanza = wire.receive() => match stanza {
                Ok(stanza) => session.room.handle_stanza(Instant::now(), &stanza),
                Err(error) => break Err(error.context("XMPP")),
            },
            () = timeout => session.room.handle_timeout(Instant::now()),
            () = leave.notified() => break Ok(()),
        }
    };
    doors.threads.tell(seat, Message::Leave(seat));
    session.room.leave();
    while let Some(stanza) = session.room.poll_stanza() {
        wire.send(&stanza).await?;
    }
    wire.close().await;
    ended
}

struct Session<'a> {
    room: Room,
    doors: &'a Doors,
    seat: Seat,
    asked: Instant,
    invited: bool,
}

impl Session<'_> {
    /// Does what has come of the last stanza.
    async fn settle(&mut self, wire: &mut Wire) -> Result<()> {
        while let Some(event) = self.room.poll_event() {
            match event {
                Event::Offer(jingle) => {
                    if std::mem::replace(&mut self.invited, true) {
                        bail!("invited again: a load does not follow to another bridge");
                    }
                    let codec = self.doors.settings.picture.codec;
                    self.answer(&Offer::read(&jingle, codec).context("the offer")?)?;
                }
                Event::Accepted => self.publish(),
                Event::Terminated => bail!("the focus ended the session"),
                Event::Failed(text) => bail!(text),
                Event::Ready
                | Event::Joined { .. }
                | Event::Company
                | Event::SourcesAdded(_)
                | Event::SourcesRemoved(_)
                | Event::SourceAccepted
                | Event::SourceInfo(..)
                | Event::Left(_) => {}
            }
        }
        while let Some(stanza) = self.room.poll_stanza() {
            wire.send(&stanza).await.context("XMPP")?;
        }
        Ok(())
    }

    fn answer(&mut self, offer: &Offer) -> Result<()> {
        let doors = self.doors;
        let settings = &doors.settings;
        let (socket, local) = bind(doors, &offer.remote)?;
        let url = match settings.channel {
            Channel::Websocket => {
                let url = offer.channel_url.as_deref();
                let url = url.ok_or_else(|| anyhow!("--channel websocket: none was offered"))?;
                Some(redirect(url, doors.ws_base.as_deref()))
            }
            Channel::Datachannel if offer.sctp_port.is_none() => {
                bail!("--channel datachannel: none was offered")
            }
            Channel::Datachannel | Channel::None => None,
        };
        let now = Instant::now();
        let formats = settings.agreed(&offer.formats);
        let mut member = Member::new(
            now,
            settings.clone(),
            formats,
            &doors.identity,
            self.seat,
            local,
            &offer.remote,
        )?;
        member.milestones.asked = Some(self.asked);
        let (own, focus) = self.room.addresses();
        let accept = offer.accept(
            &own,
            &focus,
            member.local_credentials(),
            doors.identity.fingerprint(),
            &member.signalled(),
        );
        self.room.accept(now, &accept);
        let message = Message::Join(Box::new(member), socket, url);
        doors.threads.tell(self.seat, message);
        Ok(())
    }

    /// Tells the room of our sources.
    fn publish(&mut self) {
        let layout = &self.doors.settings.layout;
        if layout.sends(self.seat.place) {
            let endpoint = layout.endpoint(self.seat);
            let state = |kind| {
                let state = SourceState {
                    muted: false,
                    video_type: VideoType::Camera,
                    media_type: None,
                };
                (source_name(&endpoint, kind), state)
            };
            self.room.publish([Kind::Audio, Kind::Camera].map(state));
        }
    }
}

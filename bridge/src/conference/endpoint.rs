//! One endpoint: its transport, what it sends, what it gets, what it asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::channels::Channels;
use crate::allocation::Constraints;
use crate::channel::AudioSubscription;
use crate::command::{ExpiryReason, ForceMute};
use crate::formats::Formats;
use crate::id::EndpointId;
use crate::outbox::Outbox;
use crate::receive::Uplink;
use crate::send::{Downlink, Wire};
use crate::settings::ShardSettings;
use crate::stats::Counters;
use crate::transport::{ChannelEvent, DataChannel, Transport};

/// The way to a client: its transport, with what is asked of it for each packet
/// kept at hand, and the data channel on it, if one was offered. In this order: what
/// a packet to it needs lies together, with the keys that [`Transport`] begins with.
#[repr(C)]
pub(super) struct Peer {
    path: Option<(SocketAddr, SocketAddr)>,
    ready: bool,
    pub(super) transport: Transport,
    channel: Option<Box<DataChannel>>,
    due: Option<Instant>,
}

impl Peer {
    pub(super) fn new(transport: Transport) -> Self {
        let mut peer = Self {
            transport,
            channel: None,
            path: None,
            ready: false,
            due: None,
        };
        peer.refresh();
        peer
    }

    /// To be called after everything that may change the transport's state.
    pub(super) fn refresh(&mut self) {
        self.path = self.transport.path();
        self.ready = self.transport.ready();
        let channel = self.channel.as_ref();
        let due = [
            self.transport.next_timeout(),
            channel.and_then(|channel| channel.next_timeout()),
        ];
        self.due = due.into_iter().flatten().min();
    }

    /// To be called after media, which may come by another path and take ours
    /// along. Nothing else of the transport's state is looked at, as what is
    /// looked at has to be fetched for each packet.
    pub(super) fn heard_media(&mut self) {
        if self.path != self.transport.path() {
            self.refresh();
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        if let Some(channel) = &mut self.channel
            && channel.next_timeout().is_some_and(|due| due <= now)
        {
            channel.handle_timeout(now);
        }
    }

    /// Lets the client open a data channel.
    pub(super) fn offer_channel(&mut self) {
        self.channel.get_or_insert_default();
    }

    /// A packet of SCTP; `false` if no data channel was offered.
    pub(super) fn handle_channel(&mut self, now: Instant, packet: &[u8]) -> bool {
        let Some(channel) = &mut self.channel else {
            return false;
        };
        channel.handle(now, packet);
        true
    }

    /// The data channel is gone with what it rode on.
    pub(super) fn close_channel(&mut self, now: Instant) {
        if let Some(channel) = &mut self.channel {
            channel.close(now);
        }
    }

    /// What happened on the data channel.
    pub(super) fn poll_channel(&mut self) -> Option<ChannelEvent> {
        self.channel.as_mut()?.poll()
    }

    /// Sends a message on the data channel. Whether it was taken.
    pub(super) fn send_message(&mut self, now: Instant, text: &str, outbox: &mut Outbox) -> bool {
        let channel = self.channel.as_mut();
        let taken = channel.is_some_and(|channel| channel.send(now, text));
        self.transmit(now, outbox);
        taken
    }

    /// Puts what waits to be sent, media apart, into the outbox.
    pub(super) fn transmit(&mut self, now: Instant, outbox: &mut Outbox) {
        if let Some(channel) = &mut self.channel {
            // Without a way there a packet is as good as lost; SCTP repeats it.
            let reachable = self.transport.path().is_some();
            while let Some(packet) = channel.transmit() {
                if reachable {
                    self.transport.send_application_data(now, &packet);
                }
            }
        }
        self.transport.transmit(outbox);
        self.refresh();
    }

    /// Whether media can flow.
    pub(super) fn ready(&self) -> bool {
        self.ready
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The way out, once media can flow.
    pub(super) fn wire<'a>(
        &'a mut self,
        outbox: &'a mut Outbox,
        counters: &'a mut Counters,
    ) -> Option<Wire<'a>> {
        let (from, to) = self.path.filter(|_| self.ready)?;
        Some(Wire {
            from,
            to,
            srtp: self.transport.outbound()?,
            outbox,
            counters,
        })
    }
}

/// One endpoint. It begins a cache line, with what a packet to it needs: of all
/// receivers that is cold when its turn comes.
#[repr(C, align(64))]
pub(super) struct Endpoint {
    pub(super) peer: Peer,
    /// Ends with what such a packet needs, and the next one begins with it.
    pub(super) downlink: Downlink,
    pub(super) formats: Formats,
    pub(super) uplink: Uplink,
    pub(super) id: EndpointId,
    pub(super) visitor: bool,
    pub(super) created: Instant,
    /// When its side of the transport came: with its answer to the offer.
    pub(super) answered: Option<Instant>,
    pub(super) force_mute: ForceMute,
    pub(super) channels: Channels,
    /// A client of before 2022, to be told in its own messages too.
    pub(super) older: bool,
    pub(super) constraints: Constraints,
    pub(super) audio: AudioSubscription,
    /// The height granted of each source, by its place in the conference.
    pub(super) granted: BTreeMap<usize, i32>,
    /// The sources it was last told it gets.
    pub(super) forwarded: Vec<usize>,
    /// One of those has gone since.
    pub(super) retell_forwarded: bool,
    /// The receiver's own estimate of its bandwidth (bit/s), and when it came.
    pub(super) remb: Option<(u64, Instant)>,
    /// It sent one though that was not agreed.
    pub(super) spurious_remb: bool,
    pub(super) oversending: bool,
    pub(super) suspended: bool,
    /// When something authentic came last.
    pub(super) last_activity: Option<Instant>,
    pub(super) connected: Option<Instant>,
    pub(super) failed: Option<ExpiryReason>,
    /// That it has gone has been reported.
    pub(super) expired: bool,
    /// Its want of a bridge channel has been counted.
    pub(super) channel_missed: bool,
}

impl Endpoint {
    pub(super) fn new(
        now: Instant,
        id: EndpointId,
        visitor: bool,
        transport: Transport,
        settings: &ShardSettings,
    ) -> Self {
        Self {
            id,
            visitor,
            created: now,
            answered: None,
            peer: Peer::new(transport),
            formats: Formats::default(),
            uplink: Uplink::default(),
            downlink: Downlink::new(now),
            force_mute: ForceMute::default(),
            channels: Channels::default(),
            older: false,
            constraints: Constraints::initial(settings),
            audio: AudioSubscription::default(),
            granted: BTreeMap::new(),
            forwarded: Vec::new(),
            retell_forwarded: false,
            remb: None,
            spurious_remb: false,
            oversending: false,
            suspended: false,
            last_activity: None,
            connected: None,
            failed: None,
            expired: false,
            channel_missed: false,
        }
    }

    /// When the endpoint has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = [self.peer.next_timeout(), self.uplink.next_timeout()];
        due.into_iter().flatten().min()
    }
}

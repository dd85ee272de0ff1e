//! Drives one participant: its XMPP stream, its UDP socket, its bridge channel.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::channel::{Channel, ChannelEvent};
use super::xmpp::Wire;
use crate::client::{Output, Participant};
use crate::scenario::Scenario;

/// Datagrams taken in a turn before timers and the rest get theirs.
const BATCH: usize = 64;
/// Larger than any datagram of a bridge.
const MAX_DATAGRAM: usize = 2048;
/// Socket buffer to ask for; the system may give less.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Longest sleep, so that a deadline that moved forward is not missed.
const MAX_SLEEP: Duration = Duration::from_millis(500);

/// What the run asks of a participant.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    MaxHeight(u16),
    StopSending,
    Finish,
}

/// What the run sees of a participant meanwhile.
#[derive(Debug, Default)]
pub struct Status {
    pub connected: AtomicBool,
    /// Channel open too.
    pub complete: AtomicBool,
    pub failed: AtomicBool,
    pub received: AtomicU64,
}

/// Runs a participant from login to [`Command::Finish`].
pub async fn run(
    mut participant: Participant,
    scenario: Arc<Scenario>,
    mut commands: mpsc::Receiver<Command>,
    status: Arc<Status>,
) -> Participant {
    let login = Wire::login(&scenario.server, scenario.domain.as_str());
    let mut wire = match login.await {
        Ok((wire, jid)) => {
            tracing::debug!(%jid, "logged in");
            participant.handle_online(Instant::now());
            Some(wire)
        }
        Err(error) => {
            participant.handle_offline(format!("{error:#}"));
            None
        }
    };
    let mut socket: Option<UdpSocket> = None;
    let mut channel: Option<Channel> = None;
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        while let Some(output) = participant.poll() {
            match output {
                Output::Stanza(stanza) => {
                    if let Some(open) = &mut wire
                        && let Err(error) = open.send(&stanza).await
                    {
                        participant.handle_offline(format!("{error:#}"));
                        wire = None;
                    }
                }
                Output::Bind { ipv6 } => match bind(ipv6).await {
                    Ok((bound, local)) => {
                        socket = Some(bound);
                        participant.handle_bound(Instant::now(), local);
                    }
                    Err(error) => participant.failures.push(format!("UDP socket: {error}")),
                },
                Output::Datagram(to, datagram) => {
                    if let Some(socket) = &socket
                        && let Err(error) = socket.send_to(&datagram, to).await
                    {
                        tracing::debug!(%error, %to, "datagram not sent");
                    }
                }
                Output::OpenChannel(url) => channel = Some(Channel::open(url)),
                Output::ChannelText(text) => {
                    if let Some(channel) = &channel {
                        channel.send(text);
                    }
                }
                Output::CloseChannel => channel = None,
            }
        }
        status
            .connected
            .store(participant.connected(), Ordering::Relaxed);
        let complete = participant.connected() && participant.milestones.channel.is_some();
        status.complete.store(complete, Ordering::Relaxed);
        status
            .failed
            .store(!participant.failures.is_empty(), Ordering::Relaxed);
        status
            .received
            .store(participant.receiver.stats.packets, Ordering::Relaxed);

        let longest = Instant::now() + MAX_SLEEP;
        let due = participant
            .next_timeout()
            .map_or(longest, |due| due.min(longest));
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::MaxHeight(height)) => {
                    participant.set_max_height(Instant::now(), height);
                }
                Some(Command::StopSending) => participant.stop_sending(Instant::now()),
                Some(Command::Finish) | None => break,
            },
            received = receive(&mut wire) => match received {
                Ok(stanza) => participant.handle_stanza(Instant::now(), &stanza),
                Err(error) => {
                    participant.handle_offline(format!("{error:#}"));
                    wire = None;
                }
            },
            event = channel_event(&mut channel) => match event {
                ChannelEvent::Opened => participant.handle_channel_open(Instant::now()),
                ChannelEvent::Text(text) => participant.handle_channel_text(&text),
                ChannelEvent::Closed => participant.handle_channel_closed(),
            },
            () = readable(&socket) => {
                if let Some(socket) = &socket {
                    for _ in 0..BATCH {
                        let Ok((len, from)) = socket.try_recv_from(&mut buffer) else {
                            break;
                        };
                        participant.handle_datagram(Instant::now(), from, &buffer[..len]);
                    }
                }
            }
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let now = Instant::now();
        if participant.next_timeout().is_some_and(|due| due <= now) {
            participant.handle_timeout(now);
        }
    }
    participant.leave();
    if let Some(mut open) = wire {
        while let Some(output) = participant.poll() {
            if let Output::Stanza(stanza) = output
                && let Err(error) = open.send(&stanza).await
            {
                tracing::debug!(%error, "leaving");
                break;
            }
        }
        open.close().await;
    }
    participant
}

async fn bind(ipv6: bool) -> std::io::Result<(UdpSocket, SocketAddr)> {
    let any: SocketAddr = if ipv6 {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    // As much as the system allows: a key frame of each of many senders may
    // come while this program has no turn on the CPU.
    socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

async fn receive(wire: &mut Option<Wire>) -> anyhow::Result<viaduct_signalling::xml::Element> {
    match wire {
        Some(wire) => wire.receive().await,
        None => std::future::pending().await,
    }
}

async fn channel_event(channel: &mut Option<Channel>) -> ChannelEvent {
    match channel {
        Some(channel) => channel.event().await,
        None => std::future::pending().await,
    }
}

async fn readable(socket: &Option<UdpSocket>) {
    match socket {
        Some(socket) => {
            if let Err(error) = socket.readable().await {
                tracing::debug!(%error, "UDP socket");
            }
        }
        None => std::future::pending().await,
    }
}

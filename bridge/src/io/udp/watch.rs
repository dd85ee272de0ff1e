//! Waits for the sockets of a worker.
//!
//! Each is told of once, when something comes (edge-triggered): so whoever waits has
//! received all there was. To say anew at each wait which sockets are meant and how
//! long it may take, as ppoll(2) wants it, costs more than the wait itself, and most
//! of that is the timer: so there is one that stays set.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::waker::Waker;

/// Events taken of a wait; others come with the next one.
const EVENTS: usize = 32;
/// Numbers that no socket has.
const WAKER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// The place of a socket that something came to.
    Socket(usize),
    Waker,
    /// Earlier, it may be, than the time was over.
    Timer,
}

#[derive(Debug)]
pub(super) struct Watch {
    all: Epoll,
    /// Without the sockets that RTCP is kept apart on, and without the timer.
    media: Epoll,
    timer: TimerFd,
    /// When that ends a wait.
    set: Option<Instant>,
    events: [EpollEvent; EVENTS],
}

impl Watch {
    /// Watches these sockets, those that RTCP is kept apart on being marked.
    pub(super) fn new<'a>(
        sockets: impl Iterator<Item = (&'a UdpSocket, bool)>,
        waker: &Waker,
    ) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let watch = Self {
            all: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            media: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
            set: None,
            events: [EpollEvent::empty(); EVENTS],
        };
        let event = |number| EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, number);
        for ((socket, feedback), number) in sockets.zip(0..) {
            watch.all.add(socket, event(number))?;
            if !feedback {
                watch.media.add(socket, event(number))?;
            }
        }
        for epoll in [&watch.all, &watch.media] {
            epoll.add(&*waker.0, event(WAKER))?;
        }
        watch.all.add(&watch.timer, event(TIMER))?;
        Ok(watch)
    }

    /// Waits for all sockets, but at most so long from `now` on.
    pub(super) fn wait(
        &mut self,
        now: Instant,
        timeout: Duration,
    ) -> impl Iterator<Item = Ready> + '_ {
        let due = now + timeout;
        let mut wait = EpollTimeout::NONE;
        if timeout.is_zero() {
            wait = EpollTimeout::ZERO;
        } else if self.set.is_none_or(|set| due < set) {
            let once = Expiration::OneShot(timeout.into());
            match self.timer.set(once, TimerSetTimeFlags::empty()) {
                Ok(()) => self.set = Some(due),
                // As if it were over: the next wait tries again.
                Err(_) => wait = EpollTimeout::ZERO,
            }
        }
        let ready = self.all.wait(&mut self.events, wait);
        let events = &self.events[..ready.unwrap_or(0)];
        if events.iter().any(|event| event.data() == TIMER) {
            self.set = None;
        }
        events.iter().map(Ready::of)
    }

    /// Waits for media alone, at most so many milliseconds, begun ones included:
    /// each such wait has its own end, and so a timer of its own.
    pub(super) fn wait_for_media(&mut self, timeout: Duration) -> impl Iterator<Item = Ready> + '_ {
        let timeout = timeout.as_nanos().div_ceil(1_000_000);
        let timeout = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::MAX);
        let ready = self.media.wait(&mut self.events, timeout);
        // Interrupted, it has waited long enough; it fails for no other reason.
        self.events[..ready.unwrap_or(0)].iter().map(Ready::of)
    }
}

impl Ready {
    fn of(event: &EpollEvent) -> Self {
        match event.data() {
            WAKER => Self::Waker,
            TIMER => Self::Timer,
            number => Self::Socket(number as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_stays_set_and_is_set_anew_for_what_is_due_before_it() {
        let waker = Waker::new().expect("a waker");
        let mut watch = Watch::new(std::iter::empty(), &waker).expect("room for descriptors");
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut wait = |now, timeout| watch.wait(now, timeout).collect::<Vec<_>>();
        waker.wake();
        assert_eq!(wait(start, ms(200)), [Ready::Waker]);
        waker.reset();
        // What is due later needs no other timer, and what is due before does.
        assert_eq!(wait(start, ms(10)), [Ready::Timer]);
        let passed = start.elapsed();
        assert!(passed >= ms(10));
        waker.wake();
        let now = Instant::now();
        assert_eq!(wait(now, ms(20)), [Ready::Waker]);
        waker.reset();
        assert_eq!(wait(now, ms(60_000)), [Ready::Timer]);
        assert!((ms(20)..ms(30_000)).contains(&now.elapsed()));
        let now = Instant::now();
        assert_eq!(wait(now, Duration::ZERO), []);
        assert_eq!(wait(now, ms(5)), [Ready::Timer]);
        assert!(now.elapsed() >= ms(5));
    }

    #[test]
    fn feedback_ends_no_wait_for_media() {
        let waker = Waker::new().expect("a waker");
        let open = || UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let (media, feedback, peer) = (open(), open(), open());
        let sockets = [(&media, false), (&feedback, true)];
        let mut watch = Watch::new(sockets.into_iter(), &waker).expect("room for descriptors");
        let send = |to: &UdpSocket| {
            let to = to.local_addr().expect("bound");
            peer.send_to(b"something", to).expect("room");
        };
        let long = Duration::from_secs(60);
        send(&feedback);
        let ready: Vec<_> = watch.wait_for_media(Duration::from_millis(5)).collect();
        assert_eq!(ready, []);
        send(&media);
        let ready: Vec<_> = watch.wait_for_media(long).collect();
        assert_eq!(ready, [Ready::Socket(0)]);
        // Each is told once, of either wait.
        let mut ready: Vec<_> = watch.wait(Instant::now(), long).collect();
        ready.sort_by_key(|ready| format!("{ready:?}"));
        assert_eq!(ready, [Ready::Socket(0), Ready::Socket(1)]);
        let now = Instant::now();
        let ready: Vec<_> = watch.wait(now, Duration::from_millis(5)).collect();
        assert_eq!(ready, [Ready::Timer]);
    }
}

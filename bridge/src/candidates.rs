//! Which addresses the media socket is opened on, and what is announced of them.
//!
//! In: the addresses of the machine's interfaces and the rules of
//! `ice4j.harvest`. Out: the local addresses to bind ([`usable`]), and the ICE
//! candidates every endpoint is offered ([`candidates`]): a host candidate for
//! each, and a server-reflexive one for each static mapping that fits.
//! There is no trickle.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::command::{Candidate, CandidateKind};
use crate::transport::candidate_priority;

/// One address of one network interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    pub interface: String,
    pub address: IpAddr,
}

/// `ice4j.harvest`: which addresses to use. Empty lists do not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Harvest {
    pub allowed_addresses: Vec<IpAddr>,
    pub blocked_addresses: Vec<IpAddr>,
    pub allowed_interfaces: Vec<String>,
    pub blocked_interfaces: Vec<String>,
    pub use_ipv6: bool,
    pub use_link_local: bool,
    /// Use 127.0.0.1 besides (`viaduct.bridge.advertise-loopback`).
    pub loopback: bool,
    pub static_mappings: Vec<StaticMapping>,
}

/// One of `ice4j.harvest.mapping.static-mappings`: how the world sees a local
/// address, e.g. behind the one-to-one NAT of a cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticMapping {
    pub local: IpAddr,
    /// `None` fits any local port.
    pub local_port: Option<u16>,
    pub public: IpAddr,
    /// `None` keeps the local port.
    pub public_port: Option<u16>,
}

/// The addresses to receive media on, without repeats, in interface order.
///
/// Loopback is used only where it is asked for by name: nobody else could reach
/// it, so by itself it would make a dead bridge look alive.
pub fn usable(rules: &Harvest, addresses: &[InterfaceAddress]) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    addresses
        .iter()
        .filter(|a| rules.allows(a) && seen.insert(a.address))
        .map(|a| a.address)
        .collect()
}

impl Harvest {
    fn allows(&self, a: &InterfaceAddress) -> bool {
        if self.loopback && a.address == Ipv4Addr::LOCALHOST {
            return true;
        }
        let named = self.allowed_addresses.contains(&a.address);
        if self.blocked_addresses.contains(&a.address)
            || (!named && !self.allowed_addresses.is_empty())
            || (a.address.is_loopback() && !named)
            || a.address.is_unspecified()
            || a.address.is_multicast()
        {
            return false;
        }
        if let IpAddr::V6(v6) = a.address
            && (!self.use_ipv6 || (v6.is_unicast_link_local() && !self.use_link_local))
        {
            return false;
        }
        // As in ice4j, a list of allowed interfaces makes the other list void.
        if self.allowed_interfaces.is_empty() {
            !self.blocked_interfaces.contains(&a.interface)
        } else {
            self.allowed_interfaces.contains(&a.interface)
        }
    }
}

/// The candidates for sockets bound to `bases`, hosts first.
pub fn candidates(bases: &[SocketAddr], mappings: &[StaticMapping]) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for base in bases {
        found.push(Candidate {
            kind: CandidateKind::Host,
            address: *base,
            base: None,
            priority: candidate_priority(CandidateKind::Host, base.ip(), bases.len()),
            foundation: (found.len() + 1).to_string(),
        });
    }
    let kind = CandidateKind::ServerReflexive;
    for base in bases {
        let fitting = mappings
            .iter()
            .filter(|m| m.local == base.ip() && m.local_port.is_none_or(|p| p == base.port()));
        for mapping in fitting {
            let port = mapping.public_port.unwrap_or(base.port());
            let address = SocketAddr::new(mapping.public, port);
            if found.iter().all(|c| c.address != address) {
                found.push(Candidate {
                    kind,
                    address,
                    base: Some(*base),
                    priority: candidate_priority(kind, base.ip(), bases.len()),
                    foundation: (found.len() + 1).to_string(),
                });
            }
        }
    }
    found
}

/// Whether an address is of use only inside one site: RFC 1918, fc00::/7 and
/// the old site-local fec0::/10 (what `ice.advertise-private-candidates` hides).
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local() || is_site_local(v6),
    }
}

/// Whether strangers can reach an address (`health.require-valid-address`).
pub fn is_public(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    // JVB counts fc00::/7 as valid here: only the old site-local range is not.
    let site_local = match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => is_site_local(v6),
    };
    !link_local && !site_local && !address.is_loopback() && !address.is_unspecified()
}

fn is_site_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfec0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a test address")
    }

    fn machine() -> Vec<InterfaceAddress> {
        [
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("eth0", "10.0.0.5"),
            ("eth0", "2001:db8::5"),
            ("eth0", "fe80::5"),
            ("docker0", "172.17.0.1"),
        ]
        .map(|(interface, address)| InterfaceAddress {
            interface: interface.into(),
            address: ip(address),
        })
        .into()
    }

    fn rules() -> Harvest {
        Harvest {
            use_ipv6: true,
            ..Harvest::default()
        }
    }

    #[test]
    fn addresses_follow_the_rules() {
        let list = |names: &[&str]| names.iter().map(|n| ip(n)).collect::<Vec<_>>();
        let all = || list(&["10.0.0.5", "2001:db8::5", "172.17.0.1"]);
        for (rules, expected) in [
            (rules(), all()),
            (
                Harvest {
                    use_ipv6: false,
                    ..rules()
                },
                list(&["10.0.0.5", "172.17.0.1"]),
            ),
            (
                Harvest {
                    use_link_local: true,
                    blocked_interfaces: vec!["docker0".into()],
                    ..rules()
                },
                list(&["10.0.0.5", "2001:db8::5", "fe80::5"]),
            ),
            (
                Harvest {
                    allowed_interfaces: vec!["docker0".into()],
                    blocked_interfaces: vec!["docker0".into()],
                    ..rules()
                },
                list(&["172.17.0.1"]),
            ),
            (
                Harvest {
                    allowed_addresses: list(&["127.0.0.1", "10.0.0.5"]),
                    ..rules()
                },
                list(&["127.0.0.1", "10.0.0.5"]),
            ),
            (
                Harvest {
                    allowed_addresses: list(&["10.0.0.5"]),
                    loopback: true,
                    ..rules()
                },
                list(&["127.0.0.1", "10.0.0.5"]),
            ),
            (
                Harvest {
                    allowed_interfaces: vec!["lo".into()],
                    ..rules()
                },
                vec![],
            ),
            (
                Harvest {
                    blocked_addresses: list(&["10.0.0.5", "2001:db8::5"]),
                    ..rules()
                },
                list(&["172.17.0.1"]),
            ),
        ] {
            assert_eq!(usable(&rules, &machine()), expected, "{rules:?}");
        }
    }

    #[test]
    fn one_address_gets_the_priority_that_browsers_expect() {
        let base = SocketAddr::new(ip("192.0.2.1"), 10_000);
        let found = candidates(&[base], &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].priority, 2_130_706_431);
        assert_eq!(found[0].foundation, "1");
    }

    #[test]
    fn a_mapping_adds_a_reflexive_candidate_with_its_base() {
        let bases = ["10.0.0.5", "2001:db8::5", "10.0.0.6"].map(|a| SocketAddr::new(ip(a), 10_000));
        let mapping = |port| StaticMapping {
            local: ip("10.0.0.5"),
            local_port: port,
            public: ip("203.0.113.7"),
            public_port: Some(443),
        };
        let found = candidates(&bases, &[mapping(None), mapping(Some(9)), mapping(None)]);
        assert_eq!(found.len(), 4);
        let mapped = found.last().expect("four candidates");
        assert_eq!(mapped.kind, CandidateKind::ServerReflexive);
        assert_eq!(mapped.address, SocketAddr::new(ip("203.0.113.7"), 443));
        assert_eq!(mapped.base, Some(bases[0]));
        let foundations: BTreeSet<_> = found.iter().map(|c| &c.foundation).collect();
        assert_eq!(foundations.len(), 4, "foundations differ: {found:?}");
        assert!(found[1].priority > found[0].priority, "IPv6 first");
        assert!(mapped.priority < found[2].priority, "reflexive last");
    }

    #[test]
    fn private_and_public_addresses_are_told_apart() {
        for (address, private, public) in [
            ("10.1.2.3", true, false),
            ("192.168.1.1", true, false),
            ("203.0.113.7", false, true),
            ("127.0.0.1", false, false),
            ("169.254.1.1", false, false),
            ("2001:db8::1", false, true),
            ("fd00::1", true, true),
            ("fec0::1", true, false),
            ("fe80::1", false, false),
        ] {
            assert_eq!(is_private(ip(address)), private, "{address}");
            assert_eq!(is_public(ip(address)), public, "{address}");
        }
    }
}

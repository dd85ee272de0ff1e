//! The program by which the kernel gives a datagram to the worker whose it is: a
//! search for the address it comes from, in classic BPF (`SO_ATTACH_REUSEPORT_CBPF`,
//! socket(7)).
//!
//! In: whose each proved address is. Out: instructions that answer, for a datagram,
//! the number of the worker, and for RTCP that of the worker's other socket: so many
//! further on as there are workers. Who is not known gets a worker by chance, but
//! always the same. A wrong answer costs a hand-over and nothing else, so addresses
//! are told apart by 31 bits that are mixed of them.
//!
//! The program mixes these bits, then searches: halves, down to eight addresses that
//! are looked through one by one. A thousand cost 7 comparisons and at most 8 more.
//! There is room for some 1600 of each family ([`MAX_INSTRUCTIONS`]) if there are two
//! workers, and for 850 at least; any more are left out, chance has it which.
//!
//! Elsewhere: who is where (`directory`), when to look (`shard`), attaching it
//! (`io/udp/steering`).

use std::net::{IpAddr, SocketAddr};

/// Most instructions of a program: BPF_MAXINSNS of `linux/bpf_common.h`.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Addresses that are looked through one by one: as many comparisons as three
/// halvings would save, in half the instructions.
const BUCKET: usize = 8;

/// Odd, and its bits as mixed as can be: 2^32 by the golden ratio.
const MIX: u32 = 0x9e37_79b1;

/// A key has no highest bit: the kernel needs a second instruction to compare with a
/// number that has it.
const UNUSED_BITS: u32 = 1;

/// An instruction: `struct sock_filter` of `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    /// How many instructions to leave out if a comparison holds, and if not.
    pub jump_true: u8,
    pub jump_false: u8,
    pub operand: u32,
}

/// What the packets of a socket are: a program is for one or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// A program, and how many addresses it knows of how many there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub instructions: Vec<Instruction>,
    pub known: usize,
    pub of: usize,
}

/// Makes the program for packets of `family` of at most `room` instructions, by the
/// workers, of so many, whose the addresses are. The same addresses make the same program, in
/// whatever order they come.
pub fn program(
    family: Family,
    workers: usize,
    homes: &[(SocketAddr, usize)],
    room: usize,
) -> Program {
    let workers = u32::try_from(workers).expect("workers are few");
    let ours = homes
        .iter()
        .filter(|(address, _)| Family::of(*address) == family);
    let mut entries: Vec<Entry> = ours.map(|&home| Entry::new(home)).collect();
    let of = entries.len();
    entries.sort_unstable();
    entries.dedup_by_key(|entry| entry.key);
    let mut known = entries.len();
    loop {
        let mut instructions = tell_feedback(workers);
        instructions.append(&mut prologue(family));
        instructions.append(&mut search(&entries[..known], workers));
        if instructions.len() <= room || known == 0 {
            return Program {
                instructions,
                known,
                of,
            };
        }
        known = (known * room / instructions.len()).min(known - 1);
    }
}

/// What the program knows an address by, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: u32,
    worker: u32,
}

impl Entry {
    fn new((address, worker): (SocketAddr, usize)) -> Self {
        let mix = |key: u32, word: u32| (key ^ word).wrapping_mul(MIX);
        let key = match address.ip() {
            IpAddr::V4(ip) => mix(0, ip.to_bits()),
            IpAddr::V6(ip) => (0..4)
                .rev()
                .map(|at| (ip.to_bits() >> (at * 32)) as u32)
                .fold(0, mix),
        };
        Self {
            key: mix(key, u32::from(address.port())) >> UNUSED_BITS,
            worker: u32::try_from(worker).expect("workers are few"),
        }
    }
}

/// `SKF_NET_OFF` of `linux/filter.h`: offsets from here on count from the IP header.
const IP_HEADER: u32 = 0xfff0_0000;

// `linux/bpf_common.h`: A is the accumulator, X the index register.
const LOAD: u16 = 0x00;
const LOAD_MEMORY: u16 = 0x60;
const LOAD_MEMORY_TO_X: u16 = 0x61;
const STORE: u16 = 0x02;
const AND: u16 = 0x54;
const ADD: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const REMAINDER: u16 = 0x94;
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_OCTET: u16 = 0x30;
const COPY_A_TO_X: u16 = 0x07;
const MULTIPLY: u16 = 0x24;
const SHIFT_RIGHT: u16 = 0x74;
const XOR_X: u16 = 0xac;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;

/// Where in memory it is kept how much further on the other socket is, or 0.
const FURTHER: u32 = 0;

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction {
        code,
        jump_true: 0,
        jump_false: 0,
        operand,
    }
}

/// Leaves out so many instructions if `code` holds for A and the operand.
fn branch(code: u16, operand: u32, jump_true: usize) -> Instruction {
    Instruction {
        jump_true: u8::try_from(jump_true).expect("no further than a jump reaches"),
        ..plain(code, operand)
    }
}

/// Notes whether the datagram is RTCP: by its first two octets (RFC 5761 §4, RFC
/// 7983 §7).
fn tell_feedback(workers: u32) -> Vec<Instruction> {
    let unless = |operand: u32, jump_false: u8| Instruction {
        jump_false,
        ..plain(JUMP_IF_EQUAL, operand)
    };
    vec![
        plain(LOAD_OCTET, 0),
        plain(AND, 0xc0),
        unless(0x80, 5),
        plain(LOAD_OCTET, 1),
        plain(AND, 0xe0),
        unless(0xc0, 2),
        plain(LOAD, workers),
        plain(JUMP, 1),
        plain(LOAD, 0),
        plain(STORE, FURTHER),
    ]
}

/// Puts the key of the source address into A. What has a header with options or
/// extensions is the first worker's: the port is not where it is looked for.
fn prologue(family: Family) -> Vec<Instruction> {
    // Where the header says that UDP follows at once, how, and what is where.
    let (says, so, words, port) = match family {
        // RFC 791 §3.1: version and header length; the group is one of UDP sockets.
        Family::V4 => (0, 0x45, 12..16, 20),
        // RFC 8200 §3: the next header.
        Family::V6 => (6, 17, 8..24, 40),
    };
    let mut code = vec![
        plain(LOAD_OCTET, IP_HEADER + says),
        branch(JUMP_IF_EQUAL, so, 1),
        plain(RETURN, 0),
    ];
    for at in words.clone().step_by(4) {
        code.push(plain(LOAD_WORD, IP_HEADER + at));
        if at != words.start {
            code.push(plain(XOR_X, 0));
        }
        code.extend([plain(MULTIPLY, MIX), plain(COPY_A_TO_X, 0)]);
    }
    code.extend([
        plain(LOAD_HALF, IP_HEADER + port),
        plain(XOR_X, 0),
        plain(MULTIPLY, MIX),
        plain(SHIFT_RIGHT, UNUSED_BITS),
    ]);
    code
}

/// Answers whose the key in A is, if it is one of `entries`, which are in order.
fn search(entries: &[Entry], workers: u32) -> Vec<Instruction> {
    let buckets = entries.len().div_ceil(BUCKET);
    if buckets <= 1 {
        return look_through(entries, workers);
    }
    let (lower, upper) = entries.split_at(buckets / 2 * BUCKET);
    let mut below = search(lower, workers);
    let mut code = match u8::try_from(below.len()) {
        Ok(_) => vec![branch(JUMP_IF_NOT_LESS, upper[0].key, below.len())],
        // Too far for a comparison: over a jump that goes anywhere.
        Err(_) => vec![
            Instruction {
                jump_false: 1,
                ..plain(JUMP_IF_NOT_LESS, upper[0].key)
            },
            plain(JUMP, u32::try_from(below.len()).expect("short")),
        ],
    };
    code.append(&mut below);
    code.append(&mut search(upper, workers));
    code
}

fn look_through(entries: &[Entry], workers: u32) -> Vec<Instruction> {
    let unknown = [
        plain(LOAD_MEMORY_TO_X, FURTHER),
        plain(REMAINDER, workers),
        plain(ADD_X, 0),
        plain(RETURN_A, 0),
    ];
    let known = |worker: u32| {
        [
            plain(LOAD_MEMORY, FURTHER),
            plain(ADD, worker),
            plain(RETURN_A, 0),
        ]
    };
    let mut owners: Vec<u32> = entries.iter().map(|entry| entry.worker).collect();
    owners.sort_unstable();
    owners.dedup();
    let compare = entries.iter().enumerate().map(|(at, entry)| {
        let answer = owners.binary_search(&entry.worker).expect("it is there");
        let left = entries.len() - 1 - at + unknown.len();
        branch(JUMP_IF_EQUAL, entry.key, left + answer * known(0).len())
    });
    let answers = owners.iter().flat_map(|owner| known(*owner));
    compare.chain(unknown).chain(answers).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    const MEDIA: [u8; 2] = [0x90, 111];
    const FEEDBACK: [u8; 2] = [0x8f, 205];

    /// A datagram that comes from there, as the kernel shows it, and where its
    /// payload begins.
    fn datagram(from: SocketAddr, payload: &[u8]) -> (Vec<u8>, usize) {
        let mut packet = match from.ip() {
            IpAddr::V4(ip) => {
                let mut header = vec![0x45; 20];
                header[12..16].copy_from_slice(&ip.octets());
                header
            }
            IpAddr::V6(ip) => {
                let mut header = vec![0x60; 40];
                header[6] = 17;
                header[8..24].copy_from_slice(&ip.octets());
                header
            }
        };
        packet.extend_from_slice(&from.port().to_be_bytes());
        packet.extend_from_slice(&[0x99; 6]);
        let start = packet.len();
        packet.extend_from_slice(payload);
        (packet, start)
    }

    /// Runs a program as the kernel would, and tells how many steps it took.
    fn run(program: &[Instruction], (packet, payload): &(Vec<u8>, usize)) -> (u32, usize) {
        let (mut a, mut x, mut at): (u32, u32, usize) = (0, 0, 0);
        let mut memory = None;
        for steps in 1.. {
            let instruction = program[at];
            at += 1;
            let operand = instruction.operand;
            let load = |len: usize| {
                let start = match operand.checked_sub(IP_HEADER) {
                    Some(start) => start as usize,
                    None => payload + operand as usize,
                };
                let octets = packet.get(start..start + len)?;
                Some(octets.iter().fold(0, |sum, o| sum << 8 | u32::from(*o)))
            };
            let jump = |holds: bool| match holds {
                true => usize::from(instruction.jump_true),
                false => usize::from(instruction.jump_false),
            };
            match instruction.code {
                LOAD_WORD | LOAD_HALF | LOAD_OCTET => {
                    let len = match instruction.code {
                        LOAD_WORD => 4,
                        LOAD_HALF => 2,
                        _ => 1,
                    };
                    // What is not there ends a program with 0.
                    let Some(loaded) = load(len) else {
                        return (0, steps);
                    };
                    a = loaded;
                }
                LOAD => a = operand,
                LOAD_MEMORY => a = memory.expect("stored before"),
                LOAD_MEMORY_TO_X => x = memory.expect("stored before"),
                STORE => memory = Some(a),
                AND => a &= operand,
                ADD => a = a.wrapping_add(operand),
                ADD_X => a = a.wrapping_add(x),
                REMAINDER => a %= operand,
                RETURN_A => return (a, steps),
                COPY_A_TO_X => x = a,
                MULTIPLY => a = a.wrapping_mul(operand),
                SHIFT_RIGHT => a >>= operand,
                XOR_X => a ^= x,
                JUMP => at += operand as usize,
                JUMP_IF_EQUAL => at += jump(a == operand),
                JUMP_IF_NOT_LESS => at += jump(a >= operand),
                RETURN => return (operand, steps),
                code => panic!("the kernel knows {code}, this does not"),
            }
        }
        unreachable!("a program goes forward only")
    }

    /// Many, without those that look like others.
    fn many(family: Family, count: u32) -> Vec<(SocketAddr, usize)> {
        let address = |n: u32| match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n / 40)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n / 4))),
        };
        let port = |n: u32| 40_000 + (n % 40) as u16 * 2;
        (0..count)
            .map(|n| (SocketAddr::new(address(n), port(n)), n as usize % 2))
            .collect()
    }

    fn addresses() -> impl Strategy<Value = SocketAddr> {
        // Few networks and hosts, as behind a translator, beside any.
        let v4 = prop_oneof![0x0a00_0000u32..0x0a00_0004, any::<u32>()];
        let v6 = prop_oneof![0u128..4, any::<u128>()];
        let ip = prop_oneof![
            v4.prop_map(|ip| IpAddr::V4(Ipv4Addr::from_bits(ip))),
            v6.prop_map(|ip| IpAddr::V6(Ipv6Addr::from_bits(ip))),
        ];
        (ip, any::<u16>()).prop_map(SocketAddr::from)
    }

    proptest! {
        /// Whoever is known reaches his worker, whoever is not always the same, and
        /// RTCP that worker's other socket.
        #[test]
        fn a_program_answers_as_its_table(
            workers in 1usize..256, homes in btree_map(addresses(), any::<usize>(), 0..400),
            strangers in vec(addresses(), 0..40),
        ) {
            let table: Vec<_> = homes.iter().map(|(a, w)| (*a, w % workers)).collect();
            for family in [Family::V4, Family::V6] {
                let program = program(family, workers, &table, MAX_INSTRUCTIONS);
                prop_assert_eq!(program.known, program.of);
                for address in homes.keys().chain(&strangers) {
                    if Family::of(*address) != family {
                        continue;
                    }
                    let answer = |payload: &[u8]| {
                        run(&program.instructions, &datagram(*address, payload))
                    };
                    let (media, steps) = answer(&MEDIA);
                    prop_assert!(steps <= 70, "{} steps", steps);
                    prop_assert!(media < workers as u32);
                    if let Some(home) = homes.get(address) {
                        prop_assert_eq!(media, (home % workers) as u32, "{}", address);
                    }
                    prop_assert_eq!(answer(&FEEDBACK).0, media + workers as u32);
                    for other in [[0, 1], [22, 254], [0x80, 191], [0xbf, 224]] {
                        prop_assert_eq!(answer(&other).0, media);
                    }
                }
            }
        }

        /// In whatever order one hears of them.
        #[test]
        fn the_order_of_addresses_does_not_matter(
            homes in btree_map(addresses(), 0usize..4, 0..60),
        ) {
            let table: Vec<_> = homes.into_iter().collect();
            let turned: Vec<_> = table.iter().rev().copied().collect();
            for family in [Family::V4, Family::V6] {
                let of = |table| program(family, 4, table, MAX_INSTRUCTIONS);
                prop_assert_eq!(of(&table), of(&turned));
            }
        }
    }

    /// What does not fit is left to chance, the rest is not disturbed.
    #[test]
    fn a_program_keeps_to_its_room() {
        for (family, count, room) in [
            (Family::V4, 20_000, MAX_INSTRUCTIONS),
            (Family::V6, 20_000, MAX_INSTRUCTIONS),
            (Family::V4, 1_600, MAX_INSTRUCTIONS),
            (Family::V4, 1_600, 1024),
            (Family::V6, 300, 96),
        ] {
            let homes = many(family, count);
            let program = program(family, 2, &homes, room);
            assert!(program.instructions.len() <= room);
            assert_eq!(program.of, homes.len());
            let at_home = homes.iter().filter(|(address, worker)| {
                let packet = datagram(*address, &MEDIA);
                let (answer, _) = run(&program.instructions, &packet);
                assert!(answer < 2);
                answer == *worker as u32
            });
            let at_home = at_home.count();
            // Chance brings about half of the others home.
            let others = program.of - program.known;
            assert!((program.known..=program.known + others * 2 / 3).contains(&at_home));
            assert!(program.known >= homes.len().min(room * 2 / 5 - 32));
        }
    }

    /// Each of eight belongs to another of many workers: the worst there can be.
    #[test]
    fn eight_hundred_and_fifty_fit_with_any_number_of_workers() {
        let homes = many(Family::V4, 850);
        let homes: Vec<_> = homes
            .into_iter()
            .enumerate()
            .map(|(n, (address, _))| (address, n % 256))
            .collect();
        let program = program(Family::V4, 256, &homes, MAX_INSTRUCTIONS);
        assert_eq!(program.known, 850);
    }

    /// Options and extensions put the port elsewhere (RFC 791 §3.1, RFC 8200 §4);
    /// and there are datagrams without anything.
    #[test]
    fn unusual_datagrams_are_the_first_workers() {
        for (address, at, octet) in [
            (SocketAddr::from(([192, 0, 2, 1], 4000)), 0, 0x46),
            (SocketAddr::from((Ipv6Addr::LOCALHOST, 4000)), 6, 0),
        ] {
            let homes = [(address, 1)];
            let program = program(Family::of(address), 2, &homes, MAX_INSTRUCTIONS);
            let answer = |packet: &(Vec<u8>, usize)| run(&program.instructions, packet).0;
            let mut packet = datagram(address, &MEDIA);
            assert_eq!(answer(&packet), 1);
            packet.0[at] = octet;
            assert_eq!(answer(&packet), 0);
            for cut in [&[][..], &[0x80]] {
                assert_eq!(answer(&datagram(address, cut)), 0);
            }
        }
    }
}

//! Who is asked for, and whether that is allowed: authorities (RFC 3986 section 3.2), the list, and which addresses are
//! public.
//!
//! Invariants: an address is never taken for a name, in whatever notation, and has one form only ([`IpAddr::to_canonical`]).
//! What is not known to be public is not.
//!
//! Absent: looking names up.

use crate::sandbox::policy::Endpoint;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest name in bytes, without the dot at its end (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// Longest label in bytes (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// A host and port that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// A name in lower case without a dot at its end, or an address in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Name(String),
    Address(IpAddr),
}

impl Target {
    /// Reads `host:port`, or `host` alone if there is a `default_port`. The error says what is wrong.
    pub(super) fn parse(text: &str, default_port: Option<u16>) -> Result<Self, &'static str> {
        const PORT: &str = "expected host:port";
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or("expected ']' after an IPv6 address")?;
                let address = address.parse::<Ipv6Addr>().map_err(|_| "malformed IPv6 address")?;
                let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(PORT)?) };
                (Host::Address(IpAddr::V6(address).to_canonical()), port)
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                (parse_host(host)?, port)
            }
        };
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => default_port.ok_or(PORT)?,
        };
        Ok(Self { host, port })
    }

    /// The value of a `Host` field for `http` (RFC 9110 section 7.2): without the port if it is 80.
    pub(super) fn host_field(&self) -> String {
        if self.port == 80 { self.host.to_string() } else { self.to_string() }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn parse_port(digits: &str) -> Result<u16, &'static str> {
    // `parse` alone takes a sign, and zeros in front.
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain).ok_or("expected a port from 1 to 65535")
}

/// An IPv4 address as four decimal numbers, or a name. Everything else that getaddrinfo(3) takes for an address (`127.1`,
/// `0x7f.0.0.1`, `2130706433`, `0177.0.0.1`) would pass by the rules for addresses as a name, so it is refused.
fn parse_host(text: &str) -> Result<Host, &'static str> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("expected a host");
    }
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(
            "expected a name of letters, digits, '-' and '_', or an IPv4 address, or an IPv6 address in brackets",
        );
    }
    // inet_aton(3) takes what ends in a number, and nothing else.
    if name.rsplit('.').next().is_some_and(is_number) {
        return Err("expected an IPv4 address as four decimal numbers without leading zeros");
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

/// Letters, digits and hyphens, with none of these at an end (RFC 1123 section 2.1), and underscores: they are used.
fn is_label(label: &str) -> bool {
    let is_byte = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let edges = label.starts_with('-') || label.ends_with('-');
    !label.is_empty() && label.len() <= LABEL_BYTES_MAX && !edges && label.bytes().all(is_byte)
}

/// Decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x").or_else(|| label.strip_prefix("0X")) {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// The list of what is allowed.
#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    host: Pattern,
    port: u16,
}

#[derive(Debug)]
enum Pattern {
    Name(String),
    /// All names that end in this, which starts with a dot.
    Below(String),
    Address(IpAddr),
}

impl Rules {
    /// What is neither a name, a pattern nor an address allows nothing.
    pub(super) fn new(endpoints: &[Endpoint]) -> Self {
        let rule = |endpoint: &Endpoint| {
            let host = endpoint.host.to_ascii_lowercase();
            let host = match (host.parse::<IpAddr>(), host.strip_prefix('*')) {
                (Ok(address), _) => Pattern::Address(address.to_canonical()),
                (_, Some(suffix)) if suffix.starts_with('.') => Pattern::Below(suffix.to_owned()),
                _ => Pattern::Name(host),
            };
            Rule { host, port: endpoint.port }
        };
        Self(endpoints.iter().map(rule).collect())
    }

    /// True if `target` is on the list.
    pub(super) fn allow(&self, target: &Target) -> bool {
        self.0.iter().filter(|rule| rule.port == target.port).any(|rule| match (&rule.host, &target.host) {
            (Pattern::Name(pattern), Host::Name(name)) => pattern == name,
            // A name has no empty label, so it cannot be the suffix alone.
            (Pattern::Below(suffix), Host::Name(name)) => name.ends_with(suffix.as_str()),
            (Pattern::Address(pattern), Host::Address(address)) => pattern == address,
            _ => false,
        })
    }

    /// True if a name on the list may stand for `address`: if that is public, or on the list itself.
    pub(super) fn allow_address(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        is_public(ip) || self.allow(&Target { host: Host::Address(ip), port: address.port() })
    }
}

/// What is not globally reachable (IANA's registry of special-purpose IPv4 addresses, RFC 6890): address and bits.
const NOT_PUBLIC: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    // Shared by providers with their customers (RFC 6598).
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    // Link-local; clouds hand out credentials here.
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    // The agent of one cloud's hosts, an address that only looks public.
    ([168, 63, 129, 16], 32),
    ([192, 0, 0, 0], 24),
    // Documentation, three times (RFC 5737).
    ([192, 0, 2, 0], 24),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Relays for 6to4, given up (RFC 7526).
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    // Benchmarks (RFC 2544).
    ([198, 18, 0, 0], 15),
    // Multicast, reserved, broadcast.
    ([224, 0, 0, 0], 3),
];

/// True if `address` is globally reachable, so that it is nobody's own network, as far as addresses tell.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let differs = |(net, bits): &([u8; 4], u32)| (address.to_bits() ^ u32::from_be_bytes(*net)) >> (32 - bits) != 0;
    NOT_PUBLIC.iter().all(differs)
}

/// Global unicast is 2000::/3 and nothing else (RFC 4291 section 2.4, IANA's registries). Where an IPv4 address is inside,
/// that is where packets go.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments, Teredo among them (RFC 2928), and documentation (RFC 3849, RFC 9637).
        [0x2001, 0..0x200 | 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        [first, ..] => first >> 13 == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.into(), port }
    }

    #[test]
    fn authorities() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Target::parse(text, None).map(|t| t.to_string()), Ok(expected.to_owned()), "{text}");
        };
        check("example.com:443", "example.com:443");
        check("EXAMPLE.Com.:1", "example.com:1");
        check("localhost:65535", "localhost:65535");
        check("_dmarc.a-b.x1:80", "_dmarc.a-b.x1:80");
        check("1e100.net:80", "1e100.net:80");
        check("1.2.3.com:80", "1.2.3.com:80");
        check("0x7f.example:80", "0x7f.example:80");
        check("0xyz:80", "0xyz:80");
        check("127.0.0.1:80", "127.0.0.1:80");
        check("[::1]:80", "[::1]:80");
        check("[2001:DB8:0:0::1]:80", "[2001:db8::1]:80");
        check("[::ffff:127.0.0.1]:80", "127.0.0.1:80");
        check("[::ffff:7f00:1]:80", "127.0.0.1:80");
        check(
            &format!("{}.{}:80", "a".repeat(63), "b".repeat(63)),
            &format!("{}.{}:80", "a".repeat(63), "b".repeat(63)),
        );
        assert_eq!(Target::parse("a", Some(80)).unwrap().to_string(), "a:80");
        assert_eq!(Target::parse("a:81", Some(80)).unwrap().host_field(), "a:81");
        assert_eq!(Target::parse("[::1]", Some(80)).unwrap().host_field(), "[::1]");
    }

    #[test]
    fn authorities_that_are_none() {
        let long = |bytes: usize| "a.".repeat(bytes / 2 + 1)[..bytes].to_owned();
        assert!(Target::parse(&format!("{}:1", long(253)), None).is_ok());
        let wrong = [
            "",
            ":",
            ":80",
            "a",
            "a:",
            "a:0",
            "a:00",
            "a:080",
            "a:65536",
            "a:99999999999",
            "a:+80",
            "a:-1",
            "a:8 0",
            "a: 80",
            "a:80:80",
            "a:80/",
            "a b:80",
            "u@a:80",
            "u:p@a:80",
            "a%2ecom:80",
            "ä.de:80",
            "a..b:80",
            ".a:80",
            ".:80",
            "..:80",
            "a..:80",
            "-a:80",
            "a-:80",
            "a.-b.c:80",
            "a/b:80",
            "a\\b:80",
            "a?b:80",
            "a#b:80",
            "a\0b:80",
            "*.a:80",
            "::1:80",
            "[::1]",
            "[::1]80",
            "[::1]:",
            "[::1]:0",
            "[::1",
            "[]:80",
            "[127.0.0.1]:80",
            "[fe80::1%eth0]:80",
            "[fe80::1%25eth0]:80",
            "[v1.a]:80",
            "[a]:80",
            "[::1]]:80",
            "[[::1]]:80",
        ];
        for text in wrong.iter().map(ToString::to_string).chain([format!("{}:1", long(255)), "a".repeat(64) + ":1"]) {
            assert!(Target::parse(&text, None).is_err(), "{text:?}");
        }
    }

    /// Each is an address to the system's resolver, which the second half of the test shows; none is a name here.
    #[test]
    fn odd_notations_of_an_address_are_no_names() {
        let odd = [
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.01",
            "0",
            "0x0",
            "127.0.0.0x1",
            "0000177.1",
        ];
        for host in odd {
            assert!(Target::parse(&format!("{host}:80"), None).is_err(), "{host}");
            use std::net::ToSocketAddrs;
            let found: Vec<_> = (host, 80).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            assert!(found.iter().all(|a: &SocketAddr| !is_public(a.ip())) && !found.is_empty(), "{host}: {found:?}");
        }
        // Not even where the resolver would not: who knows the next one.
        for host in ["127.0.0.1.", "256.0.0.1", "1.2.3.4.5", "127.0.0.08", "a.1", "a.0x", "0x", "127.0.0.1.0x7f."] {
            assert!(Target::parse(&format!("{host}:80"), None).is_err(), "{host}");
        }
    }

    #[test]
    fn the_list() {
        let rules = Rules::new(&[
            endpoint("example.com", 443),
            endpoint("*.example.org", 443),
            endpoint("127.0.0.1", 80),
            endpoint("2001:DB8::1", 80),
            endpoint("::ffff:10.0.0.1", 80),
            endpoint("*", 443),
            endpoint("*x", 443),
            endpoint("[::1]", 443),
        ]);
        let check = |text: &str, expected: bool| {
            assert_eq!(rules.allow(&Target::parse(text, None).unwrap()), expected, "{text}");
        };
        check("example.com:443", true);
        check("EXAMPLE.com.:443", true);
        check("example.com:80", false);
        check("www.example.com:443", false);
        check("badexample.com:443", false);
        check("example.com.evil.net:443", false);
        check("a.example.org:443", true);
        check("a.b.example.org:443", true);
        check("a.example.org:444", false);
        check("example.org:443", false);
        check("badexample.org:443", false);
        check("127.0.0.1:80", true);
        check("[::ffff:127.0.0.1]:80", true);
        check("127.0.0.2:80", false);
        check("127.0.0.1:443", false);
        check("[2001:db8:0::1]:80", true);
        check("10.0.0.1:80", true);
        check("x:443", false);
        check("ax:443", false);
        check("[::1]:443", false);
    }

    #[test]
    fn public_addresses() {
        let check = |text: &str, expected: bool| assert_eq!(is_public(text.parse().unwrap()), expected, "{text}");
        // The first and last of each block, and its neighbours.
        let blocks = [
            ("0.0.0.0", "0.255.255.255", "", "1.0.0.0"),
            ("10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"),
            ("100.64.0.0", "100.127.255.255", "100.63.255.255", "100.128.0.0"),
            ("127.0.0.0", "127.255.255.255", "126.255.255.255", "128.0.0.0"),
            ("168.63.129.16", "168.63.129.16", "168.63.129.15", "168.63.129.17"),
            ("169.254.0.0", "169.254.255.255", "169.253.255.255", "169.255.0.0"),
            ("172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0"),
            ("192.0.0.0", "192.0.0.255", "191.255.255.255", "192.0.1.0"),
            ("192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0"),
            ("192.88.99.0", "192.88.99.255", "192.88.98.255", "192.88.100.0"),
            ("192.168.0.0", "192.168.255.255", "192.167.255.255", "192.169.0.0"),
            ("198.18.0.0", "198.19.255.255", "198.17.255.255", "198.20.0.0"),
            ("198.51.100.0", "198.51.100.255", "198.51.99.255", "198.51.101.0"),
            ("203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0"),
            ("224.0.0.0", "239.255.255.255", "223.255.255.255", ""),
            ("240.0.0.0", "255.255.255.255", "", ""),
        ];
        for (first, last, before, after) in blocks {
            for (address, expected) in [(first, false), (last, false), (before, true), (after, true)] {
                if address.is_empty() {
                    continue;
                }
                check(address, expected);
                check(&format!("::ffff:{address}"), expected);
                check(&format!("64:ff9b::{address}"), expected);
                check(&format!("::{address}"), false);
                let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
                check(&format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"), expected);
            }
        }
        let private = [
            "::",
            "::1",
            "fc00::1",
            "fdff:ffff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "100::1",
            "64:ff9b:1::8.8.8.8",
            "64:ff9b:0:1::8.8.8.8",
            "2001::1",
            "2001:0:808:808::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2001:db8:ffff::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "1fff::1",
        ];
        private.iter().for_each(|text| check(text, false));
        for text in ["2000::1", "2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "3fff:1000::1", "3ffe::1"] {
            check(text, true);
        }
    }

    #[test]
    fn a_name_may_stand_for_public_addresses_and_listed_ones() {
        let rules = Rules::new(&[endpoint("10.0.0.1", 80)]);
        let check = |text: &str, expected: bool| {
            assert_eq!(rules.allow_address(text.parse().unwrap()), expected, "{text}");
        };
        check("8.8.8.8:80", true);
        check("10.0.0.1:80", true);
        check("10.0.0.1:81", false);
        check("10.0.0.2:80", false);
    }
}

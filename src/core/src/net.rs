//! Ranges of addresses, and who is trusted to say where a request really comes from.
//!
//! Absent: names. What a name resolves to changes, and with it who is trusted.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

/// An address, or all that share its first bits (CIDR, RFC 4632). An IPv4 address in IPv6 clothes counts as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    bits: u32,
}

impl Range {
    /// Reads `192.0.2.1`, `192.0.2.0/24` or the same of IPv6. `None` for anything else, bits below the prefix included:
    /// who writes `10.1.2.3/8` means less than that, or something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|b| b.is_ascii_digit()) => (address, Some(bits.parse().ok()?)),
            Some(_) => return None,
            None => (text, None),
        };
        let base: IpAddr = address.parse().ok()?;
        if base != base.to_canonical() {
            return None;
        }
        let width = width(base);
        let range = Self { base, bits: bits.unwrap_or(width) };
        (range.bits <= width && key(base) & !range.mask() == 0).then_some(range)
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.base) && (key(address) ^ key(self.base)) & self.mask() == 0
    }

    /// The prefix, at the top of 128 bits as in [`key`].
    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - self.bits).unwrap_or(0)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.base, f)?;
        if self.bits < width(self.base) { write!(f, "/{}", self.bits) } else { Ok(()) }
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits of an address, the first one on top.
fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Reverse proxies whose word counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Those that connect from an address.
    pub ranges: Vec<Range>,
    /// Those that connect by a unix socket.
    pub unix: bool,
}

impl Proxies {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && !self.unix
    }

    /// Whether a proxy works at `address`.
    #[must_use]
    pub fn work_at(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::Range;
    use alloc::string::ToString;

    #[test]
    fn ranges_hold_what_they_say() {
        for (range, inside, outside) in [
            ("192.0.2.1", &["192.0.2.1", "::ffff:192.0.2.1"][..], &["192.0.2.2", "::192.0.2.1", "2001:db8::1"][..]),
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["11.0.0.0", "9.255.255.255", "a00::"]),
            ("10.128.0.0/9", &["10.128.0.1", "10.255.0.1"], &["10.127.255.255"]),
            ("0.0.0.0/0", &["1.2.3.4", "255.255.255.255"], &["::1"]),
            ("::1", &["::1"], &["::2", "127.0.0.1", "0.0.0.1"]),
            ("fd00::/8", &["fd00::1", "fdff::"], &["fc00::1", "fe00::"]),
            ("2001:db8::8000/113", &["2001:db8::8000", "2001:db8::ffff"], &["2001:db8::7fff"]),
            ("::/0", &["::1", "2001:db8::1"], &["127.0.0.1", "::ffff:127.0.0.1"]),
        ] {
            let parsed = Range::parse(range).expect(range);
            assert_eq!(parsed.to_string(), range);
            inside.iter().for_each(|ip| assert!(parsed.contains(ip.parse().expect(ip)), "{ip} in {range}"));
            outside.iter().for_each(|ip| assert!(!parsed.contains(ip.parse().expect(ip)), "{ip} not in {range}"));
        }
        assert_eq!(Range::parse("192.0.2.1/32").expect("a range").to_string(), "192.0.2.1");
    }

    #[test]
    fn what_is_no_range() {
        for text in [
            "",
            "localhost",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/99999999999",
            "10.0.0/8",
            "127.0.0.1:80",
            "[::1]",
            "::/129",
            "::1/64",
            "::ffff:10.0.0.0/104",
            "fe80::1%eth0",
            " 10.0.0.1",
        ] {
            assert_eq!(Range::parse(text), None, "{text:?}");
        }
    }
}

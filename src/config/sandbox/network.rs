//! Places on the network, as `host:port`.

use crate::config::types::{Listen, Server};
use duragent_platform::sandbox::policy::{Endpoint, Network};
use std::net::{IpAddr, SocketAddr};

/// Longest name and longest label (RFC 1035, section 2.3.4), in bytes.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Reads `name:port`, `*.name:port`, `v4:port` or `[v6]:port`.
///
/// # Errors
/// What was expected, without what was found.
pub fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    if text.contains("://") {
        return Err("expected host:port without a scheme or path");
    }
    let (host, port) = text.rsplit_once(':').ok_or("expected host:port (443 is the port of https)")?;
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port > 0 && digits);
    let port = port.ok_or("expected host:port with a port from 1 to 65535")?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let ip = match bracketed {
        Some(host) => Some(IpAddr::V6(host.parse().map_err(|_| "expected an IPv6 address in the brackets")?)),
        None if host.contains(':') => return Err("expected an IPv6 address in brackets, like [::1]:8080"),
        None => host.parse::<IpAddr>().ok(),
    };
    let host = match ip.map(|ip| ip.to_canonical()) {
        Some(ip) if ip.is_unspecified() => return Err("expected an address that can be connected to"),
        Some(ip) => ip.to_string(),
        None => name(host)?,
    };
    Ok(Endpoint { host, port })
}

/// A name in lower case, perhaps with `*.` before it.
fn name(host: &str) -> Result<String, &'static str> {
    const EXPECTED: &str = "expected a host name, *. and a host name, or an address";
    let lower = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let plain = lower.strip_prefix("*.").unwrap_or(&lower);
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(good);
    if plain.contains('*') {
        return Err("expected a * only as the whole of the first part, like *.example.com:443");
    }
    if lower.len() > NAME_BYTES_MAX || !plain.split('.').all(label) {
        return Err(EXPECTED);
    }
    // What ends in a number is taken for an address by some (inet_aton(3): 10.1 is 10.0.0.1), for a name by others.
    let last = plain.rsplit('.').next().unwrap_or("");
    let number = last
        .strip_prefix("0x")
        .map_or(last.bytes().all(|b| b.is_ascii_digit()), |hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if number { Err("expected an IPv4 address as four numbers") } else { Ok(lower) }
}

/// Where the server listens, if `network` leads there and it asks for no token.
pub fn door<'s>(network: &Network, server: &'s Server) -> Option<&'s Listen> {
    let Listen::Tcp(address) = &server.listen else { return None };
    let open = server.api_token.is_none()
        && match network {
            Network::All => true,
            Network::Hosts(hosts) => hosts.iter().any(|host| leads_to(host, address)),
            Network::None | Network::Loopback => false,
        };
    open.then_some(&server.listen)
}

fn leads_to(endpoint: &Endpoint, address: &SocketAddr) -> bool {
    let here = endpoint.host == "localhost" || endpoint.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    here && endpoint.port == address.port()
}

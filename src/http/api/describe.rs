//! The description of the API, `docs/openapi.yaml`: for people and for programs that make or test clients.
//!
//! It is no secret, since it is in the repository, so everybody may read it, as they may the health of the process.

use super::Request;
use crate::http::problem::Problem;
use crate::http::response::Response;

/// RFC 9512.
const YAML: &str = "application/yaml";

/// As build.rs packs it: a number of pairs; each pair as the byte that stands for it and two bytes, which may stand for
/// pairs themselves; the text.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.packed"));

pub(super) fn get(request: &Request<'_>) -> Result<Response, Problem> {
    request.wants(&[YAML])?;
    Ok(Response::new(200, YAML, unpack(PACKED)))
}

fn unpack(packed: &[u8]) -> String {
    let (count, rest) = packed.split_first().unwrap_or((&0, &[]));
    let (pairs, text) = rest.split_at_checked(3 * usize::from(*count)).unwrap_or_default();
    // A byte that stands for nothing else stands for itself.
    let mut meaning = [None; 256];
    for pair in pairs.chunks_exact(3) {
        if let [code, first, second] = *pair {
            meaning[usize::from(code)] = Some((first, second));
        }
    }
    let (mut out, mut stack) = (Vec::with_capacity(3 * text.len()), Vec::new());
    for byte in text {
        stack.push(*byte);
        while let Some(byte) = stack.pop() {
            match meaning[usize::from(byte)] {
                Some((first, second)) => stack.extend([second, first]),
                None => out.push(byte),
            }
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{PACKED, unpack};

    #[test]
    fn what_is_served_is_the_file() {
        assert_eq!(unpack(PACKED), include_str!("../../../docs/openapi.yaml"));
        assert!(PACKED.len() < 14_000, "{} bytes of the binary", PACKED.len());
        assert_eq!(
            (unpack(b"\x01\x80ab\x80\x80c"), unpack(b""), unpack(b"\x09ab")),
            ("ababc".into(), String::new(), String::new())
        );
    }
}

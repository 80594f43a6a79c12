//! The description of the API, `docs/openapi.yaml`: for people and for programs that make or test clients.
//!
//! It is no secret, since it is in the repository, so everybody may read it, as they may the health of the process.

use super::Request;
use crate::http::problem::Problem;
use crate::http::response::Response;
use duragent_core::packed::unpack;

/// RFC 9512.
const YAML: &str = "application/yaml";

const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.packed"));

pub(super) fn get(request: &Request<'_>) -> Result<Response, Problem> {
    request.wants(&[YAML])?;
    Ok(Response::new(200, YAML, unpack(PACKED)))
}

#[cfg(test)]
mod tests {
    use super::PACKED;
    use duragent_core::packed::unpack;

    #[test]
    fn what_is_served_is_the_file() {
        assert_eq!(unpack(PACKED), include_str!("../../../docs/openapi.yaml"));
        assert!(PACKED.len() < 14_000, "{} bytes of the binary", PACKED.len());
    }
}

//! stub
use super::{Refusal, policy::Endpoint};
pub(super) struct Proxy;
impl Proxy {
    pub(super) fn start(_l: std::net::TcpListener, _a: Vec<Endpoint>) -> std::io::Result<Proxy> {
        Ok(Proxy)
    }
    pub(super) fn finish(self) -> Vec<Refusal> {
        Vec::new()
    }
}

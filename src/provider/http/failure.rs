//! Every way in which a call can fail below and within HTTP, as a [`Failure`].

use super::proxy::ProxyRefused;
use super::{Answer, Client, ErrorReport, RETRY_AFTER, Refusal, Timeouts, judge, remedy, retry_after};
use super::{DATE, ERROR_BODY_MAX, QUOTE_MAX};
use crate::provider::Failure;
use duragent_core::event::FailureKind;
use duragent_core::time::rfc3339;
use duragent_platform::clock;
use std::io;
use ureq::Timeout;

impl Client {
    /// `text` fit for a failure: on one line, shortened, without our secrets.
    #[must_use]
    pub fn quote(&self, text: &str) -> String {
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for secret in self.secrets.iter().filter(|s| !s.expose().is_empty()) {
            text = text.replace(secret.expose(), "***");
        }
        if let Some((end, _)) = text.char_indices().nth(QUOTE_MAX) {
            text.truncate(end);
            text.push('…');
        }
        text
    }

    /// A failure whose detail begins with the host.
    #[must_use]
    pub fn failed(&self, kind: FailureKind, what: &str) -> Failure {
        Failure::new(kind, [&self.host, ": ", what].concat())
    }

    /// The failure that an error within an answer is; `text` is all of it.
    #[must_use]
    pub fn reported(&self, text: &str) -> Failure {
        self.judged(200, &ErrorReport::read(text), text, "error within the answer").0
    }

    /// The failure that an error of this status is, with what to do about it; and what the server said, shortened.
    fn judged(&self, status: u16, report: &ErrorReport, text: &str, when: &str) -> (Failure, String) {
        let text = report.message.as_deref().unwrap_or(text);
        let said = self.quote(text);
        let verdict = judge(status, report, text);
        let mut what = String::from(when);
        if !said.is_empty() {
            what.push_str(": ");
            what.push_str(&said);
        }
        what.push_str(&remedy(verdict.status, self.name(), self.key_from.as_deref()));
        let failure = Failure { context_tokens: verdict.context_tokens, ..self.failed(verdict.kind, &what) };
        (failure, said)
    }

    /// The host without its port.
    fn name(&self) -> &str {
        self.host.rsplit_once(':').map_or(&self.host, |(name, _)| name)
    }
}

impl Answer<'_> {
    /// A failure of this call. The model may have worked if its answer had begun.
    pub(super) fn failed(&self, kind: FailureKind, what: &str) -> Failure {
        Failure { worked: self.is_success(), ..self.client.failed(kind, what) }
    }

    pub(super) fn cancelled(&self) -> Failure {
        self.failed(FailureKind::Truncated, "cancelled")
    }

    pub(super) fn failure(&self, error: &ureq::Error) -> Failure {
        if self.is_cancelled() {
            return self.cancelled();
        }
        let Timeouts { connect, first_byte, idle } = self.client.timeouts;
        let (kind, what) = match error {
            ureq::Error::Timeout(Timeout::Resolve) => {
                (FailureKind::Connect, format!("name not resolved within {connect:?}"))
            }
            ureq::Error::Timeout(Timeout::Connect) => {
                (FailureKind::Connect, format!("no connection within {connect:?}"))
            }
            ureq::Error::Timeout(Timeout::PerRead | Timeout::PerWrite) => {
                (FailureKind::Timeout, format!("stalled: nothing more within {idle:?}"))
            }
            ureq::Error::Timeout(_) => {
                let failure = self.failed(FailureKind::Timeout, &format!("no answer within {first_byte:?}"));
                // The request is there; what became of it nobody knows.
                return Failure { worked: true, ..failure };
            }
            ureq::Error::HostNotFound => (FailureKind::Connect, "no such host".into()),
            ureq::Error::Io(e) => return self.io_failure(e),
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
                (FailureKind::Invalid, self.client.quote(&error.to_string()))
            }
            other => (FailureKind::Protocol, self.client.quote(&other.to_string())),
        };
        self.not_connected(kind, what)
    }

    fn io_failure(&self, error: &io::Error) -> Failure {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        if let Some(refused) = error.get_ref().and_then(|inner| inner.downcast_ref::<ProxyRefused>()) {
            let kind = if refused.status == 407 { FailureKind::Refused } else { FailureKind::Connect };
            let mut what = format!("it answered {}", refused.status);
            what.push_str(&remedy(refused.status, "", None));
            return self.not_connected(kind, what);
        }
        let (kind, what) = match error.kind() {
            UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected => {
                let when = if self.status == 0 { "before its answer" } else { "within its answer" };
                (FailureKind::Truncated, format!("the server closed the connection {when}"))
            }
            _ => {
                let mut what = self.client.quote(&error.to_string());
                if error.raw_os_error().is_some() {
                    what.make_ascii_lowercase();
                } else if what.contains("certificate") {
                    what.push_str(&about_certificate(clock::wall_ms()));
                }
                (FailureKind::Connect, what)
            }
        };
        self.not_connected(kind, what)
    }

    /// Names the proxy where the failure may be its.
    fn not_connected(&self, kind: FailureKind, mut what: String) -> Failure {
        if let (0, Some(proxy)) = (self.status, &self.client.proxy) {
            what.insert_str(0, &["through the proxy ", proxy.host(), ": "].concat());
        }
        self.failed(kind, &what)
    }

    /// What an answer with an error status says, at most [`ERROR_BODY_MAX`] bytes of it: the message of a JSON error if
    /// it is one, else the text itself; shortened, without our secrets.
    #[must_use]
    pub fn into_refusal(mut self) -> Refusal {
        let (mut text, mut buffer) = (Vec::new(), [0; 1024]);
        self.hurry(self.client.timeouts.connect);
        while text.len() < ERROR_BODY_MAX {
            match self.read(&mut buffer) {
                Ok(more) if !more.is_empty() => text.extend_from_slice(more),
                _ => break,
            }
        }
        text.truncate(ERROR_BODY_MAX);
        let text = String::from_utf8_lossy(&text);
        let date = self.header(&DATE);
        let retry_after_ms = self.header(&RETRY_AFTER).and_then(|value| retry_after::milliseconds(value, date));
        let mut when = format!("answered {}", self.status);
        if let Some(to) = self.header(&ureq::http::header::LOCATION).filter(|_| (300..400).contains(&self.status)) {
            when.push_str(&format!(", a redirect to {:?}, which is not followed; set base_url", self.client.quote(to)));
        }
        let (failure, said) = self.client.judged(self.status, &ErrorReport::read(&text), &text, &when);
        Refusal { status: self.status, said, failure: Failure { retry_after_ms, ..failure } }
    }
}

/// What people are told who see that a certificate is refused.
fn about_certificate(now_ms: u64) -> String {
    if clock::is_set(now_ms) {
        return "; is the clock right, and the certificate from a public authority? if not, set ca_file".to_owned();
    }
    let now = rfc3339(now_ms);
    ["; the clock says ", &now, ", so no certificate can be valid: set it, or wait until the network has"].concat()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_clock_that_was_never_set_is_named_as_the_cause() {
        let told = super::about_certificate(60_000);
        assert!(told.starts_with("; the clock says 1970-01-01T00:01:00.000Z, so no certificate"), "{told}");
        assert!(super::about_certificate(super::clock::RELEASE_MS).starts_with("; is the clock right"));
    }
}

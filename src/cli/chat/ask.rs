//! Approvals in a conversation: who is asked, and what becomes of the answer.

use super::super::run::WAITING;
use super::super::{approval, connect, pick, text};
use super::{Chat, Next};
use crate::cli::render::Screen;
use duragent_core::json::{ObjectWriter, Value};

/// Most characters of a call that is asked about on one line.
const LINE_CHARS_MAX: usize = 200;

/// An approval that somebody is to decide on.
pub(super) struct Open {
    pub(super) id: String,
    /// On a line.
    call: String,
    /// All of it, if a line does not say it well.
    whole: Option<String>,
    digest: String,
}

impl Chat<'_> {
    pub(super) fn waits_for_approval(&self) -> bool {
        pick::now(self.connection, &self.session).is_ok_and(|now| now.status == "waiting")
    }

    /// A script has no answer to an approval.
    pub(super) fn stuck(&mut self) -> Next {
        let commands = self.approve_commands();
        self.note(&format!("the turn waits for an approval:\n{commands}"));
        Next::Leave(WAITING)
    }

    fn approve_commands(&self) -> String {
        let command = |open: &Open| ["  ", &open.call, "\n  duragent approve ", &self.session, " ", &open.id].concat();
        self.approvals.iter().map(command).collect::<Vec<_>>().join("\n")
    }

    /// Asks the runtime what waits, and the person about the first of it.
    pub(super) fn refresh_approvals(&mut self) {
        // If nobody answers, the events tell again when somebody does.
        let Ok(list) = pick::approvals(self.connection, &self.session) else { return };
        let open = |request: &Value| {
            let (id, call) =
                approval::short(request).split_once(' ').map(|(id, call)| (id.to_owned(), call.to_owned()))?;
            // Whoever cannot be told why still has to be asked.
            let why = approval::why(self.connection, &self.session, request).unwrap_or_default();
            let long = call.chars().count() > LINE_CHARS_MAX || call.contains("\\n");
            let whole = (long || !why.is_empty()).then(|| approval::whole(request) + &why);
            Some(Open { id, call, whole, digest: text::field(request, "digest") })
        };
        self.approvals = list.iter().filter_map(open).filter(|o| !self.decided.contains(&o.id)).collect();
        self.ask();
    }

    pub(super) fn ask(&mut self) {
        let Some(first) = self.approvals.first() else { return };
        if self.asked.as_ref() != Some(&first.id) {
            self.asked = Some(first.id.clone());
            let call = match &first.whole {
                Some(whole) => {
                    Screen::show(self.render.note(whole));
                    "it"
                }
                None => first.call.as_str(),
            };
            let question = ["allow ", call, "? [y]es once / [s]ession / [a]lways / [n]o "].concat();
            Screen::show(self.render.ask(&question));
        }
    }

    /// Takes the person's answer.
    pub(super) fn decide(&mut self, text: &str) {
        let (Some(id), Some((decision, scope))) = (self.asked.clone(), answer(text)) else {
            Screen::show(self.render.ask("y, s, a or n? (/cancel ends the turn) "));
            return;
        };
        let mut body = String::new();
        let mut object = ObjectWriter::new(&mut body);
        object.str("decision", decision).str("scope", scope).str("by", "cli");
        object.str_opt("digest", self.approvals.iter().find(|open| open.id == id).map(|open| open.digest.as_str()));
        object.finish();
        let path = self.path(&format!("/approvals/{id}"));
        let headers = [("Content-Type", "application/json")];
        match self.connection.client().request("POST", &path, &headers, body.as_bytes()) {
            Ok(response) if response.status < 300 => self.decided.push(id.clone()),
            Ok(response) if response.status == 409 => self.note("[approval] somebody else decided first"),
            Ok(response) => self.note(&format!("error: {}", connect::problem(&response).error)),
            // Asked again when it is back.
            Err(_) => return self.note("[server] it does not answer; you are asked again when it is back"),
        }
        self.asked = None;
        self.approvals.retain(|open| open.id != id);
        self.ask();
    }
}

/// Decision and scope of an answer.
pub(super) fn answer(text: &str) -> Option<(&'static str, &'static str)> {
    match text.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Some(("grant", "once")),
        "s" | "session" => Some(("grant", "session")),
        "a" | "always" => Some(("grant", "always")),
        "n" | "no" => Some(("deny", "once")),
        _ => None,
    }
}

//! A model that does what it is told: `slow` is answered when somebody cancels, `approve` asks for a tool first, anything
//! else is answered at once.

use duragent::provider::{Delta, Failure, Message, Probe, Provider, Reply, Request};
use duragent_core::event::{FailureKind, Usage};
use duragent_core::tool::ToolCall;
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Command, Ended, Enforcement, Place, Report, Sandbox, Stream, View};
use std::io;
use std::sync::mpsc;

pub struct Model;

impl Provider for Model {
    fn complete(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(Delta<'_>),
    ) -> Result<Reply, Failure> {
        let mut reply =
            Reply { usage: Usage { input_tokens: 1, output_tokens: 2, ..Usage::default() }, ..Reply::default() };
        match request.messages.last() {
            Some(Message::User { content }) if content == "slow" => {
                let (raised, wait) = mpsc::channel();
                cancel.on_raise(move || raised.send(()).unwrap_or(()));
                wait.recv().unwrap_or(());
                return Err(Failure::new(FailureKind::Timeout, "cancelled"));
            }
            Some(Message::User { content }) if content == "approve" => {
                let (call_id, name) = ("c".to_owned(), "bash".to_owned());
                let arguments = r#"{"command":"ls"}"#.to_owned();
                reply.tool_calls.push(ToolCall { call_id, name, arguments });
            }
            _ => {
                on_delta(Delta::Text("hé\n"));
                reply.text = "hé\n".to_owned();
            }
        }
        Ok(reply)
    }

    fn body(&self, _: &Request) -> String {
        String::new()
    }

    fn reach(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn probe(&self, _model: &str) -> Result<Probe, Failure> {
        Ok(Probe { text: String::new(), context_tokens: None, lacks_tools: false })
    }
}

/// Where nothing can be run.
pub struct NoSandbox;

impl Sandbox for NoSandbox {
    fn report(&self) -> &Report {
        static REPORT: Report =
            Report { backend: "trust", enforcement: Enforcement::None, landlock_abi: None, missing: Vec::new() };
        &REPORT
    }

    fn view(&self, place: Place<'_>) -> View {
        View::everything(place)
    }

    fn run(&self, _: &View, _: &Command, _: &Cancel, _: &mut dyn FnMut(Stream, &[u8])) -> io::Result<Ended> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

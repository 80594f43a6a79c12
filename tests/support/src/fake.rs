//! The servers.

use crate::answer::{Answer, Fault};
use crate::api::{Api, Refusal, anthropic, ollama, openai, openrouter};
use crate::http::{self, Asked};
use crate::json::Json;
use crate::plan::{self, Act};
use crate::told;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for what must happen at once; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a server that loads looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(5);

/// A server of one API on loopback. It ends with the test that dropped it, and fails the test if it had to refuse something.
pub struct Fake {
    shared: Arc<Shared>,
    address: SocketAddr,
    closing: Mutex<Option<thread::JoinHandle<()>>>,
}

struct Shared {
    api: Box<dyn Api>,
    /// Ollama has more than answers.
    is_ollama: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    /// The conversation is the script, and there is no end of requests to remember.
    as_told: bool,
    answered: usize,
    requests: Vec<Asked>,
    refused: Vec<String>,
    may_refuse: bool,
    key: Option<String>,
    models: Vec<String>,
    abilities: Vec<String>,
    window: u64,
    loads_for: Duration,
    loading_since: Option<Instant>,
    loaded: Vec<String>,
    loads_aborted: usize,
    closed: bool,
    connections: Vec<TcpStream>,
    accepted: usize,
}

impl Fake {
    /// OpenAI's chat completions.
    #[must_use]
    pub fn openai() -> Self {
        Self::start(Box::new(openai::OpenAi), false)
    }

    /// OpenRouter's.
    #[must_use]
    pub fn openrouter() -> Self {
        Self::start(Box::new(openrouter::OpenRouter), false)
    }

    /// Anthropic's messages.
    #[must_use]
    pub fn anthropic() -> Self {
        Self::start(Box::new(anthropic::Anthropic), false)
    }

    /// Ollama's own API.
    #[must_use]
    pub fn ollama() -> Self {
        Self::start(Box::new(ollama::Ollama), true)
    }

    fn start(api: Box<dyn Api>, is_ollama: bool) -> Self {
        let abilities = ["completion", "tools", "thinking"].map(String::from).to_vec();
        let state = State { window: 40_960, abilities, ..State::default() };
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { api, is_ollama, state: Mutex::new(state) });
        let fake = Self { shared, address, closing: Mutex::default() };
        fake.listen(listener);
        fake
    }

    /// Adds an answer to the script.
    #[must_use]
    pub fn answer(self, answer: Answer) -> Self {
        self.add(answer);
        self
    }

    /// Adds an answer that is a call.
    #[must_use]
    pub fn call(self, name: &str, arguments: &str) -> Self {
        self.answer(Answer::call(name, arguments))
    }

    /// Adds an answer of this text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.answer(Answer::text(text))
    }

    /// Adds an answer that goes wrong like this.
    #[must_use]
    pub fn fault(self, fault: Fault) -> Self {
        self.answer(Answer::text("never to be seen").with(fault))
    }

    /// Adds an answer to the script of a server that runs already.
    pub fn add(&self, answer: Answer) {
        self.state().script.push_back(answer);
    }

    /// Answers each request as the conversation in it asks for, see `told`. Requests are not kept, and refusals are no failure.
    #[must_use]
    pub fn as_told(self) -> Self {
        let mut state = self.state();
        (state.as_told, state.may_refuse) = (true, true);
        drop(state);
        self
    }

    /// Asks for this key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.state().key = Some(key.into());
        self
    }

    /// Has these models and no others.
    #[must_use]
    pub fn models(self, names: &[&str]) -> Self {
        self.state().models = names.iter().map(|name| (*name).into()).collect();
        self
    }

    /// Ollama: what its models can do, and their longest context.
    #[must_use]
    pub fn abilities(self, names: &[&str], window: u64) -> Self {
        let mut state = self.state();
        state.abilities = names.iter().map(|name| (*name).into()).collect();
        state.window = window;
        drop(state);
        self
    }

    /// Ollama: loads the model first, so long, in silence; `/api/ps` does not list it before. A client that hangs up ends it.
    #[must_use]
    pub fn loads_for(self, time: Duration) -> Self {
        self.state().loads_for = time;
        self
    }

    /// A refusal is no failure of the test.
    #[must_use]
    pub fn may_refuse(self) -> Self {
        self.state().may_refuse = true;
        self
    }

    /// The base URL as the provider's configuration has it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.shared.api.base())
    }

    /// The URL of requests for an answer.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}{}", self.address, self.shared.api.path())
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Asked> {
        self.state().requests.clone()
    }

    /// The requests for an answer so far, those that were refused included.
    #[must_use]
    pub fn calls(&self) -> Vec<Asked> {
        let path = self.shared.api.path();
        self.requests().into_iter().filter(|asked| asked.method == "POST" && asked.path == path).collect()
    }

    /// What was refused so far, in the words of the API.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.state().refused.clone()
    }

    /// Answers that nobody asked for yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.state().script.len()
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state().accepted
    }

    /// Ollama: how often a client hung up while the model was loaded.
    #[must_use]
    pub fn loads_aborted(&self) -> usize {
        self.state().loads_aborted
    }

    /// Closes the port, and every connection. Nothing is forgotten.
    pub fn close(&self) {
        let connections = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.connections)
        };
        for connection in connections {
            connection.shutdown(Shutdown::Both).ok();
        }
        // Wakes who waits for connections; the port is free once that thread has ended.
        TcpStream::connect(self.address).ok();
        let thread = self.closing.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.map(thread::JoinHandle::join);
    }

    /// Opens the same port again.
    ///
    /// # Panics
    /// If somebody else has it for too long.
    pub fn open(&self) {
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", self.address),
            }
            thread::sleep(LOOK);
        };
        self.state().closed = false;
        self.listen(listener);
    }

    fn listen(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut state = shared.state();
                if state.closed {
                    return;
                }
                state.accepted += 1;
                state.connections.extend(stream.try_clone());
                drop(state);
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream));
            }
        });
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.close();
        let state = self.state();
        let refused = if state.may_refuse { String::new() } else { state.refused.join("\n") };
        drop(state);
        if !refused.is_empty() && !thread::panicking() {
            panic!("the fake refused what the real API refuses:\n{refused}");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).ok();
        while let Some(asked) = Asked::read(&mut stream) {
            // What a reset needs has to be known before the request is read whole.
            let resets = self.state().script.front().is_some_and(Answer::resets) && self.is_call(&asked);
            if !resets {
                asked.accept(&mut stream);
            }
            if !self.state().as_told {
                self.state().requests.push(asked.clone());
            }
            let Some(acts) = self.acts(&asked, &stream) else { break };
            if !plan::play(&mut stream, &acts) {
                break;
            }
        }
        self.forget(&stream);
        http::close(stream);
    }

    fn is_call(&self, asked: &Asked) -> bool {
        asked.method == "POST" && asked.path == self.api.path()
    }

    /// Drops the copy of a connection, without which it does not close.
    fn forget(&self, stream: &TcpStream) {
        let peer = stream.peer_addr().ok();
        self.state().connections.retain(|kept| kept.peer_addr().ok() != peer);
    }

    /// What to do with a request; nothing if its client has gone.
    fn acts(&self, asked: &Asked, stream: &TcpStream) -> Option<Vec<Act>> {
        let api = &*self.api;
        let body = match Json::parse(&asked.body) {
            Ok(body) => body,
            Err(_) if asked.body.is_empty() => Json::Null,
            Err(error) => return Some(self.refuse(&Refusal::invalid(format!("the body is not JSON: {error}")))),
        };
        let key = self.state().key.clone();
        if key.is_some() && api.key(asked) != key.as_deref() {
            return Some(self.refuse(&api.refusal(401)));
        }
        let is_call = self.is_call(asked);
        if is_call && let Err(refusal) = api.check(asked, &body) {
            return Some(self.refuse(&refusal));
        }
        let model = body.at("model").str().unwrap_or_default().to_owned();
        if self.is_ollama && (is_call || asked.path == "/api/generate") {
            if let Some(refusal) = self.unable(&body, &model) {
                return Some(self.refuse(&refusal));
            }
            self.load(&model, stream)?;
        }
        if !is_call {
            return Some(self.aside(asked, &body, &model));
        }
        let mut state = self.state();
        let answer = if state.as_told { Some(told::answer(&body)) } else { state.script.pop_front() };
        let Some(answer) = answer else {
            drop(state);
            return Some(self.refuse(&Refusal::invalid("the script of this fake has no answer left")));
        };
        state.answered += 1;
        let number = state.answered;
        drop(state);
        Some(plan::answer(api, &answer, &body, number))
    }

    fn refuse(&self, refusal: &Refusal) -> Vec<Act> {
        self.state().refused.push(refusal.message.clone());
        plan::refuse(&*self.api, refusal, "")
    }

    fn unable(&self, body: &Json, model: &str) -> Option<Refusal> {
        let state = self.state();
        let models = state.models();
        let can = |what: &str| state.abilities.iter().any(|ability| ability == what);
        if models.lacks(model) {
            let message = format!("model \"{model}\" not found, try pulling it first");
            return Some(Refusal { status: 404, ..Refusal::invalid(message) });
        }
        if !body.at("tools").items().is_empty() && !can("tools") {
            return Some(Refusal::invalid(format!("{model} does not support tools")));
        }
        if body.at("think") == &Json::Bool(true) && !can("thinking") {
            return Some(Refusal::invalid(format!("\"{model}\" does not support thinking")));
        }
        None
    }

    /// Waits until the model is loaded. `None` if the client goes away meanwhile, which ends the loading.
    fn load(&self, model: &str, stream: &TcpStream) -> Option<()> {
        loop {
            let mut state = self.state();
            if state.loaded.iter().any(|loaded| loaded == model) {
                return Some(());
            }
            let time = state.loads_for;
            if state.loading_since.get_or_insert_with(Instant::now).elapsed() >= time {
                state.loading_since = None;
                state.loaded.push(model.into());
                return Some(());
            }
            if is_gone(stream) {
                state.loading_since = None;
                state.loads_aborted += 1;
                return None;
            }
            drop(state);
            thread::sleep(LOOK);
        }
    }

    fn aside(&self, asked: &Asked, body: &Json, model: &str) -> Vec<Act> {
        let (path, state) = (asked.path.as_str(), self.state());
        if self.is_ollama {
            let answered = state.models().aside(asked);
            drop(state);
            if path == "/api/generate" && ollama::unloads(body) {
                self.state().loaded.retain(|loaded| loaded != model);
            }
            if let Some((status, text)) = answered {
                return vec![Act::Send(http::whole(status, "", "application/json; charset=utf-8", &text))];
            }
        } else if asked.method == "GET" && path.ends_with("/models") {
            let ids = state.models.iter().map(|id| crate::json::quote(id));
            let list: Vec<String> = ids
                .map(|id| {
                    format!(
                        "{{\"id\":{id},\"object\":\"model\",\"type\":\"model\",\"created\":1795000000,\"owned_by\":\"fake\",\
                         \"display_name\":{id},\"created_at\":\"2026-01-01T00:00:00Z\",\"context_length\":{}}}",
                        state.window
                    )
                })
                .collect();
            let text = format!("{{\"object\":\"list\",\"data\":[{}],\"has_more\":false}}", list.join(","));
            return vec![Act::Send(http::whole(200, self.api.headers(), "application/json", &text))];
        }
        let text = "404 page not found";
        vec![Act::Send(http::whole(404, "", "text/plain", text))]
    }
}

impl State {
    fn models(&self) -> ollama::Models<'_> {
        ollama::Models { window: self.window, names: &self.models, abilities: &self.abilities, loaded: &self.loaded }
    }
}

/// True if the client has hung up.
fn is_gone(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).ok();
    let found = stream.peek(&mut [0]);
    stream.set_nonblocking(false).ok();
    match found {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

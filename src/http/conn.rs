//! One connection: read a head, check it, read the body, answer, again.
//!
//! Requests are answered in the order they came (pipelining), one at a time. A refusal whose request's end is unknown
//! ends the connection.

use super::api::{self, Answer, Request, Wait};
use super::body::{self, Failed};
use super::guard::{self, Peer};
use super::io::{Io, Lost};
use super::meter::Asked;
use super::problem::{self, Problem};
use super::query;
use super::response::{Response, Wire};
use super::route::{self, Resource, Verb};
use super::shared::Shared;
use super::sse;
use super::stream;
use duragent_core::http_head::{self, Finder, Framing, Head};
use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tiny_http::Method;

/// What becomes of the connection.
enum Next {
    /// Another request may come.
    Keep,
    /// Say that we are done, and close.
    Close,
    /// Nobody is left.
    Drop,
    /// The answer takes its time. What the request took is given back first.
    Last(Answer, Wire),
}

/// Serves the connection to its end.
pub(super) async fn serve(io: &mut Io, peer: Peer, shared: &Arc<Shared>) {
    let mut silence_max = shared.limits().head_time_max;
    loop {
        io.waits();
        let mut next = match head(io, shared, silence_max).await {
            // Boxed, so that an idle connection does not carry the size of the largest handler.
            Ok(Some(bytes)) => Box::pin(exchange(io, peer, shared, bytes)).await,
            Ok(None) => Next::Drop,
            Err(problem) => {
                let wire = final_wire(&io.pending);
                Box::pin(end(io, peer, shared, problem, wire)).await
            }
        };
        if let Next::Last(answer, wire) = next {
            next = Box::pin(last(io, peer, shared, answer, wire)).await;
        }
        silence_max = shared.limits().idle_time_max;
        match next {
            Next::Keep if !shared.is_draining() => {}
            Next::Keep | Next::Close => return io.linger().await,
            Next::Drop | Next::Last(..) => return,
        }
    }
}

/// Answers 503 to a connection that is one too many.
pub(super) async fn refuse(io: &mut Io, peer: Peer, shared: &Shared) {
    let problem = Problem::new(problem::BUSY, "too many connections are open");
    if matches!(Box::pin(end(io, peer, shared, problem, final_wire(b""))).await, Next::Close) {
        io.linger().await;
    }
}

/// Gives the last answer, to a request of which nothing is known.
async fn end(io: &mut Io, peer: Peer, shared: &Shared, problem: Problem, wire: Wire) -> Next {
    respond(io, &Asked::new(shared, peer), problem.into(), wire).await
}

/// For an answer after which nothing can follow, to a request of which only the first bytes are understood: HEAD is answered
/// without a body even then (RFC 9110 section 9.3.2).
fn final_wire(request: &[u8]) -> Wire {
    Wire { minor: 1, head_only: request.starts_with(b"HEAD "), close: true }
}

/// Reads one head off the connection. `None` if the client has nothing more to ask.
async fn head(io: &mut Io, shared: &Shared, silence_max: Duration) -> Result<Option<Vec<u8>>, Problem> {
    let mut finder = Finder::default();
    let mut deadline = Instant::now() + silence_max;
    let mut begun = false;
    loop {
        if !begun && !io.pending.is_empty() {
            begun = true;
            deadline = Instant::now() + shared.limits().head_time_max;
        }
        if let Some(end) = finder.find(&io.pending)? {
            let rest = io.pending.split_off(end);
            return Ok(Some(std::mem::replace(&mut io.pending, rest)));
        }
        io.live.idle.store(!begun, Ordering::SeqCst);
        if !begun && shared.is_draining() {
            return Ok(None);
        }
        let filled = io.fill(deadline).await;
        io.live.idle.store(false, Ordering::SeqCst);
        match filled {
            Ok(()) => {}
            Err(Lost::Late) if begun => {
                return Err(Problem::new(problem::TIMEOUT, "the request head took too long to arrive"));
            }
            Err(_) => return Ok(None),
        }
    }
}

/// One request and its answer.
async fn exchange(io: &mut Io, peer: Peer, shared: &Arc<Shared>, bytes: Vec<u8>) -> Next {
    shared.meter.request();
    shared.runtime.tally().active();
    let mut asked = Asked::new(shared, peer);
    let head = match http_head::parse(&bytes) {
        Ok(head) => head,
        Err(refusal) => return respond(io, &asked, Problem::from(refusal).into(), final_wire(&bytes)).await,
    };
    asked.read(&head);
    let mut wire = Wire { minor: head.minor, head_only: head.method == "HEAD", close: !head.keep_alive };
    let path = path(&head);
    let admitted = path.as_deref().map_err(Clone::clone).and_then(|path| admit(&head, path, peer, shared));
    let (resource, verb) = match admitted {
        Ok(found) => found,
        Err(problem) => {
            // The body was not read, so the next request cannot be found.
            wire.close |= head.framing != Framing::Empty;
            return respond(io, &asked, problem.into(), wire).await;
        }
    };
    let awaits_word = head.expects_continue && head.framing != Framing::Empty && io.pending.is_empty();
    if awaits_word && io.write(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
        return Next::Drop;
    }
    let body = match body::read(io, head.framing, shared).await {
        Ok(body) => body,
        Err(Failed::Refused(problem)) => {
            return respond(io, &asked, problem.into(), Wire { close: true, ..wire }).await;
        }
        Err(Failed::Closed) => return Next::Drop,
    };
    if io.works().is_err() {
        return Next::Drop;
    }
    let request = Request { head: &head, resource, verb, body: &body };
    let began = Instant::now();
    let answer = api::answer(shared, &request).await;
    asked.handled(began.elapsed());
    match answer {
        Ok(Answer::Whole(response)) => respond(io, &asked, response, wire).await,
        Ok(answer) => {
            asked.lasts();
            Next::Last(answer, wire)
        }
        Err(problem) => respond(io, &asked, problem.into(), wire).await,
    }
}

/// Gives an answer that lasts.
async fn last(io: &mut Io, peer: Peer, shared: &Shared, answer: Answer, wire: Wire) -> Next {
    let asked = &Asked::told(shared, peer);
    let sent = match answer {
        Answer::Whole(response) => return respond(io, asked, response, wire).await,
        Answer::Wait(wait) => return turn(io, asked, &wait, wire).await,
        Answer::Stream(stream) => {
            asked.answered((200, ""));
            sse::stream(io, stream, shared, wire).await
        }
        Answer::Pages { content_type, mut pages, place: _place } => match pages.next().await {
            Err(error) => return respond(io, asked, Problem::from(error).into(), wire).await,
            Ok(page) if pages.is_done() => {
                return respond(io, asked, Response::new(200, content_type, page), wire).await;
            }
            Ok(page) => {
                asked.answered((200, ""));
                stream::pages(io, content_type, page, pages, wire).await
            }
        },
    };
    match sent {
        Ok(()) if wire.close || wire.minor == 0 => Next::Close,
        Ok(()) => Next::Keep,
        Err(_) => Next::Drop,
    }
}

/// The decoded path. An encoded slash separates nothing, and no name has one.
fn path<'a>(head: &Head<'a>) -> Result<Cow<'a, str>, Problem> {
    let slashes = |text: &str| text.bytes().filter(|&b| b == b'/').count();
    match query::decode(head.path, false)? {
        path if slashes(&path) == slashes(head.path) => Ok(path),
        path => Err(Problem::new(problem::NOT_FOUND, format!("nothing is at {path:?}"))),
    }
}

/// Everything that can be said before the body is read. Who may not ask does not learn what is there.
fn admit<'p>(head: &Head<'_>, path: &'p str, peer: Peer, shared: &Shared) -> Result<(Resource<'p>, Verb), Problem> {
    let access = shared.access();
    access.check_origin(head, peer)?;
    let path = access.below_base(path);
    let found = route::find(path);
    if !matches!(found, Ok(Resource::Livez | Resource::Readyz | Resource::Description)) {
        access.check_token(head, peer, path)?;
    }
    let method = match head.method.parse() {
        Ok(Method::NonStandard(_)) | Err(()) => {
            return Err(Problem::new(problem::NOT_IMPLEMENTED, format!("unknown method {:?}", head.method)));
        }
        Ok(method) => method,
    };
    let resource = found?;
    let verb = resource.verb(&method)?;
    body::admit(head.framing, shared.limits().body_bytes_max)?;
    if verb != Verb::Get {
        guard::check_media(head)?;
    }
    Ok((resource, verb))
}

/// Waits for the turn. Whatever ends the waiting early, the message is durable, and 202 says so: also to a client that
/// has closed its half of the connection, since nobody knows whether it still reads.
async fn turn(io: &mut Io, asked: &Asked<'_>, wait: &Wait, wire: Wire) -> Next {
    let result = asked.shared.runtime.turn_result(&wait.session, wait.accepted.turn);
    let response = match io.attend(pin!(result), Instant::now() + wait.time).await {
        Ok(Ok(result)) => Response::json(api::turn_json(wait.accepted, &result)),
        Ok(Err(_)) | Err(_) => Response::json(api::accepted_json(wait.accepted)).status(202),
    };
    respond(io, asked, response, wire).await
}

/// Sends a whole response in one write.
async fn respond(io: &mut Io, asked: &Asked<'_>, response: Response, wire: Wire) -> Next {
    asked.answered(response.outcome());
    let bytes = response.encode(wire);
    // Not kept twice for a client that reads slowly.
    drop(response);
    match io.write(&bytes).await {
        Ok(()) if wire.close => Next::Close,
        Ok(()) => Next::Keep,
        Err(_) => Next::Drop,
    }
}

//! From an answer and its faults to what goes over the wire, and when.

use crate::answer::{Answer, Cut, End, Fault, Split};
use crate::api::{Api, Frame, Part, Refusal};
use crate::http;
use crate::json::Json;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

/// A step of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Send(Vec<u8>),
    Pause(Duration),
    /// The connection ends so, and with it the answer. [`End::Clean`] keeps it.
    End(End),
}

/// A refusal as it goes over the wire.
pub(crate) fn refuse(api: &dyn Api, refusal: &Refusal, headers: &str) -> Vec<Act> {
    let headers = format!("{}{headers}", api.headers());
    vec![Act::Send(http::whole(refusal.status, &headers, "application/json", &api.error(refusal)))]
}

/// An answer to `body` as it goes over the wire.
pub(crate) fn answer(api: &dyn Api, answer: &Answer, body: &Json, number: usize) -> Vec<Act> {
    let mut acts = Vec::new();
    for fault in &answer.faults {
        match fault {
            Fault::Silence(time) => acts.push(Act::Pause(*time)),
            Fault::Status(status, after) => {
                let headers = after.as_ref().map_or(String::new(), |after| format!("Retry-After: {after}\r\n"));
                return [acts, refuse(api, &api.refusal(*status), &headers)].concat();
            }
            Fault::Tells(status, text) => {
                let refusal = Refusal { message: text.clone(), ..api.refusal(*status) };
                return [acts, refuse(api, &refusal, "")].concat();
            }
            Fault::Redirect(url) => {
                let headers = format!("Location: {url}\r\n");
                return [acts, vec![Act::Send(http::whole(307, &headers, "text/plain", ""))]].concat();
            }
            Fault::NoCredit => return [acts, refuse(api, &api.no_credit(), "")].concat(),
            Fault::TooLong(tokens, window) => {
                return [acts, refuse(api, &api.too_long(*tokens, *window), "")].concat();
            }
            Fault::BadCall => {
                let message = "error parsing tool call: raw='{\"command\": \"ls', err=unexpected end of JSON input";
                let refusal = Refusal { status: 500, ..Refusal::invalid(message) };
                return [acts, refuse(api, &refusal, "")].concat();
            }
            Fault::Page(status) => {
                let page = "<html><head><title>502 Bad Gateway</title></head><body>proxy</body></html>\n";
                return [acts, vec![Act::Send(http::whole(*status, "", "text/html", page))]].concat();
            }
            Fault::ErrorUnder200 => {
                // A line where answers are lines.
                let (line, kind) =
                    if api.separator() == "\n" { ("\n", api.content_type()) } else { ("", "application/json") };
                let body = api.error(&api.refusal(503)) + line;
                return [acts, vec![Act::Send(http::whole(200, api.headers(), kind, &body))]].concat();
            }
            _ => {}
        }
    }
    if let Some((status, body)) = answer.recorded.as_ref().filter(|(status, _)| *status != 200) {
        return [acts, vec![Act::Send(http::whole(*status, api.headers(), "application/json", body))]].concat();
    }
    acts.push(Act::Send(http::chunked_head(api.headers(), api.content_type())));
    stream(api, answer, body, number, &mut acts);
    acts
}

fn stream(api: &dyn Api, answer: &Answer, body: &Json, number: usize, acts: &mut Vec<Act>) {
    let mut frames = match &answer.recorded {
        Some((_, text)) => recorded(api, text),
        None => api.frames(answer, body, number),
    };
    if answer.has(&Fault::ErrorInStream) {
        frames.retain(|frame| frame.part == Part::Content);
        frames.extend(api.error_in_stream(body, number));
    }
    let cut =
        answer.faults.iter().find_map(|fault| if let Fault::Cut(cut, end) = fault { Some((*cut, *end)) } else { None });
    let keep = match cut {
        Some((Cut::BeforeFinish, _)) => Part::Content,
        Some((Cut::AfterFinish, _)) => Part::Finish,
        _ => Part::Tail,
    };
    frames.retain(|frame| frame.part <= keep);
    let mut pieces = in_pieces(api, answer, &frames);
    if let Some((Cut::Bytes(count), _)) = cut {
        let mut left = count;
        pieces.retain_mut(|piece| {
            piece.truncate(left);
            left -= piece.len();
            !piece.is_empty()
        });
    }
    let drip = answer.faults.iter().find_map(|fault| if let Fault::Drip(time) = fault { Some(*time) } else { None });
    for piece in pieces {
        acts.extend(drip.map(Act::Pause));
        acts.push(Act::Send(http::chunk(&piece)));
    }
    let end = cut.map_or(End::Clean, |(_, end)| end);
    if end == End::Clean {
        acts.push(Act::Send(http::LAST_CHUNK.to_vec()));
    }
    acts.push(Act::End(if answer.has(&Fault::HangsUp) { End::Fin } else { end }));
}

/// The frames of a recorded stream. Its end is as it was: without what should separate the last frame from nothing.
fn recorded(api: &dyn Api, text: &str) -> Vec<Frame> {
    let text = text.strip_suffix(api.separator()).unwrap_or(text);
    text.split(api.separator()).map(|frame| Frame::new(Part::Content, frame)).collect()
}

/// The bytes of the frames as they are cut for their way.
fn in_pieces(api: &dyn Api, answer: &Answer, frames: &[Frame]) -> Vec<Vec<u8>> {
    let sse = api.separator() == "\n\n";
    let texts = frames.iter().map(|frame| {
        let mut text = String::new();
        if sse && answer.has(&Fault::Comments) {
            text.push_str(": keep-alive\n\n");
        }
        text.push_str(&frame.text);
        text.push_str(api.separator());
        if answer.has(&Fault::CrLf) {
            text = text.replace('\n', "\r\n");
        }
        text.into_bytes()
    });
    match answer.split {
        Split::Frames => texts.collect(),
        Split::Whole => vec![texts.flatten().collect()],
        Split::EveryByte => texts.flatten().map(|byte| vec![byte]).collect(),
        Split::At(at) => {
            let mut bytes: Vec<u8> = texts.flatten().collect();
            let rest = bytes.split_off(at.min(bytes.len()));
            vec![bytes, rest].into_iter().filter(|piece| !piece.is_empty()).collect()
        }
    }
}

/// Does it. False if the connection is no more.
pub(crate) fn play(stream: &mut TcpStream, acts: &[Act]) -> bool {
    for act in acts {
        match act {
            // The client may be gone: that is what some tests are about.
            Act::Send(bytes) => {
                if stream.write_all(bytes).is_err() {
                    return false;
                }
            }
            Act::Pause(time) => thread::sleep(*time),
            Act::End(End::Clean) => {}
            Act::End(End::Fin) => {
                stream.shutdown(Shutdown::Write).ok();
                // Closed with something unread it would be a reset.
                stream.read_to_end(&mut Vec::new()).ok();
                return false;
            }
            Act::End(End::Rst) => return false,
            Act::End(End::Hang) => {
                stream.read_to_end(&mut Vec::new()).ok();
                return false;
            }
        }
    }
    true
}

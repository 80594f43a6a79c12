//! What is fuzzed: one function per parser of outside bytes. Each panics if a promise of the parser is broken.
//!
//! `fuzz_targets/` runs them under libFuzzer, and `tests/fuzz_smoke.rs` on seeded mutations in plain `cargo test`.

use duragent_core::policy::{Argument, Policy, Rule, Verdict, argument, evaluate};
use duragent_core::tool::PolicyArgument;
use duragent_core::{chunked, http_head, json, line, ndjson, sse};

/// JSON: what is read is written back as something that reads the same; `raw` takes every text that `parse` takes; an
/// error is inside the text.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match json::parse(text) {
        Ok(value) => {
            let written = value.to_string();
            assert_eq!(json::parse(&written).as_ref(), Ok(&value), "written as {written}");
            let mut reader = json::Reader::new(text);
            assert!(reader.raw().is_ok() && reader.end().is_ok(), "raw refuses what parse takes");
        }
        Err(error) => {
            assert!(error.byte <= text.len(), "{error}");
            let (line, column) = error.position(text);
            assert!(line >= 1 && column >= 1, "{line}:{column}");
        }
    }
}

/// Log lines: `check` and `decode` agree on the chain, a line that decodes is written back as one that decodes to the
/// same event, and no single flipped bit goes unseen. The data are the bytes before the checksum, which is put on here,
/// so that what is behind it is reached.
pub fn log_line(data: &[u8]) {
    const PREVIOUS: u32 = 0x6049_7b39;
    if data.contains(&b'\n') {
        return; // Lines are what is between line feeds.
    }
    let _unsealed = line::decode(data, PREVIOUS);
    let mut sealed = [data, b",\"crc\":\"00000000\"}"].concat();
    let crc = match line::check(&sealed, PREVIOUS) {
        Err(line::LineError::Crc { expected, .. }) => expected,
        other => other.expect("a line that ends in its checksum"),
    };
    let hex = format!("{crc:08x}");
    let at = data.len() + b",\"crc\":\"".len();
    sealed[at..at + hex.len()].copy_from_slice(hex.as_bytes());
    assert_eq!(line::check(&sealed, PREVIOUS), Ok(crc));
    assert!(line::check(&sealed, PREVIOUS ^ 1).is_err(), "the line before does not count");
    let bit = crc as usize % (sealed.len() * 8);
    sealed[bit / 8] ^= 1 << (bit % 8);
    assert!(line::check(&sealed, PREVIOUS).is_err(), "bit {bit} flipped unseen");
    sealed[bit / 8] ^= 1 << (bit % 8);
    let Ok((event, found)) = line::decode(&sealed, PREVIOUS) else { return };
    assert_eq!(found, crc);
    let mut written = String::new();
    let written_crc = line::encode(&event, PREVIOUS, &mut written);
    let again = line::decode(written.trim_end_matches('\n').as_bytes(), PREVIOUS);
    assert_eq!(again, Ok((event, written_crc)), "written as {written}");
}

/// Most bytes of one event or line in the stream targets: small, so that the limit is reached.
const STREAM_MAX: usize = 64;

/// Policy: a denied command is found whatever stands in front of it or behind it; an allowed one holds nothing that a shell would
/// do more with; the rule for exactly a call is for that call; a path that is allowed is where the rule says.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let rules = |text: &str| vec![Rule::parse(text).expect("a rule")];
    let verdict = |policy: &Policy, tool: &str, argument: &Argument| {
        evaluate(std::slice::from_ref(policy), tool, argument).verdict
    };
    let command = |text: &str| Argument::Command(text.trim_ascii().to_owned());

    let deny = Policy { mode: Some(Verdict::Allow), deny: rules("bash:rm *"), ..Policy::default() };
    for disguised in [format!("{text}; rm -rf x"), format!("{text}\nrm -rf x"), format!("rm -rf x; {text}")] {
        assert_eq!(verdict(&deny, "bash", &command(&disguised)), Verdict::Deny, "{disguised:?}");
    }
    let allow = Policy { allow: rules("bash:git log *"), ..Policy::default() };
    for tried in [text.to_owned(), format!("git log {text}")] {
        if verdict(&allow, "bash", &command(&tried)) == Verdict::Allow {
            let trimmed = tried.trim_ascii();
            assert!(
                trimmed.starts_with("git log ") && !trimmed.contains(|c: char| ";|&<>()`$\n\r\0".contains(c)),
                "{tried:?}"
            );
        }
    }
    if let Some(rule) = Rule::exact("bash", &command(text)) {
        let exact = Policy { allow: vec![rule.clone()], ..Policy::default() };
        assert_eq!(verdict(&exact, "bash", &command(text)), Verdict::Allow, "{rule:?}");
        assert_eq!(verdict(&exact, "bash", &command(&format!("{text}x"))), Verdict::Ask, "{rule:?}");
    }

    let mut arguments = String::new();
    let mut object = json::ObjectWriter::new(&mut arguments);
    object.str("path", text);
    object.finish();
    let path = argument(&PolicyArgument::Path("path"), &arguments, "/w");
    let allow = Policy { allow: rules("write_file:src/**"), ..Policy::default() };
    if verdict(&allow, "write_file", &path) == Verdict::Allow {
        let Argument::Path { absolute, .. } = &path else { panic!("no path: {path:?}") };
        assert!(absolute.starts_with("/w/src/") && !absolute.split('/').any(|part| part == ".."), "{path:?}");
    }
    let _whatever_it_is = argument(&PolicyArgument::Command("command"), text, "/w");
}

/// Server-sent events: the same events and the same error however the bytes arrive, and no more held than the limit.
pub fn sse(data: &[u8]) {
    same_however_it_arrives(data, |pieces| {
        let (mut events, mut found) = (sse::Events::new(STREAM_MAX), Vec::new());
        for mut piece in pieces.iter().copied() {
            loop {
                match events.next(&mut piece) {
                    Ok(Some(e)) => {
                        assert!(e.event.len().max(e.data.len()) <= STREAM_MAX, "larger than the limit: {e:?}");
                        found.push(format!("{e:?}"));
                    }
                    Ok(None) => break,
                    Err(error) => return (found, Some(error.to_string())),
                }
            }
            assert!(piece.is_empty(), "input is left over");
        }
        (found, events.finish().err().map(|e| e.to_string()))
    });
}

/// Lines of JSON: as [`sse`], and no line holds a line feed.
pub fn ndjson(data: &[u8]) {
    same_however_it_arrives(data, |pieces| {
        let (mut lines, mut found) = (ndjson::Lines::new(STREAM_MAX), Vec::new());
        for mut piece in pieces.iter().copied() {
            loop {
                match lines.next(&mut piece) {
                    Ok(Some(line)) => {
                        assert!(line.len() <= STREAM_MAX && !line.contains('\n'), "not a line: {line:?}");
                        found.push(line.to_owned());
                    }
                    Ok(None) => break,
                    Err(error) => return (found, Some(error.to_string())),
                }
            }
            assert!(piece.is_empty(), "input is left over");
        }
        (found, lines.finish().err().map(|e| e.to_string()))
    });
}

/// Reads the bytes whole, in two pieces at a place they choose themselves, and one by one.
fn same_however_it_arrives<T: PartialEq + std::fmt::Debug>(data: &[u8], read: impl Fn(&[&[u8]]) -> T) {
    let whole = read(&[data]);
    let at = data.iter().fold(0, |sum, b| usize::wrapping_add(sum, usize::from(*b))) % (data.len() + 1);
    let (head, tail) = data.split_at(at);
    assert_eq!(read(&[head, tail]), whole, "split at {at}");
    assert_eq!(read(&data.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
}

/// HTTP heads: the end is found at the same place however the bytes arrive, no shorter piece is a head, and what `parse`
/// takes says one thing only, to a reader that knows nothing but lines and colons as well.
pub fn http_head(data: &[u8]) {
    let whole = http_head::Finder::default().find(data);
    let mut finder = http_head::Finder::default();
    let slowly = (0..=data.len()).map(|end| finder.find(&data[..end])).find(|found| !matches!(found, Ok(None)));
    assert_eq!(slowly.unwrap_or(Ok(None)), whole, "byte by byte");
    let Ok(Some(length)) = whole else { return };
    let bytes = &data[..length];
    assert!(length <= http_head::HEAD_BYTES_MAX && bytes.ends_with(b"\r\n\r\n"), "not a head: {bytes:?}");
    for end in (0..length).filter(|&end| bytes[..end].ends_with(b"\n")) {
        assert!(http_head::parse(&bytes[..end]).is_err(), "shorter than it was found to be: {bytes:?}");
    }
    match http_head::parse(bytes) {
        Ok(head) => one_meaning(&head, bytes),
        Err(refusal) => assert!((400..=599).contains(&refusal.status()), "{refusal}"),
    }
}

fn one_meaning(head: &http_head::Head<'_>, bytes: &[u8]) {
    use http_head::Framing;
    assert!(head.path.starts_with('/') || head.path == "*", "{head:?}");
    assert!([head.method, head.path, head.query].iter().all(|t| t.bytes().all(|b| b.is_ascii_graphic())), "{head:?}");
    assert!(head.host.is_some() || head.minor == 0, "{head:?}");
    let delimiter = |b: u8| b.is_ascii_control() || b" ,/@?#\\\"<>".contains(&b);
    assert!(head.host.is_none_or(|host| !host.is_empty() && !host.bytes().any(delimiter)), "{head:?}");
    // Latin-1, so that every byte is a character.
    let text: String = bytes.iter().copied().map(char::from).collect();
    let mut lines = text.trim_start_matches("\r\n").split("\r\n");
    let line = lines.next().unwrap_or_default();
    let parts: Vec<&str> = line.split(' ').collect();
    assert!(
        matches!(parts[..], [method, _, version] if method == head.method && version == format!("HTTP/1.{}", head.minor))
    );
    assert!(parts[1].ends_with(head.query) && (parts[1].contains(head.path) || head.path == "/"), "{head:?} of {line}");
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
        assert!(
            name.bytes().all(http_head::is_token_byte) && !value.contains(['\r', '\n', '\0']),
            "no field: {line:?}"
        );
        let value = value.trim_matches([' ', '\t']);
        let same = |found: &[u8]| found.iter().copied().map(char::from).eq(value.chars());
        assert!(head.all(name).any(same), "{name}: {value:?} is not seen: {head:?}");
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value),
            "transfer-encoding" => codings.push(value.to_ascii_lowercase()),
            "host" => hosts += 1,
            _ => {}
        }
    }
    assert!(hosts <= 1 && lengths.len() + codings.len() <= 1, "more than one meaning: {head:?}");
    match head.framing {
        Framing::Chunked => assert_eq!(codings, ["chunked"]),
        Framing::Length(n) => assert!(lengths[0].parse().is_ok_and(|m: u64| m == n) || n == u64::MAX, "{head:?}"),
        Framing::Empty => {
            assert!(codings.is_empty() && lengths.iter().all(|n| n.bytes().all(|b| b == b'0')), "{head:?}")
        }
    }
}

/// Chunked bodies: the same body, the same end and the same verdict however the bytes arrive; and what is accepted is what
/// a reader finds who has all of it before him and takes line for line.
pub fn chunked(data: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let (mut decoder, mut body, mut taken) = (chunked::Decoder::new(), Vec::new(), 0);
        for piece in pieces {
            match decoder.decode(piece, &mut body) {
                Ok(n) => taken += n,
                Err(error) => return Err(error),
            }
        }
        Ok((body, taken, decoder.is_done()))
    };
    same_however_it_arrives(data, read);
    let Ok((body, taken, done)) = read(&[data]) else { return };
    assert!(taken <= data.len() && (done || taken == data.len()) && body.len() <= taken);
    if done {
        assert_eq!(line_for_line(&data[..taken]), Some(body.clone()), "{:?}", String::from_utf8_lossy(data));
        assert!(!read(&[&data[..taken - 1]]).is_ok_and(|r| r.2), "done before the end");
    }
}

/// The body of exactly these chunks.
fn line_for_line(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = String::from_utf8_lossy(take_line(&mut rest)?).into_owned();
        let size = line.split(';').next()?.trim_end_matches([' ', '\t']);
        let size = usize::from_str_radix(size, 16).ok().filter(|_| !size.starts_with('+'))?;
        if size == 0 {
            while let Some([_, ..]) =
                take_line(&mut rest).filter(|line| !line.starts_with(b":") && line.contains(&b':'))
            {}
            return rest.is_empty().then_some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|w| w == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    if line.iter().any(|b| b"\r\n\0".contains(b)) { None } else { Some(line) }
}

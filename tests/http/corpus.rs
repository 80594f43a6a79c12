//! The request vectors of `tests/http/vectors/`, read and unescaped. The format is described there, in README.md.
//!
//! Absent: what is done with them. The tests of the front door send them, those of the parsers and the fuzzers read them.

use std::fs;
use std::path::{Path, PathBuf};

/// Executed, this leaves a session called `smuggled`: a request that hides behind another one.
pub const SMUGGLED: &[u8] = b"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
    Content-Length: 37\r\n\r\n{\"agent\":\"assistant\",\"id\":\"smuggled\"}";

/// An answer that is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    pub status: u16,
    /// It answers HEAD, and so has no body.
    pub to_head: bool,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    /// Folder and name, `framing/cl-te`.
    pub name: String,
    /// What is sent.
    pub raw: Vec<u8>,
    /// The answers, in order; interim ones are not listed.
    pub expected: Vec<Expected>,
    /// The connection takes another request afterwards.
    pub keeps: bool,
    /// Field lines that the last answer has.
    pub headers: Vec<String>,
    /// Names of fields that no answer has.
    pub absent: Vec<String>,
    /// [`SMUGGLED`] is executed, because it stands where a request may stand.
    pub smuggles: bool,
}

/// Every vector, by name.
pub fn vectors() -> Vec<Vector> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("tests/http/vectors"));
    let root = root.into_iter().find(|folder| folder.is_dir()).expect("tests/http/vectors");
    let mut files = Vec::new();
    for folder in entries(&root).into_iter().filter(|path| path.is_dir()) {
        files.extend(entries(&folder));
    }
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn read(file: &Path) -> Vector {
    let folder = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let name = format!("{folder}/{}", file.file_stem().unwrap_or_default().to_string_lossy());
    assert!(file.extension().is_some_and(|e| e == "http"), "{}: expected NAME.http", file.display());
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (head, raw) = text.split_once("\n\n").unwrap_or_else(|| panic!("{name}: expected an empty line"));
    let mut vector = Vector {
        raw: unescape(raw).unwrap_or_else(|e| panic!("{name}: {e}")),
        name,
        expected: Vec::new(),
        keeps: false,
        headers: Vec::new(),
        absent: Vec::new(),
        smuggles: false,
    };
    for line in head.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(": ") {
            Some(("expect", text)) => expect(&mut vector, text),
            Some(("header", text)) => vector.headers.push(text.to_owned()),
            Some(("absent", text)) => vector.absent.push(text.to_owned()),
            Some(("effect", "smuggled")) => vector.smuggles = true,
            _ => panic!("{}: cannot read {line:?}", vector.name),
        }
    }
    assert!(head.starts_with("# ") && !vector.expected.is_empty(), "{}: expected a reason and `expect:`", vector.name);
    vector
}

/// Reads `200 404/HEAD keep`.
fn expect(vector: &mut Vector, text: &str) {
    let (statuses, end) = text.rsplit_once(' ').unwrap_or_else(|| panic!("{}: cannot read {text:?}", vector.name));
    vector.keeps = match end {
        "keep" => true,
        "close" => false,
        other => panic!("{}: expected keep or close, found {other:?}", vector.name),
    };
    for status in statuses.split(' ') {
        let (number, to_head) = status.strip_suffix("/HEAD").map_or((status, false), |number| (number, true));
        let status = number.parse().unwrap_or_else(|_| panic!("{}: expected a status, found {number:?}", vector.name));
        vector.expected.push(Expected { status, to_head });
    }
}

/// Turns the escapes of the format into bytes. Line feeds of the file are layout.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\n']) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest[at..].chars().nth(1).filter(|_| rest[at..].starts_with('\\'));
        rest = &rest[at + 1..];
        let Some(escape) = escape else { continue };
        rest = rest.strip_prefix(escape).unwrap_or_default();
        match escape {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            's' => out.push(b' '),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            'x' => {
                let hex = rest.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                out.push(hex.ok_or_else(|| format!("expected two hex digits, found {:?}", rest.get(..2)))?);
                rest = &rest[2..];
            }
            '{' => {
                let (inside, after) = rest.split_once('}').ok_or("expected '}' behind \"\\{\"")?;
                out.extend(expand(inside)?);
                rest = after;
            }
            other => return Err(format!("unknown escape \\{other}")),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// `smuggled`, or `N*TEXT`.
fn expand(inside: &str) -> Result<Vec<u8>, String> {
    if inside == "smuggled" {
        return Ok(SMUGGLED.to_vec());
    }
    let repeat = inside.split_once('*').and_then(|(times, text)| Some((times.parse::<usize>().ok()?, text)));
    let (times, text) = repeat.ok_or_else(|| format!("expected N*TEXT, found {inside:?}"))?;
    Ok(unescape(text)?.repeat(times))
}

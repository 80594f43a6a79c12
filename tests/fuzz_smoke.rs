//! The fuzz targets on seeded mutations of good input: every run of the tests sees the same bytes.
//!
//! Absent: coverage guidance; that is `cargo xtask fuzz`.

#[path = "http/corpus.rs"]
mod corpus;
#[path = "../fuzz/src/targets.rs"]
mod targets;

/// Mutants per seed input; some seconds of an unoptimized build altogether.
const MUTANTS: u32 = 2_000;

/// Mutants per request vector, of which there are hundreds.
const VECTOR_MUTANTS: u32 = 30;

/// Most changes in one mutant.
const CHANGES_MAX: u64 = 8;

/// Marsaglia's xorshift64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("is below a usize")
    }
}

/// Flips, cuts, repeats, and puts in bytes that parsers care about.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const TOKENS: [&[u8]; 16] = [
        b"\0",
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\r\n",
        b"\n\n",
        b"\xff",
        b"\xf0\x9f\xa6",
        b"\\ud800",
        b"18446744073709551616",
        b"1e999",
    ];
    for _ in 0..=random.next() % CHANGES_MAX {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below((bytes.len() - at).min(32) + 1);
        match random.next() % 5 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (random.next() % 8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => bytes.truncate(at),
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
        }
    }
}

/// Runs `target` on the seeds themselves, on every prefix of them, and on mutants.
fn smoke(target: fn(&[u8]), seeds: &[&[u8]]) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in seeds {
        for end in 0..=seed.len() {
            target(&seed[..end]);
        }
        mutants(target, seed, MUTANTS, &mut random);
    }
}

fn mutants(target: fn(&[u8]), seed: &[u8], count: u32, random: &mut Random) {
    for _ in 0..count {
        let mut bytes = seed.to_vec();
        mutate(&mut bytes, random);
        target(&bytes);
    }
}

/// Runs `target` on what `part` takes out of each request vector, and on mutants of it.
fn smoke_vectors(target: fn(&[u8]), part: fn(&[u8]) -> &[u8]) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for vector in corpus::vectors() {
        let seed = part(&vector.raw);
        target(seed);
        // The long ones are long by repetition.
        if seed.len() < 2048 {
            mutants(target, seed, VECTOR_MUTANTS, &mut random);
        }
    }
}

/// What follows the first head.
fn body(raw: &[u8]) -> &[u8] {
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n");
    end.map_or(raw, |end| &raw[end + 4..])
}

#[test]
fn json() {
    smoke(
        targets::json,
        &[
            br#"{"seq":7,"at":"2026-11-22T10:00:00.123Z","type":"tool_started","arguments":{"a":[1,-2.5e7,null]},"crc":"60497b39"}"#,
            "[\"\\u00e4\\ud83e\\udd80\\\\\",\"ä🦀\",true,false,null,0,-0,1e+9,{\"\":{}}]".as_bytes(),
            "[[[[[[[[[[[[[[[[{\"a\":[]}]]]]]]]]]]]]]]]]".as_bytes(),
        ],
    );
}

#[test]
fn log_line() {
    smoke(
        targets::log_line,
        &[
            br#"{"seq":1,"at":"2026-11-22T10:00:00.123Z","type":"session_created","v":1,"session":"a","agent":"b","parent":{"session":"c","seq":9}"#,
            br#"{"seq":7,"at":"2026-11-22T10:00:00.123Z","type":"tool_started","call_id":"c1","name":"bash","arguments":{"a":[1]},"effect":"once","sandbox":{"backend":"trust","enforcement":"none"}"#,
            br#"{"seq":8,"at":"2026-11-22T10:00:00.123Z","type":"tool_finished","call_id":"c1","result":"x\ny","exit_code":-1,"denied":{"kind":"fs","what":"/a","hint":"b"},"truncated":true,"duration_ms":3"#,
            br#"{"seq":9,"at":"2026-11-22T10:00:00.123Z","type":"model_responded","turn":1,"step":2,"text":"t","tool_calls":[{"call_id":"c","name":"n","arguments":{}}],"usage":{"input_tokens":1,"output_tokens":2},"finish_reason":"stop""#,
            br#"{"seq":10,"at":"2026-11-22T10:00:00.123Z","type":"from_the_future","x":null"#,
        ],
    );
}

#[test]
fn policy() {
    smoke(
        targets::policy,
        &[
            b"git log --oneline -5 -- src/../docs",
            b"A=1 sudo -u pi env B='1 2' sh -c \"cd /; r'm' $'\\x72\\155' {a,{b,c}} ${x:-y} >log 2>&1 <<E\nx\nE\"",
            b"src/./a//../b/.env",
        ],
    );
}

#[test]
fn sse() {
    smoke(
        targets::sse,
        &[
            "\u{feff}id: 7\nevent: token\ndata: größe 🦀\n\n: ping\r\n\r\ndata:a\rdata: b\r\rretry: 10\n\n".as_bytes(),
            b"data: {\"choices\":[{\"delta\":{}}]}\n\ndata: [DONE]\n\nid: x\0y\ndata\n\n",
        ],
    );
}

#[test]
fn ndjson() {
    smoke(
        targets::ndjson,
        &["{\"message\":{\"content\":\"größe 🦀\"},\"done\":false}\n\r\n\n{\"done\":true}\r\n{\"error\":\"x\"}\n"
            .as_bytes()],
    );
}

#[test]
fn http_head() {
    smoke(
        targets::http_head,
        &[
            b"POST /api/v1/sessions/a/messages?wait=5 HTTP/1.1\r\nHost: localhost:8410\r\nContent-Length: 12\r\n\r\n{\"content\":1}",
            b"\r\nGET http://[::1]:8410/livez HTTP/1.1\r\nHost: [::1]:8410\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
            b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nX-A: \xe4\r\n\r\n",
        ],
    );
    smoke_vectors(targets::http_head, |raw| raw);
}

#[test]
fn chunked() {
    smoke(
        targets::chunked,
        &[
            b"5\r\nhello\r\nA \t;x=\"y\"\r\n0123456789\r\n000\r\nT: x\r\nU:\r\n\r\nGET / HTTP/1.1\r\n",
            b"2\r\n\r\n\r\n0\r\n\r\n",
        ],
    );
    smoke_vectors(targets::chunked, body);
}

#[test]
fn the_same_seed_gives_the_same_mutants_and_they_differ() {
    let mutants = || {
        let mut random = Random(1);
        let mutant = |_| {
            let mut bytes = b"{\"a\":[1,2,3]}".to_vec();
            mutate(&mut bytes, &mut random);
            bytes
        };
        (0..100).map(mutant).collect::<Vec<_>>()
    };
    assert_eq!(mutants(), mutants());
    let mut distinct = mutants();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() > 50, "{}", distinct.len());
}

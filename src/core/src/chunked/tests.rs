use super::{Decoder, Malformed};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Decodes in pieces of `step`; the body, bytes taken, and whether it ended.
fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
    let (mut decoder, mut out, mut taken) = (Decoder::new(), Vec::new(), 0);
    for piece in input.chunks(step) {
        taken += decoder.decode(piece, &mut out)?;
    }
    Ok((out, taken, decoder.is_done()))
}

fn check(input: &[u8]) -> Result<(Vec<u8>, usize, bool), Malformed> {
    let whole = decode(input, input.len().max(1));
    for step in 1..input.len().min(40) {
        assert_eq!(whole, decode(input, step), "{step}: {:?}", String::from_utf8_lossy(input));
    }
    whole
}

#[test]
fn bodies_are_decoded_however_they_are_cut() {
    let cases: &[(&str, &str, usize)] = &[
        ("0\r\n\r\n", "", 0),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
        ("00000005\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n", "hello0123456789", 0),
        ("1 \t;x = y\r\na\r\n0\r\nTrailer: x\r\nOther:\r\n\r\n", "a", 0),
        ("2\r\n\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n", "\r\n", 16),
    ];
    for (input, body, rest) in cases {
        let (out, taken, done) = check(input.as_bytes()).unwrap_or_else(|e| panic!("{input:?}: {e:?}"));
        assert_eq!((out.as_slice(), taken, done), (body.as_bytes(), input.len() - rest, true), "{input:?}");
    }
}

#[test]
fn an_unfinished_body_is_not_done() {
    let whole = b"5\r\nhello\r\n0\r\nT: x\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(check(&whole[..end]).map(|r| r.2), Ok(false), "{end}");
    }
}

#[test]
fn what_is_not_of_the_coding_is_refused() {
    let long = format!("1;{}\r\n", "x".repeat(5000));
    let extensions = format!("1;{}\r\nx\r\n", "x".repeat(2000)).repeat(9);
    let trailers = format!("0\r\n{}", "x: y\r\n".repeat(1000));
    let cases = [
        "x\r\n",
        "\r\n",
        "-1\r\n",
        "0x1\r\n",
        ";a\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\nab\r\n",
        "1\r\na\r0",
        "000000001\r\n",
        "fffffffff\r\n",
        "0\r\nT: x\n",
        "0\r\n\rx",
        "1;a\0b\r\n",
        "1;a\x0bb\r\n",
        "1;a\nb\r\n0\r\n\r\n",
        "1;a\rb\r\n",
        "1 \r\na\r\n",
        "1 a\r\n",
        "1\r\naXX0\r\n\r\n",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\nX : x\r\n\r\n",
        "0\r\nX: x\r\n y\r\n\r\n",
        "0\r\nX: x\0\r\n\r\n",
        "0\r\n\n",
        &extensions,
        &long,
        &trailers,
    ];
    for input in cases {
        assert!(check(input.as_bytes()).is_err(), "{input:?}");
    }
}

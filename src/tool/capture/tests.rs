//! What is kept of an output, whatever its size, its bytes and the pieces it comes in.

use super::super::testing::Bench;
use super::*;

/// Captures `bytes` in pieces of `step` bytes under a cap.
fn capture(bench: &mut Bench, bytes: &[u8], step: usize, cap: usize) -> Captured {
    bench.output_bytes_max = cap;
    bench.with(|context| {
        let mut capture = Capture::new(context);
        bytes.chunks(step).for_each(|chunk| capture.push(chunk));
        capture.finish()
    })
}

fn artifact(bench: &Bench) -> Vec<u8> {
    fs::read(bench.artifacts().join("call_1.txt")).unwrap()
}

#[test]
fn short_output_is_whole_and_leaves_no_artifact() {
    let mut bench = Bench::new();
    for (bytes, text) in [
        (&b""[..], ""),
        (b"hello\n", "hello\n"),
        ("äöü€😀".as_bytes(), "äöü€😀"),
        (b"a\0b\xffc\xe2\x82", "a\u{fffd}b\u{fffd}c\u{fffd}"),
    ] {
        for step in 1..=bytes.len().max(1) {
            let captured = capture(&mut bench, bytes, step, 20);
            assert_eq!((captured.text.as_str(), captured.truncated), (text, false), "in steps of {step}");
            assert_eq!(captured.artifact, None);
        }
    }
    assert!(!bench.artifacts().exists());
}

#[test]
fn long_output_keeps_head_and_tail_and_all_of_it_in_the_artifact() {
    let mut bench = Bench::new();
    let bytes: Vec<u8> = (0..100u8).map(|i| b'a' + i % 26).collect();
    let place = bench.artifacts().join("call_1.txt");
    let expected = format!("abcdefghij\n[… 80 bytes left out; all 100 bytes are in {} …]\nmnopqrstuv", place.display());
    for step in 1..=bytes.len() {
        let captured = capture(&mut bench, &bytes, step, 20);
        assert_eq!((captured.text.as_str(), captured.truncated), (expected.as_str(), true), "in steps of {step}");
        assert_eq!(captured.artifact.as_deref(), Some("call_1.txt"));
        assert_eq!(artifact(&bench), bytes);
    }
    // One byte decides.
    assert!(!capture(&mut bench, &bytes, 7, 100).truncated);
    assert!(capture(&mut bench, &bytes, 7, 99).truncated);
}

#[test]
fn characters_are_never_cut_and_every_byte_is_accounted_for() {
    let mut bench = Bench::new();
    let bytes = "ä€😀".repeat(40).into_bytes();
    for cap in 0..64 {
        let captured = capture(&mut bench, &bytes, 5, cap);
        let (head, rest) = captured.text.split_once("\n[… ").unwrap();
        let (left_out, tail) = rest.split_once(" bytes left out;").unwrap();
        let tail = tail.split_once("…]\n").unwrap().1;
        assert!(!captured.text.contains(char::REPLACEMENT_CHARACTER), "cap {cap}: {}", captured.text);
        assert!(head.len() + tail.len() <= cap, "cap {cap}");
        let left_out: usize = left_out.parse().unwrap();
        assert_eq!(head.len() + left_out + tail.len(), bytes.len(), "cap {cap}");
        assert!("ä€😀".repeat(40).starts_with(head) && "ä€😀".repeat(40).ends_with(tail), "cap {cap}");
    }
}

#[test]
fn what_grows_when_it_becomes_text_still_keeps_to_the_cap() {
    let mut bench = Bench::new();
    // Twenty bytes are no more than the cap, but sixty as text.
    let captured = capture(&mut bench, &[0xff; 20], 20, 20);
    let (head, tail) = (captured.text.find('\n').unwrap(), captured.text.rsplit('\n').next().unwrap().len());
    assert!(captured.truncated && head <= 10 && tail <= 10, "{}", captured.text);
    assert!(captured.text.contains("[… 14 bytes left out; all 20 bytes"), "{}", captured.text);
    assert_eq!(artifact(&bench), [0xff; 20]);
}

#[test]
fn an_artifact_has_a_size_limit_and_the_text_says_so() {
    let mut bench = Bench::new();
    bench.artifact_bytes_max = 50;
    let bytes: Vec<u8> = (0..100).collect();
    let captured = capture(&mut bench, &bytes, 9, 20);
    assert!(captured.text.contains("the first 50 of 100 bytes are in"), "{}", captured.text);
    assert_eq!(artifact(&bench), bytes[..50]);
}

#[test]
fn an_artifact_that_cannot_be_made_is_said_and_the_text_is_kept() {
    let mut bench = Bench::new();
    fs::write(bench.artifacts(), "in the way").unwrap();
    let captured = capture(&mut bench, &[b'x'; 100], 9, 20);
    assert!(captured.text.starts_with("xxxxxxxxxx\n[… 80 bytes left out; the whole output could not be kept: "));
    assert_eq!((captured.truncated, captured.artifact), (true, None));
}

#[test]
fn an_artifact_of_an_interrupted_run_is_replaced_and_a_link_not_followed() {
    let mut bench = Bench::new();
    fs::create_dir(bench.artifacts()).unwrap();
    bench.write("precious", "precious");
    std::os::unix::fs::symlink(bench.path("precious"), bench.artifacts().join("call_1.txt")).unwrap();
    capture(&mut bench, &[b'x'; 100], 9, 20);
    assert_eq!(artifact(&bench), [b'x'; 100]);
    assert_eq!(bench.read("precious"), "precious");
}

#[test]
fn names_of_artifacts_stay_in_their_directory_and_apart() {
    let check = |id: &str, name: &str| assert_eq!(artifact_name(id), name);
    check("call_1-A", "call_1-A.txt");
    check("../../x", "______x.9cdf6a50100a862e.txt");
    let hostile = ["", ".", "..", "a/b", "a.b", "a\0b", "ä", &"x".repeat(65), &"x".repeat(66)];
    let mut names: Vec<_> = hostile.iter().map(|id| artifact_name(id)).collect();
    for name in &names {
        assert!(name.len() < 128 && !name.contains('/') && !name.starts_with("..") && !name.contains('\0'), "{name}");
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), hostile.len());
}

//! Texts as the build script packs them: a number of pairs; each pair as the byte that stands for it and two bytes, which
//! may stand for pairs themselves; the text.
//!
//! Absent: packing, which build.rs does.

use alloc::string::String;
use alloc::vec::Vec;

/// The text that was packed; what is no packed text is an empty one.
#[must_use]
pub fn unpack(packed: &[u8]) -> String {
    let (count, rest) = packed.split_first().unwrap_or((&0, &[]));
    let (pairs, text) = rest.split_at_checked(3 * usize::from(*count)).unwrap_or_default();
    // A byte that stands for nothing else stands for itself.
    let mut meaning = [None; 256];
    for pair in pairs.chunks_exact(3) {
        if let [code, first, second] = *pair {
            meaning[usize::from(code)] = Some((first, second));
        }
    }
    let (mut out, mut stack) = (Vec::with_capacity(3 * text.len()), Vec::new());
    for byte in text {
        stack.push(*byte);
        while let Some(byte) = stack.pop() {
            match meaning[usize::from(byte)] {
                Some((first, second)) => stack.extend([second, first]),
                None => out.push(byte),
            }
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::unpack;
    use alloc::string::String;

    #[test]
    fn pairs_of_pairs_come_out() {
        assert_eq!(unpack(b"\x01\x80ab\x80\x80c"), "ababc");
        assert_eq!(unpack(b"\x02\x80ab\x81\x80c\x81\x80"), "abcab");
        assert_eq!((unpack(b""), unpack(b"\x09ab")), (String::new(), String::new()));
    }
}

//! Who may release: Ed25519 signatures (RFC 8032) and the file of public keys that are trusted.
//!
//! Keys are PEM as `openssl pkey -pubout` writes them (RFC 8410), several in a file if several may release; a signature is the
//! 64 bytes of `openssl pkeyutl -sign -rawin`. All Ed25519 of the program is here.
//!
//! Absent: private keys, and any key that is built in: who builds an appliance says whom it trusts.

/// Most bytes of a file of keys: room for all of [`KEYS_MAX`] with comments.
pub const FILE_BYTES_MAX: usize = 16 * 1024;

/// Most keys of a file: one for each who releases, and the next one while keys change.
const KEYS_MAX: usize = 16;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What stands before the 32 bytes of a key: SEQUENCE, the algorithm 1.3.101.112, BIT STRING (RFC 8410, 4).
const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// Keys that are trusted.
#[derive(Debug, PartialEq, Eq)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Reads the keys of a PEM file; what stands between them is a comment.
    ///
    /// # Errors
    /// What was expected and found, without the file's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        let mut rest = text;
        while let Some((_, after)) = rest.split_once(BEGIN) {
            let number = keys.len() + 1;
            if number > KEYS_MAX {
                return Err(["expected at most ", &KEYS_MAX.to_string(), " keys, found more"].concat());
            }
            let (body, after) = after.split_once(END).ok_or_else(|| wrong(number))?;
            let key = decode(body).and_then(|der| der.strip_prefix(&HEAD)?.try_into().ok());
            keys.push(key.ok_or_else(|| wrong(number))?);
            rest = after;
        }
        if keys.is_empty() {
            return Err(["expected public keys in PEM (", BEGIN, "), found none"].concat());
        }
        Ok(Self(keys))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// True if one of the keys has signed `message`.
    pub fn have_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.iter().any(|key| verify(key, message, signature))
    }
}

/// One key, one signature (RFC 8032, 5.1.7).
#[cfg(feature = "signatures")]
fn verify(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key).verify(message, signature).is_ok()
}

/// Nobody has signed anything for a build that cannot tell.
#[cfg(not(feature = "signatures"))]
fn verify(_: &[u8; 32], _: &[u8], _: &[u8]) -> bool {
    false
}

fn wrong(number: usize) -> String {
    ["expected Ed25519 keys, found something else as key ", &number.to_string()].concat()
}

/// Base64 (RFC 4648, 4) with white space in it. `None` if it is none.
fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut held, mut bits) = (Vec::new(), 0_u32, 0_u32);
    let mut ended = false;
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                ended = true;
                continue;
            }
            _ => return None,
        };
        if ended {
            return None;
        }
        (held, bits) = (held << 6 | u32::from(value), bits + 6);
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Some(out)
}

#[cfg(all(test, feature = "signatures"))]
mod tests {
    use super::*;

    /// The first test of RFC 8032, 7.1: the key of an empty message, and its signature.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    const SIGNATURE: [u8; 64] = [
        0xe5, 0x56, 0x43, 0x00, 0xc3, 0x60, 0xac, 0x72, 0x90, 0x86, 0xe2, 0xcc, 0x80, 0x6e, 0x82, 0x8a, 0x84, 0x87,
        0x7f, 0x1e, 0xb8, 0xe5, 0xd9, 0x74, 0xd8, 0x73, 0xe0, 0x65, 0x22, 0x49, 0x01, 0x55, 0x5f, 0xb8, 0x82, 0x15,
        0x90, 0xa3, 0x3b, 0xac, 0xc6, 0x1e, 0x39, 0x70, 0x1c, 0xf9, 0xb4, 0x6b, 0xd2, 0x5b, 0xf5, 0xf0, 0x59, 0x5b,
        0xbe, 0x24, 0x65, 0x51, 0x41, 0x43, 0x8e, 0x7a, 0x10, 0x0b,
    ];

    #[test]
    fn the_vector_of_the_rfc_is_taken_and_no_bit_of_it_may_change() {
        let keys = Keys::parse(KEY).expect("a key");
        assert!(keys.have_signed(b"", &SIGNATURE));
        assert!(!keys.have_signed(b"x", &SIGNATURE));
        for bit in 0..SIGNATURE.len() * 8 {
            let mut changed = SIGNATURE;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!keys.have_signed(b"", &changed), "bit {bit}");
        }
        for length in 0..SIGNATURE.len() {
            assert!(!keys.have_signed(b"", &SIGNATURE[..length]), "{length} bytes");
        }
    }

    #[test]
    fn a_file_holds_several_keys_and_comments_between_them() {
        let other = KEY.replace("11qYAYKx", "22qYAYKx");
        let keys = Keys::parse(&["# who releases\n", &other, "and the other\n", KEY].concat()).expect("keys");
        assert_eq!(keys.count(), 2);
        assert!(keys.have_signed(b"", &SIGNATURE));
        assert!(!Keys::parse(&other).expect("a key").have_signed(b"", &SIGNATURE));
    }

    #[test]
    fn what_is_no_file_of_such_keys_is_refused() {
        let rsa = KEY.replace("MCowBQYDK2Vw", "MCowBQYDK2Vu");
        let short = KEY.replace("URo=", "");
        let garbage = KEY.replace("MCow", "M*ow");
        let open = KEY.replace(END, "");
        let late = KEY.replace("MCow", "MC=w");
        for text in ["", "AAAA", &rsa, &short, &garbage, &open, &late, &KEY.repeat(KEYS_MAX + 1)] {
            assert!(Keys::parse(text).is_err(), "{text}");
        }
        assert_eq!(Keys::parse(&KEY.repeat(KEYS_MAX)).map(|keys| keys.count()), Ok(KEYS_MAX as u64));
    }
}

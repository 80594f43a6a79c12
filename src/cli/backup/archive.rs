//! As much of the tar format as a backup needs: regular files with their names in the ustar header (POSIX.1-2017, pax). Every tar reads what this
//! writes; this reads nothing else.
//!
//! Invariants of reading: no name leads out of where it is unpacked; nothing is a link, a device or a directory; every size is
//! what it says; memory is bounded.
//!
//! Absent: long names (GNU, pax), sparse files, owners.

use hmac_sha256::Hash;
use std::io::{self, ErrorKind, Read, Write};

/// Bytes of a block.
const BLOCK: usize = 512;

/// Most bytes of one file: what twelve octal digits can say.
pub const FILE_BYTES_MAX: u64 = (1 << 33) - 1;

/// Most files of an archive: a list of them is held in memory, about a hundred bytes each.
pub const FILES_MAX: u64 = 200_000;

/// Deepest place of a file below the top: a workspace has five.
pub const DEPTH_MAX: usize = 32;

/// Most bytes behind the end that are read: tar fills its last record with zeros.
const REST_MAX: u64 = 1 << 20;

/// Writes an archive, and a list of what is in it.
pub struct Writer<'w> {
    out: &'w mut dyn Write,
    /// `<SHA-256>  <name>`, a line each, as sha256sum(1) takes it.
    pub list: String,
    /// How many files there are.
    pub files: u64,
    /// How many bytes were written.
    pub bytes: u64,
}

impl<'w> Writer<'w> {
    /// An archive that begins in `out`.
    pub fn new(out: &'w mut dyn Write) -> Self {
        Self { out, list: String::new(), files: 0, bytes: 0 }
    }

    /// Adds a file: its name, permissions, seconds since the epoch, and the first `size` bytes of `from`.
    ///
    /// # Errors
    /// `UnexpectedEof` if `from` is shorter, `InvalidInput` if the name or the size does not fit; as write(2).
    pub fn file(&mut self, name: &str, mode: u32, seconds: u64, size: u64, from: &mut dyn Read) -> io::Result<()> {
        if self.files >= FILES_MAX || size > FILE_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidInput, "too many files, or a file of 8 GiB or more"));
        }
        let head = header(name, mode, seconds, size).ok_or_else(|| {
            io::Error::new(
                ErrorKind::InvalidInput,
                "the name is too long for tar: at most 100 bytes behind a slash, 155 before",
            )
        })?;
        self.out.write_all(&head)?;
        let (mut left, mut hash, mut buffer) = (size, Hash::new(), vec![0; 64 * 1024]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let room = buffer.get_mut(..most).unwrap_or_default();
            match from.read(room) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it became shorter while it was copied")),
                Ok(n) => {
                    let piece = room.get(..n).unwrap_or_default();
                    hash.update(piece);
                    self.out.write_all(piece)?;
                    left -= n as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let fill = padding(size);
        self.out.write_all([0; BLOCK].get(..fill).unwrap_or_default())?;
        self.bytes += BLOCK as u64 + size + fill as u64;
        self.files += 1;
        list(&mut self.list, &hash.finalize(), name);
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// As write(2).
    pub fn end(mut self) -> io::Result<u64> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        self.bytes += 2 * BLOCK as u64;
        Ok(self.bytes)
    }
}

/// Adds a line to a list of files.
fn list(list: &mut String, hash: &[u8; 32], name: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS.get(usize::from(n)).copied().unwrap_or_default());
    list.extend(hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    list.extend(["  ", name, "\n"]);
}

/// Bytes that fill the last block of a file.
fn padding(size: u64) -> usize {
    (BLOCK as u64 - 1 - (size + BLOCK as u64 - 1) % BLOCK as u64) as usize
}

fn header(name: &str, mode: u32, seconds: u64, size: u64) -> Option<[u8; BLOCK]> {
    let (prefix, name) = if name.len() <= 100 {
        ("", name)
    } else {
        // The longest prefix that fits leaves the shortest name.
        let at = name.get(..156.min(name.len())).and_then(|start| start.rfind('/'))?;
        (name.get(..at)?, name.get(at + 1..).filter(|name| name.len() <= 100)?)
    };
    let mut head = [0; BLOCK];
    put(&mut head, 0, name.as_bytes());
    octal(&mut head, 100, 7, u64::from(mode & 0o777));
    octal(&mut head, 108, 7, 0);
    octal(&mut head, 116, 7, 0);
    octal(&mut head, 124, 11, size);
    octal(&mut head, 136, 11, seconds.min(FILE_BYTES_MAX));
    put(&mut head, 156, b"0");
    put(&mut head, 257, b"ustar\x0000");
    put(&mut head, 345, prefix.as_bytes());
    let sum = checksum(&head);
    octal(&mut head, 148, 6, sum);
    put(&mut head, 155, b" ");
    Some(head)
}

fn put(head: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    for (to, from) in head.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// Octal digits with leading zeros; the NUL behind them is there.
fn octal(head: &mut [u8; BLOCK], at: usize, digits: usize, value: u64) {
    for i in 0..digits {
        let shift = 3 * (digits - 1 - i);
        put(head, at + i, &[b'0' + (value >> shift & 7) as u8]);
    }
}

/// The sum of all bytes, those of the sum itself as spaces.
fn checksum(head: &[u8; BLOCK]) -> u64 {
    head.iter().enumerate().map(|(i, byte)| if (148..156).contains(&i) { 32 } else { u64::from(*byte) }).sum()
}

/// A file of an archive that is being read.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: relative, clean, UTF-8.
    pub name: String,
    /// Its permissions.
    pub mode: u32,
    /// Its bytes.
    pub size: u64,
}

/// Reads an archive from start to end.
pub struct Reader<'r> {
    from: &'r mut dyn Read,
    /// The list as [`Writer`] makes it, of what was read so far.
    pub list: String,
    files: u64,
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

impl<'r> Reader<'r> {
    /// An archive that begins in `from`.
    pub fn new(from: &'r mut dyn Read) -> Self {
        Self { from, list: String::new(), files: 0 }
    }

    /// The next file, or `None` at a whole end. [`Reader::contents`] has to follow.
    ///
    /// # Errors
    /// `InvalidData` for whatever a backup does not have; `UnexpectedEof`.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let head = self.block()?;
        if head == [0; BLOCK] {
            return self.rest().map(|()| None);
        }
        self.files += 1;
        let at = |from: usize, length: usize| head.get(from..from + length).unwrap_or_default();
        if number(at(148, 8)) != Some(checksum(&head)) || at(257, 6) != b"ustar\0" {
            return Err(bad(format!("file {}: expected the header of a file, found something else", self.files)));
        }
        if self.files > FILES_MAX {
            return Err(bad(format!("expected at most {FILES_MAX} files, found more")));
        }
        let (prefix, name) = (text(at(345, 155))?, text(at(0, 100))?);
        let name = if prefix.is_empty() { name } else { [prefix.as_str(), "/", &name].concat() };
        if let Some(what) = forbidden(&name) {
            return Err(bad(format!("{name:?}: {what} in its name")));
        }
        if !matches!(at(156, 1), b"0" | b"\0") {
            let kind = String::from_utf8_lossy(at(156, 1)).into_owned();
            return Err(bad(format!(
                "{name:?}: expected a regular file, found type {kind:?}: a link, a device or the like"
            )));
        }
        let size = number(at(124, 12)).filter(|size| *size <= FILE_BYTES_MAX);
        let size = size.ok_or_else(|| bad(format!("{name:?}: expected a size below 8 GiB in octal")))?;
        let mode = number(at(100, 8)).ok_or_else(|| bad(format!("{name:?}: expected permissions in octal")))?;
        Ok(Some(Entry { name, mode: (mode & 0o777) as u32, size }))
    }

    /// Writes what is in `entry`, the file that [`Reader::next`] gave last, to `out`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the archive is cut; as write(2).
    pub fn contents(&mut self, entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
        let (mut left, mut hash, mut buffer) = (entry.size, Hash::new(), vec![0; 64 * 1024]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let room = buffer.get_mut(..most).unwrap_or_default();
            self.from.read_exact(room)?;
            hash.update(&*room);
            out.write_all(room)?;
            left -= most as u64;
        }
        let mut fill = [0; BLOCK];
        self.from.read_exact(fill.get_mut(..padding(entry.size)).unwrap_or_default())?;
        list(&mut self.list, &hash.finalize(), &entry.name);
        Ok(())
    }

    fn block(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.from.read_exact(&mut block)?;
        Ok(block)
    }

    /// Behind the first empty block there is another one, and then nothing but zeros.
    fn rest(&mut self) -> io::Result<()> {
        let mut clean = self.block()? == [0; BLOCK];
        let (mut buffer, mut read) = ([0; BLOCK], 0);
        while clean && read <= REST_MAX {
            match self.from.read(&mut buffer)? {
                0 => return Ok(()),
                n => (clean, read) = (buffer.get(..n).unwrap_or_default().iter().all(|b| *b == 0), read + n as u64),
            }
        }
        Err(bad("expected the end of the archive, found more"))
    }
}

/// Text up to the first NUL.
fn text(bytes: &[u8]) -> io::Result<String> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default());
    text.map(str::to_owned).map_err(|_| bad("expected names in UTF-8"))
}

/// Octal digits, with spaces before and a NUL or a space behind.
fn number(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?.trim_matches([' ', '\0']);
    let good = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    if good { u64::from_str_radix(text, 8).ok() } else { None }
}

/// What keeps a name from being unpacked.
pub fn forbidden(name: &str) -> Option<&'static str> {
    if name.starts_with('/') {
        return Some("a slash at the start");
    }
    if name.chars().any(|c| c.is_control() || c == '\\') {
        return Some("a control character or a backslash");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("an empty part, . or ..");
    }
    (name.split('/').count() > DEPTH_MAX).then_some("too many folders")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        for (name, bytes) in files {
            writer.file(name, 0o600, 1_795_341_600, bytes.len() as u64, &mut &**bytes).expect("it fits");
        }
        writer.end().expect("it is memory");
        out
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let (mut from, mut found) = (bytes, Vec::new());
        let mut reader = Reader::new(&mut from);
        while let Some(entry) = reader.next()? {
            let mut contents = Vec::new();
            reader.contents(&entry, &mut contents)?;
            found.push((entry.name, contents));
        }
        Ok(found)
    }

    #[test]
    fn what_was_written_is_read() {
        let long = ["a/".repeat(20), "b".repeat(100)].concat();
        let deep = ["c".repeat(60), "/".into(), "d".repeat(60), "/".into(), "e".repeat(99)].concat();
        let big = vec![7; 3 * BLOCK];
        let files: [(&str, &[u8]); 5] =
            [("empty", b""), ("x/one", b"1"), (&long, &big), (&deep, b"deep"), ("ä.md", b"u")];
        let found = read(&archive(&files)).expect("an archive");
        assert_eq!(found.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect::<Vec<_>>(), files);
        let mut out = Vec::new();
        for name in ["f".repeat(101), ["g".repeat(156), "/x".into()].concat(), "h/".repeat(129)] {
            assert!(Writer::new(&mut out).file(&name, 0, 0, 0, &mut &b""[..]).is_err(), "{name}");
        }
        let shrunk = Writer::new(&mut out).file("a", 0, 0, 5, &mut &b"1234"[..]);
        assert_eq!(shrunk.map_err(|e| e.kind()), Err(ErrorKind::UnexpectedEof));
    }

    #[test]
    fn an_archive_that_is_cut_anywhere_is_refused() {
        let whole = archive(&[("a", b"one"), ("b", &[1; 600])]);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} bytes");
        }
        let zeros = [whole.clone(), vec![0; 9000]].concat();
        assert_eq!(read(&zeros).expect("zeros at the end").len(), 2);
        assert!(read(&[whole, b"x".to_vec()].concat()).is_err());
    }

    #[test]
    fn headers_that_are_no_backups_are_refused() {
        let sum = |mut bytes: Vec<u8>| {
            let head: [u8; BLOCK] = bytes[..BLOCK].try_into().expect("a block");
            bytes[148..154].copy_from_slice(format!("{:06o}", checksum(&head)).as_bytes());
            bytes
        };
        let good = archive(&[("a/b", b"one")]);
        assert!(read(&sum(good.clone())).is_ok());
        for (at, put, expected) in [
            (156, &b"1"[..], "regular"),
            (156, b"2", "regular"),
            (156, b"3", "regular"),
            (156, b"5", "regular"),
            (156, b"6", "regular"),
            (156, b"L", "regular"),
            (156, b"x", "regular"),
            (0, b"/a", "slash"),
            (0, b"../b", "..\n".trim()),
            (0, b"a/..", ".."),
            (0, b"a//b", "empty"),
            (0, b"./b", "empty"),
            (0, b"a/", "empty"),
            (0, b"a\nb", "control"),
            (0, b"a\\b", "backslash"),
            (0, b"\xff\xff", "UTF-8"),
            (345, b"..", ".."),
            (124, b"\x80\0\0\0\0\0\0\0\0\0\0\x03", "size"),
            (124, b"-0000000003", "size"),
            (124, b"            ", "size"),
            (257, b"other", "header"),
        ] {
            let mut bytes = good.clone();
            bytes[at..at + put.len()].copy_from_slice(put);
            if at == 0 {
                bytes[put.len()] = 0;
            }
            let error = read(&sum(bytes)).expect_err(expected).to_string();
            assert!(error.contains(expected), "{put:?}: {error}");
        }
        let mut flipped = good.clone();
        flipped[1] ^= 1;
        assert!(read(&flipped).is_err(), "the checksum of a header");
        let mut large = good;
        large[124..135].copy_from_slice(b"77777777777");
        assert_eq!(read(&sum(large)).expect_err("cut").kind(), ErrorKind::UnexpectedEof);
        let deep = ["a/".repeat(DEPTH_MAX), "b".into()].concat();
        assert!(read(&archive(&[(&deep, b"")])).is_err());
    }
}

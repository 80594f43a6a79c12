//! A response whose length nobody knows when it begins: its head, and its body a piece at a time (RFC 9112 section 7.1). To a
//! client of HTTP/1.0 the end of the connection is the end of the body.

use super::io::{Io, Lost};
use super::response::Wire;
use crate::session::Pages;
use duragent_core::time::imf_fixdate;
use duragent_platform::clock;
use std::io::IoSlice;

/// Hex digits of the size of a chunk, CR and LF.
const CHUNK_HEAD_BYTES: usize = 2 * size_of::<usize>() + 2;

/// A body that is being sent.
pub(super) struct Body<'a> {
    io: &'a mut Io,
    chunked: bool,
}

impl<'a> Body<'a> {
    /// Sends the head of a 200, with `fields`: whole lines of text that is ours.
    pub(super) async fn begin(io: &'a mut Io, content_type: &str, fields: &str, wire: Wire) -> Result<Self, Lost> {
        let chunked = wire.minor >= 1;
        let (version, coding) = if chunked { ("1", "Transfer-Encoding: chunked\r\n") } else { ("0", "") };
        let end = if wire.close || !chunked { "Connection: close\r\n\r\n" } else { "\r\n" };
        let date = imf_fixdate(clock::wall_ms());
        let status =
            ["HTTP/1.", version, " 200 OK\r\nServer: duragent\r\nDate: ", &date, "\r\nContent-Type: "].concat();
        let head = [&status, content_type, "\r\n", fields, coding, end].concat();
        io.write(head.as_bytes()).await?;
        Ok(Self { io, chunked })
    }

    /// The connection that it is sent over.
    pub(super) fn io(&mut self) -> &mut Io {
        self.io
    }

    /// Sends `parts` one after the other, from where they are, in one piece and mostly one write.
    pub(super) async fn send(&mut self, parts: &[&str]) -> Result<(), Lost> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        // A chunk of no bytes would be the last.
        if size == 0 {
            return Ok(());
        }
        let mut head = Vec::with_capacity(CHUNK_HEAD_BYTES);
        let mut slices = Vec::with_capacity(parts.len() + 2);
        if self.chunked {
            push_hex(&mut head, size);
            head.extend_from_slice(b"\r\n");
            slices.push(IoSlice::new(&head));
        }
        slices.extend(parts.iter().map(|part| IoSlice::new(part.as_bytes())));
        if self.chunked {
            slices.push(IoSlice::new(b"\r\n"));
        }
        self.io.write_all(&mut slices).await
    }

    /// Says that this was all.
    pub(super) async fn end(self) -> Result<(), Lost> {
        self.io.write(if self.chunked { b"0\r\n\r\n" } else { b"" }).await
    }
}

/// Appends lower-case digits, none in front that say nothing.
fn push_hex(out: &mut Vec<u8>, n: usize) {
    let digits = (usize::BITS - n.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let nibble = (n >> (4 * digit)) & 15;
        out.push(b"0123456789abcdef".get(nibble).copied().unwrap_or(b'0'));
    }
}

/// Sends `first` and the pages after it. A log that cannot be read on ends the connection within the body, so that nobody
/// takes what there is for the whole.
pub(super) async fn pages(
    io: &mut Io,
    content_type: &str,
    first: String,
    mut pages: Pages,
    wire: Wire,
) -> Result<(), Lost> {
    let mut body = Body::begin(io, content_type, "Cache-Control: no-store\r\n", wire).await?;
    if wire.head_only {
        return Ok(());
    }
    let mut page = first;
    loop {
        body.send(&[&page]).await?;
        if pages.is_done() {
            return body.end().await;
        }
        page = pages.next().await.map_err(|_| Lost::Closed)?;
    }
}

#[cfg(test)]
mod tests {
    use super::push_hex;

    #[test]
    fn sizes_are_written_in_hex() {
        for n in [0, 1, 9, 10, 15, 16, 255, 256, 65_535, 65_536, usize::MAX] {
            let mut out = Vec::new();
            push_hex(&mut out, n);
            assert_eq!(String::from_utf8_lossy(&out), format!("{n:x}"));
        }
    }
}

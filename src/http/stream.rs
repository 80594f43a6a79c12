//! A response whose length nobody knows when it begins: its head, and its body a piece at a time (RFC 9112 section 7.1). To a
//! client of HTTP/1.0 the end of the connection is the end of the body.

use super::io::{Io, Lost};
use super::response::Wire;
use crate::session::Pages;
use duragent_core::time::imf_fixdate;
use duragent_platform::clock;
use std::io::IoSlice;

/// Hex digits of the size of a chunk, CR LF and what goes before its data.
const CHUNK_HEAD_BYTES: usize = 256;

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

    /// Sends a piece: `start`, which is short, then `long` from where it is, then `end`.
    pub(super) async fn send(&mut self, start: &[&str], long: &str, end: &str) -> Result<(), Lost> {
        let size = start.iter().map(|part| part.len()).sum::<usize>() + long.len() + end.len();
        if size == 0 {
            return Ok(());
        }
        let mut head = Vec::with_capacity(CHUNK_HEAD_BYTES);
        if self.chunked {
            push_hex(&mut head, size);
            head.extend_from_slice(b"\r\n");
        }
        start.iter().for_each(|part| head.extend_from_slice(part.as_bytes()));
        let after: &[u8] = if self.chunked { b"\r\n" } else { b"" };
        let parts = [&head, long.as_bytes(), end.as_bytes(), after];
        self.io.write_all(&mut parts.map(IoSlice::new)).await
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
        body.send(&[], &page, "").await?;
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

//! In place of TLS, in a build without the feature `tls`: the same names, and no connection. The configuration refuses
//! `https` before anybody gets here.

use std::convert::Infallible;
use std::io::{self, Read, Write};

/// What connections share where there is TLS: nothing.
#[derive(Default)]
pub(super) struct Tls(());

impl Tls {
    /// Trusts nobody.
    ///
    /// # Errors
    /// Always.
    pub(super) fn trusting(_: &[Vec<u8>]) -> Result<Self, io::Error> {
        Err(unsupported())
    }

    /// Begins nothing.
    ///
    /// # Errors
    /// Always.
    pub(super) fn begin(&self, _: &str) -> io::Result<Box<ClientConnection>> {
        Err(unsupported())
    }
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "https is not in this build")
}

/// A session that nobody can have.
pub(super) enum ClientConnection {}

/// What the connection asks of a session.
impl ClientConnection {
    pub(super) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(super) fn wants_write(&self) -> bool {
        match *self {}
    }

    pub(super) fn write_tls(&mut self, _: &mut dyn Write) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn read_tls(&mut self, _: &mut dyn Read) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn process_new_packets(&mut self) -> Result<(), Infallible> {
        match *self {}
    }

    pub(super) fn writer(&mut self) -> io::Sink {
        match *self {}
    }

    pub(super) fn reader(&mut self) -> io::Empty {
        match *self {}
    }
}

/// The error of a session.
pub(super) fn told(error: Infallible) -> io::Error {
    match error {}
}

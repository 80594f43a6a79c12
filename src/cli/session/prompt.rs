//! `duragent session show SESSION --prompt`: what the session's model would be asked now, byte for byte.

use crate::cli::connect::Connection;
use crate::cli::{Failure, text};

/// Prints it, and a line feed after it. A terminal gets control characters escaped.
pub fn show(connection: &Connection, id: &str) -> Result<u8, Failure> {
    let response = connection.request("GET", &["/api/v1/sessions/", id, "/prompt"].concat(), None)?;
    connection.close();
    let body = std::str::from_utf8(&response.body).map_err(|_| Failure::new("the prompt is not UTF-8"))?;
    text::put_json(body)?;
    Ok(0)
}

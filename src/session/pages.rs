//! What of a session is read as a whole, a page at a time: nothing here grows with the length of a log.

use super::api::ApiError;
use super::runtime::Runtime;
use super::views;

/// Bytes after which a page ends; it is longer by at most one line.
const PAGE_BYTES_MAX: usize = 64 * 1024;

/// What is made of the lines of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// They are left as they are.
    Lines,
    /// The conversation in them, `{"messages":[…]}`.
    Messages,
}

/// A log that is being read, from its beginning to where it ended when that began.
pub struct Pages {
    runtime: Runtime,
    session: String,
    form: Form,
    after: u64,
    /// Last seq there is; `None` before the first page.
    through: Option<u64>,
    /// True once there was a message, which the next is divided from.
    divide: bool,
    done: bool,
}

impl Pages {
    pub(super) fn new(runtime: Runtime, session: String, form: Form) -> Self {
        Self { runtime, session, form, after: 0, through: None, divide: false, done: false }
    }

    /// True once the last page was given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The next page of text, the last one and a session without messages included. Empty after the last.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], or if the log cannot be read.
    pub async fn next(&mut self) -> Result<String, ApiError> {
        if self.done {
            return Ok(String::new());
        }
        let (store, session, form) = (self.runtime.shared.store.clone(), self.session.clone(), self.form);
        let (after, through, mut divide) = (self.after, self.through, self.divide);
        let read = move || {
            let mut page = String::new();
            if through.is_none() && form == Form::Messages {
                page.push_str("{\"messages\":[");
            }
            let through = through.map_or_else(|| store.settle(&session), Ok)?;
            let mut last = after;
            store.read(&session, after, through, &mut |seq, line| {
                last = seq;
                if form == Form::Lines {
                    page.push_str(line);
                    page.push('\n');
                } else if let Ok(event) = duragent_core::line::parse(line) {
                    divide |= views::push_message(&mut page, &event, divide);
                }
                page.len() < PAGE_BYTES_MAX
            })?;
            // A page that is not full ends at the end, or at damage, behind which nothing is read.
            let done = page.len() < PAGE_BYTES_MAX || last >= through;
            if done && form == Form::Messages {
                page.push_str("]}");
            }
            Ok((page, last, through, divide, done))
        };
        let (page, last, through, divide, done) = self.runtime.read(read).await?;
        (self.after, self.through, self.divide, self.done) = (last, Some(through), divide, done);
        Ok(page)
    }

    /// All that is left.
    ///
    /// # Errors
    /// As [`Pages::next`].
    #[cfg(test)]
    pub(super) async fn rest(mut self) -> Result<String, ApiError> {
        let mut all = String::new();
        while !self.done {
            all.push_str(&self.next().await?);
        }
        Ok(all)
    }
}

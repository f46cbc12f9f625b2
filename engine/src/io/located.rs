//! An I/O error that says of which file it is.
//!
//! The operating system's answer names no file. Where one call works on several, each answer is [`located`], and whoever
//! reports it takes the two apart again ([`split`]).
//!
//! Promises: the kind of the error stays, so that a full disk is still found full.

use std::error::Error;
use std::fmt;
use std::io;

/// An answer of the operating system, and the path that it is about.
#[derive(Debug)]
struct Located {
    path: String,
    answer: io::Error,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl Error for Located {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.answer)
    }
}

/// Adds the path to an answer that has none yet.
pub fn located(path: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |answer| {
        if answer.get_ref().is_some_and(|inner| inner.is::<Located>()) {
            return answer;
        }
        io::Error::new(answer.kind(), Located { path: path.to_owned(), answer })
    }
}

/// The path and the answer; `path` for an answer that has none.
pub fn split(error: io::Error, path: &str) -> (String, io::Error) {
    match error.downcast::<Located>() {
        Ok(located) => (located.path, located.answer),
        Err(answer) => (path.to_owned(), answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The innermost path stays, and so does the answer with its number.
    #[test]
    fn an_error_is_located_once() {
        let answer = || io::Error::from_raw_os_error(libc::ENOSPC);
        let error = located("outer")(located("inner")(answer()));
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let (path, error) = split(error, "default");
        assert_eq!((path.as_str(), error.raw_os_error()), ("inner", Some(libc::ENOSPC)));
        let (path, error) = split(answer(), "default");
        assert_eq!((path.as_str(), error.raw_os_error()), ("default", Some(libc::ENOSPC)));
    }
}

//! Names of channels.
//!
//! A name is data, never a path: on disk a channel is known by its id. The rules keep names readable and unambiguous
//! wherever they are shown.

use std::fmt;
use std::sync::Arc;

/// Longest name, bytes.
pub const CHANNEL_NAME_SIZE_MAX: usize = 255;

/// How many characters of a name that is too long are shown.
const BEGINNING_SHOWN: usize = 40;

/// Name of a channel: 1 to 255 bytes of UTF-8, parts between `/`, none of them empty, `.` or `..`, no control
/// characters. A cheap clone.
///
/// ```
/// use redex::ChannelName;
/// assert!(ChannelName::new("sensors/lidar/front").is_ok());
/// assert!(ChannelName::new("sensors//front").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(Arc<str>);

/// Why a text is no channel name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelNameError {
    /// A name has at least one byte.
    #[error("a channel name cannot be empty; give it 1 to {CHANNEL_NAME_SIZE_MAX} bytes")]
    Empty,
    /// Shorten the name.
    #[error("channel name {begins:?}... has {size} bytes, the limit is {CHANNEL_NAME_SIZE_MAX}; shorten it")]
    TooLong {
        /// How the text begins.
        begins: String,
        /// Bytes of the text.
        size: usize,
    },
    /// Parts between `/` are not empty; a name neither begins nor ends with `/`.
    #[error("channel name {name:?} has an empty part at byte {at}; put something between the slashes, or drop one")]
    EmptyPart {
        /// The text.
        name: String,
        /// Where the part would begin, bytes.
        at: usize,
    },
    /// `.` and `..` mean something else everywhere else.
    #[error("channel name {name:?} has the part {part:?}, which is not allowed; use another word")]
    DotPart {
        /// The text.
        name: String,
        /// The part.
        part: String,
    },
    /// Control characters cannot be seen.
    #[error("channel name {name:?} has the control character {character:?} at byte {at}; leave it out")]
    ControlCharacter {
        /// The text.
        name: String,
        /// The character.
        character: char,
        /// Where it stands, bytes.
        at: usize,
    },
}

impl ChannelName {
    /// Checks a text.
    pub fn new(name: &str) -> Result<Self, ChannelNameError> {
        if name.is_empty() {
            return Err(ChannelNameError::Empty);
        }
        if name.len() > CHANNEL_NAME_SIZE_MAX {
            let begins = name.chars().take(BEGINNING_SHOWN).collect();
            return Err(ChannelNameError::TooLong { begins, size: name.len() });
        }
        // Most names have plain characters only: a look at the bytes does, and a million names are checked when a store is opened.
        let plain = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let control = if plain { None } else { name.char_indices().find(|(_, c)| c.is_control()) };
        if let Some((at, character)) = control {
            return Err(ChannelNameError::ControlCharacter { name: name.to_owned(), character, at });
        }
        let mut at = 0;
        for part in name.split('/') {
            match part {
                "" => return Err(ChannelNameError::EmptyPart { name: name.to_owned(), at }),
                "." | ".." => return Err(ChannelNameError::DotPart { name: name.to_owned(), part: part.to_owned() }),
                _ => at += part.len() + 1,
            }
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for ChannelName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What [`crate::Redex::open_file`] takes as a name: text, or a name checked before.
pub trait IntoChannelName {
    /// Checks it.
    fn into_channel_name(self) -> Result<ChannelName, ChannelNameError>;
}

impl IntoChannelName for ChannelName {
    fn into_channel_name(self) -> Result<ChannelName, ChannelNameError> {
        Ok(self)
    }
}

impl IntoChannelName for &ChannelName {
    fn into_channel_name(self) -> Result<ChannelName, ChannelNameError> {
        Ok(self.clone())
    }
}

impl IntoChannelName for &str {
    fn into_channel_name(self) -> Result<ChannelName, ChannelNameError> {
        ChannelName::new(self)
    }
}

impl IntoChannelName for String {
    fn into_channel_name(self) -> Result<ChannelName, ChannelNameError> {
        ChannelName::new(&self)
    }
}

impl IntoChannelName for &String {
    fn into_channel_name(self) -> Result<ChannelName, ChannelNameError> {
        ChannelName::new(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_rules_allow() {
        for name in ["a", "sensors/lidar/front", "a b", "ä/ö", "...", "a/.b", "A", "a\\b", "*", &"x".repeat(255)] {
            assert_eq!(ChannelName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_everything_else_and_says_why() {
        for name in
            ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.", "a\0b", "a\nb", "a\u{7f}", &"x".repeat(256)]
        {
            let error = ChannelName::new(name).unwrap_err();
            assert!(!error.to_string().is_empty());
        }
        assert_eq!(ChannelName::new("a//b").unwrap_err(), ChannelNameError::EmptyPart { name: "a//b".into(), at: 2 });
    }

    #[test]
    fn names_that_differ_in_case_or_form_are_different() {
        assert_ne!(ChannelName::new("a").unwrap(), ChannelName::new("A").unwrap());
        assert_ne!(ChannelName::new("\u{e9}").unwrap(), ChannelName::new("e\u{301}").unwrap());
    }
}

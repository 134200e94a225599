//! How components are named: `NAME:TAG`, `NAME@sha256:DIGEST`, or `NAME` alone, which means the tag `latest`.

use std::fmt;

use millstream_model::ErrorKind;

use crate::failure::Failure;

/// A component as a job file or a person names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The name under which it was pushed.
    pub name: String,
    /// Which of those.
    pub which: Which,
}

/// Which component of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The one that a tag points to.
    Tag(String),
    /// The one with these bytes: SHA-256 in hexadecimal.
    Digest(String),
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if let Some((name, digest)) = text.split_once("@sha256:") {
            check_name(name)?;
            let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            if !is_digest {
                return Err(Failure::new(ErrorKind::Invalid, format!("`{text}` does not end in a SHA-256"))
                    .fix("write 64 lower-case hexadecimal digits behind `@sha256:`"));
            }
            return Ok(Self { name: name.to_owned(), which: Which::Digest(digest.to_owned()) });
        }
        let (name, tag) = text.split_once(':').unwrap_or((text, "latest"));
        check_name(name)?;
        check_tag(tag)?;
        Ok(Self { name: name.to_owned(), which: Which::Tag(tag.to_owned()) })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::Tag(tag) => write!(f, "{}:{tag}", self.name),
            Which::Digest(digest) => write!(f, "{}@sha256:{digest}", self.name),
        }
    }
}

/// A name is one part of a path that nobody has to quote.
///
/// # Errors
/// It is none.
pub fn check_name(name: &str) -> Result<(), Failure> {
    check(name, "component")
}

/// A tag is written as a name is.
///
/// # Errors
/// It is none.
pub fn check_tag(tag: &str) -> Result<(), Failure> {
    check(tag, "tag")
}

/// A name of a component, tag, job or secret.
///
/// # Errors
/// It is none.
pub fn check(name: &str, of: &str) -> Result<(), Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && name.len() <= 100 && name.bytes().all(is_plain) {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    Err(Failure::new(ErrorKind::Invalid, format!("`{}` is no name for a {of}", shown.escape_debug()))
        .fix("use letters, digits, `-`, `_` and `.`, at most 100 of them, beginning with a letter or digit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = "0123456789abcdef".repeat(4);
        for (text, shown) in [("a", "a:latest"), ("a:v1.2", "a:v1.2"), (&format!("a@sha256:{digest}"), &format!("a@sha256:{digest}"))] {
            assert_eq!(Reference::parse(text).expect("good").to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(101);
        for bad in ["", ":", "a:", ":v1", "a:b:c", "../a", "a/b", "a\0b", "a\u{202e}b", "-a", "a@sha256:12", "a@sha256:", "a b", &long] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}

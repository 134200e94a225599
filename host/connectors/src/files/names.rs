//! The names that a sink gives its files, and how they are read back.
//!
//! `part-00003-00012.csv.gz` is part 12 of subtask 3. While it is hidden it is called `.part-00003-00012.csv.gz.tmp`, if it dies with its run, or
//! `.part-00003-00012.csv.gz.<tag>.staged`, if a checkpoint may promise it; the tag (16 hexadecimal digits) tells the sinks apart.

/// How a part is hidden until it is published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hiding {
    /// It dies with its run.
    Unfinished,
    /// A checkpoint may promise it; with the tag of its sink.
    Staged(String),
}

impl Hiding {
    /// The hidden name of the part with this name.
    pub fn of(&self, name: &str) -> String {
        match self {
            Self::Unfinished => format!(".{name}.tmp"),
            Self::Staged(tag) => format!(".{name}.{tag}.staged"),
        }
    }
}

/// A file name that a sink gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartName {
    /// Its visible name.
    pub visible: String,
    /// Number of the part, from 0 in each subtask.
    pub number: u64,
    /// None: it is published.
    pub hiding: Option<Hiding>,
}

impl PartName {
    /// The visible name of a part.
    pub fn visible(subtask: u32, number: u64, suffix: &str) -> String {
        format!("part-{subtask:05}-{number:05}.{suffix}")
    }

    /// Reads a name; none: no sink gave it.
    pub fn parse(file_name: &str) -> Option<Self> {
        let (visible, hiding) = match file_name.strip_prefix('.') {
            None => (file_name, None),
            Some(rest) => match rest.strip_suffix(".tmp") {
                Some(visible) => (visible, Some(Hiding::Unfinished)),
                None => {
                    let (visible, tag) = rest.strip_suffix(".staged")?.rsplit_once('.')?;
                    (visible, is_tag(tag).then(|| Hiding::Staged(tag.to_owned())))
                }
            },
        };
        let (numbers, suffix) = visible.strip_prefix("part-")?.split_once('.')?;
        let (subtask, number) = numbers.split_once('-')?;
        let is_ours = is_number(subtask) && is_number(number) && is_suffix(suffix) && file_name.starts_with('.') == hiding.is_some();
        is_ours.then_some(())?;
        Some(Self { visible: visible.to_owned(), number: number.parse().ok()?, hiding })
    }
}

/// Whether a text is the tag of a sink.
pub(super) fn is_tag(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_number(text: &str) -> bool {
    text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_suffix(suffix: &str) -> bool {
    let format = suffix.strip_suffix(".gz").or_else(|| suffix.strip_suffix(".zst")).unwrap_or(suffix);
    matches!(format, "csv" | "ndjson" | "txt" | "pb" | "bin") || matches!(suffix, "parquet" | "avro")
}

/// A text as part of a file name: everything but letters, digits and `-_.` as `%XX`, so that no value can leave its directory.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_whatever_hides_it() {
        let visible = PartName::visible(3, 123_456, "csv.gz");
        assert_eq!(visible, "part-00003-123456.csv.gz");
        for hiding in [None, Some(Hiding::Unfinished), Some(Hiding::Staged("00ff00ff00ff00ff".into()))] {
            let name = hiding.as_ref().map_or(visible.clone(), |hiding| hiding.of(&visible));
            assert_eq!(PartName::parse(&name), Some(PartName { visible: visible.clone(), number: 123_456, hiding }));
        }
    }

    #[test]
    fn files_of_somebody_else_are_not_taken_for_parts() {
        let others = [
            "part-00000-00000.csv.bak",
            "part-00000-00000.csvx",
            "part-00000-00000.parquet.gz",
            "part-00000-00000.avro.zst",
            "part-0-1.csv",
            "part-00000.csv",
            ".part-00000-00000.csv",
            ".part-00000-00000.csv.staged",
            ".part-00000-00000.csv.0123.staged",
            "part-00000-00000.csv.tmp",
            "README.md",
            "",
        ];
        for name in others {
            assert_eq!(PartName::parse(name), None, "{name}");
        }
    }
}

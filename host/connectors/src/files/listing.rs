//! The files that a `path` means now.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Component, Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};

/// One entry of `path`.
#[derive(Clone, Debug)]
pub struct Pattern {
    written: PathBuf,
    base: PathBuf,
    glob: Option<GlobMatcher>,
}

/// A file that a pattern means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// As the job file would write it: the name of the split.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

impl Pattern {
    /// The pattern `text`, relative to `base`.
    ///
    /// # Errors
    /// It is no glob; a clause.
    pub fn new(text: &str, base: &Path) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the path is empty".into());
        }
        let text = text.strip_prefix("./").filter(|rest| !rest.is_empty()).unwrap_or(text);
        let written = PathBuf::from(text);
        let is_glob = text.contains(['*', '?', '[', '{']) && !base.join(text).exists();
        let glob = if is_glob {
            let glob =
                GlobBuilder::new(text).literal_separator(true).build().map_err(|error| format!("`{text}` is no glob: {}", error.kind()))?;
            Some(glob.compile_matcher())
        } else {
            None
        };
        Ok(Self { written, base: base.to_owned(), glob })
    }

    /// Whether more files may come to belong to it.
    pub fn may_grow(&self) -> bool {
        self.glob.is_some() || self.base.join(&self.written).is_dir()
    }

    /// The files that exist now, in the order of their names.
    ///
    /// # Errors
    /// A directory cannot be listed, or the file does not exist.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        let mut found = BTreeSet::new();
        match &self.glob {
            Some(glob) => self.walk(&fixed_part(&self.written), glob, &mut found)?,
            None => self.list_written(&mut found)?,
        }
        Ok(found.into_iter().collect())
    }

    fn list_written(&self, found: &mut BTreeSet<Listed>) -> io::Result<()> {
        if !fs::metadata(self.base.join(&self.written))?.is_dir() {
            found.insert(self.listed(self.written.clone()));
            return Ok(());
        }
        for (relative, is_directory) in self.entries(&self.written)? {
            if !is_directory {
                found.insert(self.listed(relative));
            }
        }
        Ok(())
    }

    fn walk(&self, directory: &Path, glob: &GlobMatcher, found: &mut BTreeSet<Listed>) -> io::Result<()> {
        for (relative, is_directory) in self.entries(directory)? {
            if is_directory && relative.components().count() < self.depth_max() {
                self.walk(&relative, glob, found)?;
            } else if !is_directory && glob.is_match(&relative) {
                found.insert(self.listed(relative));
            }
        }
        Ok(())
    }

    /// Directories below this many components cannot hold a match.
    fn depth_max(&self) -> usize {
        if self.written.components().any(|part| part.as_os_str() == "**") { 64 } else { self.written.components().count() }
    }

    /// The entries of a directory that are not hidden, each with whether it is a directory.
    fn entries(&self, directory: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
        let mut entries = Vec::new();
        let absolute = self.base.join(directory);
        let absolute = if absolute.as_os_str().is_empty() { PathBuf::from(".") } else { absolute };
        for entry in fs::read_dir(&absolute)? {
            let entry = entry?;
            let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
            // A file that vanished since the listing, or a link to nothing, is not there.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if !hidden && (metadata.is_dir() || metadata.is_file()) {
                entries.push((directory.join(entry.file_name()), metadata.is_dir()));
            }
        }
        Ok(entries)
    }

    fn listed(&self, relative: PathBuf) -> Listed {
        Listed { name: relative.to_string_lossy().into_owned(), path: self.base.join(relative) }
    }
}

/// The directories in front of the first wildcard.
fn fixed_part(pattern: &Path) -> PathBuf {
    let is_fixed = |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
    pattern.components().take_while(is_fixed).collect()
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.written.display().fmt(f)
    }
}

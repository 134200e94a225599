//! The directory that a sink writes to: which of its files are whose, and how a part becomes visible exactly once.
//!
//! A part is *open* (hidden, being written), *staged* (hidden, complete and synced), or *published* (visible under its final name, for good). A
//! checkpoint names what is staged at its barrier; once it is committed, staged parts are published by renaming them, which can be repeated
//! whenever it is not known whether it was done: a part whose hidden file is there is published by the rename, one whose hidden file is gone
//! and whose final name has the size of the part was published before. One of which neither is left was published and then taken away by
//! whoever reads the output (or the output stayed behind when the job moved); that is said in the log.
//!
//! What a run finds is checked before anything is changed, and it removes only what is its own: hidden parts that end with their run, and
//! those with its own tag that the checkpoint does not name. Visible files are removed only with `overwrite: true`, and then directly before
//! the first part of this run appears in their place, so a run that fails before destroys nothing.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use millstream_engine::operator::OperatorError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    names::{Hiding, PartName, is_tag},
    sum,
};

/// What a checkpoint remembers of one writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Remembered {
    /// Stands in the hidden names of its parts.
    pub tag: String,
    /// Number of its next part. A restored writer starts at the largest of all writers, so that no name is given twice at any parallelism.
    pub next: u64,
    /// Its parts that are complete and were not yet published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<Staged>,
    /// The run has not published anything yet, and when it does it replaces the visible parts with this number or a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces_from: Option<u64>,
}

/// A part that is complete and synced, and still hidden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Staged {
    /// Its final name, below the sink's directory, such as `origin=JFK/part-00000-00001.csv`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// XXH3-64 of its content, 16 hexadecimal digits; none: a version staged it that noted only the size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xxh3: Option<String>,
}

impl Remembered {
    /// Reads what all writers returned at a barrier. It comes from a file that may have been written by another version or job.
    ///
    /// # Errors
    /// It is not what a files sink remembers.
    pub fn read(values: &[Value]) -> Result<Vec<Self>, OperatorError> {
        let foreign =
            || OperatorError::user("the checkpoint does not hold what a files sink remembers: was the connector of this sink changed?");
        let read = |value: &Value| serde_json::from_value(value.clone()).map_err(|error| foreign().because(error));
        let all = values.iter().filter(|value| !value.is_null()).map(read).collect::<Result<Vec<Self>, _>>()?;
        let is_sound = |remembered: &Self| is_tag(&remembered.tag) && remembered.staged.iter().all(|part| is_path(&part.path));
        if all.iter().all(is_sound) { Ok(all) } else { Err(foreign()) }
    }

    /// Number of the first part of writers that go on from here.
    pub fn next_of(all: &[Self]) -> u64 {
        all.iter().map(|remembered| remembered.next).max().unwrap_or(0)
    }
}

/// Whether a path is one that this sink gives: directories named by columns, and the visible name of a part.
fn is_path(path: &str) -> bool {
    let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
    let are_columns = directories.is_empty() || directories.split('/').all(|directory| directory.contains('='));
    are_columns && PartName::parse(name).is_some_and(|name| name.hiding.is_none())
}

/// The directory of one sink; all its writers share it.
#[derive(Debug)]
pub(super) struct Target {
    directory: PathBuf,
    overwrite: bool,
    tag: String,
    /// What the first part of this run replaces; none: nothing, or it was replaced.
    replaced: Mutex<Option<Replaced>>,
}

#[derive(Debug)]
struct Replaced {
    /// Parts with this number or a later one.
    from: u64,
    files: Vec<PathBuf>,
}

/// A part in the directory.
struct Found {
    /// The visible name, below the sink's directory.
    path: String,
    file: PathBuf,
    number: u64,
    hiding: Option<Hiding>,
}

impl Found {
    fn is_visible(&self) -> bool {
        self.hiding.is_none()
    }

    /// Staged by a sink with another tag, which may want it.
    fn is_foreign(&self, tags: &BTreeSet<&str>) -> bool {
        matches!(&self.hiding, Some(Hiding::Staged(tag)) if !tags.contains(tag.as_str()))
    }
}

/// Where a part is that was complete.
enum Whereabouts {
    Hidden,
    Published,
    Gone,
}

impl Target {
    /// The directory of a sink with this tag.
    pub fn new(directory: PathBuf, overwrite: bool, tag: String) -> Self {
        Self { directory, overwrite, tag, replaced: Mutex::new(None) }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How parts are hidden that a checkpoint may promise.
    pub fn staging(&self) -> Hiding {
        Hiding::Staged(self.tag.clone())
    }

    /// What a writer with these staged parts is to be remembered by.
    pub fn remember(&self, next: u64, staged: Vec<Staged>) -> Remembered {
        Remembered { tag: self.tag.clone(), next, staged, replaces_from: self.replaced().as_ref().map(|replaced| replaced.from) }
    }

    /// A run starts without a checkpoint.
    ///
    /// # Errors
    /// The directory cannot be made or listed, or holds output of another run and is not to be overwritten.
    pub fn start(&self) -> Result<(), OperatorError> {
        create_directory(&self.directory).map_err(|error| cannot("make", &self.directory, error))?;
        let tags = BTreeSet::from([self.tag.as_str()]);
        let (others, leftovers): (Vec<Found>, Vec<Found>) =
            self.list()?.into_iter().partition(|found| found.is_visible() || found.is_foreign(&tags));
        if !self.overwrite
            && let Some(other) = others.first()
        {
            return Err(output_of_another(&other.file));
        }
        leftovers.iter().try_for_each(|leftover| remove(&leftover.file))?;
        *self.replaced() = replaced(0, others);
        Ok(())
    }

    /// A run goes on from a checkpoint that holds this: publishes what it names, removes what was staged after it.
    ///
    /// # Errors
    /// A staged part is damaged, another run has taken its name, or the directory cannot be changed. Parts are removed only after all those
    /// that the checkpoint names were found.
    pub fn resume(&self, remembered: &[Remembered]) -> Result<(), OperatorError> {
        create_directory(&self.directory).map_err(|error| cannot("make", &self.directory, error))?;
        let (mut waiting, mut done) = (Vec::new(), BTreeSet::new());
        for writer in remembered {
            let hiding = Hiding::Staged(writer.tag.clone());
            for part in &writer.staged {
                match self.whereabouts(&hiding, part)? {
                    Whereabouts::Hidden => {
                        self.check_content(&hiding, part)?;
                        waiting.push((hiding.clone(), part));
                    }
                    Whereabouts::Published => drop(done.insert(part.path.as_str())),
                    Whereabouts::Gone => {
                        tracing::warn!(part = %self.directory.join(&part.path).display(), "a published part was taken away since");
                    }
                }
            }
        }
        let mut tags: BTreeSet<&str> = remembered.iter().map(|writer| writer.tag.as_str()).collect();
        tags.insert(&self.tag);
        // One writer that had seen the replacement is enough: it was complete before the first part of this run appeared.
        let replaces_from = remembered.iter().map(|writer| writer.replaces_from).min().flatten();
        let from = replaces_from.unwrap_or_else(|| Remembered::next_of(remembered));
        let (visible, hidden): (Vec<Found>, Vec<Found>) = self.list()?.into_iter().partition(Found::is_visible);
        let later: Vec<Found> = visible.into_iter().filter(|found| found.number >= from && !done.contains(found.path.as_str())).collect();
        if !self.overwrite
            && replaces_from.is_none()
            && let Some(part) = later.first()
        {
            return Err(written_later(&part.file));
        }
        *self.replaced() = replaced(from, later);
        self.rename(&waiting)?;
        let own = hidden.iter().filter(|found| matches!(&found.hiding, Some(Hiding::Staged(tag)) if tags.contains(tag.as_str())));
        // Those that were waiting are not hidden any more.
        own.filter(|found| !waiting.iter().any(|(_, part)| part.path == found.path)).try_for_each(|orphan| remove(&orphan.file))
    }

    /// Publishes complete parts that were hidden like this. Repeating it changes nothing.
    ///
    /// # Errors
    /// Another run has taken a name, a part is gone or damaged, or the directory cannot be changed.
    pub fn publish(&self, hiding: &Hiding, parts: &[Staged]) -> Result<(), OperatorError> {
        let mut waiting = Vec::new();
        for part in parts {
            match self.whereabouts(hiding, part)? {
                Whereabouts::Hidden => waiting.push((hiding.clone(), part)),
                Whereabouts::Published => {}
                Whereabouts::Gone => {
                    let file = self.hidden(hiding, &part.path);
                    return Err(OperatorError::outside(format!("{} is gone: somebody removed it before it was published", file.display())));
                }
            }
        }
        self.rename(&waiting)
    }

    /// Removes what this run replaces, if that did not happen yet.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn replace(&self) -> Result<(), OperatorError> {
        let mut replaced = self.replaced();
        let Some(old) = replaced.as_ref() else { return Ok(()) };
        old.files.iter().try_for_each(|file| remove(file))?;
        sync_directories(old.files.iter())?;
        *replaced = None;
        Ok(())
    }

    fn rename(&self, parts: &[(Hiding, &Staged)]) -> Result<(), OperatorError> {
        if parts.is_empty() {
            return Ok(());
        }
        self.replace()?;
        let visible: Vec<PathBuf> = parts.iter().map(|(_, part)| self.directory.join(&part.path)).collect();
        for ((hiding, part), visible) in parts.iter().zip(&visible) {
            if fs::symlink_metadata(visible).is_ok() {
                return Err(output_of_another(visible));
            }
            fs::rename(self.hidden(hiding, &part.path), visible).map_err(|error| cannot("publish", visible, error))?;
        }
        sync_directories(visible.iter())
    }

    fn whereabouts(&self, hiding: &Hiding, part: &Staged) -> Result<Whereabouts, OperatorError> {
        let (hidden, visible) = (self.hidden(hiding, &part.path), self.directory.join(&part.path));
        if let Some(bytes) = size(&hidden)? {
            if bytes == part.bytes {
                return Ok(Whereabouts::Hidden);
            }
            let message = format!("{} is damaged: it has {bytes} bytes, and had {} when it was staged", hidden.display(), part.bytes);
            return Err(OperatorError::user(message));
        }
        match size(&visible)? {
            Some(bytes) if bytes == part.bytes => Ok(Whereabouts::Published),
            Some(_) => Err(output_of_another(&visible)),
            None => Ok(Whereabouts::Gone),
        }
    }

    /// What is published after a crash has lain on the disk since nobody knows when: it is read again before.
    fn check_content(&self, hiding: &Hiding, part: &Staged) -> Result<(), OperatorError> {
        let Some(expected) = &part.xxh3 else { return Ok(()) };
        let hidden = self.hidden(hiding, &part.path);
        let found = sum::of_file(&hidden).map_err(|error| cannot("read", &hidden, error))?;
        if found == *expected {
            return Ok(());
        }
        Err(OperatorError::user(format!("{} is damaged: its content is not what was staged", hidden.display())))
    }

    /// The hidden file of the part with this path.
    pub fn hidden(&self, hiding: &Hiding, path: &str) -> PathBuf {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.directory.join(directory).join(hiding.of(name))
    }

    fn list(&self) -> Result<Vec<Found>, OperatorError> {
        let mut found = Vec::new();
        list_into(&self.directory, "", &mut found).map_err(|error| cannot("list", &self.directory, error))?;
        found.sort_by(|left, right| left.file.cmp(&right.file));
        Ok(found)
    }

    fn replaced(&self) -> MutexGuard<'_, Option<Replaced>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn replaced(from: u64, parts: Vec<Found>) -> Option<Replaced> {
    (!parts.is_empty()).then(|| Replaced { from, files: parts.into_iter().map(|found| found.file).collect() })
}

/// The parts in a directory and in the directories named by columns below it. Names that are no text are not ours.
fn list_into(directory: &Path, relative: &str, found: &mut Vec<Found>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type()?.is_dir() {
            if name.contains('=') {
                list_into(&entry.path(), &format!("{relative}{name}/"), found)?;
            }
        } else if let Some(PartName { visible, number, hiding }) = PartName::parse(&name) {
            found.push(Found { path: format!("{relative}{visible}"), file: entry.path(), number, hiding });
        }
    }
    Ok(())
}

/// Makes a directory and those above it, durably.
///
/// # Errors
/// As the file system's.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(error),
        _ => {}
    }
    sync_directory(parent)
}

/// Makes the entries of the directories of these files durable.
///
/// # Errors
/// A directory cannot be synced; names it.
pub(super) fn sync_directories<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Result<(), OperatorError> {
    let directories: BTreeSet<&Path> = files.filter_map(|file| file.parent()).collect();
    directories.into_iter().try_for_each(|directory| sync_directory(directory).map_err(|error| cannot("sync", directory, error)))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

fn remove(file: &Path) -> Result<(), OperatorError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", file, error)),
        _ => Ok(()),
    }
}

fn size(file: &Path) -> Result<Option<u64>, OperatorError> {
    match fs::symlink_metadata(file) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("look at", file, error)),
    }
}

fn output_of_another(file: &Path) -> OperatorError {
    let message = format!("{} is output of another run: choose another `path`, remove it, or set `overwrite: true`", file.display());
    OperatorError::user(message)
}

fn written_later(file: &Path) -> OperatorError {
    let message = format!(
        "{} was written after the checkpoint that this run goes on from, and would be written again: choose another `path`, remove it and \
         the parts after it, or set `overwrite: true`",
        file.display()
    );
    OperatorError::user(message)
}

/// A failure of the file system; names the file.
pub(super) fn cannot(what: &str, path: &Path, error: io::Error) -> OperatorError {
    OperatorError::outside(format!("cannot {what} {}", path.display())).because(error)
}

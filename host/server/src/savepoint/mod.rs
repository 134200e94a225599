//! Savepoints of a job directory: checkpoints that somebody named, each complete in a directory of its own.

pub mod copy;

use std::{fs, io};

use millstream_engine::run::JobHandle;
use millstream_model::ErrorKind;

use crate::{
    failure::Failure,
    kept::{self, Facts, Kept},
    place::{Owner, Place},
};

/// A name is one part of a path that nobody has to quote.
///
/// # Errors
/// It is none.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_good = (1..=100).contains(&name.len()) && !name.starts_with('.') && !name.starts_with('-') && name.bytes().all(is_plain);
    if is_good {
        return Ok(());
    }
    Err(Failure::new(ErrorKind::Invalid, format!("`{name}` is no name for a savepoint"))
        .fix("use letters, digits, `-`, `_` and `.`, at most 100 of them, beginning with a letter or digit"))
}

/// The kept checkpoint with this number.
///
/// # Errors
/// There is no such thing, the name is none or taken, or the disk fails.
pub async fn kept_as(place: &Place, owner: &Owner, number: u64) -> Result<Kept, Failure> {
    let record = kept::record(place, owner).await?;
    let all = record.as_ref().map(kept::all).into_iter().flatten();
    let committed = all.into_iter().find(|committed| committed.checkpoint.0 == number).ok_or_else(|| {
        Failure::new(ErrorKind::NotFound, format!("checkpoint {number} of job `{}` is not kept", owner.job))
            .fix("`millstream checkpoint list DIR` shows those that are")
    })?;
    Kept::committed(place, owner, &committed).await
}

/// Makes a savepoint of a checkpoint that the job of `handle`, in this process, takes now. It is held, so that nothing of it is removed while it
/// is copied, however many checkpoints are committed meanwhile.
///
/// # Errors
/// The name is none or taken, there is no checkpoint, or the disk fails.
pub async fn of_running(place: &Place, owner: &Owner, handle: &JobHandle, name: &str) -> Result<Facts, Failure> {
    check_name(name)?;
    copy::check_free(&place.savepoints().join(name))?;
    let held = handle.hold_checkpoint().await.map_err(|error| Failure::from_error(error.kind(), &error))?;
    let manifest = held.report().manifest.as_deref().expect("a checkpoint that is held is committed");
    let facts = copied_from(&Kept::with_manifest(place, owner, manifest, None).await?, place, name).await?;
    held.release();
    Ok(facts)
}

/// Makes a savepoint of the last checkpoint. Only while no process runs the job: one that does may remove it meanwhile.
///
/// # Errors
/// There is no such thing, the name is none or taken, or the disk fails.
pub async fn made(place: &Place, owner: &Owner, name: &str) -> Result<Facts, Failure> {
    let last = Kept::last(place, owner).await?.ok_or_else(|| {
        Failure::new(
            ErrorKind::Conflict,
            format!("job `{}` has committed no checkpoint yet, so there is nothing to make a savepoint of", owner.job),
        )
    })?;
    copied_from(&last, place, name).await
}

/// Makes a savepoint of this checkpoint.
///
/// # Errors
/// There is no such thing, the name is none or taken, or the disk fails.
pub async fn copied_from(checkpoint: &Kept, place: &Place, name: &str) -> Result<Facts, Failure> {
    Ok(copy::copy(checkpoint, &place.savepoints().join(name), name).await?.facts())
}

/// The names of the savepoints of a job, sorted.
///
/// # Errors
/// There is no such thing, the name is none or taken, or the disk fails.
pub fn names(place: &Place) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(place.savepoints()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::new(ErrorKind::Unavailable, "the savepoints cannot be listed").because(&error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // What begins with a dot is being made.
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    Ok(names)
}

/// Deletes a savepoint of a job.
///
/// # Errors
/// There is no such thing, the name is none or taken, or the disk fails.
pub fn remove(place: &Place, name: &str) -> Result<(), Failure> {
    let directory = kept::savepoint_directory(&place.savepoints().join(name), None)?;
    // Without its manifest it is no savepoint any more, however far the rest comes.
    let deleted = fs::remove_file(directory.join("manifest")).and_then(|()| fs::remove_dir_all(&directory));
    deleted.map_err(|error| Failure::new(ErrorKind::Unavailable, format!("savepoint `{name}` cannot be deleted")).because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_part_of_a_path() {
        for good in ["a", "monday", "2013-01-05T03-00-00Z", "v1.2_x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "ä", "a\n", &"a".repeat(101)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}

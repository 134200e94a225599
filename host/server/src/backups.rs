//! Backups of a durable run: savepoints that it takes by itself, as often as `savepoints:` in the job file says, of which it keeps so many.
//!
//! When the next one is due follows from what lies in the job directory, so a run that goes on later than planned makes up for the one it missed.

use millstream_engine::{
    clock::{Clock, SystemClock},
    graph::Backups,
    run::JobHandle,
};

use crate::{
    failure::Failure,
    kept::Kept,
    place::{Owner, Place},
    savepoint, text,
};

/// What the names of backups begin with; savepoints that people make are never removed by it.
const PREFIX: &str = "backup-";
/// Time until a backup that failed is tried again.
const AGAIN_MS: i64 = 60_000;

/// Takes backups until it is dropped.
pub async fn keep(place: Place, owner: Owner, handle: JobHandle, backups: Backups) {
    let every_ms = i64::try_from(backups.every.as_millis()).unwrap_or(i64::MAX);
    let mut wait_ms = first_wait_ms(newest_ms(&place).await, every_ms, SystemClock.now_ms());
    loop {
        SystemClock.sleep(wait_ms).await;
        wait_ms = match back_up(&place, &owner, &handle, backups.retained.get() as usize).await {
            Ok(name) => {
                tracing::info!(%name, "backup taken");
                every_ms
            }
            Err(failure) => {
                let reason = failure.problems.first().map_or("", |problem| problem.message.as_str());
                tracing::warn!(reason, "no backup could be taken; it is tried again in a minute");
                AGAIN_MS.min(every_ms)
            }
        };
    }
}

/// A newest backup of the future (the clock was set back) makes nobody wait longer than between two backups.
fn first_wait_ms(newest_ms: Option<i64>, every_ms: i64, now_ms: i64) -> i64 {
    newest_ms.unwrap_or(now_ms).saturating_add(every_ms).saturating_sub(now_ms).clamp(0, every_ms)
}

/// When the newest backup was taken; none that can be read: none.
async fn newest_ms(place: &Place) -> Option<i64> {
    let newest = savepoint::names(place).ok()?.into_iter().rfind(|name| name.starts_with(PREFIX))?;
    Kept::savepoint(&place.savepoints().join(newest)).await.ok().map(|kept| kept.manifest.created_ms)
}

async fn back_up(place: &Place, owner: &Owner, handle: &JobHandle, retained: usize) -> Result<String, Failure> {
    let name = format!("{PREFIX}{}", text::time(SystemClock.now_ms()).replace(':', "-"));
    savepoint::of_running(place, owner, handle, &name).await?;
    for old in surplus(&savepoint::names(place)?, retained) {
        savepoint::remove(place, old)?;
    }
    Ok(name)
}

/// The oldest backups beyond those that are kept; `names` are sorted, and so by time.
fn surplus(names: &[String], retained: usize) -> impl Iterator<Item = &str> {
    let backups: Vec<&str> = names.iter().map(String::as_str).filter(|name| name.starts_with(PREFIX)).collect();
    let count = backups.len().saturating_sub(retained);
    backups.into_iter().take(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_backups_go_and_savepoints_of_people_stay() {
        let names = ["a", "backup-2013-01-01T00-00-00Z", "backup-2013-01-02T00-00-00Z", "backup-2013-01-03T00-00-00Z", "zulu"];
        let names = names.map(str::to_owned);
        assert_eq!(surplus(&names, 2).collect::<Vec<_>>(), ["backup-2013-01-01T00-00-00Z"]);
        assert_eq!(surplus(&names, 3).count(), 0);
    }

    #[test]
    fn a_backup_that_was_missed_is_due_at_once_and_the_first_one_after_a_whole_pause() {
        assert_eq!(first_wait_ms(Some(1_000), 60_000, 500_000), 0);
        assert_eq!(first_wait_ms(Some(480_000), 60_000, 500_000), 40_000);
        assert_eq!(first_wait_ms(None, 60_000, 500_000), 60_000);
    }

    #[test]
    fn a_clock_that_was_set_back_by_years_holds_no_backup_up() {
        assert_eq!(first_wait_ms(Some(i64::MAX), 60_000, 500_000), 60_000);
    }
}

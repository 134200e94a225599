//! Parallelism 2 against 1: the same query on the same events, by the clock on the wall. Both cores should be idle; of several tries the best
//! counts, since others can only take time away.

use std::num::NonZeroU32;

use millstream_engine::run::RunSettings;

use crate::{
    figures::Figure,
    guests::Guests,
    nexmark::{Took, replayed},
};

const TRIES: usize = 5;
const EVENTS: u64 = 30_000_000;
/// Keyed, so at parallelism 2 rows are exchanged.
const QUERIES: [&str; 2] = ["q5", "q11"];

/// All figures of this group.
///
/// # Errors
/// A query does not run.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for query in QUERIES {
        figures.push(measure_query(guests, query).await?);
    }
    Ok(figures)
}

async fn measure_query(guests: &Guests, query: &str) -> anyhow::Result<Figure> {
    let two = NonZeroU32::MIN.saturating_add(1);
    let (alone, together) = (replayed(guests, query, EVENTS, NonZeroU32::MIN).await?, replayed(guests, query, EVENTS, two).await?);
    let (mut one, mut both) = (Took::LONGEST, Took::LONGEST);
    for _ in 0..TRIES {
        one = one.min(alone.time(RunSettings::new()).await?);
        both = both.min(together.time(RunSettings::new()).await?);
    }
    let how = format!(
        "{EVENTS} events replayed from memory, as many splits as subtasks, {one} against {both}, wall clock, best of {TRIES} in turn"
    );
    Ok(Figure::at_least(format!("parallelism 2 against 1, {query}"), one.seconds / both.seconds, "times", 1.7, how))
}

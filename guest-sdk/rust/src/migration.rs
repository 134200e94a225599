//! State that an older version of an operator wrote, in a form that no rule can read as the present one.
//!
//! The host evolves most changes by itself (a new field that may be null, a field that is gone, a wider number). For the others the type of the
//! state names its older types, and says with `From` (or `TryFrom`, where an old value may be impossible) what becomes of them:
//! ```
//! use millstream::{Out, Row, State};
//!
//! /// As version 1 kept it.
//! #[derive(State)]
//! struct SeenV1 {
//!     minutes: String,
//! }
//!
//! #[derive(State, Default, Debug, PartialEq)]
//! #[state(version = 2, migrates(SeenV1))]
//! struct Seen {
//!     seconds: u64,
//! }
//!
//! impl TryFrom<SeenV1> for Seen {
//!     type Error = std::num::ParseIntError;
//!
//!     fn try_from(old: SeenV1) -> Result<Self, Self::Error> {
//!         Ok(Self { seconds: old.minutes.parse::<u64>()? * 60 })
//!     }
//! }
//!
//! #[derive(Row, Debug, PartialEq)]
//! struct Total {
//!     seconds: u64,
//! }
//!
//! #[millstream::operator(keyed, migrates)]
//! fn add(word: &str, seconds: u64, seen: &mut Seen, out: &mut Out<Total>) {
//!     seen.seconds += seconds;
//!     out.push(Total { seconds: seen.seconds });
//! }
//!
//! #[derive(Row)]
//! struct More {
//!     word: String,
//!     seconds: u64,
//! }
//!
//! let mut add = millstream::testing::Harness::<add>::new().key_by(["word"]);
//! add.migrate_value("seen", ["be"], SeenV1 { minutes: "2".into() });
//! add.rows([More { word: "be".into(), seconds: 5 }]);
//! assert_eq!(add.output::<Total>(), [Total { seconds: 125 }]);
//! ```
//! A state that migrates in an operator that does not say so is refused when it is compiled:
//! ```compile_fail
//! # use millstream::{Out, Row, State};
//! # #[derive(State)] struct Old { a: String }
//! # #[derive(State, Default)] #[state(version = 2, migrates(Old))] struct Seen { a: u64 }
//! # impl From<Old> for Seen { fn from(_: Old) -> Self { Self { a: 0 } } }
//! # #[derive(Row)] struct Count { count: u64 }
//! #[millstream::operator(keyed)] // error: this state migrates values of older versions: write #[millstream::operator(keyed, migrates)]
//! fn count(seen: &mut Seen, out: &mut Out<Count>) {}
//! ```
//! and so is one that says so and has none, and a type without a way from the older one:
//! ```compile_fail
//! # use millstream::{Out, Row};
//! # #[derive(Row)] struct Count { count: u64 }
//! #[millstream::operator(keyed, migrates)] // error: no state of this operator migrates anything
//! fn count(seen: &mut u64, out: &mut Out<Count>) {}
//! ```
//! ```compile_fail
//! # use millstream::State;
//! # #[derive(State)] struct Old { a: String }
//! #[derive(State, Default)]
//! #[state(version = 2, migrates(Old))] // error: the trait bound `Seen: From<Old>` is not satisfied
//! struct Seen { a: u64 }
//! ```

use std::fmt::Display;

use crate::{
    bindings::Column,
    panics,
    part::State,
    value::{ColumnBuilder, ReadValue, Value, finish_column, read_column},
};

/// A type of state that can be made of an older one: whatever has `From` or `TryFrom` of it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made of `{Old}`",
    label = "there is no way from this type to `{Self}`",
    note = "write `impl From<{Old}> for {Self}`, or `TryFrom` if an old value may be impossible"
)]
pub trait MigratesFrom<Old>: Sized {
    /// The value of now.
    ///
    /// # Errors
    /// The old value is impossible; the upgrade fails with this.
    fn migrated(old: Old) -> Result<Self, String>;
}

impl<Old, New: TryFrom<Old, Error: Display>> MigratesFrom<Old> for New {
    fn migrated(old: Old) -> Result<Self, String> {
        New::try_from(old).map_err(|error| error.to_string())
    }
}

/// The way from one older type of a state to the present one. Made by `#[state(migrates(…))]`.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    version: u32,
    data_type: fn() -> String,
    column: fn(&Column) -> Result<Column, String>,
}

impl Migration {
    /// From `Old` to `New`.
    pub const fn of<Old: State, New: State + MigratesFrom<Old>>() -> Self {
        Self { version: Old::VERSION, data_type: Old::data_type, column: migrated::<Old, New> }
    }
}

fn migrated<Old: State, New: State + MigratesFrom<Old>>(column: &Column) -> Result<Column, String> {
    let length = column.length as usize;
    let malformed = |error: crate::value::Malformed| format!("the host sent a malformed call: {}", error.0);
    let reader = read_column::<Option<Old>>(column, length).map_err(malformed)?;
    let mut builder = <Option<New> as Value>::Builder::default();
    builder.reserve(length);
    for row in 0..length {
        panics::enter(row);
        match <Option<Old> as ReadValue<'_>>::get(&reader, row) {
            Some(old) => builder.append_option(Some(&New::migrated(old)?)),
            None => builder.append_null(),
        }
    }
    Ok(finish_column(builder, length))
}

/// The values of `column`, of version `version` and type `data_type`, by the one of `migrations` that knows them. Where several know the type, the
/// version decides.
///
/// # Errors
/// None knows them, or a value is impossible.
pub(crate) fn migrate(state: &str, migrations: &[Migration], (version, data_type): (u32, &str), column: &Column) -> Result<Column, String> {
    let knows = |migration: &&Migration| (migration.data_type)() == data_type;
    let of_version = migrations.iter().filter(knows).find(|migration| migration.version == version);
    match of_version.or_else(|| migrations.iter().find(knows)) {
        Some(migration) => (migration.column)(column),
        None => {
            let known: Vec<String> =
                migrations.iter().map(|migration| format!("version {} ({})", migration.version, (migration.data_type)())).collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            Err(format!("state `{state}` of version {version} is {data_type}; this operator migrates {known}"))
        }
    }
}

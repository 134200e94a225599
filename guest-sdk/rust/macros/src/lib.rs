//! The macros of the crate `millstream`; their documentation, with examples, is there.
//!
//! [`rows`] derives the column form of structs. [`parameters`] sorts the parameters of a handler by how they are taken. [`function`],
//! [`implementation`] and [`accumulator`] turn functions and `impl` blocks into operators and aggregates; what they share is [`handler`].
//! The macros only name things: every decision about types is left to the traits of `millstream`, whose messages explain themselves.

#![forbid(unsafe_code)]

mod accumulator;
mod attributes;
mod export;
mod function;
mod handler;
mod implementation;
mod parameters;
mod rows;
mod settings;

#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, parse_macro_input};

fn tokens(result: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    result.unwrap_or_else(Error::into_compile_error).into()
}

/// Makes a struct a row: one column per field, named like the field or by `#[row(name = "…")]`.
///
/// Fields may be any type that crosses (numbers, `bool`, text, bytes, `Decimal`, `Timestamp`, `Duration`, `Date`, `Time`, `Option`, `Vec`,
/// `BTreeMap`, other rows). With one lifetime parameter, `&'a str` and `&'a [u8]` fields borrow from the batch.
#[proc_macro_derive(Row, attributes(row))]
pub fn derive_row(input: TokenStream) -> TokenStream {
    tokens(rows::derive(&parse_macro_input!(input as DeriveInput), rows::Purpose::Row))
}

/// Makes a struct a state: a value kept per key by the host. `&mut` parameters need `Default` too.
///
/// `#[state(version = 2)]` names the version of the type, `migrates(SeenV1)` after it the types of older versions that the host cannot read as
/// this one (each with `impl From<SeenV1> for Seen`, or `TryFrom`); `#[state(ttl = "24h")]` forgets values that were not written for so long, with
/// `clock = "processing-time"` by the host's clock instead of the watermark, with `refresh = "on-read"` counted from the last read too.
#[proc_macro_derive(State, attributes(state))]
pub fn derive_state(input: TokenStream) -> TokenStream {
    tokens(rows::derive(&parse_macro_input!(input as DeriveInput), rows::Purpose::State))
}

/// Makes a function that returns `bool` (or `Result<bool, Reject>`) an operator that keeps the rows for which it is true.
#[proc_macro_attribute]
pub fn filter(options: TokenStream, item: TokenStream) -> TokenStream {
    tokens(function::expand(options.into(), item.into(), function::Form::Filter))
}

/// Makes a function that returns a row an operator that adds its columns to the row. `map(keep = false)` emits them alone.
///
/// It may also return `Option` (none: the row is dropped), `Result<_, Reject>` or `Result<Option<_>, Reject>`.
#[proc_macro_attribute]
pub fn map(options: TokenStream, item: TokenStream) -> TokenStream {
    tokens(function::expand(options.into(), item.into(), function::Form::Map))
}

/// Makes a function with `&mut Out<_>` parameters an operator that emits any number of rows for each.
#[proc_macro_attribute]
pub fn flat_map(options: TokenStream, item: TokenStream) -> TokenStream {
    tokens(function::expand(options.into(), item.into(), function::Form::FlatMap))
}

/// Makes a function, or an `impl` block with several handlers, an operator. `operator(keyed)` has state and timers; `operator(keyed, migrates)` has
/// state that migrates values of older versions.
///
/// In an `impl`, `fn process` is the handler of the only input; methods with `#[input]` are those of several, named like the method;
/// a method with `#[on_timer(name)]` handles the timer that others take as `name: &mut EventTimer` (or `ProcessingTimer`);
/// `fn open(settings: T) -> Result<Self, String>` makes the operator, else `Default` does.
#[proc_macro_attribute]
pub fn operator(options: TokenStream, item: TokenStream) -> TokenStream {
    tokens(implementation::expand(options.into(), item.into()))
}

/// Makes a state with methods `accumulate`, `finish` and, if it can, `merge` an aggregate for windows. `aggregate(migrates)`: one whose state
/// migrates values of older versions.
#[proc_macro_attribute]
pub fn aggregate(options: TokenStream, item: TokenStream) -> TokenStream {
    tokens(accumulator::expand(options.into(), item.into()))
}

/// Makes a struct the settings of an operator: kebab-case names, unknown ones refused, documentation in its JSON Schema.
#[proc_macro_attribute]
pub fn settings(options: TokenStream, item: TokenStream) -> TokenStream {
    tokens(settings::expand(options.into(), item.into()))
}

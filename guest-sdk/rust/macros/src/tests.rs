//! What a mistake says. Where it points is decided by the spans, which unit tests do not have.

use proc_macro2::TokenStream;
use syn::{DeriveInput, parse_str};

use crate::{accumulator, function, function::Form, implementation, rows};

fn error(result: syn::Result<TokenStream>) -> String {
    result.expect_err("this is a mistake").to_string()
}

fn tokens(source: &str) -> TokenStream {
    parse_str(source).unwrap()
}

fn of_function(form: Form, source: &str) -> String {
    error(function::expand(TokenStream::new(), tokens(source), form))
}

fn of_operator(options: &str, source: &str) -> String {
    error(implementation::expand(tokens(options), tokens(source)))
}

fn of_row(source: &str, purpose: rows::Purpose) -> String {
    let input: DeriveInput = parse_str(source).unwrap();
    error(rows::derive(&input, purpose))
}

#[test]
fn a_filter_with_an_output_is_told_which_macro_to_use() {
    let message = of_function(Form::Filter, "fn keep(price: i64,\n out: &mut Out<Bid>) -> bool { true }");
    assert_eq!(message, "a filter or map has no outputs, state or timers: use #[millstream::flat_map] or #[millstream::operator(keyed)]");
}

#[test]
fn a_filter_without_result_is_told_what_to_return() {
    let message = of_function(Form::Filter, "fn keep(price: i64) {}");
    assert_eq!(message, "this function must return `-> bool`");
}

#[test]
fn an_operator_without_output_is_told_to_take_one() {
    let message = of_operator("keyed", "fn count(word: &str) {}");
    assert!(message.contains("take `out: &mut Out<T>`"), "{message}");
}

#[test]
fn a_method_as_an_operator_is_told_where_the_macro_goes() {
    let message = of_function(Form::FlatMap, "fn count(&self, out: &mut Out<T>) {}");
    assert_eq!(message, "put #[millstream::operator] on the `impl` block instead");
}

#[test]
fn a_timer_that_no_one_sets_is_named() {
    let source = "impl X {\n fn process(&mut self, out: &mut Out<T>) {}\n #[on_timer(missing)]\n fn gone(&mut self, out: &mut Out<T>) {} }";
    let message = of_operator("keyed", source);
    assert_eq!(message, "no handler sets the timer `missing`: take `missing: &mut EventTimer` (or ProcessingTimer)");
}

#[test]
fn an_operator_without_input_is_told_to_write_process() {
    let message = of_operator("", "impl X { fn helper(&self) {} }");
    assert!(message.contains("fn process(&mut self"), "{message}");
}

#[test]
fn an_unknown_option_is_refused_with_the_known_ones() {
    let message = error(implementation::expand(tokens("keyd"), tokens("fn f(out: &mut Out<T>) {}")));
    assert_eq!(message, "an operator has the options `keyed` (it has state or timers per key) and `migrates` (state of older versions)");
}

#[test]
fn async_and_generic_handlers_are_refused() {
    assert!(of_function(Form::Filter, "async fn keep(price: i64) -> bool { true }").contains("not async"));
    assert!(of_function(Form::Filter, "fn keep<T>(price: T) -> bool { true }").contains("cannot be generic"));
}

#[test]
fn state_that_borrows_is_told_to_own() {
    let message = of_row("struct Seen<'a> { name: &'a str }", rows::Purpose::State);
    assert_eq!(message, "state outlives its batch, so it cannot borrow: use String or Vec<u8>");
}

#[test]
fn a_row_is_a_struct_with_named_fields() {
    assert!(of_row("enum E { A }", rows::Purpose::Row).contains("`struct Bid { price: i64 }`"));
    assert!(of_row("struct Pair(i64, i64);", rows::Purpose::Row).contains("named fields"));
    assert!(of_row("struct R<T> { t: T }", rows::Purpose::Row).contains("type parameters"));
}

#[test]
fn a_bad_ttl_says_what_a_duration_looks_like() {
    let message = of_row("#[state(ttl = \"1 day\")]\nstruct S { a: i64 }", rows::Purpose::State);
    assert!(message.contains("\"24h\""), "{message}");
}

#[test]
fn an_aggregate_without_accumulate_is_told_to_write_it() {
    let source = "impl P { fn finish(&self) -> f64 { 0.0 } }";
    let message = error(accumulator::expand(TokenStream::new(), tokens(source)));
    assert_eq!(message, "an aggregate takes in rows: write `fn accumulate(&mut self, value: f64)`");
}

#[test]
fn a_migration_without_a_new_version_or_beside_a_parameter_is_refused() {
    let message = of_row("#[state(migrates(Old))]\nstruct S { a: i64 }", rows::Purpose::State);
    assert!(message.contains("`#[state(version = 2, migrates(…))]`"), "{message}");
    assert!(of_row("#[state(version = 2, migrates())]\nstruct S { a: i64 }", rows::Purpose::State).contains("migrates(SeenV1)"));
    let message = of_operator("keyed, migrates", "fn f(#[state(version = 2, migrates(Old))] seen: &mut Seen, out: &mut Out<T>) {}");
    assert_eq!(message, "what a state migrates stands at its type, beside #[derive(State)]");
    let message = of_operator("migrates", "fn f(out: &mut Out<T>) {}");
    assert_eq!(message, "only state is migrated, and state is kept per key: write `keyed, migrates`");
}

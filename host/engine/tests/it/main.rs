//! The engine from outside: job files in, plans and rows out. One binary for all, so that dependencies are linked once.

mod plan_explain;
mod plan_mistakes;
mod plan_table;
mod run;
mod spec_mistakes;
mod spec_schema;

//! [`AggregateHarness`]: an aggregate with a window operator around it, in memory.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    json,
    kinds::{DataType, Field},
};
use crate::{
    aggregate::{self, Aggregate, Instance},
    bindings::{
        Column, Field as ContractField,
        aggregate::exports::millstream::operator::aggregate::{Batch, Signature},
    },
};

/// An aggregate that runs natively, over groups named by the test.
pub struct AggregateHarness<A: Aggregate> {
    instance: Instance<A>,
    signature: Signature,
    accumulator: DataType,
    groups: BTreeMap<String, Value>,
}

impl<A: Aggregate> AggregateHarness<A> {
    /// The aggregate with settings (JSON), over columns of these names and types (`?` after the type: may be null).
    ///
    /// # Panics
    /// The aggregate refuses them.
    pub fn new(settings: &str, columns: &[(&str, &str)]) -> Self {
        let field = |(name, text): &(&str, &str)| {
            let (data_type, nullable) = text.strip_suffix('?').map_or((*text, false), |data_type| (data_type, true));
            ContractField { name: (*name).into(), data_type: data_type.into(), nullable }
        };
        let fields: Vec<ContractField> = columns.iter().map(field).collect();
        let signature = aggregate::plan::<A>(settings, &fields).unwrap_or_else(|error| panic!("the aggregate refused its plan: {error}"));
        for read in &signature.reads {
            let given = fields.iter().find(|field| field.name == read.name).unwrap_or_else(|| panic!("there is no column `{}`", read.name));
            assert_eq!(
                (&given.data_type, given.nullable && !read.nullable),
                (&read.data_type, false),
                "column `{}` is read as another type",
                read.name
            );
        }
        let instance = Instance::open(settings, &signature.reads).unwrap_or_else(|error| panic!("the aggregate refused to open: {error}"));
        let accumulator = DataType::parse(&signature.accumulator_type).expect("accumulators have a type");
        Self { instance, signature, accumulator, groups: BTreeMap::new() }
    }

    /// Adds rows to their groups, in one call.
    ///
    /// # Panics
    /// The aggregate fails.
    pub fn accumulate(&mut self, rows: &[(&str, Map<String, Value>)]) {
        let names: Vec<&str> = rows.iter().map(|(group, _)| *group).collect();
        let mut groups: Vec<&str> = names.clone();
        groups.sort_unstable();
        groups.dedup();
        let number = |name: &&str| groups.binary_search(name).expect("every name is a group") as u32;
        let batch = Batch {
            length: rows.len() as u32,
            columns: self.signature.reads.iter().map(|field| column_of(field, rows)).collect(),
            group_of_row: names.iter().flat_map(|name| number(name).to_le_bytes()).collect(),
            groups: groups.len() as u32,
        };
        let before = self.column(&groups);
        let after = self.instance.accumulate(&batch, &before).unwrap_or_else(|error| panic!("accumulate failed: {error}"));
        self.keep(&groups, &after);
    }

    /// Merges group `other` into group `into`, as panes and sessions do.
    ///
    /// # Panics
    /// The aggregate fails, or has no `merge`.
    pub fn merge(&mut self, into: &str, other: &str) {
        assert!(self.signature.merges, "this aggregate cannot merge: write `fn merge(&mut self, other: Self)`");
        let (target, source) = (self.column(&[into]), self.column(&[other]));
        let merged = self.instance.merge(&target, &source, &0_u32.to_le_bytes()).unwrap_or_else(|error| panic!("merge failed: {error}"));
        self.groups.remove(other);
        self.keep(&[into], &merged);
    }

    /// The result of a group.
    ///
    /// # Panics
    /// The aggregate fails.
    pub fn finish(&self, group: &str) -> Value {
        let results = self.instance.finish(&self.column(&[group])).unwrap_or_else(|error| panic!("finish failed: {error}"));
        let data_type = DataType::parse(&self.signature.output.data_type).expect("results have a type");
        values(&data_type, &results).remove(0)
    }

    fn column(&self, groups: &[&str]) -> Column {
        let values: Vec<Value> = groups.iter().map(|group| self.groups.get(*group).cloned().unwrap_or_default()).collect();
        json::to_column(&self.accumulator, &values).expect("kept accumulators have their type")
    }

    fn keep(&mut self, groups: &[&str], column: &Column) {
        for (group, value) in groups.iter().zip(values(&self.accumulator, column)) {
            self.groups.insert((*group).to_owned(), value);
        }
    }
}

fn values(data_type: &DataType, column: &Column) -> Vec<Value> {
    json::from_column(data_type, column).unwrap_or_else(|error| panic!("the answer is malformed: {}", error.0))
}

fn column_of(field: &ContractField, rows: &[(&str, Map<String, Value>)]) -> Column {
    let parsed = Field {
        name: field.name.clone(),
        data_type: DataType::parse(&field.data_type).expect("columns have a type"),
        nullable: field.nullable,
    };
    let value = |(_, columns): &(&str, Map<String, Value>)| columns.get(&parsed.name).cloned().unwrap_or_default();
    json::to_column(&parsed.data_type, &rows.iter().map(value).collect::<Vec<_>>())
        .unwrap_or_else(|error| panic!("column `{}`: {error}", parsed.name))
}

//! How the columns of an output are put together: kept ones are gathered by the host, the others come from the guest.

use std::sync::Arc;

use arrow_schema::{FieldRef, Schema, SchemaRef};
use millstream_wasm::OutputPlan;

/// Where each column of an output comes from.
#[derive(Clone, Debug)]
pub(super) struct OutputLayout {
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<ColumnFrom>,
    /// The input whose columns are kept, and which of them by number; none: nothing is kept.
    pub(super) kept: Option<Kept>,
    pub(super) event_times: bool,
    pub(super) changes: bool,
}

/// The columns of an input that an output keeps.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) input: usize,
    pub(super) columns: Vec<usize>,
    /// Every column of the input, in its order, and nothing else: a batch can be passed on as it is.
    pub(super) is_whole_input: bool,
}

/// Where one column of an output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnFrom {
    /// This one of the kept columns.
    Kept(usize),
    /// This one of the columns that the guest adds.
    Added(usize),
}

impl OutputLayout {
    /// The layout of an output. An added column with the name of a kept one takes its place.
    pub(super) fn new(plan: &OutputPlan, inputs: &[SchemaRef], event_times: bool) -> Self {
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut columns = Vec::new();
        let mut kept_columns = Vec::new();
        let kept_input = plan.keeps.map(|input| input as usize);
        let mut used = vec![false; plan.adds.len()];
        for (number, field) in kept_input.iter().flat_map(|&input| inputs[input].fields().iter().enumerate()) {
            match plan.adds.iter().position(|added| added.name() == field.name()) {
                Some(added) => {
                    used[added] = true;
                    columns.push(ColumnFrom::Added(added));
                    fields.push(plan.adds[added].clone());
                }
                None => {
                    columns.push(ColumnFrom::Kept(kept_columns.len()));
                    kept_columns.push(number);
                    fields.push(field.clone());
                }
            }
        }
        for (added, field) in plan.adds.iter().enumerate().filter(|(added, _)| !used[*added]) {
            columns.push(ColumnFrom::Added(added));
            fields.push(field.clone());
        }
        let kept = kept_input.map(|input| {
            let is_whole_input = plan.adds.is_empty();
            Kept { input, columns: kept_columns, is_whole_input }
        });
        let schema = match &kept {
            Some(kept) if kept.is_whole_input => inputs[kept.input].clone(),
            _ => Arc::new(Schema::new(fields)),
        };
        Self { schema, columns, kept, event_times, changes: plan.changes }
    }
}

#[cfg(test)]
mod tests {
    use arrow_schema::{DataType, Field};

    use super::*;

    fn schema(names: &[&str]) -> SchemaRef {
        Arc::new(Schema::new(names.iter().map(|&name| Field::new(name, DataType::Int64, false)).collect::<Vec<_>>()))
    }

    #[test]
    fn an_added_column_takes_the_place_of_a_kept_one_of_its_name() {
        let adds = vec![Arc::new(Field::new("new", DataType::Utf8, true)), Arc::new(Field::new("b", DataType::Utf8, false))];
        let plan = OutputPlan { keeps: Some(0), adds, sets_event_times: false, changes: false };
        let layout = OutputLayout::new(&plan, &[schema(&["a", "b", "c"])], false);
        let names: Vec<&str> = layout.schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "new"]);
        assert_eq!(layout.schema.field(1).data_type(), &DataType::Utf8);
        assert_eq!(layout.columns, [ColumnFrom::Kept(0), ColumnFrom::Added(1), ColumnFrom::Kept(1), ColumnFrom::Added(0)]);
        assert_eq!(layout.kept.expect("keeps").columns, [0, 2]);
    }
}

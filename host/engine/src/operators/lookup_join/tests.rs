use std::{path::Path, sync::Arc};

use arrow_array::{Int64Array, StringArray, cast::AsArray};
use arrow_schema::DataType;
use serde_json::{Value, json};

use super::*;
use crate::{
    clock::ManualClock,
    connector::{SettingsProblem, TableLoader},
    graph::RowOrder,
    operators::{
        Environment,
        window::tests_support::{NoComponents, block_on, context},
    },
};

/// Airports in memory, as the connectors would have read them.
struct Airports(RecordBatch);

#[async_trait]
impl TableLoader for Airports {
    async fn load(&self, request: TableRequest) -> Result<RecordBatch, Vec<SettingsProblem>> {
        if request.path != Path::new("job/airports.csv") {
            return Err(vec![SettingsProblem { path: "file".into(), message: "there is no such file".into() }]);
        }
        Ok(self.0.clone())
    }
}

fn airports(codes: &[&str]) -> Airports {
    let schema = Schema::new(vec![
        Field::new("faa", DataType::Utf8, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("zone", DataType::Int64, true),
    ]);
    let names = codes.iter().map(|code| format!("{code} airport"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(codes.to_vec())),
        Arc::new(StringArray::from_iter_values(names)),
        Arc::new(Int64Array::from_iter_values(0..codes.len() as i64)),
    ];
    Airports(RecordBatch::try_new(Arc::new(schema), columns).expect("the columns fit"))
}

fn plan(settings: Value, airports: &Airports) -> Result<Planned, Vec<Problem>> {
    let join: LookupJoin = serde_json::from_value(settings).expect("settings are well-formed");
    let schema = Arc::new(Schema::new(vec![Field::new("dest", DataType::Utf8, true), Field::new("name", DataType::Utf8, true)]));
    let inputs = [StreamType { schema, event_times: true, changes: true }];
    let environment = Environment { base_directory: Path::new("job"), components: &NoComponents, clock: Arc::new(ManualClock::at(0)) };
    let id = "l".into();
    let request = PlanRequest {
        id: &id,
        inputs: &inputs,
        keys: None,
        order: RowOrder::Arrival,
        environment: &environment,
        tables: Some(airports),
        grant: None,
    };
    block_on(join.plan(request))
}

fn joined(settings: Value) -> Vec<String> {
    let plan = plan(settings, &airports(&["SEA", "JFK"])).expect("it is planned").plan;
    let dests = StringArray::from(vec![Some("JFK"), None, Some("XXX"), Some("SEA")]);
    let schema = Arc::new(Schema::new(vec![Field::new("dest", DataType::Utf8, true), Field::new("name", DataType::Utf8, true)]));
    let batch = Batch::try_new(schema, vec![Arc::new(dests), arrow_array::new_null_array(&DataType::Utf8, 4)], 4).expect("it fits");
    let batch = batch.with_event_times(Some(vec![1, 2, 3, 4].into()));
    let mut operator = block_on(plan.create(context())).expect("it opens");
    let mut out = Output::default();
    block_on(operator.on_batch(0, batch, Moment { watermark: None, processing_time: 0 }, &mut out)).expect("rows are joined");
    let emitted = out.take_emitted();
    let batch = &emitted[0].1;
    assert_eq!(batch.schema(), plan.outputs()[0].1.schema);
    let texts = |row: usize| {
        let text = |column: &ArrayRef| {
            column.as_string_opt::<i32>().filter(|column| column.is_valid(row)).map_or("null", |column| column.value(row)).to_owned()
        };
        format!("{} {} @{}", text(batch.column(0)), text(batch.column(2)), batch.event_times().expect("kept")[row])
    };
    (0..batch.num_rows()).map(texts).collect()
}

#[test]
fn rows_get_the_columns_of_their_record_and_nulls_where_there_is_none() {
    let rows = joined(json!({ "file": "airports.csv", "on": { "dest": "faa" }, "add": { "dest_name": "name" } }));
    assert_eq!(rows, ["JFK JFK airport @1", "null null @2", "XXX null @3", "SEA SEA airport @4"]);
}

#[test]
fn an_inner_join_drops_rows_without_a_record() {
    let rows = joined(json!({ "file": "airports.csv", "on": { "dest": "faa" }, "add": { "dest_name": "name" }, "kind": "inner" }));
    assert_eq!(rows, ["JFK JFK airport @1", "SEA SEA airport @4"]);
}

fn problem(settings: Value, codes: &[&str]) -> (String, Option<String>) {
    let problems = plan(settings, &airports(codes)).err().expect("it is refused");
    (problems[0].message.clone(), problems[0].help.clone())
}

#[test]
fn mistakes_name_what_is_there() {
    let wrong = json!({ "file": "airports.csv", "on": { "dest": "faaa" } });
    assert_eq!(problem(wrong, &["SEA"]), ("the file has no column `faaa`".into(), Some("did you mean `faa`?".into())));
    let wrong = json!({ "file": "airports.csv", "on": { "dst": "faa" } });
    assert_eq!(problem(wrong, &["SEA"]), ("unknown column `dst`".into(), Some("did you mean `dest`?".into())));
    let wrong = json!({ "file": "airports.csv", "on": { "dest": "faa" }, "add": ["nme"] });
    assert_eq!(problem(wrong, &["SEA"]), ("unknown column `nme`".into(), Some("did you mean `name`?".into())));
    let clash = json!({ "file": "airports.csv", "on": { "dest": "faa" } });
    assert_eq!(problem(clash, &["SEA"]).0, "the stream has a column `name` already");
    let missing = json!({ "file": "airport.csv", "on": { "dest": "faa" } });
    assert_eq!(problem(missing, &["SEA"]).0, "there is no such file");
}

#[test]
fn two_records_with_one_key_are_refused() {
    let settings = json!({ "file": "airports.csv", "on": { "dest": "faa" }, "add": ["zone"] });
    assert_eq!(problem(settings, &["SEA", "JFK", "SEA"]).0, "records 1 and 3 of airports.csv have the same key");
}

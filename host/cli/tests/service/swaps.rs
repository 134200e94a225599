//! Other components in running jobs.

use serde_json::json;

use crate::harness::{Service, directory, job};

/// A bounded job with a result that can be counted: no row is lost, none counts twice, whatever was swapped meanwhile.
pub fn results(service: &Service, name: &str) -> Vec<(i64, u64, String)> {
    let out = service.directory().join("files").join(format!("out-{name}"));
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(&out).expect("the job wrote") {
        let path = entry.expect("readable").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_'])) || !path.is_file() {
            continue;
        }
        for line in std::fs::read_to_string(path).expect("readable").lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("NDJSON");
            let of = (row["bucket"].as_i64(), row["count"].as_u64(), row["by"].as_str());
            let (Some(bucket), Some(count), Some(by)) = of else { panic!("{line}") };
            rows.push((bucket, count, by.to_owned()));
        }
    }
    rows.sort();
    rows
}

pub fn assert_exactly_once(service: &Service, name: &str, rows: i64) {
    let found: Vec<(i64, u64)> = results(service, name).into_iter().map(|(bucket, count, _)| (bucket, count)).collect();
    let mut expected: Vec<(i64, u64)> = (0..rows).map(|value| (value % 7, (value / 7) as u64 + 1)).collect();
    expected.sort();
    assert_eq!(found.len(), expected.len(), "rows lost or doubled");
    assert_eq!(found, expected);
}

pub fn submit_bounded(service: &Service, name: &str, rows: i64, rate: u64) {
    let sink = format!("files: {{ path: out-{name}, format: ndjson }}");
    let text = job(name, &format!("{{ to: {}, rate: {rate} }}", rows - 1), &sink);
    service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes()).expect(201);
}

#[test]
fn a_swap_and_its_way_back_lose_and_double_no_row() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push("v2", "count-signed");
    submit_bounded(&service, "counts", 8_000, 2_000);
    assert!(!service.tail("counts", "counts", 5).is_empty());
    let swap = json!({ "operators": { "counts": { "component": "count:v2" } } });
    let trial = service
        .post("/v1/jobs/counts/swap", &json!({ "operators": { "counts": { "component": "count:v2" } }, "dry-run": true }))
        .expect(200);
    assert_eq!(trial["swap"]["phase"]["phase"], "abandoned");
    assert!(!trial["swap"]["operators"][0]["changes"].as_array().unwrap().is_empty(), "{trial}");
    assert_eq!(service.get("/v1/jobs/counts").expect(200)["version"], 1);

    let done = service.post("/v1/jobs/counts/swap", &swap).expect(200);
    assert_eq!(done["version"], 2);
    assert_eq!(done["pauses-us"].as_array().unwrap().len(), 1);
    let signed = service.tail("counts", "counts", 5);
    assert!(signed.iter().all(|row| row["by"] == "v2"), "{signed:?}");
    let back = service.post("/v1/jobs/counts/rollback", &json!({})).expect(200);
    assert_eq!(back["version"], 3);
    let unsigned = service.tail("counts", "counts", 5);
    assert!(unsigned.iter().all(|row| row["by"] == "v1"), "{unsigned:?}");
    service.wait_for_phase("counts", "finished");
    assert_exactly_once(&service, "counts", 8_000);
    assert!(results(&service, "counts").iter().any(|(_, _, by)| by == "v2"));
}

/// A version that reads a column more has it from a barrier on, of whatever was swapped in, undone and killed; it traps where the column is not what it
/// shall be.
#[test]
fn a_version_that_reads_more_columns_has_them_from_a_barrier_on() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push_of_tests("v2", "count-checked");
    submit_bounded(&service, "counts", 12_000, 1_000);
    assert!(!service.tail("counts", "counts", 5).is_empty());
    let wanted = |dry_run: bool| json!({ "operators": { "counts": { "component": "count:v2" } }, "probation-s": 0, "dry-run": dry_run });
    let trial = service.post("/v1/jobs/counts/swap", &wanted(true)).expect(200);
    assert_eq!(trial["swap"]["widens"], json!(["counts"]));
    let changes = trial["swap"]["operators"][0]["changes"].as_array().expect("changes").clone();
    assert!(changes.iter().any(|change| change["what"] == "input `in`: it reads `value` too"), "{changes:?}");
    let by = |service: &Service, version: &str| {
        let rows = service.tail("counts", "counts", 5);
        assert!(rows.iter().all(|row| row["by"] == version), "{rows:?}");
    };
    let done = service.post("/v1/jobs/counts/swap", &wanted(false)).expect(200);
    assert_eq!((done["widening-pauses-us"].as_array().map(Vec::len), done["pauses-us"].as_array().map(Vec::len)), (Some(1), Some(1)));
    println!("held up for {} and {} us", done["widening-pauses-us"], done["pauses-us"]);
    by(&service, "checked");
    service.post("/v1/jobs/counts/rollback", &json!({})).expect(200);
    by(&service, "v1");
    let again = service.post("/v1/jobs/counts/swap", &wanted(false)).expect(200);
    assert!(again.get("widening-pauses-us").is_none(), "wide rows are wide already: {again}");
    by(&service, "checked");
    let service = service.kill_and_start();
    service.wait_for_phase("counts", "finished");
    assert_exactly_once(&service, "counts", 12_000);
}

/// What came before a barrier and is still held lacks the column: the answer says where, and the job runs on.
#[test]
fn a_version_that_reads_more_columns_is_refused_where_rows_are_held_without() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push_of_tests("v2", "count-checked");
    let held = job("counts", "{ rate: 2000 }", "blackhole: {}")
        .replace(
            "    sequence: { rate: 2000 }",
            "    sequence: { rate: 2000 }\n    event-time: { expression: value, max-out-of-orderness: 0s }",
        )
        .replace("    key-by: [bucket]", "    key-by: [bucket]\n    order: event-time");
    service.ask("POST", "/v1/jobs", &service.token, &[], held.as_bytes()).expect(201);
    assert!(!service.tail("counts", "counts", 5).is_empty());
    let refused = service.post("/v1/jobs/counts/swap", &json!({ "operators": { "counts": { "component": "count:v2" } } }));
    let document = refused.problem(409, "it holds rows in event-time order that came without `value`");
    assert_eq!(document["problems"][0]["path"], "operators.counts", "{document}");
    assert_eq!(service.get("/v1/jobs/counts").expect(200)["version"], 1);
    assert!(service.tail("counts", "counts", 5).iter().all(|row| row["by"] == "v1"));
}

/// Who posts while the source is opened again would be turned away: it is not, and the job takes rows as before.
#[test]
fn a_version_that_reads_more_of_what_is_posted_is_refused() {
    let directory = directory();
    let service = Service::start_with(directory.path(), &["--isolation", "none"]);
    service.push("v1", "count");
    service.push_of_tests("v2", "count-checked");
    let posted = job("counts", "{}", "blackhole: {}")
        .replace("sequence: {}", "http-push: { listen: \"127.0.0.1:0\" }\n    schema: { bucket: Int64, value: Int64 }")
        .replace("  buckets:\n    input: numbers\n    compute: { bucket: value % 7 }\n", "")
        .replace("input: buckets", "input: numbers");
    service.ask("POST", "/v1/jobs", &service.token, &[], posted.as_bytes()).expect(201);
    service.wait_for_phase("counts", "running");
    let refused = service.post("/v1/jobs/counts/swap", &json!({ "operators": { "counts": { "component": "count:v2" } } }));
    refused.problem(409, "cannot be opened again while it is read");
    assert_eq!(service.get("/v1/jobs/counts").expect(200)["version"], 1);
}

/// A version that traps is put back by itself; nothing is lost, and the job says what happened.
#[test]
fn a_version_that_traps_is_rolled_back_by_itself() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push("v3", "count-broken");
    submit_bounded(&service, "counts", 8_000, 2_000);
    assert!(!service.tail("counts", "counts", 5).is_empty());
    let swapped = service.post("/v1/jobs/counts/swap", &json!({ "operators": { "counts": { "component": "count:v3" } } }));
    if swapped.status == 200 {
        let versions = service
            .wait_for("the version is back", "/v1/jobs/counts/versions", |versions| versions["items"].as_array().unwrap().len() == 3);
        assert_eq!((&versions["items"][2]["origin"], &versions["items"][2]["to"]), (&json!("rolled-back"), &json!(1)));
    } else {
        // The first subtask met its rows before the last one had switched: then it never was a version of the job.
        swapped.problem(422, "trapped");
        let versions = service.get("/v1/jobs/counts/versions").expect(200);
        assert_eq!(versions["items"].as_array().unwrap().len(), 1);
    }
    service.wait_for_phase("counts", "finished");
    assert_exactly_once(&service, "counts", 8_000);
}

/// A tag that has moved is put into every job that names it: planned for all first, refused as a whole, and moved again later.
#[test]
fn a_tag_is_swapped_in_every_job_that_names_it_or_in_none() {
    let directory = directory();
    let service = Service::start(directory.path());
    let first = service.push("v1", "count");
    service.submit("a");
    service.submit("b");
    let pinned = job("pinned", "{ rate: 1000 }", "blackhole: {}").replace("count:v1", &format!("count@sha256:{first}"));
    service.ask("POST", "/v1/jobs", &service.token, &[], pinned.as_bytes()).expect(201);
    let swap = |body: serde_json::Value| service.post("/v1/components/count/tags/v1/swap", &body);
    let outcomes = |answer: &serde_json::Value| {
        let of = |job: &serde_json::Value| format!("{}: {}", job["job"].as_str().unwrap(), job["outcome"].as_str().unwrap());
        answer["jobs"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(&swap(json!({})).expect(200)), ["a: current", "b: current"]);

    let second = service.push("v1", "count-signed");
    assert!(service.tail("a", "counts", 3).iter().all(|row| row["by"] == "v1"), "a tag that moves touches nothing");
    let planned = swap(json!({ "dry-run": true })).expect(200);
    assert_eq!((outcomes(&planned), &planned["digest"]), (vec!["a: planned".to_owned(), "b: planned".to_owned()], &json!(second)));
    assert_eq!(planned["jobs"][0]["operators"], json!(["counts"]));
    assert!(service.tail("a", "counts", 3).iter().all(|row| row["by"] == "v1"), "a plan touches nothing");
    swap(json!({ "digest": first })).problem(409, "points elsewhere");

    assert_eq!(outcomes(&swap(json!({ "digest": second, "probation-s": 0 })).expect(200)), ["a: swapped", "b: swapped"]);
    for job in ["a", "b"] {
        assert!(service.tail(job, "counts", 3).iter().all(|row| row["by"] == "v2"), "{job}");
    }
    assert!(service.tail("pinned", "counts", 3).iter().all(|row| row["by"] == "v1"), "a digest is no tag");
    service.post("/v1/jobs/a/rollback", &json!({})).expect(200);
    assert!(service.tail("a", "counts", 3).iter().all(|row| row["by"] == "v1"), "what the tag meant before is an earlier version");

    // A component with other ports fits nobody: none is touched, not even one that could be skipped.
    let other =
        std::fs::read(millstream_job_tests::components::repository().join("tests/jobs/operators/tally/jobs-tally.wasm")).expect("built");
    service.ask("POST", "/v1/components/count?tag=v1", &service.token, &[], &other).expect(201);
    swap(json!({})).problem(409, "job `b`");
    assert_eq!(outcomes(&swap(json!({ "skip-refused": true })).expect(200)), ["a: refused", "b: refused"]);
    assert_eq!(service.get("/v1/jobs/b").expect(200)["version"], 2);
    service.post("/v1/components/count/tags/none/swap", &json!({})).problem(404, "no tag `none`");
}

#[test]
fn swaps_that_do_not_fit_are_refused_and_touch_nothing() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    let other =
        std::fs::read(millstream_job_tests::components::repository().join("tests/jobs/operators/tally/jobs-tally.wasm")).expect("built");
    service.ask("POST", "/v1/components/tally?tag=v1", &service.token, &[], &other).expect(201);
    service.submit("counts");
    let swap = |operator: &str, component: &str| {
        service.post("/v1/jobs/counts/swap", &json!({ "operators": { operator: { "component": component } } }))
    };
    swap("counts", "tally:v1").problem(400, "word");
    swap("counts", "count:v9").problem(404, "has no tag `v9`");
    swap("counts", "nobody:v1").problem(404, "no component `nobody`");
    swap("nothing", "count:v1").problem(404, "no operator `nothing`");
    swap("buckets", "count:v1").problem(400, "is no component");
    service.post("/v1/jobs/counts/swap", &json!({ "operators": {} })).problem(400, "no operator is named");
    service.post("/v1/jobs/counts/swap", &json!({ "operators": { "counts": { "componnt": "x" } } })).problem(400, "componnt");
    service.post("/v1/jobs/counts/rollback", &json!({})).problem(404, "no earlier version");
    service.post("/v1/jobs/counts/rollback", &json!({ "to": 7 })).problem(404, "version 7");
    let view = service.get("/v1/jobs/counts").expect(200);
    assert_eq!((&view["version"], &view["observed"]["phase"]), (&json!(1), &json!("running")));
    assert!(service.tail("counts", "counts", 5).iter().all(|row| row["by"] == "v1"));
}

//! Every job file of the examples is what the published JSON Schema says, and is read without a mistake.

use std::path::{Path, PathBuf};

use millstream_engine::spec::{JobSpec, schema};

fn job_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() && !entry.ends_with("target") && !entry.ends_with("out") {
            job_files(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "yaml") {
            found.push(entry);
        }
    }
}

#[test]
fn the_examples_fit_the_schema() {
    let connectors = millstream_connectors::all();
    let schema = schema(&connectors);
    let validator = jsonschema::validator_for(schema.as_value()).expect("the schema is a schema");
    let mut files = Vec::new();
    job_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples"), &mut files);
    assert!(!files.is_empty(), "there are examples");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let spec = JobSpec::parse(&file.display().to_string(), &text, &connectors).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(spec.problems().is_empty(), "{}", spec.problems());
        let violations: Vec<String> =
            validator.iter_errors(spec.value()).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(violations, Vec::<String>::new(), "{}", file.display());
    }
}

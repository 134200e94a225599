//! The documentation names tests and files: they exist.

use std::{collections::BTreeSet, fs, path::Path};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[test]
fn every_test_that_the_documentation_names_exists() {
    let sources: String = ["host", "guest-sdk", "tests"].iter().map(|room| sources(&Path::new(ROOT).join(room))).collect();
    for (page, title) in [("host/ARCHITECTURE.md", "## Laws"), ("CONTRIBUTING.md", "## What fails when a guarantee goes")] {
        let named = tests_named_below(page, title);
        assert!(named.len() > 10, "{page}: the table below `{title}` was not found");
        let missing: Vec<_> = named.into_iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{page} names tests that do not exist: {missing:?}");
    }
}

/// What stands in backticks in the second column of the table below a title.
fn tests_named_below(page: &str, title: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(ROOT).join(page)).unwrap();
    let table = text.split(&format!("\n{title}\n")).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let cells = table.lines().filter_map(|line| line.split('|').nth(2));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_file_that_a_page_links_to_exists() {
    let mut missing = Vec::new();
    for page in ["README.md", "CONTRIBUTING.md", "host/ARCHITECTURE.md", "wit/README.md"] {
        let path = Path::new(ROOT).join(page);
        let text = fs::read_to_string(&path).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let local = links.filter(|link| !link.is_empty() && !link.contains("://"));
        missing.extend(local.filter(|link| !path.with_file_name(link).exists()).map(|link| format!("{page}: {link}")));
    }
    assert!(missing.is_empty(), "links that lead nowhere: {missing:?}");
}

/// All Rust below a directory.
fn sources(directory: &Path) -> String {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: &Path| match path {
        path if path.is_dir() && !path.ends_with("target") => sources(path),
        path if path.extension().is_some_and(|extension| extension == "rs") => fs::read_to_string(path).unwrap(),
        _ => String::new(),
    };
    entries.map(|path| text(&path)).collect()
}

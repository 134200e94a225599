//! The documentation names tests and files: they exist.

use std::{collections::BTreeSet, fs, path::Path};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[test]
fn every_test_that_the_documentation_names_exists() {
    let page = fs::read_to_string(Path::new(ROOT).join("host/ARCHITECTURE.md")).unwrap();
    let laws = page.split("## Laws").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let named = laws.lines().filter_map(|line| line.split('|').nth(2)).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let named: BTreeSet<&str> = named.collect();
    assert!(named.len() > 10, "the table of laws was not found");
    let sources: String = ["host", "guest-sdk", "tests"].iter().map(|room| sources(&Path::new(ROOT).join(room))).collect();
    let missing: Vec<_> = named.into_iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "host/ARCHITECTURE.md names tests that do not exist: {missing:?}");
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

//! Builds the operators of the examples and of these tests, once, with the toolchain that users have.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("this crate lies two levels below the top")
}

/// Compiles every operator of the examples and of these tests, and puts its component beside its project file, where the jobs look for it.
pub fn build() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let projects = projects();
        let target = compile(&projects);
        for project in &projects {
            encode(project, &target);
        }
    });
}

/// The directories of the operators in Rust.
fn projects() -> Vec<PathBuf> {
    let children = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory).into_iter().flatten().map(|entry| entry.expect("a readable directory").path()).collect()
    };
    let examples = children(&repository().join("examples"));
    let below = examples.iter().flat_map(|example| [example.join("operators"), example.join("rust")]);
    let below = below.chain([repository().join("tests/jobs/operators")]);
    below.flat_map(|directory| children(&directory)).filter(|project| project.join("Cargo.toml").is_file()).collect()
}

fn package(project: &Path) -> String {
    let manifest = fs::read_to_string(project.join("Cargo.toml")).expect("a readable project file");
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")).expect("a package has a name");
    name.trim_end_matches('"').to_owned()
}

/// Where the modules are.
fn compile(projects: &[PathBuf]) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(repository()).args([
        "build",
        "--release",
        "--target",
        "wasm32-unknown-unknown",
        "--message-format",
        "json-render-diagnostics",
    ]);
    for project in projects {
        cargo.args(["--package", &package(project)]);
    }
    let output = cargo.stderr(std::process::Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "the operators of the examples compile");
    let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let module = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let names = message["filenames"].as_array()?;
        names.iter().filter_map(|name| name.as_str()).find(|name| name.ends_with(".wasm")).map(PathBuf::from)
    });
    module.expect("cargo made modules").parent().expect("a module lies in a directory").to_owned()
}

/// The tests of several processes may do this at the same time: each writes beside and renames.
fn encode(project: &Path, target: &Path) {
    let name = package(project);
    let module = fs::read(target.join(format!("{}.wasm", name.replace('-', "_")))).expect("cargo made this module");
    let encoded = millstream_wasm::encode::component(&module, &[], &name).expect("the module is one of ours");
    let component = project.join(format!("{name}.wasm"));
    if fs::read(&component).is_ok_and(|there| there == encoded.bytes) {
        return;
    }
    let mut beside = tempfile::NamedTempFile::new_in(project).expect("a writable project");
    std::io::Write::write_all(&mut beside, &encoded.bytes).expect("a writable project");
    beside.persist(component).expect("a file can be renamed within its directory");
}

/// The library that makes a disk faulty for the process that it is preloaded into (`tests/faulty-disk`).
pub fn faulty_disk() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(repository()).args(["build", "--package", "millstream-faulty-disk", "--message-format", "json-render-diagnostics"]);
    let output = cargo.stderr(std::process::Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "the library compiles");
    let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let library = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let names = message["filenames"].as_array()?;
        names.iter().filter_map(|name| name.as_str()).find(|name| name.ends_with("faulty_disk.so")).map(PathBuf::from)
    });
    library.expect("cargo made the library")
}

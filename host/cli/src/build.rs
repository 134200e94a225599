//! `millstream build`: from a project directory to a component that only imports what operators are granted.
//!
//! The flow: [`Language::of`] finds the language by its project file → its module runs the language's own compiler and gives core modules
//! or components → [`millstream_wasm::encode`] makes components of the modules, in process, and refuses foreign imports → the component
//! is written beside the project file. Each language is one file in `build/`; nothing else knows its tools.

mod javascript;
mod python;
mod requirement;
mod rust;
mod tool;

pub use requirement::{Needed, Requirement, all as requirements};

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    report::{Exit, Failure},
    terminal::{self, FAINT, STRONG},
};

/// Builds the operators of a project into components.
///
/// The language is found by the project file: Cargo.toml (Rust), pyproject.toml (Python), package.json (JavaScript). The component is
/// written beside that file as `<name>.wasm`, which is the path that a job file gives.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream build                   the project in this directory
  millstream build my-operator      the project in another one
  millstream build --out target     write the component elsewhere")]
pub struct Arguments {
    /// The project: a directory that holds a project file.
    #[arg(default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// Directory to write the components to [default: beside each project file].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Build what is there, but do not let the compiler look for dependencies elsewhere.
    #[arg(long)]
    pub offline: bool,
}

/// What a language's compiler made.
struct Compiled {
    /// The name of the component.
    name: String,
    /// The directory of its project file.
    project: PathBuf,
    /// A core module or a component.
    bytes: Vec<u8>,
}

/// A component that was built.
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    /// The directory of its project file.
    pub project: PathBuf,
    /// What it is.
    pub inspection: millstream_wasm::Inspection,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    for built in build(&arguments)? {
        terminal::print(&described(&built));
    }
    Ok(Exit::Done)
}

/// Builds every component of a project.
pub fn build(arguments: &Arguments) -> Result<Vec<Built>, Failure> {
    let directory = &arguments.directory;
    let compiled = match Language::of(directory)? {
        Language::Rust => rust::compile(directory, arguments.offline),
        Language::Python => python::compile(directory),
        Language::JavaScript => javascript::compile(directory),
    }?;
    compiled.into_iter().map(|module| finish(module, arguments.out.as_deref())).collect()
}

/// A language whose projects can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    Python,
    JavaScript,
}

impl Language {
    const ALL: [(&'static str, Self); 3] =
        [("Cargo.toml", Self::Rust), ("pyproject.toml", Self::Python), ("package.json", Self::JavaScript)];

    /// The language of the project in `directory`.
    fn of(directory: &Path) -> Result<Self, Failure> {
        if !directory.is_dir() {
            return Err(Failure::new(Exit::Invalid, format!("there is no directory `{}`", directory.display())));
        }
        let found = Self::ALL.into_iter().find(|(file, _)| directory.join(file).is_file());
        found.map(|(_, language)| language).ok_or_else(|| {
            let files: Vec<_> = Self::ALL.iter().map(|(file, _)| *file).collect();
            Failure::new(Exit::Invalid, format!("`{}` holds no project: none of {} is there", directory.display(), files.join(", ")))
                .fix("name the project's directory, or make a project with `millstream new <name>`")
        })
    }
}

/// Encodes, checks and writes one component.
fn finish(compiled: Compiled, out: Option<&Path>) -> Result<Built, Failure> {
    let Compiled { name, project, bytes } = compiled;
    let encoded = millstream_wasm::encode::component(&bytes, &[], &name).map_err(|error| Failure::from_error(Exit::Invalid, &error))?;
    let directory = out.unwrap_or(&project);
    let path = directory.join(format!("{name}.wasm"));
    write(&path, &encoded.bytes)?;
    Ok(Built { path, project, inspection: encoded.inspection })
}

/// Replaces a file as a whole: a job that starts meanwhile reads the old component or the new one.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let beside = path.with_extension("wasm.new");
    let parent = path.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(&beside, bytes)).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| Failure::new(Exit::Failed, format!("`{}` cannot be written", path.display())).because(&error))
}

fn described(built: &Built) -> String {
    let imports = match built.inspection.imports.as_slice() {
        [] => "nothing".to_owned(),
        imports => imports.join(", "),
    };
    let size = terminal::size(built.inspection.size_bytes);
    format!("{STRONG}{}{STRONG:#}  {size}\n  {FAINT}imports {imports}{FAINT:#}\n", shown(&built.path).display())
}

/// The contract, for tools that want it as a file.
fn contract() -> Result<tempfile::TempDir, Failure> {
    const WIT: &str = include_str!("../../../wit/operator.wit");
    let written = tempfile::tempdir().and_then(|directory| fs::write(directory.path().join("operator.wit"), WIT).map(|()| directory));
    written.map_err(|error| Failure::new(Exit::Failed, "the contract cannot be written to a temporary directory").because(&error))
}

/// A path as it would be typed here.
pub fn shown(path: &Path) -> &Path {
    // Nowhere to be: the whole path is shown.
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).or_else(|_elsewhere| path.strip_prefix(".")).unwrap_or(path)
}

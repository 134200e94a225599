//! `millstream new`: a Rust operator that builds, tests and runs at once.
//!
//! The files are those of `new/templates/`: one set for all kinds, and one directory per kind with the operator and its part of the job.
//! Placeholders are `{{name}}`, `{{function}}` and `{{type}}` (the name as Rust writes it), `{{sdk}}` and, in the shared files, `{{operator}}` and `{{about}}`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use crate::{
    report::{Exit, Failure},
    terminal::{self, FAINT, STRONG},
};

/// Makes a new operator project: Rust code with a test, and a job with some data to run it in.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream new hot-readings
  millstream new hottest --kind keyed
  millstream new work/spread --kind aggregate

Then, in the new directory:
  cargo test                the operator as ordinary Rust
  millstream build          the component
  millstream run job.yaml   the job")]
pub struct Arguments {
    /// The directory to make; its last part is the operator's name: lower-case letters, digits and `-`.
    #[arg(value_name = "NAME")]
    name: PathBuf,
    /// What the operator does with its rows.
    #[arg(long, value_enum, default_value_t = Kind::Filter)]
    kind: Kind,
    /// Directory of the Rust SDK to depend on [default: that of the checkout this program was built from, else the published version].
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// What an operator does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Keeps some rows.
    Filter,
    /// Makes one row of each.
    Map,
    /// Makes any number of rows of each.
    FlatMap,
    /// Remembers something per key, with timers.
    Keyed,
    /// Makes one value of all rows of a window.
    Aggregate,
}

/// A file of the project: its path in it, and its text with placeholders.
type Template = (&'static str, &'static str);

/// The files that do not depend on the kind.
const SHARED: [Template; 5] = [
    ("Cargo.toml", include_str!("new/templates/Cargo.toml.txt")),
    ("README.md", include_str!("new/templates/README.md")),
    (".gitignore", include_str!("new/templates/gitignore.txt")),
    ("data/readings.csv", include_str!("new/templates/readings.csv")),
    ("job.yaml", include_str!("new/templates/job.yaml")),
];

impl Kind {
    /// The operator.
    fn library(self) -> &'static str {
        match self {
            Self::Filter => include_str!("new/templates/filter/lib.rs"),
            Self::Map => include_str!("new/templates/map/lib.rs"),
            Self::FlatMap => include_str!("new/templates/flat-map/lib.rs"),
            Self::Keyed => include_str!("new/templates/keyed/lib.rs"),
            Self::Aggregate => include_str!("new/templates/aggregate/lib.rs"),
        }
    }

    /// Its case for `millstream test`.
    fn case(self) -> &'static str {
        match self {
            Self::Filter => include_str!("new/templates/filter/case.json"),
            Self::Map => include_str!("new/templates/map/case.json"),
            Self::FlatMap => include_str!("new/templates/flat-map/case.json"),
            Self::Keyed => include_str!("new/templates/keyed/case.json"),
            Self::Aggregate => include_str!("new/templates/aggregate/case.json"),
        }
    }

    /// Its entry in the job.
    fn operator(self) -> &'static str {
        match self {
            Self::Filter | Self::Map | Self::FlatMap => "    component: { path: {{name}}.wasm }",
            Self::Keyed => "    key-by: [sensor]\n    component: { path: {{name}}.wasm }",
            Self::Aggregate => include_str!("new/templates/aggregate/operator.yaml"),
        }
    }

    /// What it does, for the README.
    fn about(self) -> &'static str {
        match self {
            Self::Filter => "keeps the readings of 30 °C and more",
            Self::Map => "adds the temperature in Fahrenheit to every reading",
            Self::FlatMap => "makes one row of every word in the notes",
            Self::Keyed => "tells when a sensor is hotter than ever before, and when it has been silent for an hour",
            Self::Aggregate => "gives the spread between the hottest and the coldest reading of every sensor and hour",
        }
    }
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let directory = &arguments.name;
    let name = checked_name(directory)?;
    if directory.exists() {
        return Err(
            Failure::new(Exit::Invalid, format!("`{}` exists already", directory.display())).fix("choose another name, or remove it first")
        );
    }
    let sdk = Sdk::find(arguments.sdk)?;
    for (path, text) in files(arguments.kind, name, &sdk) {
        write(&directory.join(path), &text)?;
    }
    if let Some(lock) = sdk.lock_file() {
        // The versions that the checkout was tested with; cargo removes what this project does not need.
        write(&directory.join("Cargo.lock"), &lock)?;
    }
    terminal::print(&next_steps(directory, arguments.kind));
    Ok(Exit::Done)
}

/// The name of a project from its directory.
fn checked_name(directory: &Path) -> Result<&str, Failure> {
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_kebab = name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
        && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-');
    if is_kebab {
        return Ok(name);
    }
    Err(Failure::new(Exit::Invalid, format!("`{name}` cannot be the name of an operator"))
        .fix("use lower-case letters, digits and single `-`, beginning with a letter: hot-readings"))
}

/// Every file of the project with its text.
fn files(kind: Kind, name: &str, sdk: &Sdk) -> Vec<(String, String)> {
    let fill = |text: &str| {
        let text = text.replace("{{operator}}", kind.operator().trim_end()).replace("{{about}}", kind.about());
        text.replace("{{name}}", name)
            .replace("{{function}}", &name.replace('-', "_"))
            .replace("{{type}}", &camel_case(name))
            .replace("{{sdk}}", &sdk.dependency())
    };
    let own = [("src/lib.rs", kind.library()), ("tests/readings.json", kind.case())];
    SHARED.into_iter().chain(own).map(|(path, text)| (path.to_owned(), fill(text))).collect()
}

/// `hot-readings` → `HotReadings`.
fn camel_case(name: &str) -> String {
    let capital = |part: &str| part.chars().next().into_iter().flat_map(char::to_uppercase).chain(part.chars().skip(1)).collect::<String>();
    name.split('-').map(capital).collect()
}

/// Where the Rust SDK comes from.
enum Sdk {
    /// A directory.
    Path(PathBuf),
    /// The version that belongs to this program.
    Published,
}

impl Sdk {
    /// The one asked for, or that of the checkout this program was built from, or the published one.
    fn find(asked_for: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(path) = asked_for {
            let absolute = path.canonicalize().ok().filter(|path| path.join("Cargo.toml").is_file());
            return absolute.map(Self::Path).ok_or_else(|| Failure::new(Exit::Invalid, format!("`{}` holds no SDK", path.display())));
        }
        let checkout = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest-sdk/rust")).canonicalize();
        Ok(checkout.ok().filter(|path| path.join("Cargo.toml").is_file()).map_or(Self::Published, Self::Path))
    }

    /// What stands behind `millstream =` in Cargo.toml.
    fn dependency(&self) -> String {
        match self {
            Self::Path(path) => format!("{{ path = {:?} }}", path.display().to_string()),
            Self::Published => format!("{:?}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// The lock file of the checkout.
    fn lock_file(&self) -> Option<String> {
        match self {
            Self::Path(path) => fs::read_to_string(path.join("../../Cargo.lock")).ok(),
            Self::Published => None,
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| Failure::new(Exit::Failed, format!("`{}` cannot be written", path.display())).because(&error))
}

fn next_steps(directory: &Path, kind: Kind) -> String {
    let directory = directory.display();
    format!(
        "{STRONG}{directory}{STRONG:#}  {}\n\n  \
         cd {directory}\n  \
         cargo test               {FAINT}the operator as ordinary Rust: src/lib.rs{FAINT:#}\n  \
         millstream build         {FAINT}the component{FAINT:#}\n  \
         millstream test          {FAINT}the component in the real host: tests/readings.json{FAINT:#}\n  \
         millstream run job.yaml  {FAINT}the job: data/readings.csv in, a table out{FAINT:#}\n",
        kind.about()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case() {
        for good in ["hot", "hot-readings", "a/b/hot-2"] {
            assert!(checked_name(Path::new(good)).is_ok(), "{good}");
        }
        for bad in ["Hot", "hot_readings", "-hot", "hot-", "2hot", "h--t", "", "..", "hot readings", "höt"] {
            assert!(checked_name(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_placeholder_is_left() {
        for kind in Kind::value_variants() {
            for (path, text) in files(*kind, "hot-readings", &Sdk::Published) {
                assert!(!text.contains("{{"), "{kind:?} {path}: {text}");
            }
        }
    }
}

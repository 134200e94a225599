//! The settings `value-schema` and `message`: a schema as text, or in a file, where files may be read: relative to that directory.

use std::path::{Path, PathBuf};

use millstream_engine::connector::SettingsProblem;

use crate::{
    formats::{avro, protobuf},
    settings::problem,
};

/// Bytes of a file that holds a schema.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Files that a file may import, and those that they import.
const IMPORTS_MAX: usize = 100;

/// The schema that the setting means.
///
/// # Errors
/// It is none, or the file cannot be read.
pub fn avro_schema(setting: &str, files: Option<&Path>) -> Result<avro::Schema, SettingsProblem> {
    let is_text = setting.trim_start().starts_with(['{', '[', '"']);
    let parsed = if is_text { Ok(setting.to_owned()) } else { file(setting, files).and_then(|path| text(&path)) };
    let parsed = parsed.and_then(|text| avro::Schema::parse(&text));
    parsed.map_err(|message| problem("value-schema", message))
}

/// The message type that the settings mean.
///
/// # Errors
/// They mean none, or the file cannot be read.
pub fn protobuf_schema(setting: &str, message: Option<&str>, files: Option<&Path>) -> Result<protobuf::Schema, SettingsProblem> {
    let parsed = if setting.contains('{') {
        protobuf::Schema::parse(setting, &[], message)
    } else {
        file(setting, files).and_then(|path| of_file(&path, message))
    };
    parsed.map_err(|message| problem("value-schema", message))
}

fn of_file(path: &Path, message: Option<&str>) -> Result<protobuf::Schema, String> {
    let root = text(path)?;
    let mut imports = Vec::new();
    collect(path.parent().unwrap_or(Path::new("")), &root, &mut imports)?;
    protobuf::Schema::parse(&root, &imports, message)
}

/// The files that `text` imports, from the same directory.
fn collect(directory: &Path, text_of: &str, found: &mut Vec<(String, String)>) -> Result<(), String> {
    let mut left = imports(text_of);
    while let Some(name) = left.pop() {
        if name.starts_with("google/protobuf/") || found.iter().any(|(known, _)| *known == name) {
            continue;
        }
        if found.len() >= IMPORTS_MAX {
            return Err(format!("it imports more than {IMPORTS_MAX} files"));
        }
        let imported = text(&directory.join(&name))?;
        left.extend(imports(&imported));
        found.push((name, imported));
    }
    Ok(())
}

fn imports(text: &str) -> Vec<String> {
    let import = |line: &str| {
        let quoted = line.trim_start().strip_prefix("import")?.split(['"', '\'']).nth(1)?;
        Some(quoted.to_owned())
    };
    text.lines().filter_map(import).collect()
}

fn file(path: &str, files: Option<&Path>) -> Result<PathBuf, String> {
    let base = files.ok_or("is the schema itself here: a job of the service reads no files")?;
    Ok(base.join(path))
}

fn text(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("the file {} cannot be read: {error}", path.display());
    if std::fs::metadata(path).map_err(cannot)?.len() > FILE_BYTES_MAX {
        return Err(format!("the file {} is longer than {FILE_BYTES_MAX} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(cannot)
}

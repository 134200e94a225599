//! The setting `value-schema`: a schema as text, or a file that holds one.

use std::path::Path;

use millstream_engine::connector::SettingsProblem;

use super::connection::Machine;
use crate::{formats::avro, settings::problem};

/// Bytes of a file that holds a schema.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The schema that the setting means.
///
/// # Errors
/// It is none, or the file cannot be read.
pub fn avro_schema(setting: &str, machine: Machine, base: &Path) -> Result<avro::Schema, SettingsProblem> {
    let is_text = setting.trim_start().starts_with(['{', '[', '"']);
    let parsed = if is_text { Ok(setting.to_owned()) } else { read(setting, machine, base) };
    let parsed = parsed.and_then(|text| avro::Schema::parse(&text));
    parsed.map_err(|message| problem("value-schema", message))
}

fn read(path: &str, machine: Machine, base: &Path) -> Result<String, String> {
    if machine == Machine::Shared {
        return Err("is the schema itself here: a job of the service reads no files".into());
    }
    let path = base.join(path);
    let cannot = |error: std::io::Error| format!("the file {} cannot be read: {error}", path.display());
    if std::fs::metadata(&path).map_err(cannot)?.len() > FILE_BYTES_MAX {
        return Err(format!("the file {} is longer than {FILE_BYTES_MAX} bytes", path.display()));
    }
    std::fs::read_to_string(&path).map_err(cannot)
}

//! Settings of an operator: typed by `#[millstream::settings]`, written as JSON or YAML in the job file.

/// The JSON Schema of settings `T`, for `describe`.
#[cfg(feature = "settings")]
pub fn schema<T: schemars::JsonSchema>() -> String {
    schemars::schema_for!(T).to_value().to_string()
}

/// Settings from what the job says.
///
/// # Errors
/// They do not fit the type; says where and why.
#[cfg(feature = "settings")]
pub fn parse<T: serde::de::DeserializeOwned>(settings: &str) -> Result<T, String> {
    let settings = if settings.trim().is_empty() { "{}" } else { settings };
    serde_json::from_str(settings).map_err(|error| format!("settings: {error}"))
}

/// Checks that a job gives no settings to an operator that takes none.
///
/// # Errors
/// It does.
pub fn none(settings: &str) -> Result<(), String> {
    match settings.trim() {
        "" | "{}" | "null" => Ok(()),
        _ => Err("this operator takes no settings".into()),
    }
}

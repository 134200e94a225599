//! A record as text: a line for people, and a line of JSON that can be read back.
//!
//! As JSON it is `{"topic":…,"partition":…,"offset":…,"timestamp":…,"key":…,"value":…,"headers":[{"name":…,"value":…}]}`. Keys are text. A value that is
//! an object or a list of JSON stands there as such, byte for byte; any other one is text; a tombstone is null. What is no text stands in hexadecimal
//! under `key-hex`, `value-hex`. Reading it back, everything but the value may be left out, and topic and offset mean nothing.

use std::fmt::Write as _;

use anstyle::Style;
use millstream_connectors::kafka::{inspect, produce, settings::Instant};
use millstream_server::text::{from_hexadecimal, hexadecimal};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::terminal;

const FAINT: Style = terminal::FAINT;

/// A line for people: where it stands, when, its key, its value, its headers.
pub fn to_text(record: &inspect::Record<'_>) -> String {
    let time = record.timestamp_ms.map_or_else(|| "-".to_owned(), time);
    let mut line = format!("{FAINT}{}:{}  {time}{FAINT:#}  ", record.partition, record.offset);
    match record.key {
        Some(key) => printable(key, &mut line),
        None => line.push('-'),
    }
    line += "  ";
    match record.value {
        Some(value) => printable(value, &mut line),
        None => line += &format!("{FAINT}(no value){FAINT:#}"),
    }
    for (name, value) in record.headers() {
        let _ = write!(line, "  {FAINT}");
        printable(name.as_bytes(), &mut line);
        line.push('=');
        printable(value.unwrap_or_default(), &mut line);
        let _ = write!(line, "{FAINT:#}");
    }
    line
}

/// Bytes as text that moves no cursor and rings no bell: control characters and what is no UTF-8 are escaped.
fn printable(bytes: &[u8], line: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() { line.extend(character.escape_default()) } else { line.push(character) }
        }
        line.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
}

/// A line of JSON.
pub fn to_json(topic: &str, record: &inspect::Record<'_>) -> String {
    let mut shown = json!({ "topic": topic, "partition": record.partition, "offset": record.offset });
    let fields = shown.as_object_mut().expect("it was made as an object");
    if let Some(timestamp_ms) = record.timestamp_ms {
        fields.insert("timestamp".to_owned(), time(timestamp_ms).into());
    }
    put(fields, "key", record.key);
    let headers: Vec<Value> = record
        .headers()
        .map(|(name, value)| {
            let mut header = Map::from_iter([("name".to_owned(), Value::from(name))]);
            put(&mut header, "value", value);
            header.into()
        })
        .collect();
    if !headers.is_empty() {
        fields.insert("headers".to_owned(), headers.into());
    }
    if let Some(value) = record.value.and_then(as_json) {
        let mut line = shown.to_string();
        line.pop();
        line += &format!(",\"value\":{value}}}");
        return line;
    }
    put(fields, "value", record.value);
    shown.to_string()
}

/// A value that is an object or a list of JSON, on one line, and so can stand in a line as it is.
fn as_json(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.starts_with(['{', '[']) && !text.contains(['\n', '\r']))?;
    serde_json::from_str::<IgnoredAny>(text).ok().map(|_| text)
}

fn put(fields: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| hexadecimal(bytes))) {
        None => fields.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => fields.insert(name.to_owned(), text.into()),
        Some(Err(text)) => fields.insert(format!("{name}-hex"), text.into()),
    };
}

/// To the millisecond.
fn time(at_ms: i64) -> String {
    let seconds = terminal::time(at_ms.div_euclid(1_000).saturating_mul(1_000));
    match seconds.strip_suffix('Z') {
        Some(seconds) => format!("{seconds}.{:03}Z", at_ms.rem_euclid(1_000)),
        None => at_ms.to_string(),
    }
}

/// A record of a line of JSON, as [`to_json`] writes it.
///
/// # Errors
/// It is none; a clause.
pub fn from_json(line: &str) -> Result<produce::Record, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("it is no JSON ({error})"))?;
    let Value::Object(mut fields) = value else { return Err("it is no object of JSON".to_owned()) };
    let value = match fields.get("value") {
        Some(object @ (Value::Object(_) | Value::Array(_))) => Some(object.to_string().into_bytes()),
        Some(_) | None if fields.contains_key("value") || fields.contains_key("value-hex") => bytes(&fields, "value")?,
        Some(_) | None => return Err("it has no `value` (null means a tombstone)".to_owned()),
    };
    let record = produce::Record {
        key: bytes(&fields, "key")?,
        value,
        headers: fields.get("headers").map(headers).transpose()?.unwrap_or_default(),
        timestamp_ms: fields.get("timestamp").map(timestamp).transpose()?.flatten(),
        partition: fields.get("partition").map(partition).transpose()?.flatten(),
    };
    fields.retain(|name, _| !KNOWN.contains(&name.as_str()));
    match fields.keys().next() {
        Some(unknown) => Err(format!("a record has no `{unknown}`; it has {}", KNOWN.join(", "))),
        None => Ok(record),
    }
}

const KNOWN: [&str; 9] = ["key", "key-hex", "value", "value-hex", "headers", "timestamp", "partition", "topic", "offset"];

fn bytes(fields: &Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    let hexadecimal = format!("{name}-hex");
    match (fields.get(name), fields.get(&hexadecimal)) {
        (None | Some(Value::Null), None) => Ok(None),
        (Some(Value::String(text)), None) => Ok(Some(text.clone().into_bytes())),
        (None, Some(Value::String(text))) => {
            from_hexadecimal(text).map(Some).ok_or_else(|| format!("`{hexadecimal}` is not in lower-case hexadecimal"))
        }
        (Some(_), None) => Err(format!("`{name}` is not text")),
        (_, Some(_)) => Err(format!("`{hexadecimal}` is text and stands in the place of `{name}`")),
    }
}

fn headers(value: &Value) -> Result<Vec<produce::Header>, String> {
    let headers = value.as_array().ok_or("`headers` is a list of objects with `name` and `value`")?;
    let header = |header: &Value| {
        let fields = header.as_object().filter(|fields| fields.get("name").is_some_and(Value::is_string));
        let fields = fields.ok_or("a header is an object with `name` and `value`")?;
        Ok((fields["name"].as_str().unwrap_or_default().to_owned(), bytes(fields, "value")?))
    };
    headers.iter().map(header).collect()
}

fn timestamp(value: &Value) -> Result<Option<i64>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Number(number) => number.as_i64().map(Some).ok_or_else(|| "`timestamp` is a number of ms since 1970".to_owned()),
        _ => instant(value).map(Some),
    }
}

/// An instant in RFC 3339, in ms since the epoch.
pub fn instant(value: &Value) -> Result<i64, String> {
    serde_json::from_value::<Instant>(value.clone()).map(|instant| instant.0).map_err(|error| error.to_string())
}

fn partition(value: &Value) -> Result<Option<i32>, String> {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0);
    if value.is_null() { Ok(None) } else { number.map(Some).ok_or_else(|| format!("`partition` is a number from 0 on, not {value}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_cannot_move_the_cursor() {
        let mut line = String::new();
        printable(b"a\x1b[2Jb\n\xff\xc3\xa9", &mut line);
        assert_eq!(line, "a\\u{1b}[2Jb\\n\\xff\u{e9}");
    }

    #[test]
    fn times_are_shown_to_the_millisecond_before_and_after_1970() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(instant(&time(1_700_000_000_123).into()), Ok(1_700_000_000_123));
    }

    #[test]
    fn lines_of_json_are_records() {
        let line = r#"{"topic":"t","offset":3,"key":"k","value":{"b":1,"a":2.50},"headers":[{"name":"h","value":null}],"timestamp":5,"partition":2}"#;
        let record = from_json(line).expect("a record");
        let value = Some(br#"{"b":1,"a":2.5}"#.to_vec());
        let headers = vec![("h".to_owned(), None)];
        assert_eq!(record, produce::Record { key: Some(b"k".to_vec()), value, headers, timestamp_ms: Some(5), partition: Some(2) });
        let bytes = from_json(r#"{"key-hex":"00ff","value":null}"#).expect("a tombstone");
        assert_eq!((bytes.key, bytes.value), (Some(vec![0, 255]), None));
        assert_eq!(from_json(r#"{"value":"7"}"#).expect("text").value, Some(b"7".to_vec()));
    }

    #[test]
    fn lines_that_are_no_record_say_why() {
        for (line, why) in [
            ("7", "no object"),
            ("{", "no JSON"),
            ("{}", "no `value`"),
            (r#"{"value":7}"#, "not text"),
            (r#"{"value":"","key":7}"#, "`key` is not text"),
            (r#"{"value":"","val":7}"#, "no `val`"),
            (r#"{"value":"","partition":-1}"#, "from 0 on"),
            (r#"{"value":"","timestamp":"now"}"#, "no instant"),
            (r#"{"value":"","headers":{}}"#, "list"),
            (r#"{"value-hex":"xy"}"#, "hexadecimal"),
            (r#"{"value":"","value-hex":"00"}"#, "in the place"),
        ] {
            let error = from_json(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}

//! A job file as text becomes a JSON value whose every part knows its line and column. YAML or JSON (which is YAML).
//!
//! Mappings have text keys; a key that appears twice is a mistake, and so are anchors, aliases and tags: a file says what it means where it
//! says it.

use std::{borrow::Cow, collections::HashMap};

use saphyr::{Scalar, ScalarStyle};
use saphyr_parser::{Event, Marker, Parser, Span};
use serde_json::{Map, Value};

use super::problem::{Problem, Problems};

/// How deep a job file may nest.
const DEPTH_MAX: usize = 64;
/// Longest job file, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// A parsed job file.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) value: Value,
    /// Where things are, by JSON pointer.
    places: HashMap<String, Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Option<(usize, usize)>,
    value: (usize, usize),
}

/// Which side of the colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Key,
    Value,
}

impl Document {
    /// Reads `text`; `file` names it in messages.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::new(file, text);
        if text.len() > TEXT_BYTES_MAX {
            problems.push(problem((1, 1), format!("a job file has at most {TEXT_BYTES_MAX} bytes, this one has {}", text.len())));
            return Err(problems);
        }
        let mut builder = Builder { problems, ..Builder::default() };
        builder.read(text);
        let Builder { root, places, problems, .. } = builder;
        problems.into_result()?;
        Ok(Self { file: file.into(), text: text.into(), value: root.unwrap_or(Value::Null), places })
    }

    /// Line and column (from 1) of a value or its key; of its nearest ancestor if there is no such thing.
    pub(crate) fn position(&self, pointer: &str, side: Side) -> (usize, usize) {
        let mut pointer = pointer;
        let mut side = side;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return match side {
                    Side::Key => place.key.unwrap_or(place.value),
                    Side::Value => place.value,
                };
            }
            let Some((parent, _)) = pointer.rsplit_once('/') else { return (1, 1) };
            pointer = parent;
            side = Side::Key;
        }
    }

    /// Sets the value at a dotted path, making the mappings that are missing on the way. It has no place of its own: messages about it name
    /// the place of its nearest ancestor.
    ///
    /// # Errors
    /// The path leads through something that is no mapping or list, or beyond the end of a list.
    pub(crate) fn set(&mut self, dotted: &str, value: Value) -> Result<(), String> {
        let pointer = self.resolve("", dotted);
        let mut here = &mut self.value;
        for name in pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")) {
            if here.is_null() {
                *here = Value::Object(Map::new());
            }
            here = match here {
                Value::Object(map) => map.entry(name).or_insert(Value::Null),
                Value::Array(list) => name
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| list.get_mut(index))
                    .ok_or_else(|| format!("`{dotted}` does not exist: the list has no element `{name}`"))?,
                _ => return Err(format!("`{dotted}` does not exist: there is nothing below which `{name}` could stand")),
            };
        }
        *here = value;
        Ok(())
    }

    /// The pointer of a dotted path below `base`. Keys may hold dots themselves: the longest key that exists wins.
    pub(crate) fn resolve(&self, base: &str, dotted: &str) -> String {
        let mut pointer = base.to_owned();
        let mut rest = dotted;
        while !rest.is_empty() {
            let here = self.value.pointer(&pointer);
            let ends = rest.match_indices(['.', '[']).map(|(end, _)| end).chain([rest.len()]);
            let known = ends.filter(|&end| end > 0).rfind(|&end| has_child(here, rest[..end].trim_end_matches(']')));
            let end = known.unwrap_or_else(|| rest.find('.').unwrap_or(rest.len()));
            pointer = child(&pointer, rest[..end].trim_end_matches(']'));
            rest = rest[end..].trim_start_matches(['.', '[']);
        }
        pointer
    }
}

fn has_child(value: Option<&Value>, name: &str) -> bool {
    match value {
        Some(Value::Object(map)) => map.contains_key(name),
        Some(Value::Array(list)) => name.parse::<usize>().is_ok_and(|index| index < list.len()),
        _ => false,
    }
}

/// The pointer of a part of the value at `pointer`.
pub(crate) fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn problem((line, column): (usize, usize), message: impl Into<String>) -> Problem {
    Problem { line, column, path: String::new(), message: message.into(), help: None }
}

fn position(marker: Marker) -> (usize, usize) {
    (marker.line().max(1), marker.col() + 1)
}

/// A collection that is being read.
struct Open {
    pointer: String,
    at: (usize, usize),
    collection: Collection,
}

enum Collection {
    List(Vec<Value>),
    /// With the key that waits for its value, and where it is.
    Map(Map<String, Value>, Option<(String, (usize, usize))>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Value>,
    places: HashMap<String, Place>,
    problems: Problems,
}

impl Builder {
    fn read(&mut self, text: &str) {
        for event in Parser::new_from_str(text) {
            match event {
                Ok((event, span)) => self.on_event(event, span),
                Err(error) => {
                    self.problems.push(problem(position(*error.marker()), error.info().to_owned()));
                    return;
                }
            }
            if self.open.len() > DEPTH_MAX {
                let at = self.open.last().map_or((1, 1), |open| open.at);
                self.problems.push(problem(at, format!("nested deeper than {DEPTH_MAX}")));
                return;
            }
        }
    }

    fn on_event(&mut self, event: Event<'_>, span: Span) {
        let at = position(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_marks(at, anchor, tag.is_some());
                self.on_scalar(text, style, at);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_marks(at, anchor, tag.is_some());
                self.begin(at, Collection::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_marks(at, anchor, tag.is_some());
                self.begin(at, Collection::Map(Map::new(), None));
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(_) => {
                self.problems.push(problem(at, "aliases (`*name`) are not used in job files: write the value out"));
                self.value(Value::Null, at);
            }
            Event::DocumentStart(_) if self.root.is_some() => self.problems.push(problem(at, "a job file is a single document")),
            Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => {}
        }
    }

    fn refuse_marks(&mut self, at: (usize, usize), anchor: usize, tagged: bool) {
        if anchor != 0 {
            self.problems.push(problem(at, "anchors (`&name`) are not used in job files: write the value out"));
        }
        if tagged {
            self.problems.push(problem(at, "tags (`!name`) are not used in job files"));
        }
    }

    fn on_scalar(&mut self, text: Cow<'_, str>, style: ScalarStyle, at: (usize, usize)) {
        if let Some(Open { collection: Collection::Map(map, key @ None), .. }) = self.open.last_mut() {
            if map.contains_key(&*text) {
                self.on_second_key(&text, at);
            } else {
                *key = Some((text.into_owned(), at));
            }
            return;
        }
        let value = match Scalar::parse_from_cow_and_metadata(text.clone(), style, None) {
            Some(Scalar::Null) => Value::Null,
            Some(Scalar::Boolean(value)) => value.into(),
            Some(Scalar::Integer(value)) => value.into(),
            Some(Scalar::FloatingPoint(value)) => {
                serde_json::Number::from_f64(value.into_inner()).map_or_else(|| text.into(), Value::Number)
            }
            Some(Scalar::String(_)) | None => text.into(),
        };
        self.value(value, at);
    }

    /// The second value of a key is read, and forgotten, under a name that cannot be in the file.
    fn on_second_key(&mut self, key: &str, at: (usize, usize)) {
        let Some(Open { pointer, collection: Collection::Map(_, waiting), .. }) = self.open.last_mut() else { return };
        let first = self.places.get(&child(pointer, key)).and_then(|place| place.key);
        *waiting = Some((format!("{key}\u{0}"), at));
        let first = first.map_or_else(String::new, |(line, _)| format!(", first on line {line}"));
        self.problems.push(problem(at, format!("`{key}` is here twice{first}")));
    }

    fn begin(&mut self, at: (usize, usize), collection: Collection) {
        if let Some(Open { collection: Collection::Map(_, waiting @ None), .. }) = self.open.last_mut() {
            self.problems.push(problem(at, "a key is a text"));
            *waiting = Some((String::new(), at));
        }
        let pointer = self.place(at);
        self.open.push(Open { pointer, at, collection });
    }

    fn end(&mut self) {
        let Some(Open { collection, .. }) = self.open.pop() else { return };
        self.attach(match collection {
            Collection::List(list) => Value::Array(list),
            Collection::Map(map, _) => Value::Object(map),
        });
    }

    fn value(&mut self, value: Value, at: (usize, usize)) {
        self.place(at);
        self.attach(value);
    }

    /// Notes where the value that comes next is; returns its pointer.
    fn place(&mut self, at: (usize, usize)) -> String {
        let (pointer, key) = match self.open.last() {
            None => (String::new(), None),
            Some(Open { pointer, collection: Collection::List(list), .. }) => (child(pointer, &list.len().to_string()), None),
            Some(Open { pointer, collection: Collection::Map(_, waiting), .. }) => {
                let (key, key_at) = waiting.as_ref().map_or(("", at), |(key, key_at)| (key.as_str(), *key_at));
                (child(pointer, key), Some(key_at))
            }
        };
        self.places.insert(pointer.clone(), Place { key, value: at });
        pointer
    }

    fn attach(&mut self, value: Value) {
        match self.open.last_mut().map(|open| &mut open.collection) {
            None => self.root = Some(value),
            Some(Collection::List(list)) => list.push(value),
            Some(Collection::Map(map, waiting)) => {
                if let Some((key, _)) = waiting.take() {
                    map.insert(key, value);
                }
            }
        }
    }
}

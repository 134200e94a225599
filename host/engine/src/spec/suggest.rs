//! "Did you mean …?"

use arrow_schema::Schema;

use crate::operators::Problem;

/// The known name that `name` was probably meant to be; none if nothing is close.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name_lower = name.to_lowercase();
    let allowed = name.chars().count().div_ceil(3).max(1);
    let distance = |known: &str| strsim::damerau_levenshtein(&name_lower, &known.to_lowercase());
    let scored = known.into_iter().map(|known| (distance(known), known));
    let closest = scored.min_by_key(|(distance, _)| *distance)?;
    (closest.0 <= allowed).then_some(closest.1)
}

/// What to do about an unknown name: the probable one, else all of them.
pub fn help<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match closest(name, known.iter().copied()) {
        Some(closest) => format!("did you mean `{closest}`?"),
        None if known.is_empty() => format!("there are no {what}"),
        None => format!("the {what} are {}", list(&known)),
    }
}

/// Names in backquotes, separated by commas; long lists are cut.
pub fn list(names: &[&str]) -> String {
    const SHOWN_MAX: usize = 20;
    let shown: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN_MAX);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{rest}", shown.join(", "))
}

/// The names of the columns.
pub fn column_names(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.fields().iter().map(|field| field.name().as_str())
}

/// The mistake of naming a column that the input does not have, at `path` in an operator's settings.
pub fn unknown_column(path: &str, name: &str, schema: &Schema) -> Problem {
    Problem::at(path, format!("unknown column `{name}`")).help(help("columns", name, column_names(schema)))
}

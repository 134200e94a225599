//! `${env:NAME}` and `${file:PATH}` in the values of the job file of a local run: the environment of this process, and files beside the job file.

use std::{env, fs, io::Read as _, path::Path};

use millstream_server::references::{Reference, References, Scheme, Unresolved};
use serde_json::Value;

/// Longest value that a file gives, in bytes: that of a secret of the service.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What a job file refers to; relative paths start in `base_directory`.
pub fn resolve(document: &Value, base_directory: &Path) -> References {
    References::resolve(document, |reference| match reference.scheme {
        Scheme::Env => variable(&reference.name),
        Scheme::File => content(&reference.name, &base_directory.join(&reference.name)),
        Scheme::Secret => Err(of_the_service(reference)),
    })
}

fn variable(name: &str) -> Result<String, Unresolved> {
    let value = env::var_os(name).ok_or_else(|| Unresolved {
        message: format!("the environment has no variable `{name}`, which the job file names"),
        fix: format!("set it: {name}=… millstream run …"),
    })?;
    value.into_string().map_err(|_| Unresolved {
        message: format!("the variable `{name}` of the environment is not UTF-8"),
        fix: "put the value into a file, as text, and name it with `${file:PATH}`".to_owned(),
    })
}

/// The text of a file, without the line break at its end, which editors add.
fn content(name: &str, path: &Path) -> Result<String, Unresolved> {
    let unusable =
        |how: String, fix: &str| Unresolved { message: format!("the file `{name}`, which the job file names, {how}"), fix: fix.to_owned() };
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    let bytes = read.map_err(|error| unusable(format!("cannot be read: {error}"), "relative paths start where the job file is"))?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(unusable(format!("is longer than {}", crate::terminal::size(FILE_BYTES_MAX)), "name a file that holds one value"));
    }
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(text.to_owned())
}

fn of_the_service(reference: &Reference) -> Unresolved {
    Unresolved {
        message: format!("`{reference}` is a secret of the service, which a local run has not"),
        fix: "write `${env:NAME}` or `${file:PATH}` instead, or submit the job: millstream submit".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_gives_its_text_without_the_last_line_break() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (text, value) in [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", "")] {
            fs::write(directory.path().join("value"), text).expect("writable");
            assert_eq!(content("value", &directory.path().join("value")).as_deref(), Ok(value));
        }
        fs::write(directory.path().join("value"), "x".repeat(FILE_BYTES_MAX as usize + 1)).expect("writable");
        assert!(content("value", &directory.path().join("value")).expect_err("too long").message.contains("longer than 64"));
        assert!(content("none", &directory.path().join("none")).expect_err("missing").message.contains("cannot be read"));
    }

    #[test]
    fn relative_paths_start_where_the_job_file_is() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("key"), "hunter2\n").expect("writable");
        let document = json!({ "a": "Bearer ${file:key}" });
        assert_eq!(resolve(&document, directory.path()).replacements(&document), [("a".into(), json!("Bearer hunter2"))]);
    }
}

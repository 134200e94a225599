//! What is meant where a command takes a job directory or a job of the service: a directory that exists is a directory (`./NAME` to be sure), `job:NAME` is
//! always a job of the service, and anything else is one too if somebody has logged in.

use std::path::{Path, PathBuf};

use super::{Service, contexts::Contexts};

/// What a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A job directory.
    Directory(PathBuf),
    /// A job of the service.
    Job(String),
}

/// What `text` means.
pub fn target(text: &Path, service: &Service) -> Target {
    let has_service = || {
        service.url.is_some()
            || service.context.is_some()
            || Contexts::read().is_ok_and(|contexts| contexts.chosen(None).is_ok_and(|chosen| chosen.is_some()))
    };
    decide(text, text.is_dir(), has_service)
}

fn decide(text: &Path, is_directory: bool, has_service: impl FnOnce() -> bool) -> Target {
    let directory = || Target::Directory(text.to_owned());
    let Some(name) = text.to_str() else { return directory() };
    if let Some(job) = name.strip_prefix("job:") {
        return Target::Job(job.to_owned());
    }
    let is_name = !name.contains('/') && !name.starts_with('.') && !name.is_empty();
    if is_directory || !is_name || !has_service() { directory() } else { Target::Job(name.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_exists_is_one_and_a_prefix_always_names_a_job() {
        let of = |text: &str, is_directory, has_service: bool| decide(Path::new(text), is_directory, || has_service);
        assert_eq!(of("flights", true, true), Target::Directory("flights".into()));
        assert_eq!(of("flights", false, true), Target::Job("flights".into()));
        assert_eq!(of("flights", false, false), Target::Directory("flights".into()));
        assert_eq!(of("./flights", false, true), Target::Directory("./flights".into()));
        assert_eq!(of("job:flights", true, false), Target::Job("flights".into()));
    }
}

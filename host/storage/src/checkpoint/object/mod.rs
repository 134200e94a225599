//! Objects in an object store: S3 and what speaks like it, Google Cloud Storage, Azure, or memory.

mod service;

use std::{error::Error as _, fmt, path::Path as FilePath, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, WriteMultipart, memory::InMemory, path::Path};
use sha2::Digest as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::service::{Advice, MEMORY, Opened};
use super::{CheckpointStorage, Digest, Object, check_path, hexadecimal};
use crate::Error;

/// A file that is larger goes up in parts of at least this size, a few at a time.
const PART_BYTES: u64 = 8 << 20;
/// Parts of one object that S3 allows, less some.
const PARTS_MAX: u64 = 9_000;
/// Parts of one file on their way at the same time.
const PARTS_AT_ONCE: usize = 4;

/// Objects in an object store, below a prefix.
#[derive(Clone)]
pub struct ObjectCheckpointStorage {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    location: String,
    advice: Advice,
}

/// Where it is, and nothing of how it is asked: the clients of some services show their keys.
impl fmt::Debug for ObjectCheckpointStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectCheckpointStorage").field("location", &self.location).finish_non_exhaustive()
    }
}

impl ObjectCheckpointStorage {
    /// The storage at `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, with the settings of its service among `variables`.
    ///
    /// # Errors
    /// [`Error::Location`]: another scheme, no bucket, or settings that are missing or do not fit together.
    pub fn open(location: &str, variables: &[(String, String)]) -> Result<Self, Error> {
        let Opened { store, path, advice } = service::open(location, variables)?;
        let prefix = Path::parse(path).map_err(|error| Error::Location { location: location.to_owned(), problem: error.to_string() })?;
        Ok(Self { store, prefix, location: location.to_owned(), advice })
    }

    /// Objects in memory, for tests and simulations.
    pub fn in_memory() -> Self {
        Self { store: Arc::new(InMemory::new()), prefix: Path::default(), location: "memory".into(), advice: MEMORY }
    }

    /// The place of an object.
    fn at(&self, path: &str) -> Result<Path, Error> {
        check_path(path)?;
        let below = Path::parse(path).map_err(|_| Error::Path(path.to_owned()))?;
        Ok(self.prefix.parts().chain(below.parts()).collect())
    }

    /// The path of an object at a place.
    fn path_of(&self, at: &Path) -> Option<String> {
        let path: Path = at.prefix_match(&self.prefix)?.collect();
        Some(path.to_string())
    }

    fn failed<'a>(&'a self, what: &'static str, path: &'a str) -> impl Fn(object_store::Error) -> Error + 'a {
        move |error| {
            if is_missing_bucket(&error) {
                return Error::NoBucket { location: self.location.clone(), source: error.into() };
            }
            classify(what, path, self.advice, error)
        }
    }

    /// Parts do not know whether the object exists, so that is asked first: two writers at the same moment could both find nothing. Objects this
    /// large are data files, whose paths no two writers share (R1).
    async fn create_in_parts(&self, path: &str, file: &FilePath, bytes: u64) -> Result<(), Error> {
        let (at, failed) = (self.at(path)?, self.failed("creating", path));
        match self.store.head(&at).await {
            Ok(_) => return Err(Error::Exists(path.to_owned())),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let upload = self.store.put_multipart(&at).await.map_err(&failed)?;
        let part_bytes = usize::try_from(PART_BYTES.max(bytes.div_ceil(PARTS_MAX))).expect("parts are small");
        let mut parts = WriteMultipart::new_with_chunk_size(upload, part_bytes);
        match send_parts(&mut parts, file, part_bytes).await {
            Ok(sent) if sent == bytes => parts.finish().await.map(|_| ()).map_err(failed),
            sent => {
                // The first failure is the one to report; parts that stay behind are never an object.
                drop(parts.abort().await);
                Err(sent.map_or_else(
                    |error| match error {
                        Unsent::File(source) => Error::local("reading", file.display().to_string(), source),
                        Unsent::Store(error) => failed(error),
                    },
                    |sent| Error::Damaged {
                        path: file.display().to_string(),
                        problem: format!("{sent} bytes instead of {bytes} were read"),
                    },
                ))
            }
        }
    }
}

/// Where sending a file failed.
enum Unsent {
    File(std::io::Error),
    Store(object_store::Error),
}

async fn send_parts(parts: &mut WriteMultipart, file: &FilePath, part_bytes: usize) -> Result<u64, Unsent> {
    let mut file = tokio::fs::File::open(file).await.map_err(Unsent::File)?;
    let mut sent = 0;
    loop {
        parts.wait_for_capacity(PARTS_AT_ONCE).await.map_err(Unsent::Store)?;
        let mut part = Vec::with_capacity(part_bytes);
        (&mut file).take(part_bytes as u64).read_to_end(&mut part).await.map_err(Unsent::File)?;
        if part.is_empty() {
            return Ok(sent);
        }
        sent += part.len() as u64;
        parts.put(part.into());
    }
}

/// Nothing in it is not the same as no bucket.
fn is_missing_bucket(error: &object_store::Error) -> bool {
    use object_store::Error as Store;
    matches!(error, Store::NotFound { .. } | Store::Generic { .. }) && mentions(error, &["nosuchbucket", "containernotfound"])
}

/// What S3 and Azure say with 403 when it is not rights that are missing.
const WRONG_CREDENTIALS: &[&str] =
    &["expired", "invalidaccesskeyid", "invalidtoken", "signaturedoesnotmatch", "authenticationfailed", "authorizationfailure"];
/// Credentials that come from the machine or a token service fail while they are fetched. The addresses are those where clouds hand them to a machine or a
/// container: nothing else is asked for there.
const NO_CREDENTIALS: &[&str] = &["credential", "metadata", "token request", "assumerole", "//169.254.169.254/", "//169.254.170."];

/// What an error of the object store means. Of a list and of parts it hands on the status as text only, in a generic error.
fn classify(what: &'static str, path: &str, advice: Advice, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let path = path.to_owned();
    let is_generic = matches!(error, Store::Generic { .. });
    let is_unknown = matches!(error, Store::Unauthenticated { .. })
        || is_generic && (mentions(&error, NO_CREDENTIALS) || mentions(&error, &["status code: 401"]));
    let is_denied = matches!(error, Store::PermissionDenied { .. }) || is_generic && mentions(&error, &["status code: 403"]);
    match error {
        Store::NotFound { .. } => Error::NotFound(path),
        Store::AlreadyExists { .. } | Store::Precondition { .. } => Error::Exists(path),
        error if is_unknown || is_denied && mentions(&error, WRONG_CREDENTIALS) => {
            Error::Credentials { what, path, advice: advice.credentials, source: error.into() }
        }
        error if is_denied => Error::Denied { what, path, advice: advice.access, source: error.into() },
        Store::Generic { .. } => Error::Unreachable { what, path, source: error.into() },
        error => Error::Io { what, path, source: error.into() },
    }
}

/// Whether the error or a cause of it says one of `words`. The object store hands some reasons on as text only.
fn mentions(error: &object_store::Error, words: &[&str]) -> bool {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    let text = text.to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
}

#[async_trait]
impl CheckpointStorage for ObjectCheckpointStorage {
    fn location(&self) -> String {
        self.location.clone()
    }

    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let at = self.at(path)?;
        self.store.put_opts(&at, bytes.into(), PutMode::Create.into()).await.map(|_| ()).map_err(self.failed("creating", path))
    }

    async fn create_from_file(&self, path: &str, file: &FilePath) -> Result<(), Error> {
        let failed = |source| Error::local("reading", file.display().to_string(), source);
        let bytes = tokio::fs::metadata(file).await.map_err(failed)?.len();
        if bytes > PART_BYTES {
            return self.create_in_parts(path, file, bytes).await;
        }
        let content = tokio::fs::read(file).await.map_err(failed)?;
        self.create(path, content.into()).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, Error> {
        let (at, failed) = (self.at(path)?, self.failed("reading", path));
        let found = self.store.get(&at).await.map_err(&failed)?;
        let bytes = found.meta.size;
        let content = found.bytes().await.map_err(failed)?;
        whole(path, bytes, content.len() as u64).map(|()| content)
    }

    async fn read_to_file(&self, path: &str, to: &FilePath) -> Result<(), Error> {
        let (at, failed) = (self.at(path)?, self.failed("reading", path));
        let found = self.store.get(&at).await.map_err(&failed)?;
        let not_written = |source| Error::local("writing", to.display().to_string(), source);
        let mut file = tokio::fs::File::create_new(to).await.map_err(not_written)?;
        let copy = async {
            let bytes = found.meta.size;
            let (mut content, mut read) = (found.into_stream(), 0);
            while let Some(piece) = content.next().await {
                let piece = piece.map_err(&failed)?;
                read += piece.len() as u64;
                file.write_all(&piece).await.map_err(not_written)?;
            }
            file.flush().await.map_err(not_written)?;
            whole(path, bytes, read)
        };
        let copied = copy.await;
        if copied.is_err() {
            drop(tokio::fs::remove_file(to).await);
        }
        copied
    }

    async fn size(&self, path: &str) -> Result<u64, Error> {
        let at = self.at(path)?;
        self.store.head(&at).await.map(|found| found.size).map_err(self.failed("reading", path))
    }

    async fn digest(&self, path: &str) -> Result<Digest, Error> {
        let (at, failed) = (self.at(path)?, self.failed("reading", path));
        let mut content = self.store.get(&at).await.map_err(&failed)?.into_stream();
        let (mut hash, mut bytes) = (sha2::Sha256::new(), 0);
        while let Some(piece) = content.next().await {
            let piece = piece.map_err(&failed)?;
            hash.update(&piece);
            bytes += piece.len() as u64;
        }
        Ok(Digest { sha256: hexadecimal(&hash.finalize()), bytes })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let below = if prefix.is_empty() { self.prefix.clone() } else { self.at(prefix)? };
        let found: Vec<_> = self.store.list(Some(&below)).try_collect().await.map_err(self.failed("listing", prefix))?;
        let object = |found: object_store::ObjectMeta| {
            let path = self.path_of(&found.location)?;
            Some(Object { path, bytes: found.size, modified_ms: found.last_modified.timestamp_millis() })
        };
        let mut objects: Vec<_> = found.into_iter().filter_map(object).collect();
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        let at = self.at(path)?;
        match self.store.delete(&at).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("deleting", path)(error)),
        }
    }
}

/// A connection that breaks can look like an end.
fn whole(path: &str, bytes: u64, read: u64) -> Result<(), Error> {
    if read == bytes {
        return Ok(());
    }
    let source = format!("{read} bytes of {bytes} came");
    Err(Error::Unreachable { what: "reading", path: path.to_owned(), source: source.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a machine that has no credentials and asks for them where none are handed out.
    #[test]
    fn a_machine_that_is_given_no_credentials_is_told_that_they_are_missing() {
        let advice = Advice { credentials: "set them", access: "allow it" };
        let classified = |text: &str| {
            let error = object_store::Error::Generic { store: "S3", source: text.to_owned().into() };
            classify("listing", "job", advice, error)
        };
        let asked = "Error performing PUT http://169.254.169.254/latest/api/token in 3.1ms";
        for text in [
            format!("{asked} - HTTP error: error sending request"),
            format!("{asked} - Server returned non-2xx status code: 403 Forbidden"),
        ] {
            assert!(matches!(classified(&text), Error::Credentials { advice: "set them", .. }), "{text}");
        }
        let elsewhere = "Error performing list request: Error performing GET http://127.0.0.1:1/bucket in 3.8s";
        assert!(matches!(classified(elsewhere), Error::Unreachable { .. }));
        assert!(matches!(classified(&format!("{elsewhere} - Server returned non-2xx status code: 403 Forbidden")), Error::Denied { .. }));
    }
}

//! Objects in an object store: S3 and what speaks like it, Google Cloud Storage, Azure, or memory.

use std::{error::Error as _, path::Path as FilePath, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, WriteMultipart, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, memory::InMemory, path::Path,
};
use sha2::Digest as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CheckpointStorage, Digest, Object, check_path, hexadecimal};
use crate::Error;

/// A file that is larger goes up in parts of at least this size, a few at a time.
const PART_BYTES: u64 = 8 << 20;
/// Parts of one object that S3 allows, less some.
const PARTS_MAX: u64 = 9_000;
/// Parts of one file on their way at the same time.
const PARTS_AT_ONCE: usize = 4;

/// Objects in an object store, below a prefix.
#[derive(Clone, Debug)]
pub struct ObjectCheckpointStorage {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    location: String,
    advice: Advice,
}

/// What somebody can do about an error, which differs from store to store.
#[derive(Clone, Copy, Debug)]
struct Advice {
    credentials: &'static str,
    access: &'static str,
}

const S3: Advice = Advice {
    credentials: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN if they are temporary), or give the machine a role",
    access: "allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket on this bucket, and check the keys",
};
const GOOGLE: Advice = Advice {
    credentials: "set GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS to a key file, or give the machine a service account",
    access: "give the service account the role Storage Object User on this bucket",
};
const AZURE: Advice = Advice {
    credentials: "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or a client id and secret, or give the machine an identity",
    access: "give the account the role Storage Blob Data Contributor on this container, and check the key",
};
const MEMORY: Advice = Advice { credentials: "memory needs none", access: "memory denies nothing" };

impl ObjectCheckpointStorage {
    /// The storage at `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    ///
    /// # Errors
    /// [`Error::Location`]: another scheme, no bucket, or settings in the environment that do not fit together.
    pub fn open(location: &str) -> Result<Self, Error> {
        let refused = |problem: String| Error::Location { location: location.to_owned(), problem };
        let (scheme, rest) = location.split_once("://").unwrap_or(("", location));
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(refused(format!("it names no bucket; write {scheme}://bucket/path")));
        }
        let wrong = |error: object_store::Error| refused(error.to_string());
        let (store, advice): (Arc<dyn ObjectStore>, _) = match scheme {
            "s3" => (Arc::new(s3(bucket).build().map_err(wrong)?), S3),
            "gs" => (Arc::new(GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).build().map_err(wrong)?), GOOGLE),
            "az" => (Arc::new(MicrosoftAzureBuilder::from_env().with_container_name(bucket).build().map_err(wrong)?), AZURE),
            _ => return Err(refused(format!("{scheme}:// is not known; use a directory, s3://, gs:// or az://"))),
        };
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| refused(error.to_string()))?;
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

    fn failed<'a>(&self, what: &'static str, path: &'a str) -> impl Fn(object_store::Error) -> Error + 'a {
        let advice = self.advice;
        move |error| classify(what, path, advice, error)
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

fn s3(bucket: &str) -> AmazonS3Builder {
    let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    // Who names an endpoint without TLS wants it so.
    let is_plain = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|endpoint| endpoint.starts_with("http://")));
    if is_plain { builder.with_allow_http(true) } else { builder }
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

/// What an error of the object store means.
fn classify(what: &'static str, path: &str, advice: Advice, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let path = path.to_owned();
    match error {
        Store::NotFound { .. } => Error::NotFound(path),
        Store::AlreadyExists { .. } | Store::Precondition { .. } => Error::Exists(path),
        Store::Unauthenticated { .. } => Error::Credentials { what, path, advice: advice.credentials, source: error.into() },
        Store::PermissionDenied { .. } if mentions(&error, &["expired", "invalidaccesskeyid", "invalidtoken", "signaturedoesnotmatch"]) => {
            Error::Credentials { what, path, advice: advice.credentials, source: error.into() }
        }
        Store::PermissionDenied { .. } => Error::Denied { what, path, advice: advice.access, source: error.into() },
        // Credentials that come from the machine or a token service fail while they are fetched.
        Store::Generic { .. } if mentions(&error, &["credential", "metadata", "token request", "assumerole"]) => {
            Error::Credentials { what, path, advice: advice.credentials, source: error.into() }
        }
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

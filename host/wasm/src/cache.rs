//! The compile cache: compiled components on disk, by (digest of the component, engine version and settings).
//!
//! ```text
//! <directory>/<sha-256 of the component>-<hash of engine version and settings>.cwasm    the compiled code, as wasmtime writes it
//! <directory>/<same>.sha256                                                             sha-256 of that file, in hex
//! ```
//! Compiled code is executed, so a file counts only if its bytes have the hash that stands beside it; the directory belongs to the user
//! alone. Anything else (missing, damaged, of another engine) is compiled again and replaced. The cache never fails a load.

use std::{
    fs,
    hash::{Hash, Hasher},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, component::Component};

use crate::component::Digest;

pub(crate) struct Cache {
    directory: PathBuf,
    engine_hash: String,
}

impl Cache {
    pub(crate) fn new(directory: PathBuf, engine: &Engine) -> Self {
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine_hash = hex(&hasher.0.finalize()[..8]);
        Self { directory, engine_hash }
    }

    /// The compiled component, from the cache if it is there.
    pub(crate) fn get_or_compile(
        &self,
        engine: &Engine,
        digest: Digest,
        compile: impl FnOnce() -> wasmtime::Result<Component>,
    ) -> wasmtime::Result<Component> {
        let path = self.directory.join(format!("{digest}-{}.cwasm", self.engine_hash));
        if let Some(component) = load(engine, &path) {
            return Ok(component);
        }
        let component = compile()?;
        if let Err(error) = component.serialize().map_err(io::Error::other).and_then(|code| self.store(&path, &code)) {
            tracing::warn!(path = %path.display(), %error, "compiled component could not be cached; it is compiled again at the next start");
        }
        Ok(component)
    }

    fn store(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        create_private(&self.directory)?;
        // The hash last: a file without one, or with that of another file, does not count.
        replace(path, code)?;
        replace(&path.with_extension("sha256"), hex(&Sha256::digest(code)).as_bytes())
    }
}

fn load(engine: &Engine, path: &Path) -> Option<Component> {
    let expected = fs::read_to_string(path.with_extension("sha256")).ok()?;
    let code = fs::read(path).ok()?;
    if hex(&Sha256::digest(&code)) != expected.trim() {
        tracing::warn!(path = %path.display(), "cached component is damaged; it is compiled again");
        return None;
    }
    deserialize(engine, &code).inspect_err(|error| tracing::debug!(%error, "cached component does not fit; it is compiled again")).ok()
}

#[expect(unsafe_code, reason = "wasmtime trusts compiled code, so loading it is unsafe by nature")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes were written by `Component::serialize`: they lie in a directory that only this user can write to, under a name
    // of our making, and have the hash that was stored with them, so they are neither foreign nor torn. They are hashed and executed
    // from the same memory, so nobody can exchange them in between.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(unix)]
fn create_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn create_private(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

/// Writes a file so that readers see the old or the new content, never a part.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut file = fs::File::create(&beside)?;
    file.write_all(content)?;
    fs::rename(&beside, path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash of everything that is hashed, the same in every process.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash: [u8; 32] = self.0.clone().finalize().into();
        u64::from_le_bytes(hash[..8].try_into().expect("8 of 32 bytes"))
    }
}

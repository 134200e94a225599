//! The compile cache: compiled components on disk, by (digest of the component, engine version and settings).
//!
//! ```text
//! <directory>/<sha-256 of the component>-<hash of engine version and settings>.cwasm    signature (32 bytes), then the code as wasmtime writes it
//! <directory>.key                                                                       the key of the signatures (key.rs)
//! ```
//! Compiled code is executed, so a file counts only if it is signed, with our key, for the name that it has: one that was planted, altered or renamed does
//! not. Such a file, like one that is missing or of another engine, is compiled again and replaced. The cache never fails a load.

mod key;

use std::{
    fs,
    hash::{Hash, Hasher},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, component::Component};

use self::key::{Key, MAC_BYTES};
use crate::component::Digest;

pub(crate) struct Cache {
    directory: PathBuf,
    engine_hash: String,
    key: Key,
}

impl Cache {
    /// The cache in a directory; none: it cannot have a key, so nothing in it could be trusted.
    pub(crate) fn open(directory: PathBuf, engine: &Engine) -> Option<Self> {
        let path = directory.with_added_extension("key");
        let key = directory.parent().map_or(Ok(()), create_private).and_then(|()| Key::open(&path));
        let key = key.inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "there is no key for compiled components; they are compiled at every start");
        });
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine_hash = hex(&hasher.0.finalize()[..8]);
        Some(Self { directory, engine_hash, key: key.ok()? })
    }

    /// The compiled component, from the cache if it is there.
    pub(crate) fn get_or_compile(
        &self,
        engine: &Engine,
        digest: Digest,
        compile: impl FnOnce() -> wasmtime::Result<Component>,
    ) -> wasmtime::Result<Component> {
        let name = format!("{digest}-{}.cwasm", self.engine_hash);
        if let Some(component) = self.load(engine, &name) {
            return Ok(component);
        }
        let component = compile()?;
        if let Err(error) = component.serialize().map_err(io::Error::other).and_then(|code| self.store(&name, &code)) {
            tracing::warn!(%name, %error, "compiled component could not be cached; it is compiled again at the next start");
        }
        Ok(component)
    }

    fn store(&self, name: &str, code: &[u8]) -> io::Result<()> {
        create_private(&self.directory)?;
        replace(&self.directory.join(name), &[&self.key.sign(name, code), code])
    }

    fn load(&self, engine: &Engine, name: &str) -> Option<Component> {
        let entry = fs::read(self.directory.join(name)).ok()?;
        let code = self.signed(name, &entry);
        if code.is_none() {
            tracing::warn!(%name, "cached component is damaged or not of our making; it is compiled again");
        }
        deserialize(engine, code?).inspect_err(|error| tracing::debug!(%error, "cached component does not fit; it is compiled again")).ok()
    }

    /// The code of an entry that we have signed.
    fn signed<'a>(&self, name: &str, entry: &'a [u8]) -> Option<&'a [u8]> {
        let (mac, code) = entry.split_at_checked(MAC_BYTES)?;
        self.key.has_signed(mac, name, code).then_some(code)
    }
}

#[expect(unsafe_code, reason = "wasmtime trusts compiled code, so loading it is unsafe by nature")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes were written by `Component::serialize` of the engine that the name of their file tells: they carry a signature for that
    // name with a key that only this user can read, so they are neither foreign nor torn nor those of another component. They are checked and
    // executed from the same memory, so nobody can exchange them in between.
    unsafe { Component::deserialize(engine, code) }
}

fn create_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Writes a file so that readers see the old or the new content, never a part.
fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut file = fs::File::create(&beside)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
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

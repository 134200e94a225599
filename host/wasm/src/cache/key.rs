//! The key of a compile cache, and what it signs: HMAC-SHA256 (RFC 2104) of an entry's name and code.
//!
//! The key is 32 random bytes in a file of its owner alone, *beside* the directory of the cache and not in it: who may write to the directory, or copies
//! it from elsewhere, cannot make an entry that counts. A key that others could have read or exchanged (other permissions, no plain file, another length)
//! is not used: a new one takes its place, and nothing that was signed before counts.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What a signature stands for, so that the key means nothing elsewhere. Version 1; never reuse.
const DOMAIN: &[u8] = b"millstream compiled component 1\0";
/// Bytes of a block of SHA-256, which HMAC pads its key to.
const BLOCK_BYTES: usize = 64;
const KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub(super) const MAC_BYTES: usize = 32;

pub(super) struct Key([u8; KEY_BYTES]);

impl Key {
    /// The key in this file; made if there is none that is good.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match read(path) {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => {
                tracing::warn!(path = %path.display(), "others could read or change this key: a new one takes its place, and components are compiled again");
                fs::remove_file(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        make(path)?;
        // Another process may have been faster: its key is as good.
        read(path)?.ok_or_else(|| io::Error::other("the key was exchanged while it was made"))
    }

    /// The signature of an entry.
    pub(super) fn sign(&self, name: &str, code: &[u8]) -> [u8; MAC_BYTES] {
        // Its length goes before the name, so that nothing can move from one to the other.
        hmac(&self.0, &[DOMAIN, &(name.len() as u64).to_le_bytes(), name.as_bytes(), code])
    }

    /// Whether a signature is that of an entry; takes the same time wherever they differ.
    pub(super) fn has_signed(&self, mac: &[u8], name: &str, code: &[u8]) -> bool {
        self.sign(name, code).ct_eq(mac).into()
    }
}

/// The key in a file; none: it is not for its owner alone, or is no key.
fn read(path: &Path) -> io::Result<Option<Key>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let facts = file.metadata()?;
    let is_ours = facts.mode() & 0o077 == 0 && facts.len() == KEY_BYTES as u64;
    let mut key = Key([0; KEY_BYTES]);
    if is_ours {
        file.read_exact(&mut key.0)?;
    }
    Ok(is_ours.then_some(key))
}

/// Makes a key, unless there is one by now.
fn make(path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let beside = beside(path);
    drop(fs::remove_file(&beside)); // of a process with our number that died here
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).and_then(|mut file| {
        file.write_all(&key)?;
        file.sync_all()
    });
    // A link is made only if there is nothing yet, and the file is whole when it appears.
    let linked = made.and_then(|()| fs::hard_link(&beside, path));
    drop(fs::remove_file(&beside));
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    PathBuf::from(beside)
}

/// HMAC-SHA256 of the parts, one behind the other.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; MAC_BYTES] {
    let mut padded = [0; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        padded[..MAC_BYTES].copy_from_slice(&Sha256::digest(key));
    } else {
        padded[..key.len()].copy_from_slice(key);
    }
    let mut inner = Sha256::new().chain_update(padded.map(|byte| byte ^ 0x36));
    parts.iter().for_each(|part| inner.update(part));
    Sha256::new().chain_update(padded.map(|byte| byte ^ 0x5c)).chain_update(inner.finalize()).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Key, text in two parts, and its code in hexadecimal.
    type Case<'a> = (&'a [u8], [&'a [u8]; 2], &'a str);

    /// RFC 4231, cases 1, 2 and 6.
    #[test]
    fn hmac_is_that_of_the_rfc() {
        let cases: [Case<'_>; 3] = [
            (&[0x0b; 20], [b"Hi ", b"There"], "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (b"Jefe", [b"", b"what do ya want for nothing?"], "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                &[0xaa; 131],
                [b"Test Using Larger Than Block-Size Key ", b"- Hash Key First"],
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, parts, expected) in cases {
            assert_eq!(hex(&hmac(key, &parts)), expected);
        }
    }

    #[test]
    fn a_signature_holds_for_its_name_and_code_only() {
        let key = Key([7; KEY_BYTES]);
        let mac = key.sign("name", b"code");
        assert!(key.has_signed(&mac, "name", b"code"));
        assert!(!key.has_signed(&mac, "namec", b"ode"));
        assert!(!key.has_signed(&mac, "name", b"cod\0"));
        assert!(!key.has_signed(&mac[..31], "name", b"code"));
        assert!(!Key([8; KEY_BYTES]).has_signed(&mac, "name", b"code"));
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("key");
        let first = Key::open(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(Key::open(&path).expect("read").0, first.0);
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_key_that_others_could_know_is_not_used() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("key");
        for mode in [0o640, 0o604, 0o620] {
            let before = Key::open(&path).expect("made");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
            assert_ne!(Key::open(&path).expect("made again").0, before.0, "{mode:o}");
        }
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&path, &elsewhere).expect("ours");
        std::os::unix::fs::symlink(&elsewhere, &path).expect("ours");
        let theirs = fs::read(&elsewhere).expect("there");
        assert_ne!(Key::open(&path).expect("made again").0[..], theirs[..], "a link leads to whatever somebody chose");
        fs::write(&path, b"short").expect("ours");
        Key::open(&path).expect("made again");
    }
}

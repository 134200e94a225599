//! TLS: certificate and key from files that may be replaced while the service runs. They are read again when they change; what cannot be read is said,
//! and what was good before stays.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use millstream_model::ErrorKind;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::failure::Failure;

/// Certificate and key, as they are now.
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    read: RwLock<(Stamp, TlsAcceptor)>,
}

/// When both files changed last.
type Stamp = (Option<SystemTime>, Option<SystemTime>);

impl Certificates {
    /// Reads both files.
    ///
    /// # Errors
    /// One cannot be read, or they do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let read = (stamp(certificate, key), acceptor(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), read: RwLock::new(read) })
    }

    /// What accepts connections.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.read.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Reads the files again if they have changed.
    pub fn refresh(&self) {
        let now = stamp(&self.certificate, &self.key);
        if self.read.read().unwrap_or_else(PoisonError::into_inner).0 == now {
            return;
        }
        match acceptor(&self.certificate, &self.key) {
            Ok(acceptor) => {
                *self.read.write().unwrap_or_else(PoisonError::into_inner) = (now, acceptor);
                tracing::info!("the certificate was read again");
            }
            Err(failure) => tracing::warn!("the certificate before is still used: {failure}"),
        }
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    (changed(certificate), changed(key))
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Failure> {
    let unreadable = |path: &Path, error: &(dyn std::error::Error + 'static)| {
        Failure::new(ErrorKind::Invalid, format!("`{}` cannot be used for TLS", path.display())).because(error).fix("it must be a PEM file")
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| unreadable(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| unreadable(certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

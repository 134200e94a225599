//! TLS. The certificates are of these tests alone: self-signed, for localhost.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::harness::{DEADLINE, Service, directory, now};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service/tls").join(name)
}

fn put(directory: &Path, which: &str) {
    for (ending, name) in [("pem", "cert.pem"), ("key", "key.pem")] {
        fs::copy(file(&format!("{which}.{ending}")), directory.join(name)).expect("writable");
    }
}

fn ask(service: &Service, certificate: &str) -> Output {
    let port = service.address().rsplit_once(':').expect("a port").1;
    Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["jobs", "--json", "--url", &format!("https://localhost:{port}"), "--token", &service.token, "--ca"])
        .arg(file(&format!("{certificate}.pem")))
        .output()
        .expect("it runs")
}

/// The service answers over TLS with the certificate that it has, and with another one when the files are replaced, without being started again.
#[test]
fn a_certificate_is_read_again_when_it_changes() {
    let (kept, certificates) = (directory(), directory());
    put(certificates.path(), "first");
    let path = |name: &str| certificates.path().join(name).display().to_string();
    let service = Service::start_with(kept.path(), &["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")]);
    let first = ask(&service, "first");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(!ask(&service, "second").status.success(), "another certificate is not trusted");
    put(certificates.path(), "second");
    let began = now();
    while !ask(&service, "second").status.success() {
        assert!(began.elapsed() < DEADLINE, "the new certificate is not used");
    }
    assert!(!ask(&service, "first").status.success(), "the old certificate is no longer used");
}

//! Components from OCI registries (OCI distribution specification 1.1, pull), by digest: what is pulled is what was named, whoever the registry is.
//!
//! The flow: reference → manifest, whose bytes must have the digest of the reference → its one layer that is Wasm → that layer's bytes, which must have the
//! digest that the manifest gives, into an [`Upload`]. From there on it is a push like any other.
//!
//! The service asks only registries that its operator has named: else whoever may deploy could have it knock at any door of its network. Unencrypted ones
//! must be of this machine.

use std::time::Duration;

use millstream_model::ErrorKind;
use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Upload;
use crate::{failure::Failure, text};

/// Longest manifest, in bytes; the specification asks registries to take as much.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Redirects of one request: registries send who asks for a layer to where it lies.
const REDIRECTS_MAX: usize = 5;
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long nothing may come.
const READ_WAIT_MAX: Duration = Duration::from_secs(30);
/// What a manifest may be.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// What a layer that is a component calls itself: the CNCF's format, and two before it.
const LAYER_TYPES: [&str; 3] =
    ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm", "application/vnd.module.wasm.content.layer.v1+wasm"];

/// A registry that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    base: Url,
}

impl Registry {
    /// Reads `https://ghcr.io`, or `http://127.0.0.1:5000`.
    ///
    /// # Errors
    /// It is no such URL, or is neither encrypted nor of this machine.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::new(ErrorKind::Invalid, message).fix("write it as https://HOST, or http://127.0.0.1:PORT");
        let base = Url::parse(text).map_err(|error| wrong(format!("`{text}` is no URL of a registry: {error}")))?;
        let is_plain = base.path() == "/" && base.query().is_none() && base.username().is_empty() && base.password().is_none();
        if !is_plain || base.host_str().is_none() {
            return Err(wrong(format!("`{text}` is no URL of a registry: it has more or less than a host and a port")));
        }
        let is_here = matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        match base.scheme() {
            "https" => Ok(Self { base }),
            "http" if is_here => Ok(Self { base }),
            _ => Err(wrong(format!("`{text}` is not encrypted, and not of this machine"))),
        }
    }

    /// `HOST` or `HOST:PORT`, as references name it.
    fn name(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// `HOST/REPOSITORY@sha256:DIGEST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    registry: String,
    repository: String,
    digest: String,
}

impl Image {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or names a tag.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |message: &str| {
            Failure::new(ErrorKind::Invalid, format!("`{}` {message}", text.chars().take(200).collect::<String>().escape_debug()))
                .fix("write HOST/REPOSITORY@sha256:DIGEST; a tag may point elsewhere tomorrow, so it is not taken")
        };
        let (place, digest) = text.split_once('@').ok_or_else(|| wrong("names no digest"))?;
        let digest = digest.strip_prefix("sha256:").filter(|digest| is_digest(digest)).ok_or_else(|| wrong("does not end in a SHA-256"))?;
        let (registry, repository) = place.split_once('/').ok_or_else(|| wrong("names no registry and repository"))?;
        // The grammar of the specification, but for doubled separators, which no registry knows either.
        let is_part = |part: &str| {
            let edges = [part.bytes().next(), part.bytes().last()];
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            edges.iter().all(|edge| edge.is_some_and(is_plain)) && part.bytes().all(|byte| is_plain(byte) || b"._-".contains(&byte))
        };
        if repository.len() > 255 || !repository.split('/').all(is_part) {
            return Err(wrong("names no repository"));
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), digest: digest.to_owned() })
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

/// Pulls from registries.
pub struct Puller {
    client: Client,
    registries: Vec<Registry>,
}

impl Puller {
    /// From these registries and no others.
    ///
    /// # Errors
    /// The certificates of the system cannot be read.
    pub fn new(registries: Vec<Registry>) -> Result<Self, Failure> {
        let builder = Client::builder().connect_timeout(CONNECT_WAIT_MAX).read_timeout(READ_WAIT_MAX);
        let client = builder.redirect(redirect::Policy::limited(REDIRECTS_MAX)).build();
        let client = client.map_err(|error| Failure::new(ErrorKind::Unavailable, "registries cannot be asked").because(&error))?;
        Ok(Self { client, registries })
    }

    /// Pulls the component of an image into an upload. `credentials`: `USER:PASSWORD`.
    ///
    /// # Errors
    /// The registry may not be asked, does not answer, has no such image, or gives something else; the image is no component.
    pub async fn pull(&self, image: &Image, credentials: Option<&str>, mut upload: Upload, bytes_max: u64) -> Result<Upload, Failure> {
        let mut session = Session { client: &self.client, base: self.base(image)?, image, credentials, authorization: None };
        let manifest = session.manifest().await?;
        let layer = wasm_layer(image, manifest, bytes_max)?;
        let mut response = session.get(&format!("blobs/sha256:{}", layer.digest), "*/*").await?;
        let mut hash = Sha256::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| session.broken(&error))? {
            hash.update(&chunk);
            upload.add(&chunk).await?;
        }
        if text::hexadecimal(&hash.finalize()) != layer.digest {
            return Err(session.lies("the layer has other bytes than its digest says"));
        }
        Ok(upload)
    }

    fn base(&self, image: &Image) -> Result<&Url, Failure> {
        let found = self.registries.iter().find(|registry| registry.name() == image.registry);
        found.map(|registry| &registry.base).ok_or_else(|| {
            let message = format!("the service does not pull from `{}`", image.registry.chars().take(200).collect::<String>().escape_debug());
            let fix = match &self.registries[..] {
                [] => "push the component itself, or have the operator of the service name registries: millstream serve --registry https://HOST".to_owned(),
                some => format!("it pulls from {}", some.iter().map(|registry| format!("`{}`", registry.name())).collect::<Vec<_>>().join(", ")),
            };
            Failure::new(ErrorKind::Invalid, message).fix(fix)
        })
    }
}

/// The one layer that is a component.
fn wasm_layer(image: &Image, manifest: Manifest, bytes_max: u64) -> Result<Layer, Failure> {
    let wrong =
        |message: String| Failure::new(ErrorKind::Invalid, format!("the image `{}@sha256:{}` {message}", image.repository, image.digest));
    let found: Vec<String> = manifest.layers.iter().map(|layer| layer.media_type.chars().take(100).collect()).collect();
    let mut layers = manifest.layers.into_iter().filter(|layer| LAYER_TYPES.contains(&layer.media_type.as_str()));
    let (Some(layer), None) = (layers.next(), layers.next()) else {
        return Err(wrong(format!("is no component: its layers are [{}]", found.join(", ").escape_debug())).fix(
            "its manifest needs one layer of type `application/wasm`, as `wkg oci push` makes it; of an index name one of its manifests",
        ));
    };
    if layer.size > bytes_max {
        return Err(wrong(format!("is larger than {}", text::size(bytes_max))));
    }
    let digest = layer.digest.strip_prefix("sha256:").filter(|digest| is_digest(digest)).map(str::to_owned);
    let digest = digest.ok_or_else(|| wrong("names its layer by something else than a SHA-256".to_owned()))?;
    Ok(Layer { digest, ..layer })
}

/// The requests of one pull.
struct Session<'a> {
    client: &'a Client,
    base: &'a Url,
    image: &'a Image,
    credentials: Option<&'a str>,
    /// What the registry wants to see, once it has said so.
    authorization: Option<String>,
}

/// What a registry asks for, as `Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, query: Vec<(String, String)> },
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default, alias = "access_token")]
    token: Option<String>,
}

impl Session<'_> {
    async fn manifest(&mut self) -> Result<Manifest, Failure> {
        let digest = self.image.digest.clone();
        let mut response = self.get(&format!("manifests/sha256:{digest}"), MANIFEST_TYPES).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MANIFEST_BYTES_MAX {
                return Err(self.lies("the manifest is too long"));
            }
        }
        if text::hexadecimal(&Sha256::digest(&bytes)) != digest {
            return Err(self.lies("the manifest has other bytes than its digest says"));
        }
        serde_json::from_slice(&bytes).map_err(|error| self.lies("the manifest is none").because(&error))
    }

    /// Asks, and asks again with what the registry wants to see.
    async fn get(&mut self, what: &str, accept: &str) -> Result<Response, Failure> {
        let response = self.send(what, accept).await?;
        if response.status() != StatusCode::UNAUTHORIZED || self.authorization.is_some() {
            return self.checked(response);
        }
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).and_then(|value| challenge(value.to_str().ok()?));
        self.authorization = Some(match challenge {
            Some(Challenge::Bearer { realm, query }) => format!("Bearer {}", self.token(&realm, &query).await?),
            Some(Challenge::Basic) => basic(self.credentials.ok_or_else(|| self.not_let_in())?),
            None => return Err(self.not_let_in()),
        });
        let response = self.send(what, accept).await?;
        self.checked(response)
    }

    async fn send(&self, what: &str, accept: &str) -> Result<Response, Failure> {
        let url =
            self.base.join(&format!("v2/{}/{what}", self.image.repository)).expect("repositories and digests are plain parts of a path");
        let mut request = self.client.get(url).header(header::ACCEPT, accept);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| self.broken(&error))
    }

    fn checked(&self, response: Response) -> Result<Response, Failure> {
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(Failure::new(
                ErrorKind::NotFound,
                format!("registry `{}` has no `{}@sha256:{}`", self.image.registry, self.image.repository, self.image.digest),
            )),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.not_let_in()),
            status => Err(Failure::new(ErrorKind::Unavailable, format!("registry `{}` answered {status}", self.image.registry))),
        }
    }

    async fn token(&self, realm: &str, query: &[(String, String)]) -> Result<String, Failure> {
        let url = Url::parse_with_params(realm, query).map_err(|error| self.lies("it names no place that gives tokens").because(&error))?;
        if url.scheme() != self.base.scheme() {
            return Err(self.lies("it wants its tokens to be got unencrypted"));
        }
        let mut request = self.client.get(url);
        if let Some(credentials) = self.credentials {
            request = request.header(header::AUTHORIZATION, basic(credentials));
        }
        let response = self.checked(request.send().await.map_err(|error| self.broken(&error))?)?;
        let answer = response.bytes().await.map_err(|error| self.broken(&error))?;
        let answer: Option<TokenAnswer> = serde_json::from_slice(&answer).ok();
        answer.and_then(|answer| answer.token).ok_or_else(|| self.lies("it gave no token"))
    }

    fn not_let_in(&self) -> Failure {
        Failure::new(ErrorKind::Invalid, format!("registry `{}` does not let the service in", self.image.registry))
            .fix("make a secret of USER:PASSWORD, and name it as `secret`")
    }

    fn lies(&self, how: &str) -> Failure {
        Failure::new(ErrorKind::Invalid, format!("what registry `{}` gives cannot be used: {how}", self.image.registry))
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        Failure::new(ErrorKind::Unavailable, format!("registry `{}` does not answer", self.image.registry)).because(error)
    }
}

fn basic(credentials: &str) -> String {
    use arrow_cast::base64::{BASE64_STANDARD, Engine as _};
    format!("Basic {}", BASE64_STANDARD.encode(credentials))
}

/// RFC 9110 §11.6.1, as far as registries use it.
fn challenge(text: &str) -> Option<Challenge> {
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut query, mut rest) = (None, Vec::new(), rest);
    while let Some((name, behind)) = rest.split_once("=\"") {
        let (value, behind) = behind.split_once('"')?;
        match name.trim_matches([',', ' ']) {
            "realm" => realm = Some(value.to_owned()),
            name @ ("service" | "scope") => query.push((name.to_owned(), value.to_owned())),
            _ => {}
        }
        rest = behind;
    }
    Some(Challenge::Bearer { realm: realm?, query })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_encrypted_or_of_this_machine() {
        for (text, name) in
            [("https://ghcr.io", "ghcr.io"), ("https://x.example:5000", "x.example:5000"), ("http://127.0.0.1:5000/", "127.0.0.1:5000")]
        {
            assert_eq!(Registry::parse(text).expect("good").name(), name);
        }
        for bad in [
            "ghcr.io",
            "http://ghcr.io",
            "ftp://ghcr.io",
            "https://u:p@ghcr.io",
            "https://ghcr.io/v2",
            "https://ghcr.io?x",
            "http://10.0.0.1",
        ] {
            assert!(Registry::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn images_are_named_by_digest_alone() {
        let digest = "0123456789abcdef".repeat(4);
        let image = Image::parse(&format!("127.0.0.1:5000/acme/enrich@sha256:{digest}")).expect("good");
        assert_eq!((image.registry.as_str(), image.repository.as_str(), image.digest), ("127.0.0.1:5000", "acme/enrich", digest.clone()));
        let bad = ["ghcr.io/acme/enrich:v1", "enrich", "ghcr.io/acme/enrich@sha256:12", "", "/x@sha256:"].map(str::to_owned);
        let hostile = ["../x", "a//b", "a/../b", "A", "a?b", "a b", "-a"].map(|repository| format!("ghcr.io/{repository}@sha256:{digest}"));
        for text in bad.iter().chain(&hostile) {
            assert!(Image::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_registry_asks_for_is_understood() {
        let text = "Bearer realm=\"https://auth.example/token\",service=\"reg\", scope=\"repository:a/b:pull\"";
        let query = vec![("service".to_owned(), "reg".to_owned()), ("scope".to_owned(), "repository:a/b:pull".to_owned())];
        assert_eq!(challenge(text), Some(Challenge::Bearer { realm: "https://auth.example/token".to_owned(), query }));
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        for other in ["", "Digest realm=\"x\"", "Bearer", "Bearer realm=\"x"] {
            assert_eq!(challenge(other), None, "{other}");
        }
    }
}

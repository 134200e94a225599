//! Which object store a location names, and what its service is told: `s3://`, `gs://` and `az://`, each with the settings of its own environment
//! variables. The variables are handed in, so that a test has its own. None of their values is ever said: not in an error, and not by `Debug`.

use std::{str::FromStr, sync::Arc};

use object_store::{
    ObjectStore,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
};

use crate::Error;

/// What somebody can do about an error, which differs from service to service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advice {
    /// Where credentials are looked for.
    pub credentials: &'static str,
    /// What must be allowed.
    pub access: &'static str,
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
/// Of objects in memory.
pub(super) const MEMORY: Advice = Advice { credentials: "memory needs none", access: "memory denies nothing" };

/// A store, the path in it, and what to say of it.
pub(super) struct Opened {
    pub store: Arc<dyn ObjectStore>,
    pub path: String,
    pub advice: Advice,
}

/// Opens the store at `scheme://bucket/path` with those of `variables` that belong to its service. Nothing is asked of it yet.
///
/// # Errors
/// [`Error::Location`]: another scheme, no bucket, or variables that do not fit together.
pub(super) fn open(location: &str, variables: &[(String, String)]) -> Result<Opened, Error> {
    let refused = |problem: String| Error::Location { location: location.to_owned(), problem };
    let (scheme, rest) = location.split_once("://").unwrap_or(("", location));
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(refused(format!("it names no bucket; write {scheme}://bucket/path")));
    }
    let (built, advice) = match scheme {
        "s3" => (s3(bucket, variables), S3),
        "gs" => (google(bucket, variables), GOOGLE),
        "az" => (azure(bucket, variables), AZURE),
        _ => return Err(refused(format!("{scheme}:// is not known; use a directory, s3://, gs:// or az://"))),
    };
    // What cannot be opened without asking anybody has settings that are missing or wrong.
    let store = built.map_err(|error| refused(format!("{}; {}", reason(&error, variables), advice.credentials)))?;
    Ok(Opened { store, path: path.trim_end_matches('/').to_owned(), advice })
}

/// What the library says, without its own preamble (`Generic S3 error: …`) and without what it quotes of a setting.
fn reason(error: &object_store::Error, variables: &[(String, String)]) -> String {
    let said = match error {
        object_store::Error::Generic { source, .. } => source.to_string(),
        error => error.to_string(),
    };
    let is_secret =
        |(name, value): &&(String, String)| !value.is_empty() && ["KEY", "SECRET", "TOKEN"].iter().any(|word| name.contains(word));
    variables.iter().filter(is_secret).fold(said, |said, (name, value)| said.replace(value, &format!("<{name}>")))
}

type Built = Result<Arc<dyn ObjectStore>, object_store::Error>;

fn s3(bucket: &str, variables: &[(String, String)]) -> Built {
    let settings = settings::<AmazonS3ConfigKey>("AWS_", variables);
    let start = AmazonS3Builder::new().with_bucket_name(bucket).with_allow_http(is_plain("AWS_ENDPOINT", variables));
    let builder = settings.into_iter().fold(start, |builder, (key, value)| builder.with_config(key, value));
    Ok(Arc::new(builder.build()?))
}

fn google(bucket: &str, variables: &[(String, String)]) -> Built {
    let settings = settings::<GoogleConfigKey>("GOOGLE_", variables);
    let start = GoogleCloudStorageBuilder::new();
    let builder = settings.into_iter().fold(start, |builder, (key, value)| builder.with_config(key, value));
    Ok(Arc::new(builder.with_bucket_name(bucket).build()?))
}

fn azure(container: &str, variables: &[(String, String)]) -> Built {
    let settings = settings::<AzureConfigKey>("AZURE_", variables);
    let is_plain = is_plain("AZURE_ENDPOINT", variables) || is_plain("AZURE_STORAGE_ENDPOINT", variables);
    let mut start = MicrosoftAzureBuilder::new().with_allow_http(is_plain);
    // Where a machine of Azure asks for its identity.
    if let Some((_, endpoint)) = variables.iter().find(|(name, _)| name == "IDENTITY_ENDPOINT") {
        start = start.with_msi_endpoint(endpoint);
    }
    let builder = settings.into_iter().fold(start, |builder, (key, value)| builder.with_config(key, value));
    Ok(Arc::new(builder.with_container_name(container).build()?))
}

/// The variables that a service knows, by its library's names for them. Unknown ones are those of other programs.
fn settings<Key: FromStr>(prefix: &str, variables: &[(String, String)]) -> Vec<(Key, String)> {
    let ours = variables.iter().filter(|(name, _)| name.starts_with(prefix));
    ours.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone()))).collect()
}

/// Whether an endpoint without TLS is named: who names one wants it so.
fn is_plain(prefix: &str, variables: &[(String, String)]) -> bool {
    variables.iter().any(|(name, value)| name.starts_with(prefix) && value.starts_with("http://"))
}

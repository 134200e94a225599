//! What failures become over HTTP: a status and a problem document (RFC 9457). The one place where an [`ErrorKind`] meets a status.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use millstream_model::ErrorKind;

use crate::{api::ProblemDocument, failure::Failure, references::References, tenants::Refused};

/// The longest time that anybody is told to wait, in seconds.
const WAIT_S_MAX: u64 = 3_600;

/// A failure on its way to who asked.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The status, where it is one of HTTP's own and says more than the kind.
    status: Option<StatusCode>,
    failure: Failure,
    header: Option<(HeaderName, HeaderValue)>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { status: None, failure, header: None }
    }
}

impl From<crate::catalogue::Error> for Refusal {
    fn from(error: crate::catalogue::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<Refused> for Refusal {
    /// What time alone puts right is 429, and says how much of it.
    fn from(Refused { failure, wait_ms }: Refused) -> Self {
        let Some(wait_ms) = wait_ms else { return failure.into() };
        let seconds = u64::try_from(wait_ms).unwrap_or_default().div_ceil(1_000).clamp(1, WAIT_S_MAX);
        Self { status: Some(StatusCode::TOO_MANY_REQUESTS), failure, header: Some((header::RETRY_AFTER, HeaderValue::from(seconds))) }
    }
}

impl Refusal {
    /// A refusal that is HTTP's own.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status: Some(status), failure: Failure::new(ErrorKind::Invalid, message), header: None }
    }

    /// Adds how to put it right.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.failure = self.failure.fix(fix);
        self
    }

    /// Adds a header.
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    /// The same, without what references of a job stand for.
    pub fn redacted(self, references: &References) -> Self {
        Self { failure: references.redacted(self.failure), ..self }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| status_of(self.failure.kind))
    }

    /// What is wrong, as one clause.
    pub fn message(&self) -> &str {
        self.failure.message()
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        let status = self.status();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!("{}", self.failure);
        }
        let document = document(status, &self.failure);
        let body = serde_json::to_vec(&document).expect("a problem document has string keys only");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        response
    }
}

/// What a kind of failure means to who asked.
pub fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Guest => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn document(status: StatusCode, failure: &Failure) -> ProblemDocument {
    let title = status.canonical_reason().unwrap_or("Problem").to_owned();
    let problems = match failure.kind {
        // Our own fault is for our log.
        ErrorKind::Internal => vec![crate::failure::Problem {
            message: failure.message().to_owned(),
            fix: Some("this is a fault of the service; its log says more".to_owned()),
            ..Default::default()
        }],
        _ => failure.problems.clone(),
    };
    let is_quota = problems.iter().any(|problem| problem.quota.is_some());
    let kind = if is_quota { "quota-exceeded".to_owned() } else { title.to_ascii_lowercase().replace(' ', "-") };
    let problem_type = format!("/problems/{kind}");
    ProblemDocument { problem_type, title, status: status.as_u16(), detail: failure.message().to_owned(), problems }
}

//! What all clients of librdkafka share: where their logs go, what went wrong last, how errors are told, and calls that block.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use millstream_engine::operator::OperatorError;
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    statistics::Statistics,
};

use super::{lag::Lags, settings::Isolation};

/// How long an answer about topics and offsets may take.
pub const ANSWER: Duration = Duration::from_secs(20);

/// A complaint that comes again and again, as long as brokers are away, is logged so often at most.
const LOGGED_EVERY: Duration = Duration::from_secs(30);
/// Complaints that are told apart; of more of them each is logged.
const COMPLAINTS_MAX: usize = 32;

/// Remembers what a client complained about: calls that run into their timeout do not say why.
#[derive(Clone, Debug, Default)]
pub struct Context {
    complaints: Arc<Mutex<Complaints>>,
    lags: Arc<Lags>,
}

/// What a client complained about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    text: String,
    code: Option<RDKafkaErrorCode>,
}

impl Complaint {
    /// The brokers, or we, did not like who was there. It stays so, and what else goes wrong then comes of it.
    fn is_denial(&self) -> bool {
        matches!(self.code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL))
    }

    /// It says why, and not only what comes of it.
    fn is_cause(&self) -> bool {
        self.code != Some(RDKafkaErrorCode::AllBrokersDown)
    }
}

#[derive(Debug, Default)]
struct Complaints {
    last: Option<Complaint>,
    /// What was logged, and when.
    logged: Vec<(String, Instant)>,
}

impl Complaints {
    /// Whether it is worth a line in the log.
    #[expect(clippy::disallowed_methods, reason = "it decides about lines of the log and nothing else")]
    fn is_news(&mut self, text: &str) -> bool {
        // What follows are numbers that change: `(after 3ms in state CONNECT, 12 identical error(s) suppressed)`.
        let cause = text.split(" (after ").next().unwrap_or(text);
        let now = Instant::now();
        self.logged.retain(|(_, at)| now.duration_since(*at) < LOGGED_EVERY);
        let is_news = self.logged.iter().all(|(logged, _)| logged != cause);
        if is_news && self.logged.len() < COMPLAINTS_MAX {
            self.logged.push((cause.to_owned(), now));
        }
        is_news
    }
}

impl Context {
    /// Of a consumer that sees such records.
    pub fn reading(isolation: Isolation) -> Self {
        Self { lags: Arc::new(Lags::new(isolation)), ..Self::default() }
    }

    /// How far the partitions that are read are behind their ends.
    pub fn lags(&self) -> &Lags {
        &self.lags
    }

    /// What the client complained about last; first of all that it was not let in.
    pub fn complaint(&self) -> Option<Complaint> {
        self.complaints().last.clone()
    }

    fn complained(&self, complaint: Complaint) {
        let mut complaints = self.complaints();
        if complaints.is_news(&complaint.text) {
            tracing::warn!("kafka: {}", complaint.text);
        } else {
            tracing::debug!("kafka: {}", complaint.text);
        }
        let stays = complaints.last.as_ref().is_some_and(|last| (last.is_denial() && !complaint.is_denial()) || !complaint.is_cause());
        if !stays {
            complaints.last = Some(complaint);
        }
    }

    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                // The name of the thread stands before it.
                let text = message.split_once("]: ").map_or(message, |(_, text)| text);
                self.complained(Complaint { text: text.to_owned(), code: None });
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::debug!(facility, "kafka: {message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::trace!(facility, "kafka: {message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.lags.on_statistics(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition comes this way as well, and is nothing to complain about.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        self.complained(Complaint { text: reason.to_owned(), code: error.rdkafka_error_code() });
    }
}

impl ConsumerContext for Context {}

/// A call of a client failed: whose fault it is and what may be done, by its code. `what` is a clause with topic and partition.
pub fn failed(what: &str, error: &KafkaError, complaint: Option<Complaint>) -> OperatorError {
    let text = told(what, error, complaint);
    if code(error).is_some_and(is_users) { OperatorError::user(text) } else { OperatorError::outside(text) }
}

/// As [`failed`], of a topic that was there before: a broker that does not know it, or a partition of it, is coming back. Those of Kafka 3.9 answer
/// before they know all topics again.
pub fn failed_on_known(what: &str, error: &KafkaError, complaint: Option<Complaint>) -> OperatorError {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    match code(error) {
        Some(UnknownPartition | UnknownTopic | UnknownTopicOrPartition) => OperatorError::outside(told(what, error, complaint)),
        _ => failed(what, error, complaint),
    }
}

/// The code of an error; the library's own answer leaves out those of administration.
fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// The clause about a failed call: what, why, and what to do.
pub fn told(what: &str, error: &KafkaError, complaint: Option<Complaint>) -> String {
    let code = code(error);
    let why = code.map_or_else(|| error.to_string(), |code| code.to_string());
    let detail = match error {
        KafkaError::Transaction(error) => format!(" ({error})"),
        _ => String::new(),
    };
    let denied = complaint.as_ref().filter(|complaint| complaint.is_denial()).and_then(|complaint| complaint.code);
    let fix = denied.or(code).and_then(fix).map(|fix| format!("; {fix}")).unwrap_or_default();
    let complaint = complaint.map(|complaint| format!(" ({})", complaint.text)).unwrap_or_default();
    format!("{what}: {why}{detail}{complaint}{fix}")
}

/// It stays as it is until somebody changes something.
fn is_users(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::InvalidTransactionTimeout
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidArgument
    )
}

fn fix(code: RDKafkaErrorCode) -> Option<&'static str> {
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Some("create the topic, or correct its name"),
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            Some("allow this user to read or write the topic; a commit topic also needs Create and DescribeConfigs")
        }
        RDKafkaErrorCode::GroupAuthorizationFailed => Some("allow this user to use the group"),
        RDKafkaErrorCode::ClusterAuthorizationFailed => Some("allow this user IdempotentWrite on the cluster"),
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed => {
            Some("allow this user Write and Describe on transactional ids that begin with `millstream.`")
        }
        RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::Authentication => Some("correct `sasl` (mechanism, name, password)"),
        RDKafkaErrorCode::SSL => Some("correct `tls`"),
        RDKafkaErrorCode::MessageSizeTooLarge => {
            Some("raise `message-bytes-max` here and `max.message.bytes` of the topic, or make the rows smaller")
        }
        RDKafkaErrorCode::InvalidTransactionTimeout => {
            Some("raise `transaction.max.timeout.ms` of the brokers, or shorten `transaction-timeout` or the checkpoint interval")
        }
        RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown
        | RDKafkaErrorCode::Resolve
        | RDKafkaErrorCode::OperationTimedOut => Some("check that the brokers run and that `servers`, `tls` and `sasl` are theirs"),
        _ => None,
    }
}

/// A call that blocks, on a thread that may.
pub async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(call).await.expect("calls of clients do not panic and are not cancelled")
}

#[cfg(test)]
mod tests {
    use millstream_engine::operator::Fault;

    use super::*;

    #[test]
    fn a_complaint_that_comes_again_is_logged_once() {
        let mut complaints = Complaints::default();
        assert!(complaints.is_news("b:1: connection refused (after 0ms in state CONNECT)"));
        assert!(!complaints.is_news("b:1: connection refused (after 7ms in state CONNECT, 3 identical error(s) suppressed)"));
        assert!(complaints.is_news("b:2: connection refused (after 0ms in state CONNECT)"));
    }

    #[test]
    fn a_broker_that_does_not_know_what_was_there_is_coming_back() {
        for code in [RDKafkaErrorCode::UnknownPartition, RDKafkaErrorCode::UnknownTopic, RDKafkaErrorCode::UnknownTopicOrPartition] {
            let error = KafkaError::MetadataFetch(code);
            assert_eq!(failed("asking", &error, None).fault, Fault::User);
            assert_eq!(failed_on_known("asking", &error, None).fault, Fault::Outside);
        }
        let denied = KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed);
        assert_eq!(failed_on_known("asking", &denied, None).fault, Fault::User);
    }

    #[test]
    fn that_all_brokers_are_down_is_no_reason_where_there_is_another() {
        let context = Context::default();
        context.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        let said = || context.complaint().map(|complaint| complaint.text);
        assert_eq!(said().as_deref(), Some("1/1 brokers are down"));
        context.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "b:1: connection refused");
        context.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(said().as_deref(), Some("b:1: connection refused"));
    }
}

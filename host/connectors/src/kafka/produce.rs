//! Writing records from outside any job: one at a time, as a person or a script has them. At least once, in order for each key.

use std::{path::Path, sync::Arc};

use millstream_engine::{clock::Clock, operator::OperatorError};
use rdkafka::message::{self, OwnedHeaders};

use super::{
    client::blocking,
    producer::{Deliveries, FULL_WAIT_MS, Outgoing, Producer, Refused},
    settings::SinkSettings,
    topics::{self, Admin, Unknown},
};

/// A header: its name, and its value.
pub type Header = (String, Option<Vec<u8>>);

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; none: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
    /// Its timestamp, in ms since the epoch; none: the time of sending.
    pub timestamp_ms: Option<i64>,
    /// Its partition; none: that of its key.
    pub partition: Option<i32>,
}

/// Writes records to one topic.
pub struct Writer {
    topic: String,
    producer: Producer,
    deliveries: Arc<Deliveries>,
    clock: Arc<dyn Clock>,
}

impl Writer {
    /// Writes to the topic of a sink's settings, as these say; files of the connection are relative to `base`.
    ///
    /// # Errors
    /// The topic does not exist or may not be seen, a secret is missing, or the cluster does not answer.
    pub async fn open(settings: SinkSettings, base: &Path, clock: Arc<dyn Clock>) -> Result<Self, OperatorError> {
        let base = base.to_owned();
        let topic = settings.topic.as_slice().first().cloned().unwrap_or_default();
        let opened = topic.clone();
        let of_producer = clock.clone();
        let producer = blocking(move || {
            let connection = settings.connection();
            topics::partitions_of(Admin::new(&connection, &base)?.client(), &opened, Unknown::IsMistake)?;
            let mut config = connection.client(&base).map_err(OperatorError::user)?;
            settings.tune(&mut config);
            Producer::new(&config, of_producer)
        });
        Ok(Self { topic, producer: producer.await?, deliveries: Arc::new(Deliveries::of_named_partitions(true)), clock })
    }

    /// Hands a record over; waits while too many are on their way.
    ///
    /// # Errors
    /// It cannot be sent, or one before it was not delivered.
    pub async fn write(&self, record: &Record) -> Result<(), OperatorError> {
        let outgoing = Outgoing {
            topic: &self.topic,
            partition: record.partition,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            timestamp_ms: record.timestamp_ms,
        };
        loop {
            self.deliveries.check()?;
            match self.producer.send(&outgoing, headers(record), &self.deliveries) {
                Ok(()) => return Ok(()),
                Err(Refused::Failed) => return self.deliveries.check(),
                Err(Refused::Full) => self.clock.sleep(FULL_WAIT_MS).await,
            }
        }
    }

    /// Waits until every record is acknowledged.
    ///
    /// # Errors
    /// One was not.
    pub async fn finish(self) -> Result<(), OperatorError> {
        self.deliveries.all().await
    }
}

fn headers(record: &Record) -> Option<OwnedHeaders> {
    let add = |headers: OwnedHeaders, (name, value): &Header| headers.insert(message::Header { key: name, value: value.as_deref() });
    (!record.headers.is_empty()).then(|| record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), add))
}

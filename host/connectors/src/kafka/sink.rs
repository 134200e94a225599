//! Writing topics.
//!
//! At least once: an idempotent producer; a barrier passes when everything before it is acknowledged. Exactly once: the same within the job's
//! [`Transaction`], which commits the rows together with the commit record; a barrier seals what was written before it.

mod changes;
mod encode;
mod keys;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{
        ConnectorRequest, Guarantee, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter, Transaction as EngineTransaction,
        TransactionRequest, Transactional,
    },
    operator::OperatorError,
};
use millstream_model::{Batch, ids::CheckpointId};
use serde_json::Value;
use tokio::sync::OnceCell;

use self::encode::Layout;
use super::{
    Machine,
    client::blocking,
    producer::{Deliveries, Producer},
    registry::{self, ValueSchema},
    settings::{Changes, Delivery, SinkSettings, ValueFormat},
    topics::{self, Admin, Unknown, is_topic_name},
    transaction::{self, Attempt, Seat, Transaction},
};
use crate::{
    settings::{problem, read},
    value_schema::{avro_schema, protobuf_schema},
};

/// The setting of brokers that says how long a transaction may stay open, in ms.
const TRANSACTION_LIMIT: &str = "transaction.max.timeout.ms";

/// The sink connector `kafka`.
#[derive(Clone, Copy, Debug)]
pub struct KafkaSink(pub Machine);

impl SinkConnector for KafkaSink {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(SinkSettings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        let settings: SinkSettings = read(request.settings)?;
        let Some(input) = request.input else {
            return Err(vec![problem("", "a sink needs a stream to write")]);
        };
        let mut problems = Vec::new();
        settings.connection().check(self.0, &mut problems);
        settings.check(&mut problems);
        let names = settings
            .topic
            .as_slice()
            .iter()
            .map(|name| ("topic", name))
            .chain(settings.commit_topic.iter().map(|name| ("commit-topic", name)));
        for (place, name) in names.filter(|(_, name)| !is_topic_name(name)) {
            problems.push(problem(place, format!("`{name}` is no name of a topic: letters, digits, `.`, `_` and `-`, at most 249")));
        }
        if let Some(registry) = &settings.schema_registry {
            registry.check(self.0, &mut problems);
        }
        let given = given_schema(&settings, self.0, &request.base_directory).unwrap_or_else(|wrong| {
            problems.push(wrong);
            None
        });
        let layout = Layout::new(&settings, given.as_ref(), &input.schema);
        problems.extend(layout.as_ref().err().into_iter().flatten().cloned());
        let (Ok(layout), true) = (layout, problems.is_empty()) else { return Err(problems) };
        let (base, clock) = (request.base_directory, request.clock);
        let shared = Shared { settings, layout, base, clock };
        Ok(Arc::new(Records { shared: Arc::new(shared), producer: OnceCell::new(), ids: OnceCell::new() }))
    }
}

/// The schema of the settings, where the format has one.
fn given_schema(settings: &SinkSettings, machine: Machine, base: &Path) -> Result<Option<ValueSchema>, SettingsProblem> {
    let Some(text) = &settings.value_schema else { return Ok(None) };
    match settings.format {
        ValueFormat::Avro => avro_schema(text, machine.files(base)).map(ValueSchema::Avro).map(Some),
        ValueFormat::Protobuf => {
            protobuf_schema(text, settings.message.as_deref(), machine.files(base)).map(ValueSchema::Protobuf).map(Some)
        }
        ValueFormat::Json | ValueFormat::Csv | ValueFormat::String | ValueFormat::Raw => Ok(None),
    }
}

/// What all writers of a sink share.
struct Shared {
    settings: SinkSettings,
    layout: Layout,
    base: PathBuf,
    clock: Arc<dyn Clock>,
}

impl Shared {
    async fn register(&self) -> Result<Option<Arc<[u32]>>, OperatorError> {
        let (Some(registry), Some((kind, text))) = (&self.settings.schema_registry, self.layout.value_schema()) else { return Ok(None) };
        let client = registry::Client::new(registry, &self.base, self.clock.clone()).map_err(OperatorError::user)?;
        let mut ids = Vec::new();
        for topic in self.settings.topic.as_slice() {
            let subject = registry.subject_of(topic);
            ids.push(client.id_of(&subject, kind, text, registry.register.unwrap_or(true)).await?);
        }
        Ok(Some(ids.into()))
    }
}

struct Records {
    shared: Arc<Shared>,
    /// Of a sink that takes part in no transaction.
    producer: OnceCell<Arc<Producer>>,
    /// Of the schema, for each topic; none: values do not begin with one.
    ids: OnceCell<Option<Arc<[u32]>>>,
}

impl Records {
    async fn producer(&self) -> Result<Arc<Producer>, OperatorError> {
        let shared = self.shared.clone();
        let made = self.producer.get_or_try_init(|| {
            blocking(move || {
                let mut config = shared.settings.connection().client(&shared.base).map_err(OperatorError::user)?;
                shared.settings.tune(&mut config);
                Producer::new(&config, shared.clock.clone()).map(Arc::new)
            })
        });
        made.await.cloned()
    }

    /// The brokers allow transactions as long as ours may have to be. Who may not ask them for their settings learns it when the job claims.
    async fn check_transaction_timeout(&self, checkpoint_interval: Duration) -> Result<(), OperatorError> {
        let shared = self.shared.clone();
        let asked = blocking(move || {
            let admin = Admin::new(&shared.settings.connection(), &shared.base)?;
            admin.brokers().map(|brokers| (admin, brokers))
        });
        let (admin, brokers) = asked.await?;
        let wanted = transaction::timeout(&self.shared.settings, checkpoint_interval);
        let allowed = admin.least_setting(&brokers, TRANSACTION_LIMIT).await?;
        match allowed.map(Duration::from_millis) {
            Some(allowed) if allowed < wanted => Err(OperatorError::user(format!(
                "transactions may have to stay open for {wanted:?} (`transaction-timeout`, else three checkpoint intervals), and the brokers allow \
                 {allowed:?}: raise {TRANSACTION_LIMIT} of the brokers, or shorten `transaction-timeout` or the checkpoint interval"
            ))),
            _ => Ok(()),
        }
    }

    /// The schema is registered before the first row, for each topic.
    async fn ids(&self) -> Result<Option<Arc<[u32]>>, OperatorError> {
        self.ids.get_or_try_init(|| self.shared.register()).await.cloned()
    }

    /// Every topic that may be written is there: otherwise the first row would wait for it until its time is over.
    async fn check_topics(&self, unknown: Unknown) -> Result<(), OperatorError> {
        let shared = self.shared.clone();
        blocking(move || {
            let admin = Admin::new(&shared.settings.connection(), &shared.base)?;
            shared.settings.topic.as_slice().iter().try_for_each(|topic| topics::partitions_of(admin.client(), topic, unknown).map(drop))
        })
        .await
    }

    async fn lane(&self, context: &SinkContext) -> Result<Lane, OperatorError> {
        if self.shared.settings.delivery == Delivery::AtLeastOnce || !context.is_durable {
            return Ok(Lane::Plain(self.producer().await?));
        }
        let part = context.transaction.clone().and_then(|part| part.downcast::<Attempt>().ok());
        let part =
            part.ok_or_else(|| OperatorError::internal("a sink with `delivery: exactly-once` has no transaction to take part in"))?;
        Ok(Lane::Transaction(part.seat()))
    }
}

#[async_trait]
impl Sink for Records {
    fn accepts_changes(&self) -> bool {
        self.shared.settings.changes != Changes::Append
    }

    fn guarantee(&self) -> Guarantee {
        match self.shared.settings.delivery {
            Delivery::ExactlyOnce => Guarantee::ExactlyOnce,
            Delivery::AtLeastOnce => Guarantee::AtLeastOnce,
        }
    }

    fn transactional(&self) -> Option<&dyn Transactional> {
        (self.shared.settings.delivery == Delivery::ExactlyOnce).then_some(self)
    }

    async fn check_outside(&self, checkpoint_interval: Option<Duration>) -> Result<(), OperatorError> {
        self.check_topics(Unknown::IsMistake).await?;
        match (self.shared.settings.delivery, checkpoint_interval) {
            (Delivery::ExactlyOnce, Some(interval)) => self.check_transaction_timeout(interval).await,
            _ => Ok(()),
        }
    }

    async fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        self.check_topics(Unknown::ComesBack).await?;
        let ids = self.ids().await?;
        let lane = self.lane(&context).await?;
        let deliveries = Arc::new(Deliveries::of_named_partitions(self.shared.settings.partition.is_some()));
        Ok(Box::new(Writer { shared: self.shared.clone(), ids, lane, deliveries }))
    }
}

impl Transactional for Records {
    fn span(&self) -> String {
        let connection = self.shared.settings.connection();
        // What two sinks write down differently may be the same cluster, but nobody knows before it is asked.
        match &connection.sasl {
            Some(sasl) => format!("{} as {}", connection.shown(), sasl.username),
            None => connection.shown(),
        }
    }

    fn writes(&self) -> Vec<String> {
        self.shared.settings.topic.as_slice().to_vec()
    }

    fn open(&self, request: TransactionRequest) -> Result<Arc<dyn EngineTransaction>, OperatorError> {
        Ok(Arc::new(Transaction::new(&self.shared.settings, &self.shared.base, request)?))
    }
}

/// Where the records of a writer go.
enum Lane {
    Plain(Arc<Producer>),
    Transaction(Seat),
}

struct Writer {
    shared: Arc<Shared>,
    ids: Option<Arc<[u32]>>,
    lane: Lane,
    deliveries: Arc<Deliveries>,
}

impl Writer {
    fn producer(&mut self) -> Result<Arc<Producer>, OperatorError> {
        match &mut self.lane {
            Lane::Plain(producer) => Ok(producer.clone()),
            Lane::Transaction(seat) => seat.producer(),
        }
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        self.deliveries.check()?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let producer = self.producer()?;
        let encoded = self
            .shared
            .layout
            .encode(batch, self.ids.as_deref())
            .map_err(|problem| OperatorError::user(format!("rows cannot be written: {problem}")))?;
        producer.hand_over(Box::new(encoded), &self.deliveries).await;
        Ok(())
    }

    async fn on_barrier(&mut self, checkpoint: CheckpointId) -> Result<Value, OperatorError> {
        self.deliveries.all().await?;
        if let Lane::Transaction(seat) = &mut self.lane {
            seat.seal(checkpoint)?;
        }
        Ok(Value::Null)
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        self.deliveries.all().await
    }
}

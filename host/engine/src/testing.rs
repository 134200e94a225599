//! A source and a sink in memory, randomness that counts, and jobs put together by hand: for tests and benchmarks. The rest of the engine is the real
//! one.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_model::{
    Batch, Origin, Positions, StreamType,
    ids::{JobId, TenantId},
};
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    clock::Random,
    connector::{Read, Sink, SinkContext, SinkWriter, Source, Split, SplitReader},
    graph::{Batching, Durability, Edge, EventTimePlan, Exchange, JobPlan, Node, NodeIndex, NodeKind, OperatorNode, RowOrder, SourceNode},
    operator::{OperatorError, OperatorPlan, OutputPort},
    rejected::{RejectedPolicy, Rejection},
};

/// A bounded source that replays batches, split by split. What is read is shared, never copied.
#[derive(Clone)]
pub struct MemorySource {
    schema: SchemaRef,
    splits: Arc<Vec<Vec<Batch>>>,
    /// How often each split is replayed.
    repeats: usize,
    columns: Option<Vec<usize>>,
}

impl MemorySource {
    /// Replays the batches of each split once.
    ///
    /// # Panics
    /// There is no batch to take the schema from.
    pub fn new(splits: Vec<Vec<Batch>>) -> Self {
        let schema = splits.iter().flatten().next().expect("a batch that tells the schema").schema();
        Self { schema, splits: Arc::new(splits), repeats: 1, columns: None }
    }

    /// The same, replayed `repeats` times.
    pub fn repeated(self, repeats: usize) -> Self {
        Self { repeats, ..self }
    }
}

#[async_trait]
impl Source for MemorySource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn has_event_times(&self) -> bool {
        self.splits.iter().flatten().next().is_some_and(|batch| batch.event_times().is_some())
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        let schema = Arc::new(self.schema.project(columns).expect("projected columns exist"));
        let columns = columns.iter().map(|&column| self.columns.as_ref().map_or(column, |own| own[column])).collect();
        Arc::new(Self { schema, columns: Some(columns), ..self.clone() })
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        let split = |number: usize| Split { id: format!("memory-{number}").into(), detail: Value::from(number) };
        Ok((0..self.splits.len()).map(split).collect())
    }

    fn size_hint(&self) -> Option<u64> {
        Some((self.repeats * self.splits.iter().flatten().map(Batch::num_rows).sum::<usize>()) as u64)
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let number = split.detail.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|&number| number < self.splits.len());
        let number = number.ok_or_else(|| OperatorError::internal("no split of this source"))?;
        let skipped = position.and_then(Value::as_u64).unwrap_or(0);
        let mut reader = MemoryReader { source: self.clone(), split: split.id.clone(), number, next: 0, offset: 0, rows: 0 };
        reader.skip(skipped);
        Ok(Box::new(reader))
    }
}

struct MemoryReader {
    source: MemorySource,
    split: Arc<str>,
    number: usize,
    /// The batch to read next, counted over all repeats, and how much of it is read.
    next: usize,
    offset: usize,
    rows: u64,
}

impl MemoryReader {
    fn current(&self) -> Option<&Batch> {
        let batches = &self.source.splits[self.number];
        if self.next >= batches.len() * self.source.repeats { None } else { batches.get(self.next % batches.len()) }
    }

    fn skip(&mut self, rows: u64) {
        while self.rows < rows
            && let Some(batch) = self.current()
        {
            let count = (batch.num_rows() - self.offset).min((rows - self.rows) as usize);
            self.advance(count, batch.num_rows());
        }
    }

    fn advance(&mut self, count: usize, of: usize) {
        self.rows += count as u64;
        self.offset += count;
        if self.offset == of {
            (self.next, self.offset) = (self.next + 1, 0);
        }
    }
}

#[async_trait]
impl SplitReader for MemoryReader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        let Some(batch) = self.current() else { return Ok(Read::End) };
        let (of, start) = (batch.num_rows(), self.offset);
        let end = of.min(start + rows_max);
        let rows = if end - start == of { batch.clone() } else { batch.slice(start..end) };
        let rows = match &self.source.columns {
            Some(columns) => rows.project(columns),
            None => rows,
        };
        let rows = rows.with_origin(Some(Origin { split: self.split.clone(), positions: Positions::From(self.rows) }));
        self.advance(end - start, of);
        Ok(Read::Rows { batch: rows, rejected: Vec::new() })
    }

    fn position(&self) -> Value {
        Value::from(self.rows)
    }

    fn progress(&self) -> u64 {
        self.rows
    }
}

/// An unbounded source of one split that is fed by hand. It never ends by itself.
#[derive(Clone)]
pub struct FedSource {
    schema: SchemaRef,
    fed: Arc<Fed>,
}

#[derive(Default)]
struct Fed {
    waiting: Mutex<VecDeque<(Batch, Vec<Rejection>)>>,
    arrived: Notify,
}

impl FedSource {
    /// Of rows of `schema`.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, fed: Arc::default() }
    }

    /// Gives the next reader rows.
    pub fn feed(&self, batch: Batch) {
        self.feed_with_rejected(batch, Vec::new());
    }

    /// Gives the next reader rows, and records that could not be read.
    pub fn feed_with_rejected(&self, batch: Batch, rejected: Vec<Rejection>) {
        lock(&self.fed.waiting).push_back((batch, rejected));
        self.fed.arrived.notify_one();
    }

    /// Whether everything fed was read.
    pub fn is_drained(&self) -> bool {
        lock(&self.fed.waiting).is_empty()
    }
}

#[async_trait]
impl Source for FedSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_bounded(&self) -> bool {
        false
    }

    fn project(&self, _columns: &[usize]) -> Arc<dyn Source> {
        Arc::new(self.clone())
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        Ok(vec![Split { id: "fed".into(), detail: Value::Null }])
    }

    async fn open(&self, _split: &Split, _position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        Ok(Box::new(FedReader { fed: self.fed.clone() }))
    }
}

struct FedReader {
    fed: Arc<Fed>,
}

#[async_trait]
impl SplitReader for FedReader {
    async fn read(&mut self, _rows_max: usize) -> Result<Read, OperatorError> {
        loop {
            if let Some((batch, rejected)) = lock(&self.fed.waiting).pop_front() {
                return Ok(Read::Rows { batch, rejected });
            }
            self.fed.arrived.notified().await;
        }
    }

    fn position(&self) -> Value {
        Value::Null
    }
}

/// A sink that keeps what it is given.
#[derive(Clone, Default)]
pub struct CollectSink {
    collected: Arc<Collected>,
}

#[derive(Default)]
struct Collected {
    written: Mutex<Vec<Batch>>,
    changed: Notify,
    ends: Mutex<Ends>,
}

/// How the writers of a [`CollectSink`] ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Writers that published.
    pub finished: usize,
    /// Writers that were told to remove what they wrote.
    pub aborted: usize,
}

impl CollectSink {
    /// Everything written so far, in the order in which it came.
    pub fn batches(&self) -> Vec<Batch> {
        lock(&self.collected.written).clone()
    }

    /// Number of rows written so far.
    pub fn num_rows(&self) -> usize {
        lock(&self.collected.written).iter().map(Batch::num_rows).sum()
    }

    /// Returns when at least `rows` rows were written.
    pub async fn wait_for_rows(&self, rows: usize) {
        loop {
            let changed = self.collected.changed.notified();
            if self.num_rows() >= rows {
                return;
            }
            changed.await;
        }
    }

    /// How its writers ended.
    pub fn ends(&self) -> Ends {
        *lock(&self.collected.ends)
    }
}

#[async_trait]
impl Sink for CollectSink {
    fn accepts_changes(&self) -> bool {
        true
    }

    async fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        Ok(Box::new(CollectWriter(self.collected.clone())))
    }
}

struct CollectWriter(Arc<Collected>);

#[async_trait]
impl SinkWriter for CollectWriter {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        lock(&self.0.written).push(batch.clone());
        self.0.changed.notify_waiters();
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        lock(&self.0.ends).finished += 1;
        Ok(())
    }

    async fn abort(self: Box<Self>) {
        lock(&self.0.ends).aborted += 1;
    }
}

/// A sink that counts rows and forgets them.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiscardSink;

#[async_trait]
impl Sink for DiscardSink {
    fn accepts_changes(&self) -> bool {
        true
    }

    async fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        Ok(Box::new(Self))
    }
}

#[async_trait]
impl SinkWriter for DiscardSink {
    async fn write(&mut self, _batch: &Batch) -> Result<(), OperatorError> {
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A [`JobPlan`] put together by hand, without the checks of `plan`.
pub struct JobBuilder {
    plan: JobPlan,
}

impl Default for JobBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl JobBuilder {
    /// A job without nodes.
    pub fn new() -> Self {
        let plan = JobPlan {
            tenant: TenantId::local(),
            job: JobId::from("test"),
            nodes: Vec::new(),
            // A clock that stands still would hold small batches for ever.
            batching: Batching { wait: Duration::ZERO, ..Batching::default() },
            state_memory_bytes: 256 << 20,
            durability: Durability::default(),
        };
        Self { plan }
    }

    /// How batches are cut and joined. Default: the usual sizes, and rows never wait for more.
    pub fn batching(&mut self, batching: Batching) -> &mut Self {
        self.plan.batching = batching;
        self
    }

    /// What a durable run promises, and how. Default: that of a job file that says nothing.
    pub fn durability(&mut self, durability: Durability) -> &mut Self {
        self.plan.durability = durability;
        self
    }

    /// Memory for the state of the whole job, in bytes. Default: 256 MiB.
    pub fn state_memory_bytes(&mut self, bytes: usize) -> &mut Self {
        self.plan.state_memory_bytes = bytes;
        self
    }

    /// Adds a source.
    pub fn source(&mut self, id: &str, source: impl Source + 'static, event_time: Option<EventTimePlan>, parallelism: u32) -> NodeIndex {
        let output = StreamType { schema: source.schema(), event_times: event_time.is_some(), changes: false };
        let columns_out = output.schema.fields().len();
        let source: Arc<dyn Source> = Arc::new(source);
        let node = SourceNode { whole: source.clone(), source, event_time, output, columns_out };
        self.node(id, NodeKind::Source(node), parallelism, Vec::new())
    }

    /// Adds an operator fed by `inputs`, ports in order.
    pub fn operator(&mut self, id: &str, operator: OperatorNode, parallelism: u32, inputs: Vec<Edge>) -> NodeIndex {
        self.node(id, NodeKind::Operator(operator), parallelism, inputs)
    }

    /// Adds a sink of one output of `from`.
    pub fn sink(&mut self, id: &str, sink: impl Sink + 'static, from: NodeIndex, output: OutputPort, parallelism: u32) -> NodeIndex {
        let exchange = if self.plan.nodes[from].parallelism == parallelism { Exchange::Forward } else { Exchange::Rebalance };
        self.node(id, NodeKind::Sink(Arc::new(sink)), parallelism, vec![Edge { from, output, port: 0, exchange, columns: None }])
    }

    /// What becomes of the rejected rows of a node. Default: the job fails.
    pub fn rejected(&mut self, node: NodeIndex, policy: RejectedPolicy) -> &mut Self {
        self.plan.nodes[node].rejected = policy;
        self
    }

    /// The job.
    pub fn build(self) -> Arc<JobPlan> {
        Arc::new(self.plan)
    }

    /// The type of an output of a node.
    ///
    /// # Panics
    /// The node has no such output.
    pub fn output(&self, node: NodeIndex, output: OutputPort) -> StreamType {
        self.plan.nodes[node].output_type(output).expect("the node has this output")
    }

    fn node(&mut self, id: &str, kind: NodeKind, parallelism: u32, inputs: Vec<Edge>) -> NodeIndex {
        self.plan.nodes.push(Node { id: id.into(), kind, parallelism, inputs, rejected: RejectedPolicy::Fail });
        self.plan.nodes.len() - 1
    }
}

/// An operator node without keys, whose rows come as they arrive.
pub fn unkeyed(plan: impl OperatorPlan + 'static, inputs: Vec<StreamType>) -> OperatorNode {
    OperatorNode { plan: Arc::new(plan), inputs, keys: None, order: RowOrder::Arrival }
}

/// An edge of the first output of `from` into port 0.
pub fn edge(from: NodeIndex, exchange: Exchange) -> Edge {
    Edge { from, output: OutputPort::Port(0), port: 0, exchange, columns: None }
}

/// Randomness for names that need only differ: 1, 2, 3, …
#[derive(Debug, Default)]
pub struct Counting(AtomicU64);

impl Random for Counting {
    fn next_u64(&self) -> u64 {
        1 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

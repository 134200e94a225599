//! Values as they come from a topic, made into columns by the decoder that the source uses, against serde_json making structs of the same records, in
//! turn, on one thread: the flights of examples/flights, as JSON and as Avro.
//!
//! A user reads either all nineteen columns or, as the jobs of examples/flights do, some of them: then the struct of serde_json has these fields and no
//! other. The structs own their text, as rows that outlive the buffer of the client must. All rates are in bytes of JSON, also those of Avro, which says the
//! same in fewer: so they compare records, whichever the format.

use std::{fs::File, hint::black_box, io::Read as _, sync::Arc};

use anyhow::{Context as _, anyhow, ensure};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flate2::read::GzDecoder;
use millstream_connectors::formats::{
    avro,
    csv::Dialect,
    layout::{TextKind, TextLayout},
    ndjson::{Nulls, Writer},
    one_schema::OneSchema,
    records::{ValueDecoder, ValueFormat as _, ValueLayout},
    text::ScanLimits,
    values::TimestampFormat,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    figures::{Figure, median, thread_cpu_ns},
    repository,
};

/// Samples per figure; the median counts.
const SAMPLES: usize = 15;
/// Values that become columns at once.
const VALUES_PER_BATCH: usize = 4_096;
/// The columns that the jobs of examples/flights read.
const SOME: [&str; 6] = ["carrier", "flight", "origin", "dep_delay", "arr_delay", "time_hour"];

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is filled, which is what takes the time")]
struct Flight {
    year: i32,
    month: i32,
    day: i32,
    dep_time: Option<i32>,
    sched_dep_time: i32,
    dep_delay: Option<i32>,
    arr_time: Option<i32>,
    sched_arr_time: i32,
    arr_delay: Option<i32>,
    carrier: String,
    flight: i32,
    tailnum: Option<String>,
    origin: String,
    dest: String,
    air_time: Option<i32>,
    distance: i32,
    hour: i32,
    minute: i32,
    time_hour: i64,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is filled, which is what takes the time")]
struct SomeOfFlight {
    carrier: String,
    flight: i32,
    origin: String,
    dep_delay: Option<i32>,
    arr_delay: Option<i32>,
    time_hour: i64,
}

/// All figures of this group.
///
/// # Errors
/// The flights cannot be read, or become other rows than they are.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let flights = flights()?;
    let schema = flights.schema();
    let json = json(&flights)?;
    let avro_schema = avro::derived(&schema, "flight").map_err(|error| anyhow!(error))?;
    let avro = avro(&flights, &avro_schema)?;
    let unix = vec![TimestampFormat::Unix(TimeUnit::Millisecond); schema.fields().len()];
    let layout = TextLayout::new(schema.clone(), unix, TextKind::Json).map_err(|problems| anyhow!("{problems:?}"))?;
    let layout = ValueLayout::Text(layout);
    let binary = OneSchema::new(avro_schema, Some(schema.clone())).map_err(|error| anyhow!(error))?;
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let some: Vec<usize> = SOME.iter().map(|name| schema.index_of(name)).collect::<Result<_, _>>()?;
    let mut figures = Vec::new();
    for (what, columns, structs) in
        [("all columns", &all, structs::<Flight> as fn(&Encoded)), ("six columns of nineteen", &some, structs::<SomeOfFlight>)]
    {
        let expected = flights.project(columns)?;
        let mut text = Timed::new(layout.decoder(columns).map_err(|error| anyhow!(error))?, &json);
        let mut bytes = Timed::new(binary.decoder(columns).map_err(|error| anyhow!(error))?, &avro);
        text.check(&expected).context("from JSON")?;
        bytes.check(&expected).context("from Avro")?;
        let (mut peer, mut of_text, mut of_bytes) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            peer.push(ns(|| structs(&json)));
            of_text.push(ns(|| text.run()));
            of_bytes.push(ns(|| bytes.run()));
        }
        let how = format!(
            "{} flights of {} bytes of JSON, columns of {VALUES_PER_BATCH} at a time, CPU time of one thread, median of {SAMPLES} in turn",
            json.ends.len(),
            json.bytes.len() / json.ends.len()
        );
        let (peer, of_text, of_bytes) = (median(peer), median(of_text), median(of_bytes));
        let rate = |ns: f64| json.bytes.len() as f64 / ns;
        figures.extend([
            Figure::at_least(format!("decode, JSON, {what}, against serde_json into structs"), peer / of_text, "times", 2.0, &how),
            Figure::at_least(format!("decode, Avro, {what}, against serde_json into structs"), peer / of_bytes, "times", 2.0, &how),
            Figure::for_scale(format!("decode, JSON, {what}"), rate(of_text), "GB/s", &how),
            Figure::for_scale(format!("decode, Avro, {what}"), rate(of_bytes), "GB/s of JSON", &how),
            Figure::for_scale(format!("decode, serde_json into structs, {what}"), rate(peer), "GB/s", &how),
        ]);
    }
    Ok(figures)
}

fn ns(work: impl FnOnce()) -> f64 {
    let began = thread_cpu_ns();
    work();
    thread_cpu_ns() - began
}

/// Values, one behind the other.
struct Encoded {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Encoded {
    fn values(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(&start, &end)| &self.bytes[start..end])
    }
}

fn structs<T: DeserializeOwned>(json: &Encoded) {
    for value in json.values() {
        black_box(serde_json::from_slice::<T>(value).expect("`Writer` wrote it"));
    }
}

/// A decoder and what it decodes.
struct Timed<'a> {
    decoder: Box<dyn ValueDecoder>,
    values: Vec<&'a [u8]>,
}

impl<'a> Timed<'a> {
    fn new(decoder: Box<dyn ValueDecoder>, encoded: &'a Encoded) -> Self {
        Self { decoder, values: encoded.values().collect() }
    }

    fn batches(&mut self, mut each: impl FnMut(RecordBatch)) {
        for values in self.values.chunks(VALUES_PER_BATCH) {
            values.iter().for_each(|value| self.decoder.push(value));
            each(self.decoder.finish().columns);
        }
    }

    fn run(&mut self) {
        self.batches(|columns| drop(black_box(columns)));
    }

    fn check(&mut self, expected: &RecordBatch) -> anyhow::Result<()> {
        let (mut at, mut same) = (0, true);
        self.batches(|columns| {
            same &= columns == expected.slice(at, columns.num_rows());
            at += columns.num_rows();
        });
        ensure!(same && at == expected.num_rows(), "the columns are not those that were written");
        Ok(())
    }
}

fn schema() -> SchemaRef {
    let (number, text) = (|name| Field::new(name, DataType::Int32, false), |name| Field::new(name, DataType::Utf8, false));
    let optional = |name| Field::new(name, DataType::Int32, true);
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        number("year"),
        number("month"),
        number("day"),
        optional("dep_time"),
        number("sched_dep_time"),
        optional("dep_delay"),
        optional("arr_time"),
        number("sched_arr_time"),
        optional("arr_delay"),
        text("carrier"),
        number("flight"),
        Field::new("tailnum", DataType::Utf8, true),
        text("origin"),
        text("dest"),
        optional("air_time"),
        number("distance"),
        number("hour"),
        number("minute"),
        Field::new("time_hour", time, false),
    ]))
}

/// The flights of the example.
fn flights() -> anyhow::Result<RecordBatch> {
    let path = repository().join("examples/flights/data/flights.csv.gz");
    let mut bytes = Vec::new();
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    GzDecoder::new(file).read_to_end(&mut bytes).with_context(|| format!("reading {}", path.display()))?;
    let schema = schema();
    let dialect = Dialect { null_values: vec!["NA".into()], ..Dialect::default() };
    let layout = TextLayout::new(schema.clone(), vec![TimestampFormat::Standard; schema.fields().len()], TextKind::Csv(dialect, false))
        .map_err(|problems| anyhow!("{problems:?}"))?;
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let mut reader = layout.reader(&all, &[]).map_err(|error| anyhow!(error))?;
    let rows = bytes.iter().position(|&byte| byte == b'\n').context("a header")? + 1;
    reader.scan(&bytes[rows..], ScanLimits { records: usize::MAX, last: true, stop_at: usize::MAX, record_bytes: usize::MAX });
    let decoded = reader.decode(&bytes[rows..]);
    ensure!(decoded.bad.is_empty(), "flights that cannot be read: {:?}", decoded.bad.first());
    Ok(decoded.columns)
}

/// As JSON, times as integers, which costs both sides least.
fn json(flights: &RecordBatch) -> anyhow::Result<Encoded> {
    let mut columns = flights.columns().to_vec();
    let mut fields: Vec<Field> = flights.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let (time, field) = (columns.last_mut().context("a column")?, fields.last_mut().context("a field")?);
    *time = arrow_cast::cast(time, &DataType::Int64)?;
    *field = Field::new(field.name(), DataType::Int64, false);
    let flights = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let mut bytes = Vec::new();
    let writer = Writer::new(&flights.schema(), Nulls::Write).map_err(|error| anyhow!(error))?;
    writer.rows(&flights, &mut bytes).map_err(|error| anyhow!(error))?;
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    Ok(Encoded { bytes, ends })
}

fn avro(flights: &RecordBatch, schema: &avro::Schema) -> anyhow::Result<Encoded> {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    let writer = avro::Writer::new(schema, &flights.schema()).map_err(|error| anyhow!(error))?;
    writer.rows(flights, &|_, _| {}, &mut bytes, &mut ends).map_err(|error| anyhow!(error))?;
    Ok(Encoded { bytes, ends })
}

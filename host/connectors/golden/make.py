#!/usr/bin/env python3
"""Writes the golden bytes of the binary formats with other implementations than ours (the PyPI packages fastavro, polars and grpcio-tools):

    pip install fastavro==1.13.1 cramjam==2.14.0 backports.zstd==1.8.0 polars==2.1.0 grpcio-tools==1.85.1 && host/connectors/golden/make.py

avro.json: cases of schema, the value as JSON shows its columns, and its bytes. protobuf.json: the same for messages of events.proto; events.pb: these, one
after the other ten times, each behind its length.
avro/CODEC.avro: the same rows in each codec, in blocks of some ten rows (null: in one block); avro/polars.avro: of polars; avro/rows.ndjson: as JSON shows them.
"""

import datetime
import decimal
import importlib
import io
import json
import pathlib
import sys
import tempfile
import uuid

import fastavro

HERE = pathlib.Path(__file__).resolve().parent
UTC = datetime.timezone.utc


def record(*fields):
    return {"type": "record", "name": "R", "namespace": "golden", "fields": [{"name": name, "type": kind} for name, kind in fields]}


def logical(kind, name, **more):
    return {"type": kind, "logicalType": name, **more}


AVRO = [
    (record(("a", "int"), ("b", "long"), ("c", "boolean")), {"a": -2147483648, "b": 9223372036854775807, "c": True}, None),
    (record(("a", "long")), {"a": -9223372036854775808}, None),
    (record(("a", "float"), ("b", "double")), {"a": 0.5, "b": -1e300}, None),
    (record(("a", "string"), ("b", "bytes")), {"a": "žluťoučký", "b": b"\x00\xff"}, {"a": "žluťoučký", "b": "AP8="}),
    (record(("a", {"type": "fixed", "name": "F", "size": 3})), {"a": b"abc"}, {"a": "YWJj"}),
    (record(("a", {"type": "enum", "name": "E", "symbols": ["X", "Y", "Z"]})), {"a": "Z"}, None),
    (record(("a", ["null", "string"]), ("b", ["long", "null"])), {"a": None, "b": 7}, None),
    (record(("a", ["null", "string"]), ("b", ["long", "null"])), {"a": "x", "b": None}, None),
    (record(("a", {"type": "array", "items": "long"})), {"a": list(range(-3, 100))}, None),
    (record(("a", {"type": "array", "items": ["null", {"type": "array", "items": "string"}]})), {"a": [["x"], None, []]}, None),
    (record(("a", {"type": "map", "values": "double"})), {"a": {"k": 1.5, "l": 2.5}}, None),
    (
        record(("a", {"type": "record", "name": "In", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": ["null", "string"]}]})),
        {"a": {"x": 1, "y": "deep"}},
        None,
    ),
    (record(("a", logical("int", "date"))), {"a": datetime.date(2013, 1, 31)}, {"a": "2013-01-31"}),
    (record(("a", logical("int", "time-millis"))), {"a": datetime.time(5, 15, 0, 123000)}, {"a": "05:15:00.123"}),
    (
        record(("a", logical("long", "timestamp-millis"))),
        {"a": datetime.datetime(2013, 1, 1, 5, 15, 0, 123000, UTC)},
        {"a": "2013-01-01T05:15:00.123Z"},
    ),
    (
        record(("a", logical("long", "timestamp-micros"))),
        {"a": datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)},
        {"a": "1969-12-31T23:59:59.999999Z"},
    ),
    (
        record(("a", logical("long", "local-timestamp-millis"))),
        {"a": datetime.datetime(2013, 1, 1, 5, 15)},
        {"a": "2013-01-01T05:15:00.000"},
    ),
    (
        record(("a", logical("bytes", "decimal", precision=10, scale=2)), ("b", logical("bytes", "decimal", precision=38, scale=0))),
        {"a": decimal.Decimal("-123.45"), "b": decimal.Decimal(10**38 - 1)},
        {"a": -123.45, "b": 10**38 - 1},
    ),
    (
        record(("a", {"type": "fixed", "name": "D", "size": 9, "logicalType": "decimal", "precision": 18, "scale": 3})),
        {"a": decimal.Decimal("-0.001")},
        {"a": -0.001},
    ),
    (
        record(("a", logical("string", "uuid"))),
        {"a": uuid.UUID("12345678-1234-5678-1234-567812345678")},
        {"a": "12345678-1234-5678-1234-567812345678"},
    ),
]


def avro():
    cases = []
    for schema, value, shown in AVRO:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
        cases.append({"schema": schema, "value": shown or value, "hex": out.getvalue().hex()})
    return cases


def protobuf():
    from grpc_tools import protoc

    well_known = pathlib.Path(protoc.__file__).parent / "_proto"

    with tempfile.TemporaryDirectory() as out:
        arguments = ["protoc", f"-I{HERE}", f"-I{well_known}", f"--python_out={out}", "events.proto"]
        if protoc.main(arguments):
            sys.exit("protoc failed")
        sys.path.insert(0, out)
        events = importlib.import_module("events_pb2")
    full = events.Event(
        id=-7, count=2**63, small=-1, fixed=4294967295, signed=-5, ratio=0.1, share=0.5, flag=True, name="žluť", blob=b"\x00\xff",
        kind=events.Event.BAD, numbers=[1, -1, 300], words=["a", ""], inner=events.Event.Inner(x=3, label="in"),
        inners=[events.Event.Inner(x=1), events.Event.Inner()], counts={"k": 5}, maybe=0, text="chosen",
    )
    full.at.FromJsonString("2013-01-01T05:15:00.123456789Z")
    full.wrapped.value = 0
    full.took.FromMilliseconds(-1500)
    messages = [("full", full), ("empty", events.Event())]
    from google.protobuf import proto

    with (HERE / "events.pb").open("wb") as out:
        for _, message in messages * 10:
            proto.serialize_length_prefixed(message, out)
    return {"cases": [{"name": name, "hex": message.SerializeToString(deterministic=True).hex()} for name, message in messages]}


ROW = record(
    ("id", "long"),
    ("tail", ["null", "string"]),
    ("at", logical("long", "timestamp-millis")),
    ("delay", ["null", "double"]),
    ("carrier", {"type": "enum", "name": "Carrier", "symbols": ["AA", "UA", "WN"]}),
    ("stops", {"type": "array", "items": {"type": "record", "name": "Stop", "fields": [{"name": "code", "type": "string"}]}}),
    ("fare", logical("bytes", "decimal", precision=9, scale=2)),
)
SYNC_MARKER = bytes(range(0xF0, 0x100))


def row(number):
    return {
        "id": number,
        "tail": None if number % 7 == 0 else f"N{number:05}",
        "at": datetime.datetime(2013, 1, 1, tzinfo=UTC) + datetime.timedelta(minutes=number),
        "delay": None if number % 5 == 0 else number / 4,
        "carrier": ["AA", "UA", "WN"][number % 3],
        "stops": [{"code": f"S{stop}"} for stop in range(number % 4)],
        "fare": decimal.Decimal(number * 1001 - 5000) / 100,
    }


def shown(row):
    at = row["at"].strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return json.dumps(row | {"at": at, "fare": float(row["fare"])}, ensure_ascii=False)


def avro_files():
    (HERE / "avro").mkdir(exist_ok=True)
    rows = [row(number) for number in range(50)]
    (HERE / "avro" / "rows.ndjson").write_text("".join(shown(row) + "\n" for row in rows))
    for codec in ["null", "deflate", "snappy", "zstandard"]:
        with (HERE / "avro" / f"{codec}.avro").open("wb") as out:
            sync_interval = 300 if codec != "null" else 16_000
            fastavro.writer(out, fastavro.parse_schema(ROW), rows, codec=codec, sync_interval=sync_interval, sync_marker=SYNC_MARKER)
    import polars

    plain = [{"id": row["id"], "tail": row["tail"], "at": row["at"].replace(tzinfo=None), "delay": row["delay"]} for row in rows]
    frame = polars.DataFrame(plain, schema={"id": polars.Int64, "tail": polars.String, "at": polars.Datetime("ms"), "delay": polars.Float64})
    frame.write_avro(HERE / "avro" / "polars.avro", compression="snappy")


def write(name, content):
    (HERE / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


write("avro.json", avro())
avro_files()
if "--avro" not in sys.argv:
    write("protobuf.json", protobuf())

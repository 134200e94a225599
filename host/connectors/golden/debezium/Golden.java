import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.debezium.data.Envelope;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.functions.util.ListCollector;
import org.apache.flink.formats.common.TimestampFormat;
import org.apache.flink.formats.json.JsonFormatOptions.MapNullKeyMode;
import org.apache.flink.formats.json.JsonRowDataDeserializationSchema;
import org.apache.flink.formats.json.JsonRowDataSerializationSchema;
import org.apache.flink.formats.json.debezium.DebeziumJsonDeserializationSchema;
import org.apache.flink.formats.json.debezium.DebeziumJsonSerializationSchema;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.types.RowKind;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.json.JsonConverter;

/**
 * What others make of a changelog. Run by `make`, in its directory.
 *
 * <p>ours.ndjson (what our sink writes) is read by Flink: flink-read.ndjson. changelog.ndjson is written by Flink: flink-wrote.ndjson.
 * debezium-wrote.ndjson holds envelopes of Debezium itself, by the converter of Kafka Connect, every second one with its schema.
 */
public class Golden {
    static final ObjectMapper JSON = new ObjectMapper();
    static final TimestampFormat TIMES = TimestampFormat.ISO_8601;
    static final DataType ROW = DataTypes.ROW(
        DataTypes.FIELD("id", DataTypes.BIGINT().notNull()),
        DataTypes.FIELD("name", DataTypes.STRING()),
        DataTypes.FIELD("ratio", DataTypes.DOUBLE()),
        DataTypes.FIELD("ok", DataTypes.BOOLEAN()),
        DataTypes.FIELD("at", DataTypes.TIMESTAMP_LTZ(3)),
        DataTypes.FIELD("day", DataTypes.DATE()),
        DataTypes.FIELD("fare", DataTypes.DECIMAL(9, 2)),
        DataTypes.FIELD("tags", DataTypes.ARRAY(DataTypes.STRING())),
        DataTypes.FIELD("place", DataTypes.ROW(DataTypes.FIELD("x", DataTypes.BIGINT()), DataTypes.FIELD("y", DataTypes.STRING()))));
    static final RowType TYPE = (RowType) ROW.getLogicalType();

    public static void main(String[] arguments) throws Exception {
        write("flink-read.ndjson", readByFlink());
        write("flink-wrote.ndjson", writtenByFlink());
        write("debezium-wrote.ndjson", writtenByDebezium());
    }

    static void write(String name, List<String> lines) throws Exception {
        Files.writeString(Path.of(name), String.join("\n", lines) + "\n");
    }

    static List<String> readByFlink() throws Exception {
        var reader = new DebeziumJsonDeserializationSchema(ROW, List.of(), InternalTypeInfo.of(TYPE), false, false, TIMES);
        reader.open(null);
        var asJson = new JsonRowDataSerializationSchema(TYPE, TIMES, MapNullKeyMode.FAIL, "", true, false);
        asJson.open(null);
        var lines = new ArrayList<String>();
        for (var line : Files.readAllLines(Path.of("ours.ndjson"))) {
            var rows = new ArrayList<RowData>();
            reader.deserialize(line.getBytes("UTF-8"), new ListCollector<>(rows));
            for (var row : rows) {
                ObjectNode shown = JSON.createObjectNode().put("kind", row.getRowKind().shortString());
                row.setRowKind(RowKind.INSERT);
                lines.add(shown.set("row", JSON.readTree(asJson.serialize(row))).toString());
            }
        }
        return lines;
    }

    static List<String> writtenByFlink() throws Exception {
        var fromJson = new JsonRowDataDeserializationSchema(TYPE, InternalTypeInfo.of(TYPE), true, false, TIMES);
        fromJson.open(null);
        var writer = new DebeziumJsonSerializationSchema(TYPE, TIMES, MapNullKeyMode.FAIL, "", true, false);
        writer.open(null);
        var lines = new ArrayList<String>();
        for (var line : Files.readAllLines(Path.of("changelog.ndjson"))) {
            JsonNode change = JSON.readTree(line);
            RowData row = fromJson.deserialize(JSON.writeValueAsBytes(change.get("row")));
            for (var kind : RowKind.values()) {
                if (kind.shortString().equals(change.get("kind").asText())) {
                    row.setRowKind(kind);
                }
            }
            lines.add(new String(writer.serialize(row), "UTF-8"));
        }
        return lines;
    }

    static List<String> writtenByDebezium() throws Exception {
        Schema row = SchemaBuilder.struct().name("flights.Value").optional()
            .field("id", Schema.INT64_SCHEMA)
            .field("name", Schema.OPTIONAL_STRING_SCHEMA)
            .field("ratio", Schema.OPTIONAL_FLOAT64_SCHEMA)
            .field("at", io.debezium.time.Timestamp.builder().optional().build())
            .build();
        Schema source = SchemaBuilder.struct().name("source").field("table", Schema.STRING_SCHEMA).build();
        Envelope envelope = Envelope.defineSchema().withName("flights.Envelope").withRecord(row).withSource(source).build();
        Struct from = new Struct(source).put("table", "flights");
        Instant when = Instant.parse("2013-01-01T00:00:00Z");
        Struct first = new Struct(row).put("id", 1L).put("name", "a \"quoted\" ž").put("ratio", 0.5).put("at", 1357017300123L);
        Struct second = new Struct(row).put("id", 1L).put("name", "").put("ratio", -1e-7).put("at", -1L);
        Struct third = new Struct(row).put("id", 2L);
        List<Struct> changes = List.of(
            envelope.read(third, from, when),
            envelope.create(first, from, when),
            envelope.update(first, second, from, when),
            envelope.update(null, second, from, when),
            envelope.delete(second, from, when),
            envelope.truncate(from, when));
        var lines = new ArrayList<String>();
        for (int number = 0; number < changes.size(); number++) {
            var converter = new JsonConverter();
            converter.configure(Map.of("schemas.enable", number % 2 == 1), false);
            lines.add(new String(converter.fromConnectData("flights", envelope.schema(), changes.get(number)), "UTF-8"));
        }
        return lines;
    }
}

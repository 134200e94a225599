"""Independent reference of the flights job: the same results from the same files, computed the slow and obvious way.

    python3 reference.py DATA_DIR OUT_DIR [--bound-hours 20]

Writes knock-ons.ndjson, alerts.ndjson, hours.ndjson and late.ndjson, sorted. Nothing here is shared with Millstream: Polars reads the files,
plain Python follows the rules that README.md states. `--bound-hours` matters only for the watermark rule that predicts late rows.
"""

import argparse
import glob
import json
import math
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

UTC = timezone.utc
MINUTE = timedelta(minutes=1)
ATLANTIC = {"SJU", "BQN", "STT", "PSE"}  # not in airports.csv: UTC-4 all year
ROWS_PER_WATERMARK = 1024


def read_csv(directory, name):
    frames = [pl.read_csv(path, null_values="NA", infer_schema_length=None) for path in sorted(glob.glob(f"{directory}/{name}*"))]
    return pl.concat(frames).rows(named=True)


def instant(text):
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def first_instant_showing(clock, zone, after):
    """The first instant after `after` at which a clock in `zone` shows HHMM = `clock`."""
    hour, minute = divmod(clock % 2400, 100)
    local_day = after.astimezone(zone).date() - timedelta(days=1)
    for days in range(4):
        day = local_day + timedelta(days=days)
        for fold in (0, 1):
            candidate = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone, fold=fold).astimezone(UTC)
            shows = candidate.astimezone(zone)
            if (shows.hour, shows.minute) == (hour, minute) and candidate > after:
                return candidate
    raise ValueError(f"no instant shows {clock}")


def zone_of(destination, zones):
    return timezone(timedelta(hours=-4)) if destination in ATLANTIC else ZoneInfo(zones[destination])


def events(flights, zones):
    """(row number, kind, time, flight) of every departure and arrival; departures first within a row."""
    for number, row in enumerate(flights):
        if row["dep_time"] is None:
            continue
        scheduled = row["scheduled"]
        row["scheduled_arrival"] = first_instant_showing(row["sched_arr_time"], zone_of(row["dest"], zones), scheduled)
        yield number, 0, scheduled + row["dep_delay"] * MINUTE, row
        if row["arr_delay"] is not None:
            yield number, 1, row["scheduled_arrival"] + row["arr_delay"] * MINUTE, row


def iso(time):
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def knock_ons(all_events):
    """A departure at least 15 minutes late whose aircraft's last known arrival was so too, at most 8 hours ago."""
    last_arrival = {}
    for _, kind, time, row in sorted(all_events, key=lambda event: (event[2], event[0], event[1])):
        aircraft = row["tailnum"]
        if kind == 1:
            last_arrival[aircraft] = (time, row)
        elif row["dep_delay"] >= 15 and aircraft in last_arrival:
            arrived, earlier = last_arrival[aircraft]
            if earlier["arr_delay"] >= 15 and time - arrived <= timedelta(hours=8):
                yield {
                    "tailnum": aircraft,
                    "arrived_flight": f"{earlier['carrier']}{earlier['flight']}",
                    "departed_flight": f"{row['carrier']}{row['flight']}",
                    "inherited_minutes": min(earlier["arr_delay"], row["dep_delay"]),
                    "hours_between": (time - arrived) / timedelta(hours=1),
                    "departed": iso(time),
                }


def alerts(all_events, names):
    """A departed flight that has not arrived 3 hours after its scheduled arrival."""
    arrived = {number: time for number, kind, time, _ in all_events if kind == 1}
    for number, kind, _, row in all_events:
        if kind == 0 and not (number in arrived and arrived[number] <= row["scheduled_arrival"] + timedelta(hours=3)):
            yield {
                "tailnum": row["tailnum"],
                "flight": f"{row['carrier']}{row['flight']}",
                "dest": row["dest"],
                "dest_name": names.get(row["dest"]),
                "scheduled_arrival": iso(row["scheduled_arrival"]),
            }


def watermarks(flights, bound):
    """The watermark that is in force for the events of each row: emitted after every 1,024th row, newest - bound - 1 ms."""
    newest, current, result = None, None, []
    for number, row in enumerate(flights):
        result.append(current)
        newest = row["scheduled"] if newest is None else max(newest, row["scheduled"])
        if (number + 1) % ROWS_PER_WATERMARK == 0:
            current = newest - bound - timedelta(milliseconds=1)
    return result


def split_late(departures, in_force):
    on_time, late = [], []
    for event in departures:
        number, _, time, _ = event
        mark = in_force[number]
        # A row is late when its time is at or before the watermark, whether its window has fired or not.
        (late if mark is not None and time <= mark else on_time).append(event)
    return on_time, late


def hours(departures, weather):
    by_origin = {}
    for row in weather:
        by_origin.setdefault(row["origin"], []).append((instant(row["time_hour"]), row))
    for rows in by_origin.values():
        rows.sort(key=lambda version: version[0])
    windows = {}
    for _, _, time, row in departures:
        start = time.replace(minute=0, second=0, microsecond=0)
        windows.setdefault((row["origin"], start), []).append(row["dep_delay"])
    for (origin, start), delays in windows.items():
        delays.sort()
        versions = [row for time, row in by_origin.get(origin, []) if time <= start]
        latest = versions[-1] if versions else {}
        yield {
            "origin": origin,
            "window_start": iso(start),
            "flights": len(delays),
            "mean_delay": sum(delays) / len(delays),
            "p90_delay": float(delays[math.ceil(0.9 * len(delays)) - 1]),
            "temp": latest.get("temp"),
            "wind_speed": latest.get("wind_speed"),
            "visib": latest.get("visib"),
        }


def write(path, rows):
    lines = sorted(json.dumps(row, sort_keys=True) for row in rows)
    Path(path).write_text("".join(line + "\n" for line in lines))
    print(f"{path}: {len(lines)} rows")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data")
    arguments.add_argument("out")
    arguments.add_argument("--bound-hours", type=int, default=20)
    given = arguments.parse_args()

    flights, weather = read_csv(given.data, "flights"), read_csv(given.data, "weather")
    airports = read_csv(given.data, "airports")
    zones = {row["faa"]: row["tzone"] for row in airports}
    names = {row["faa"]: row["name"] for row in airports}
    for row in flights:
        row["scheduled"] = instant(row["time_hour"]) + row["minute"] * MINUTE

    everything = list(events(flights, zones))
    departures = [event for event in everything if event[1] == 0]
    on_time, late = split_late(departures, watermarks(flights, timedelta(hours=given.bound_hours)))
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    write(out / "knock-ons.ndjson", knock_ons(everything))
    write(out / "alerts.ndjson", alerts(everything, names))
    write(out / "hours.ndjson", hours(on_time, weather))
    late_rows = (
        {
            "origin": row["origin"],
            "flight": f"{row['carrier']}{row['flight']}",
            "delay_minutes": row["dep_delay"],
            "scheduled_arrival": iso(row["scheduled_arrival"]),
        }
        for _, _, _, row in late
    )
    write(out / "late.ndjson", late_rows)


if __name__ == "__main__":
    main()

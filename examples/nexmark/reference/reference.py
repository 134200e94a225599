"""Independent reference of the Nexmark jobs: the same results from the same events, computed the slow and obvious way.

    python3 reference.py EVENTS_DIR OUT_DIR

EVENTS_DIR holds the generated events as bids.ndjson, auctions.ndjson and persons.ndjson (job `dump.yaml` writes them). Writes one sorted
q<N>.ndjson per query. Nothing here is shared with Millstream.
"""

import json
import sys
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

WINDOW = timedelta(seconds=10)
SLIDE = timedelta(seconds=2)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read(directory, name):
    """Rows of the files whose names start with `name`, with `time` added."""
    for path in sorted(Path(directory, name).glob("*.ndjson")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            row["time"] = datetime.fromisoformat(row["date_time"].replace("Z", "+00:00"))
            yield row


def iso(time):
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


def start_of(time, size):
    return time - (time - EPOCH) % size


def without_time(row):
    return {name: value for name, value in row.items() if name != "time"}


def q0(bids, auctions, persons):
    return map(without_time, bids)


def q1(bids, auctions, persons):
    return ({**without_time(bid), "price": bid["price"] * 0.908} for bid in bids)


def q2(bids, auctions, persons):
    return ({"auction": bid["auction"], "price": bid["price"]} for bid in bids if bid["auction"] % 123 == 0)


def q5(bids, auctions, persons):
    counts = defaultdict(Counter)
    for bid in bids:
        end = start_of(bid["time"], SLIDE) + SLIDE
        while end - WINDOW <= bid["time"]:
            counts[end][bid["auction"]] += 1
            end += SLIDE
    for end, by_auction in counts.items():
        most = max(by_auction.values())
        for auction, count in by_auction.items():
            if count == most:
                yield {"window_end": iso(end), "auction": auction, "bids": count}


def q7(bids, auctions, persons):
    highest = {}
    for bid in bids:
        end = start_of(bid["time"], WINDOW) + WINDOW
        highest[end] = max(highest.get(end, 0), bid["price"])
    return ({"window_end": iso(end), "price": price} for end, price in highest.items())


def q8(bids, auctions, persons):
    sellers = {(auction["seller"], start_of(auction["time"], WINDOW)) for auction in auctions}
    for person in persons:
        start = start_of(person["time"], WINDOW)
        if (person["id"], start) in sellers:
            yield {"id": person["id"], "name": person["name"], "window_start": iso(start)}


def q11(bids, auctions, persons):
    by_bidder = defaultdict(list)
    for bid in bids:
        by_bidder[bid["bidder"]].append(bid["time"])
    for bidder, times in by_bidder.items():
        times.sort()
        first, last, count = times[0], times[0], 0
        for time in times:
            if time >= last + WINDOW:
                yield {"bidder": bidder, "bids": count, "window_start": iso(first), "window_end": iso(last + WINDOW)}
                first, count = time, 0
            last, count = time, count + 1
        yield {"bidder": bidder, "bids": count, "window_start": iso(first), "window_end": iso(last + WINDOW)}


def q12(bids, auctions, persons):
    counts = Counter((bid["bidder"], start_of(bid["time"], WINDOW)) for bid in bids)
    for (bidder, start), count in counts.items():
        yield {"bidder": bidder, "bids": count, "window_start": iso(start), "window_end": iso(start + WINDOW)}


def q14(bids, auctions, persons):
    for bid in bids:
        price = bid["price"] * 0.908
        if 1_000_000 < price < 50_000_000:
            hour = bid["time"].hour
            word = "dayTime" if 8 <= hour <= 18 else "nightTime" if hour <= 6 or hour >= 20 else "otherTime"
            kept = {name: bid[name] for name in ("auction", "bidder", "date_time", "extra")}
            yield {**kept, "price": price, "bid_time_type": word, "c_counts": bid["extra"].count("c")}


def main(events, out):
    streams = [list(read(events, name)) for name in ("bids", "auctions", "persons")]
    Path(out).mkdir(parents=True, exist_ok=True)
    for query in (q0, q1, q2, q5, q7, q8, q11, q12, q14):
        lines = sorted(json.dumps(row, sort_keys=True) for row in query(*streams))
        Path(out, f"{query.__name__}.ndjson").write_text("".join(line + "\n" for line in lines))
        print(f"{query.__name__}: {len(lines)} rows")


if __name__ == "__main__":
    main(*sys.argv[1:])

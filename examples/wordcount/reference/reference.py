"""Independent reference of the word count: `python3 reference.py data/sonnet.ndjson > expected/counts.ndjson`."""

import json
import re
import sys
from collections import Counter

seen = Counter()
for line in open(sys.argv[1], encoding="utf-8"):
    for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*'?|'[^\W_]+", json.loads(line)["text"].lower()):
        if len(word) >= 3:
            seen[word] += 1
            print(json.dumps({"word": word, "count": seen[word]}))
